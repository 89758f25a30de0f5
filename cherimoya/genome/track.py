"""A track: counts at each base along the chromosomes, whatever kind of file they come from."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

INT32 = (-(2**31), 2**31 - 1)
Shift = tuple[int, int]  # bases that are added to ends on the plus and on the minus strand


class Track:
    """Counts of one signal channel.

    kind: of file
    path: the file they come from, which may give several tracks
    name: of the channel
    lengths: chromosome to length in bases, None where the file does not say
    note: what is to be said of it, if anything
    group: name of its signal group, if it has one
    depth: counts on the whole genome, where known
    """

    kind = "track"
    note = ""
    group = ""
    depth: int | None = None

    def __init__(self, path: Path, name: str, lengths: Mapping[str, int | None]) -> None:
        self.path, self.name = path, name
        self.lengths = dict(lengths)
        self._own: dict[str, str] = {}

    def rename(self, aliases: Mapping[str, str]) -> None:
        """Call the chromosomes by other names from now on: the file's name -> the new one."""
        self._own = {new: old for old, new in aliases.items() if old in self.lengths}
        self.lengths = {aliases.get(name, name): n for name, n in self.lengths.items()}

    def values(self, chrom: str, start: int, end: int) -> np.ndarray:
        """(end - start,) float64; zeros where the file has no value or no such chromosome."""
        if chrom not in self.lengths:
            return np.zeros(end - start)
        return self._values(self._own.get(chrom, chrom), start, end)

    @property
    def shift(self) -> Shift | None:
        """What is added to the ends that are in the file, None where it does not tell strands."""
        return None

    def shift_by(self, shift: Shift) -> None:
        """Add this from now on, in all tracks of the file."""
        raise NotImplementedError

    def ends(self, chrom: str, starts: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Where ends on the plus and the minus strand are counted that the file has in windows of
        `length` bases at ascending `starts`, which do not overlap; of a file with a `shift`."""
        if chrom not in self.lengths:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        return self._ends(self._own.get(chrom, chrom), starts, length)

    def _values(self, chrom: str, start: int, end: int) -> np.ndarray:
        """The same for a chromosome that the file has, under the file's own name."""
        raise NotImplementedError

    def _ends(self, chrom: str, starts: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError


class Cuts:
    """How often each base of a chromosome was cut, from the 0-based position of every cut."""

    def __init__(self, positions: np.ndarray) -> None:
        if positions.dtype != np.int32:  # half the memory; no chromosome is longer
            positions = np.clip(positions, *INT32).astype(np.int32)
        self._at = np.sort(positions)

    def values(self, start: int, end: int) -> np.ndarray:
        """(end - start,) float64 counts."""
        ends = np.array((start, end), np.int32)  # of another type, all would be converted
        first, last = np.searchsorted(self._at, ends)
        counts = np.bincount(self._at[first:last] - start, minlength=end - start)
        return counts.astype(np.float64)


def stem(path: Path) -> str:
    """The file's name without .gz and its last suffix."""
    return path.name.removesuffix(".gz").rsplit(".", 1)[0]
