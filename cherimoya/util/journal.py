"""Rows of numbers that are kept as they are made, so that an interrupted command goes on."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cherimoya.util import console
from cherimoya.util.marks import DIGEST, mark_of, measured, read_mark, write_sizes


def journal_path(output: Path) -> Path:
    """Where the rows of an unfinished output are kept."""
    return output.with_name(f".{output.name}.partial")


class Journal:
    """The rows of an `output` that are done, begun with `settings`; those of others are dropped.

    A mark beside the file says how many bytes of it are whole, and their SHA-256: what a kill left
    behind them is dropped, and all of it where they have changed. Rows are made `block` at a time:
    those of a block that is not whole are dropped, so that what follows is made in the same blocks
    as without the interruption. Who makes one owns the output (`files.lock_output`).
    """

    def __init__(
        self,
        output: Path,
        settings: Mapping[str, Any],
        shape: tuple[int, ...],
        block: int = 1,
        dtype: type = np.float64,
    ) -> None:
        self._path, self._shape, self._dtype = journal_path(output), shape, np.dtype(dtype)
        self._mark, self._settings = mark_of(self._path), {"settings": dict(settings)}
        row = self._dtype.itemsize * int(np.prod(shape))
        self._count = self._whole_bytes() // (row * block) * block
        with open(self._path, "ab") as file:
            file.truncate(self._count * row)
        self._digest = hashlib.sha256()
        with open(self._path, "rb") as file:
            while read := file.read(1 << 20):
                self._digest.update(read)
        self._note(self._count * row)

    def __len__(self) -> int:
        return self._count

    def append(self, rows: np.ndarray) -> None:
        """Keep `rows` (k, *shape)."""
        content = np.ascontiguousarray(rows, self._dtype).tobytes()
        with open(self._path, "ab") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        self._count += len(rows)
        self._digest.update(content)
        self._note(size)

    @property
    def rows(self) -> np.ndarray:
        """All of them, (n, *shape), on the disk."""
        if not self._count:
            return np.zeros((0, *self._shape), self._dtype)
        return np.memmap(self._path, self._dtype, "r", shape=(self._count, *self._shape))

    def discard(self) -> None:
        """Remove the file: what it was for is done."""
        self._mark.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)

    def _note(self, size: int) -> None:
        sizes = {self._path.name: {"size": size, DIGEST: self._digest.hexdigest()}}
        write_sizes(self._mark, self._settings, sizes)

    def _whole_bytes(self) -> int:
        """How much of what is there can be gone on with."""
        if not self._path.is_file() or not self._path.stat().st_size:
            return 0
        mark = read_mark(self._mark)
        if mark is not None and mark.facts != json.loads(json.dumps(self._settings)):
            return 0
        said = {} if mark is None else mark.files[self._path.name]
        if mark is None or measured(self._path, said["size"]) != said:
            console.say(f"{self._path}: changed since it was written, so all of it is made again")
            return 0
        return int(said["size"])
