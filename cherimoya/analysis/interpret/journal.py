"""Rows of numbers that are kept as they are made, so that an interrupted command goes on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cherimoya.files import appearing


def journal_path(output: Path) -> Path:
    """Where the rows of an unfinished output are kept."""
    return output.with_name(f".{output.name}.partial")


class Journal:
    """The rows of an `output` that are done, begun with `settings`; those of others are dropped.

    Each row is a line, so that one cut short by a kill is seen and made again. Rows are made
    `block` at a time: those of a block that is not whole are dropped, so that what follows is
    made in the same blocks as without the interruption. Who makes one owns the output
    (`files.owned`).
    """

    def __init__(
        self, output: Path, settings: Mapping[str, Any], columns: int, block: int = 1
    ) -> None:
        self._path, self._columns = journal_path(output), columns
        head = json.dumps(dict(settings), sort_keys=True)
        begun = self._path.read_text().split("\n") if self._path.is_file() else []
        rows = begun[1:-1] if begun[:1] == [head] else []
        rows = rows[: len(rows) // block * block]
        self._rows = [json.loads(row) for row in rows]
        with appearing(self._path) as file:
            file.write("\n".join([head, *rows, ""]).encode())

    def __len__(self) -> int:
        return len(self._rows)

    def append(self, rows: np.ndarray) -> None:
        """Keep `rows` (k, columns)."""
        self._rows += rows.tolist()
        with open(self._path, "a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows.tolist())

    @property
    def rows(self) -> np.ndarray:
        """All of them, (n, columns) float64."""
        return np.array(self._rows, np.float64).reshape(-1, self._columns)

    def discard(self) -> None:
        """Remove the file: what it was for is done."""
        self._path.unlink(missing_ok=True)
