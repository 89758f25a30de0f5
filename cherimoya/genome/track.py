"""A track: counts at each base along the chromosomes, whatever kind of file they come from."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np


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

    def _values(self, chrom: str, start: int, end: int) -> np.ndarray:
        """The same for a chromosome that the file has, under the file's own name."""
        raise NotImplementedError


class Cuts:
    """How often each base of a chromosome was cut, from the 0-based position of every cut."""

    def __init__(self, positions: np.ndarray) -> None:
        self._at = np.sort(positions)

    def values(self, start: int, end: int) -> np.ndarray:
        """(end - start,) float64 counts."""
        first, last = np.searchsorted(self._at, (start, end))
        counts = np.bincount(self._at[first:last] - start, minlength=end - start)
        return counts.astype(np.float64)


def stem(path: Path) -> str:
    """The file's name without .gz and its last suffix."""
    return path.name.removesuffix(".gz").rsplit(".", 1)[0]
