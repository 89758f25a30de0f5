"""bigWig files as tracks."""

from pathlib import Path
from typing import IO, Any

import numpy as np

from cherimoya.errors import DataError
from cherimoya.genome.bigwig_format import Contents, DamageError, read_block, read_contents
from cherimoya.genome.track import Track, stem
from cherimoya.util import console

KIND = "bigWig"
KEPT = 64  # blocks
MAGIC = (b"\x26\xfc\x8f\x88", b"\x88\x8f\xfc\x26")

Items = tuple[np.ndarray, np.ndarray, np.ndarray]


class BigWig(Track):
    """The values of a bigWig file."""

    kind = KIND

    def __init__(self, path: Path, contents: Contents) -> None:
        super().__init__(path, stem(path), dict(contents.lengths))
        self._contents = contents
        self._file: IO[bytes] | None = None
        self._kept: dict[int, Items] = {}
        if not contents.blocks:
            self.note = f"{path.name} holds no values: zeros everywhere"
        elif not contents.compressed:
            self.note = f"{path.name} is not compressed, so that damage in it may go unseen"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None, "_kept": {}}  # another process opens the file itself

    def _values(self, chrom: str, start: int, end: int) -> np.ndarray:
        values = np.zeros(end - start)
        blocks = self._contents.blocks.get(chrom)
        if blocks is None:
            return values
        first = int(np.searchsorted(blocks.end, start, "right"))
        for i in range(first, int(np.searchsorted(blocks.start, end))):
            _fill(values, start, *self._block(int(blocks.offset[i]), int(blocks.size[i])))
        return values

    def _block(self, offset: int, size: int) -> Items:
        """Start, end and value of the items of a block; the last few are kept for the windows
        beside."""
        held = self._kept.get(offset)
        if held is None:
            if len(self._kept) >= KEPT:
                self._kept.clear()
            self._file = self._file or open(self.path, "rb")  # noqa: SIM115 - until the track goes
            try:
                _, start, end, values = read_block(self._file, self._contents, offset, size)
            except DamageError as error:
                raise DataError(
                    f"{self.path}: cannot be read again ({error}). The file has changed meanwhile: "
                    "start again."
                ) from None
            held = self._kept[offset] = start, end, np.where(np.isnan(values), 0, values)
        return held


def _fill(
    values: np.ndarray, first: int, start: np.ndarray, end: np.ndarray, held: np.ndarray
) -> None:
    """Write the `held` values of [start, end) where `values`, which begin at base `first`, hold
    them."""
    last = first + len(values)
    rows = slice(np.searchsorted(end, first, "right"), np.searchsorted(start, last))
    start, end = np.maximum(start[rows], first) - first, np.minimum(end[rows], last) - first
    held = held[rows]
    length = end - start
    if (length == 1).all():
        values[start] = held
        return
    before = np.cumsum(length) - length
    values[np.arange(length.sum()) + np.repeat(start - before, length)] = np.repeat(held, length)


def read_bigwig(path: Path, key: str) -> list[Track]:
    """The one track of the bigWig at `path`, which the configuration names under `key`.

    All of it is read once and checked. Raises DataError for a file that is damaged.
    """
    with open(path, "rb") as file, console.report_duration(f"checking {path.name}"):
        try:
            return [BigWig(path, read_contents(file))]
        except DamageError as error:
            raise DataError(
                f"{key}={path}: truncated or damaged ({error}). Copy it again, or make it again."
            ) from None
