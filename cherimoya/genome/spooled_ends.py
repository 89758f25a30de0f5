"""The ends of a fragment file on disk, by chromosome and group, and its cuts out of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cherimoya.config.prepare import FragmentsConfig
from cherimoya.genome.track import Cuts

ENDS = 1 << 20  # looked at a time
MOST_ENDS = 1 << 20  # on each strand in which a motif is looked for
LAST = 2**31 - 1  # base that is held
ABSENT = -(2**31)  # in place of an end that a read does not have


class Spooled:
    """The ends of a fragment file by chromosome, and by group where a table tells groups apart.

    Cuts lie at start + shift_plus and end + shift_minus of the coordinates as written; those of
    reads at the base of their 5' end, shifted alike. `spool` is a folder for the ends of each
    chromosome as they are written, as the file need not have an index.
    """

    def __init__(self, spool: Path, names: Sequence[str], config: FragmentsConfig) -> None:
        self.spool, self.names, self.config = spool, list(names), config
        self.shift = (config.shift_plus, config.shift_minus)
        self.chroms: list[str] = []  # a file of ends each, by number
        self.depths = [0] * len(names)  # cuts of each group, wherever they lie
        self._overhangs: dict[tuple[str, int], tuple[int, int, int]] = {}
        self.forget()

    def forget(self) -> None:
        """Give the memory of the chromosome back that was last asked for."""
        self._chrom, self._cuts = "", list[Cuts]()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_chrom": "", "_cuts": []}

    def files(self) -> list[Path]:
        """The files of all chromosomes."""
        both = [(self.file(chrom), self.groups_file(chrom)) for chrom in self.chroms]
        return [path for paths in both for path in paths[: 1 + self.is_grouped]]

    @property
    def is_grouped(self) -> bool:
        """Whether each cut has a group."""
        return self.config.groups is not None

    def file(self, chrom: str) -> Path:
        """Where the ends of a chromosome are, int32."""
        return self.spool / f"{self.chroms.index(chrom)}.cuts"

    def groups_file(self, chrom: str) -> Path:
        """Where the group of each of its lines is, uint16."""
        return self.file(chrom).with_suffix(".groups")

    def append(self, chrom: str, ends: np.ndarray, group: np.ndarray) -> None:
        """Keep `ends` (n, 2) of lines on a chromosome, each of its `group` (n,)."""
        if chrom not in self.chroms:
            self.chroms.append(chrom)
        with open(self.file(chrom), "ab") as file:
            ends.astype(np.int32).tofile(file)
        if self.is_grouped:
            with open(self.groups_file(chrom), "ab") as file:
                group.astype(np.uint16).tofile(file)
        cuts = np.bincount(group, (ends != ABSENT).sum(axis=1), minlength=len(self.names))
        self.depths = [depth + int(n) for depth, n in zip(self.depths, cuts, strict=True)]

    def cuts(self, chrom: str) -> list[Cuts]:
        """The cuts of a chromosome by group."""
        if chrom != self._chrom:
            self.forget()
            ends = self.ends(chrom)
            if self.is_grouped:
                group = np.fromfile(self.groups_file(chrom), np.uint16)
                self._cuts = [self._shifted(ends[group == g]) for g in range(len(self.names))]
            else:
                self._cuts = [self._shifted(ends)]
            self._chrom = chrom
        return self._cuts

    def ends(self, chrom: str) -> np.ndarray:
        """(n, 2) int32 of the ends of each line: plus and minus, one of them ABSENT for a read."""
        return np.fromfile(self.file(chrom), np.int32).reshape(-1, 2)

    def ends_in(self, chrom: str, starts: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """The first MOST_ENDS or so of all groups in windows, shifted, see `Track.ends`."""
        found: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        with open(self.file(chrom), "rb") as file:
            while len(ends := np.fromfile(file, np.int32, ENDS)):
                for strand, at in enumerate(ends.reshape(-1, 2).astype(np.int64).T):
                    window = np.searchsorted(starts, at, "right") - 1
                    there = (window >= 0) & (at < starts[window] + length)
                    found[strand].append(at[there] + self.shift[strand])
                if sum(map(len, found[0])) > MOST_ENDS:
                    break
        return np.concatenate(found[0]), np.concatenate(found[1])

    def _shifted(self, ends: np.ndarray) -> Cuts:
        written = ends != ABSENT
        ends += np.array(self.shift, np.int32)
        return Cuts(ends[written])

    def overhang(self, chrom: str, length: int) -> tuple[int, int, int]:
        """Of the chromosome's cuts, as written: how many fragments, how many of them reach past
        `length` or before base 0, and by how many bases at most."""
        if (chrom, length) not in self._overhangs:
            found = [0, 0, 0]
            with open(self.file(chrom), "rb") as file:
                while len(ends := np.fromfile(file, np.int32, ENDS)):
                    past = self._past(ends.astype(np.int64).reshape(-1, 2), length)
                    found[0] += len(past)
                    found[1] += int((past > 0).sum())
                    found[2] = max(found[2], int(past.max(initial=0)))
            self._overhangs[chrom, length] = found[0], found[1], found[2]
        return self._overhangs[chrom, length]

    def _past(self, ends: np.ndarray, length: int) -> np.ndarray:
        """By how many bases each line's interval reaches past an end."""
        start, end = ends.T
        if self.config.kind == "reads":
            start = np.where(start == ABSENT, end, start)
            end = start + 1
        # one that lies beyond as a whole is of another assembly
        return np.where(start >= length, LAST, np.maximum(end - length, -start))
