"""Loci and regions on the genome, out of BED and narrowPeak files."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cherimoya.errors import DataError
from cherimoya.genome.fasta import check_exists, text_lines
from cherimoya.util.console import counted

SHOWN = 80  # letters of a line in a message
NO_FIELDS = ("track", "browser", "#")
WHOLE = re.compile(r"[ \r]*-?[0-9]{1,15}[ \r]*\Z")  # of at most so many digits as 64 bits hold
NAME_COLUMN, STRAND_COLUMN = 3, 5
SUMMIT_COLUMN = 9  # narrowPeak column 10, an offset from the start


@dataclass(frozen=True, eq=False)
class Intervals:
    """Loci on the genome: chrom (n,) text; center, start, end (n,) int64, 0-based, half open."""

    chrom: np.ndarray
    center: np.ndarray
    start: np.ndarray
    end: np.ndarray

    def __len__(self) -> int:
        return len(self.center)

    def take(self, rows: np.ndarray) -> "Intervals":
        """The intervals at `rows`, a mask or row numbers."""
        return Intervals(self.chrom[rows], self.center[rows], self.start[rows], self.end[rows])

    def name(self, row: int) -> str:
        """chrom:start-end of one interval."""
        return f"{self.chrom[row]}:{self.start[row]:,}-{self.end[row]:,}"

    def renamed(self, aliases: Mapping[str, str]) -> "Intervals":
        """The same on chromosomes of other names: the old name -> the new one."""
        if not aliases:
            return self
        return replace(self, chrom=np.array([aliases.get(c, c) for c in self.chrom.tolist()]))


def joined(parts: Iterable[Intervals]) -> Intervals:
    """The intervals of all `parts`, in order."""
    listed = list(parts)
    names = ("chrom", "center", "start", "end")
    return Intervals(*(np.concatenate([getattr(part, name) for part in listed]) for name in names))


def overlapping(
    intervals: Intervals, start: np.ndarray, end: np.ndarray, regions: Intervals
) -> np.ndarray:
    """(n,) true where [start, end) on the chromosome of `intervals` shares a base with a region."""
    touches = np.zeros(len(intervals), bool)
    for chrom in np.unique(intervals.chrom):
        rows = np.flatnonzero(intervals.chrom == chrom)
        there = regions.take(regions.chrom == chrom)
        if not len(there):
            continue
        order = np.argsort(there.start, kind="stable")
        reach = np.maximum.accumulate(there.end[order])  # of all regions that start before
        before = np.searchsorted(there.start[order], end[rows])
        touches[rows] = (before > 0) & (reach[before - 1] > start[rows])
    return touches


def enforce_spacing(intervals: Intervals, distance: int) -> np.ndarray:
    """(n,) true for intervals whose centre is `distance` or more from those of all kept before."""
    kept = np.zeros(len(intervals), bool)
    for chrom in np.unique(intervals.chrom):
        taken: dict[int, list[int]] = {}  # the centres in each stretch of `distance` bases
        for row in np.flatnonzero(intervals.chrom == chrom).tolist():
            center = int(intervals.center[row])
            stretch = center // distance
            near = (c for s in (stretch - 1, stretch, stretch + 1) for c in taken.get(s, ()))
            if all(abs(center - other) >= distance for other in near):
                kept[row] = True
                taken.setdefault(stretch, []).append(center)
    return kept


def read_intervals(path: str | Path, center: str, key: str = "loci") -> Intervals:
    """The lines of a BED or narrowPeak file, plain or gzip, named by `key` in the configuration.

    center: "midpoint", or "summit" (narrowPeak column 10, bases after the start). Raises
    DataError with the line's number for a line that cannot be understood.
    """
    path = Path(path)
    check_exists(path, key)
    rows = [
        _place(line, center, f"{key}={path}, line {number}") for number, line in _lines(path, key)
    ]
    if not rows:
        raise DataError(f"{key}={path}: no loci in it. Give a BED file with at least one line.")
    chrom, middle, start, end = zip(*rows, strict=True)
    numbers = (np.array(column, np.int64) for column in (middle, start, end))
    return Intervals(np.array(chrom), *numbers)


def has_summits(path: str | Path) -> bool:
    """Whether the first locus of a file has a summit and no more columns, as narrowPeak files."""
    for _, line in _lines(Path(path), "loci"):
        columns = line.split("\t")
        with suppress(DataError):
            length = int(columns[2]) - int(columns[1])
            return len(columns) == SUMMIT_COLUMN + 1 and _summit(columns, length, "") >= 0
        break
    return False


def read_names(path: str | Path, key: str = "loci") -> tuple[list[str], list[str]]:
    """Name and strand, columns 4 and 6, of each line that `read_intervals` reads; a point where
    there is none."""
    rows = [[*_columns(line), *["."] * 6] for _, line in _lines(Path(path), key)]
    names = [row[NAME_COLUMN].strip() or "." for row in rows]
    strands = [row[STRAND_COLUMN].strip() for row in rows]
    return names, [strand if strand in ("+", "-") else "." for strand in strands]


def _lines(path: Path, key: str) -> Iterator[tuple[int, str]]:
    """The lines of a BED file that hold loci, with their numbers."""
    for number, line in text_lines(path, f"{key}={path}"):
        if line.strip() and not line.startswith(NO_FIELDS):
            yield number, line


def _columns(line: str) -> list[str]:
    return line.split("\t") if "\t" in line else line.split()


def _place(line: str, center: str, where: str) -> tuple[str, int, int, int]:
    columns = _columns(line)
    if len(columns) < 3:
        raise DataError(
            f"{where}: {line.strip()[:SHOWN]!r} has {counted(len(columns), 'column')}. BED needs "
            "chrom, start, end, separated by tabs or spaces."
        )
    if not (WHOLE.match(columns[1]) and WHOLE.match(columns[2])):
        raise DataError(
            f"{where}: start {columns[1][:SHOWN]!r} and end {columns[2][:SHOWN]!r} must be "
            "whole numbers, as in BED: chrom, start, end. If this line is a header, start it "
            "with #."
        )
    start, end = int(columns[1]), int(columns[2])
    if not 0 <= start < end:
        raise DataError(
            f"{where}: start {start} and end {end}: BED intervals start at 0 or later and end "
            "after they start."
        )
    offset = (end - start) // 2 if center == "midpoint" else _summit(columns, end - start, where)
    return columns[0], start + offset, start, end


def _summit(columns: list[str], length: int, where: str) -> int:
    fix = "Use center=midpoint, or a narrowPeak file with summits in column 10."
    if len(columns) <= SUMMIT_COLUMN:
        raise DataError(f"{where}: {len(columns)} columns, so no summit. {fix}")
    text = columns[SUMMIT_COLUMN].strip()
    if not WHOLE.match(text) or not 0 <= int(text) < length:
        raise DataError(
            f"{where}: summit offset {text[:SHOWN]} must lie in the peak of "
            f"{counted(length, 'base')}. {fix}"
        )
    return int(text)
