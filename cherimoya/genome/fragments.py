"""Fragment files as tracks: both ends of each fragment are cuts; of reads, their 5' ends."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from cherimoya.config.prepare import FragmentsConfig
from cherimoya.errors import DataError
from cherimoya.genome.fasta import check_line, reading
from cherimoya.genome.formats import NAMED_COLUMNS, PEAKS, WHOLE, is_comment
from cherimoya.genome.track import Cuts, Track, stem
from cherimoya.util import console
from cherimoya.util.console import Say, counted
from cherimoya.util.marks import not_as_written, read_mark, write_mark

KIND = "fragments"
BLOCK = 1 << 24
NOTED = "fragments.json"
COLUMNS = "chrom, start, end, and with counts also barcode and count, separated by tabs"
READ_COLUMNS = "chrom, start, end, name, score, strand (+ or -), separated by tabs"
STRANDS = {b"+": 1, b"-": -1}
LAST = 2**31 - 1  # base that is held
ABSENT = -(2**31)  # in place of an end that a read does not have
OVERHANG = 1000  # bases that a fragment may reach past an end of its chromosome
MOST_COUNTS = 1_000_000  # of one fragment
SAME_LENGTH = 50  # lines of one length that are no fragments
EXPECTED_OVERLAPS = 20  # of so many fragments placed at random


class Fragments(Track):
    """The cuts of a fragment file, one chromosome in memory at a time.

    Cuts lie at start + shift_plus and end + shift_minus of the coordinates as written; those of
    reads at the base of their 5' end, shifted alike. `spool` is a folder for the ends of each
    chromosome as they are written, as the file need not have an index.
    """

    kind = KIND

    def __init__(
        self, path: Path, key: str, config: FragmentsConfig, spool: Path, tell: Say
    ) -> None:
        self._files: dict[str, Path] = {}
        self._spool, self._config = spool, config
        self._empty = [0, 0]  # fragments without a base, the line of the first
        self._where, self._path = f"{key}={path}", path
        self._shape = _Shape()
        noted = spool / NOTED
        mark = read_mark(noted)
        if mark is not None and not mark.damaged():  # an interrupted run has read it
            self._files = {name: spool / cuts for name, cuts in mark.facts["cuts"].items()}
            self._empty = mark.facts["empty"]
        else:
            if noted.is_file():
                tell(f"{spool}: {not_as_written(mark)}, so {path.name} is read again")
            self._read_all(path, tell)
            cuts = {name: spooled.name for name, spooled in self._files.items()}
            write_mark(noted, {"cuts": cuts, "empty": self._empty}, self._files.values())
        if self._empty[0]:
            n, first = self._empty
            tell(
                f"{path.name}: {counted(n, 'fragment')} without a base (start = end) "
                f"{'is' if n == 1 else 'are'} left out, the first in line {first:,}"
            )
        super().__init__(path, stem(path), dict.fromkeys(self._files))
        self.shift = (config.shift_plus, config.shift_minus)
        self._chrom, self._cuts = "", Cuts(np.zeros(0, np.int32))

    def overhang(self, chrom: str, length: int) -> tuple[int, int, int]:
        """Of the chromosome's cuts, as written: how many fragments, how many of them reach past
        `length` or before base 0, and by how many bases at most."""
        start, end = self._ends(self._own.get(chrom, chrom)).astype(np.int64).T
        if self._config.kind == "reads":
            start = np.where(start == ABSENT, end, start)
            end = start + 1
        # one that lies beyond as a whole is of another assembly
        past = np.where(start >= length, LAST, np.maximum(end - length, -start))
        return len(past), int((past > 0).sum()), int(past.max(initial=0))

    def _values(self, chrom: str, start: int, end: int) -> np.ndarray:
        if chrom != self._chrom:
            self._chrom = chrom
            ends = self._ends(chrom)
            written = ends != ABSENT
            ends += np.array(self.shift, np.int32)
            self._cuts = Cuts(ends[written])
        return self._cuts.values(start, end)

    def _ends(self, chrom: str) -> np.ndarray:
        """(n, 2) int32 of the ends of each line: plus and minus, one of them ABSENT for a read."""
        return np.fromfile(self._files[chrom], np.int32).reshape(-1, 2)

    def _read_all(self, path: Path, tell: Say) -> None:
        for left in self._spool.iterdir():  # by a run that was killed here
            left.unlink()
        rest, number = b"", 1
        with reading(path, self._where, "rb") as file:
            blocks = iter(lambda: file.read(BLOCK), b"")
            label = f"reading {path.name}"
            for block in console.track(blocks, label, None, "piece", tell=tell):
                whole, newline, rest = (rest + block).rpartition(b"\n")
                number += self._add(whole + newline, number)
                check_line(rest, f"{self._where}, line {number:,}")
            self._add(rest, number)
        if not self._files:
            raise DataError(f"{self._where}: no fragments in it.")
        if self._config.kind == "auto" and (doubt := self._shape.doubt()):
            raise DataError(
                f"{self._where}: {doubt}. {PEAKS.format(path=path)} If they are fragments, set "
                "fragments.kind=fragments."
            )

    def _add(self, lines: bytes, number: int) -> int:
        """Spool the cuts of whole lines, the first of which has this `number`; their number."""
        rows = lines.split(b"\n")
        if rows[-1] == b"":
            rows.pop()
        by_chrom: dict[bytes, list[tuple[int, int, int]]] = defaultdict(list)
        for at, row in enumerate(rows, number):
            if not row.strip() or is_comment(row):
                continue
            columns = row.rstrip(b"\r").split(b"\t")
            try:
                values = self._line(columns)
                columns[0].decode()
            except (ValueError, LookupError):
                raise DataError(self._complaint(row, at)) from None
            if values[0] == values[1]:
                self._empty = [self._empty[0] + 1, self._empty[1] or at]
            else:
                by_chrom[columns[0]].append(values)
        for name, intervals in by_chrom.items():
            self._append(name.decode(), np.array(intervals, np.int64))
        return len(rows)

    def _line(self, columns: list[bytes]) -> tuple[int, int, int]:
        """Start, end and count of a fragment, or in place of the count a read's strand, 1 or -1.

        Raises ValueError or LookupError for what is none.
        """
        start, end = _whole(columns[1]), _whole(columns[2])
        if not -OVERHANG <= start <= end <= LAST:
            raise ValueError("no interval")
        if self._config.kind == "reads":
            return start, end, STRANDS[columns[5]]
        count = _whole(columns[4]) if self._config.counts else 1
        if self._config.kind == "auto" and len(columns) > NAMED_COLUMNS:
            raise ValueError("more columns than a fragment has")
        if not 1 <= count <= MOST_COUNTS:
            raise ValueError("no count")
        return start, end, count

    def _append(self, chrom: str, rows: np.ndarray) -> None:
        """Spool the ends of (n, 3) `rows` of start, end and count, or strand for reads."""
        start, end, count = rows.T
        self._shape.add(chrom, start, end)
        if self._config.kind == "reads":
            plus, minus = np.where(count > 0, start, ABSENT), np.where(count < 0, end - 1, ABSENT)
            ends = np.stack([plus, minus], axis=1)
        else:
            ends = np.repeat(rows[:, :2], count, axis=0)
        where = self._files.setdefault(chrom, self._spool / f"{len(self._files)}.cuts")
        with open(where, "ab") as file:
            ends.astype(np.int32).tofile(file)

    def _complaint(self, row: bytes, number: int) -> str:
        line = row.decode("utf-8", "replace").strip()[:80]
        if self._config.kind == "reads":
            return (
                f"{self._where}, line {number}: {line!r} is not a read. Columns are "
                f"{READ_COLUMNS}; 0 <= start < end. Start a header with #."
            )
        return (
            f"{self._where}, line {number}: {line!r} is not a fragment. Columns are {COLUMNS}; "
            "0 <= start < end; counts are 1 or more (fragments.counts=false does not need them). "
            "Start a header with #. Lines that end before they start can be left out: "
            f"gzip -cdf {self._path} | awk '$3 > $2' > fragments.tsv"
        )


class _Shape:
    """Of all fragments, what tells them from other intervals."""

    def __init__(self) -> None:
        self._of: dict[str, dict[str, Any]] = {}
        self._lengths: set[int] = set()
        self._overlap = False

    def add(self, chrom: str, start: np.ndarray, end: np.ndarray) -> None:
        """Take note of intervals that follow those before in the file."""
        if len(self._lengths) < 2:
            self._lengths |= set(np.unique(end - start)[:2].tolist())
        of = self._of.setdefault(chrom, {"n": 0, "bases": 0, "end": 0})
        reach = np.maximum.accumulate(np.concatenate([[of["end"]], end]))
        self._overlap |= bool((start < reach[:-1]).any())  # or it is not sorted
        of["n"] += len(start)
        of["bases"] += int((end - start).sum())
        of["end"] = int(reach[-1])

    def doubt(self) -> str:
        """Why these may be no fragments, in words; nothing if they may."""
        n = sum(of["n"] for of in self._of.values())
        if n >= SAME_LENGTH and len(self._lengths) == 1:
            length = next(iter(self._lengths))
            return f"all {n:,} lines are {length:,} bases long, as peaks or reads are"
        overlaps = sum(of["n"] * of["bases"] / of["end"] for of in self._of.values())
        if not self._overlap and overlaps > EXPECTED_OVERLAPS:
            return f"no two of its {n:,} lines overlap, as of peaks and not of fragments"
        return ""


def _whole(text: bytes) -> int:
    if not WHOLE.match(text):
        raise ValueError("not a whole number")
    return int(text)
