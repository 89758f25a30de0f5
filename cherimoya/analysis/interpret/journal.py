"""Rows of numbers that are kept as they are made, so that an interrupted command goes on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cherimoya.files import own


def journal_path(output: Path) -> Path:
    """Where the rows of an unfinished output are kept."""
    return output.with_name(f".{output.name}.partial")


class Journal:
    """The rows of `output` that are made, begun with `settings`; those of others are dropped.

    A context manager: inside, no other process makes the same output.

    Each row is a line, so that one cut short by a kill is seen and made again. Rows are made
    `block` at a time: those of a block that is not whole are dropped, so that what follows is
    made in the same blocks as without the interruption.

    Raises InUse where another process makes the same output.
    """

    def __init__(
        self, output: Path, settings: Mapping[str, Any], columns: int, block: int = 1
    ) -> None:
        self._path, self._columns = journal_path(output), columns
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self._path, "a+")  # noqa: SIM115 - until __exit__
        own(self._file, output)
        head = json.dumps(dict(settings), sort_keys=True)
        self._file.seek(0)
        first, *rows = self._file.read().split("\n")
        if first == head and rows:
            rows = rows[: (len(rows) - 1) // block * block]  # the last is not whole
            self._file.truncate(sum(len(line.encode()) + 1 for line in (head, *rows)))
        else:
            rows = []
            self._file.truncate(0)
            self._file.write(f"{head}\n")
            self._file.flush()
        self._rows = [json.loads(row) for row in rows]

    def __len__(self) -> int:
        return len(self._rows)

    def append(self, rows: np.ndarray) -> None:
        """Keep `rows` (k, columns)."""
        self._rows += rows.tolist()
        self._file.writelines(json.dumps(row) + "\n" for row in rows.tolist())
        self._file.flush()

    @property
    def rows(self) -> np.ndarray:
        """All of them, (n, columns) float64."""
        return np.array(self._rows, np.float64).reshape(-1, self._columns)

    def discard(self) -> None:
        """Remove the file: what it was for is done."""
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
