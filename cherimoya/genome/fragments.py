"""Fragment files as tracks: both ends of each fragment are cuts; of reads, their 5' ends."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from cherimoya.config.prepare import FragmentsConfig
from cherimoya.errors import DataError
from cherimoya.genome.cells import Cells, read_cells
from cherimoya.genome.fasta import check_line, reading
from cherimoya.genome.formats import NAMED_COLUMNS, PEAKS, WHOLE, is_comment
from cherimoya.genome.fragment_lines import usual_lines
from cherimoya.genome.spooled_ends import ABSENT, LAST, Spooled
from cherimoya.genome.track import Shift, Track, stem
from cherimoya.util import console
from cherimoya.util.console import Say, counted, warning
from cherimoya.util.marks import not_as_written, read_mark, write_mark

KIND = "fragments"
BLOCK = 1 << 24  # bytes of text
BARCODE = 3  # its column, from 0
MOST_COLUMNS = 50  # of lines that are read many at a time
EARLY = 100_000  # fragments after which it is clear that a table names none of their barcodes
NOTED = "fragments.json"
COLUMNS = "chrom, start, end, and with counts also barcode and count, separated by tabs"
READ_COLUMNS = "chrom, start, end, name, score, strand (+ or -), separated by tabs"
STRANDS = {b"+": 1, b"-": -1}
OVERHANG = 1000  # bases that a fragment may reach past an end of its chromosome
MOST_COUNTS = 1_000_000  # of one fragment
SAME_LENGTH = 50  # lines of one length that are no fragments
EXPECTED_OVERLAPS = 20  # of so many fragments placed at random


class Fragments(Track):
    """The cuts of a fragment file, or of one of its groups, one chromosome in memory at a time.

    spooled: what is kept of the file, which its groups have in common; which: of the groups
    """

    kind = KIND

    def __init__(self, path: Path, name: str, spooled: Spooled, which: int) -> None:
        super().__init__(path, name, dict.fromkeys(spooled.chroms))
        self.spooled, self._which = spooled, which
        self.depth = spooled.depths[which]

    @property
    def shift(self) -> Shift:
        """What is added to starts and ends; the groups of a file have it in common."""
        return self.spooled.shift

    def shift_by(self, shift: Shift) -> None:
        """As of every track."""
        self.spooled.shift = shift
        self.spooled.forget()

    def overhang(self, chrom: str, length: int) -> tuple[int, int, int]:
        """As of all cuts of the file, see `Spooled`."""
        return self.spooled.overhang(self._own.get(chrom, chrom), length)

    def _values(self, chrom: str, start: int, end: int) -> np.ndarray:
        return self.spooled.cuts(chrom)[self._which].values(start, end)

    def _ends(self, chrom: str, starts: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        return self.spooled.ends_in(chrom, starts, length)


def read_fragments(
    path: Path, key: str, config: FragmentsConfig, spool: Path, tell: Say
) -> list[Track]:
    """The tracks of a fragment file: one, or with a table of groups one each, by name."""
    cells = None if config.groups is None else read_cells(Path(config.groups))
    names = [stem(path)] if cells is None else cells.names
    spooled, noted = Spooled(spool, names, config), spool / NOTED
    mark = read_mark(noted)
    if mark is not None and not mark.damaged():  # an interrupted run has read it
        known = mark.facts
        spooled.chroms, spooled.depths = known["chroms"], known["depths"]
    else:
        if noted.is_file():
            tell(warning(f"{spool}: {not_as_written(mark)}, so {path.name} is read again"))
        known = _Reader(path, key, spooled, cells).read(tell)
        known |= {"chroms": spooled.chroms, "depths": spooled.depths}
        write_mark(noted, known, spooled.files())
    if known["empty"][0]:
        n, first = known["empty"]
        left_out = f"{'is' if n == 1 else 'are'} left out, the first in line {first:,}"
        said = f"{path.name}: {counted(n, 'fragment')} without a base (start = end) {left_out}"
        tell(warning(said))
    if cells is not None:
        cells.check_all_there(spooled.depths, path)
        absent = known.get("absent", [])  # an earlier version did not note it
        for line in cells.described(path, known["listed"], absent, spooled.depths):
            tell(line)
    tracks = [Fragments(path, name, spooled, which) for which, name in enumerate(names)]
    for track, name in zip(tracks, [] if cells is None else names, strict=False):
        track.group = name
    return list(tracks)


class _Reader:
    """A fragment file that is being read, line by line, into `spooled`."""

    def __init__(self, path: Path, key: str, spooled: Spooled, cells: Cells | None) -> None:
        self._spooled, self._config, self._cells = spooled, spooled.config, cells
        self._empty = [0, 0]  # fragments without a base, the line of the first
        self._listed = [0, 0]  # fragments of the table's barcodes, and all
        self._seen = np.zeros(0 if cells is None else len(cells.groups), bool)  # of `cells.rows`
        self._where, self._path = f"{key}={path}", path
        self._shape, self._barcode = _Shape(), b""  # one of them

    def read(self, tell: Say) -> dict[str, Any]:
        """Read it all; what is to be noted of it."""
        for left in self._spooled.spool.iterdir():  # by a run that was killed here
            left.unlink()
        rest, number, path = b"", 1, self._path
        with reading(path, self._where, "rb") as file:
            blocks = iter(lambda: file.read(BLOCK), b"")
            label = f"reading {path.name}"
            for block in console.track(blocks, label, None, "piece", tell=tell):
                whole, newline, rest = (rest + block).rpartition(b"\n")
                number += self._add(whole + newline, number)
                check_line(rest, f"{self._where}, line {number:,}")
                self._check_listed(EARLY)
            self._add(rest, number)
        if not self._shape.n:
            raise DataError(f"{self._where}: no fragments in it.")
        if self._config.kind == "auto" and (doubt := self._shape.doubt()):
            raise DataError(
                f"{self._where}: {doubt}. {PEAKS.format(path=path)} If they are fragments, set "
                "fragments.kind=fragments."
            )
        self._check_listed(1)
        absent = np.flatnonzero(~self._seen[:-1]).tolist()
        return {"empty": self._empty, "listed": self._listed, "absent": absent}

    def _add(self, lines: bytes, number: int) -> int:
        """Spool the cuts of whole lines, the first of which has this `number`; their number."""
        if many := self._add_many(lines, number):
            return many
        rows = lines.split(b"\n")
        if rows[-1] == b"":
            rows.pop()
        by_chrom: dict[bytes, list[tuple[int, ...]]] = defaultdict(list)
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
        if by_chrom and self._cells is not None:
            self._barcode = columns[BARCODE]
        for name, intervals in by_chrom.items():
            self._append(name.decode(), np.array(intervals, np.int64))
        return len(rows)

    def _add_many(self, text: bytes, number: int) -> int:
        """The same for fragments all of which are as usual, many times faster; else 0, and nothing
        is done."""
        lines = None if self._config.kind == "reads" else usual_lines(text)
        least = max(3, 5 * self._config.counts, (BARCODE + 1) * (self._cells is not None))
        most = NAMED_COLUMNS if self._config.kind == "auto" else MOST_COLUMNS
        if lines is None or not least <= lines.columns <= most:
            return 0
        start, end, runs = lines.numbers(1), lines.numbers(2), lines.runs()
        count = lines.numbers(4) if self._config.counts else np.ones(len(lines.begin), np.int64)
        if start is None or end is None or count is None or runs is None:
            return 0
        named = [(_decoded(name), rows) for name, rows in runs]
        wrong = (start > end) | (end > LAST) | (count < 1) | (count > MOST_COUNTS)
        if wrong.any() or any(name is None for name, _ in named):
            return 0
        group = np.zeros(len(start), np.int64)
        if self._cells is not None:
            row = lines.looked_up(BARCODE, self._cells.rows)
            self._seen[row], group = True, self._cells.groups[row]
            self._barcode = lines.field(-1, BARCODE)
        empty = start == end
        if empty.any():
            first = self._empty[1] or number + int(empty.argmax())
            self._empty = [self._empty[0] + int(empty.sum()), first]
        found = np.stack([start, end, count, group], axis=1)
        for name, rows in named:
            if len(own := found[rows][~empty[rows]]):
                assert name is not None
                self._append(name, own)
        return len(start)

    def _line(self, columns: list[bytes]) -> tuple[int, ...]:
        """Start, end, count and group of a fragment, -1 for none, or in place of the count a read's
        strand, 1 or -1.

        Raises ValueError or LookupError for what is none.
        """
        start, end = _whole(columns[1]), _whole(columns[2])
        if not -OVERHANG <= start <= end <= LAST:
            raise ValueError("no interval")
        if self._config.kind == "reads":
            return start, end, STRANDS[columns[5]], 0
        count = _whole(columns[4]) if self._config.counts else 1
        if self._config.kind == "auto" and len(columns) > NAMED_COLUMNS:
            raise ValueError("more columns than a fragment has")
        if not 1 <= count <= MOST_COUNTS:
            raise ValueError("no count")
        if self._cells is None:
            return start, end, count, 0
        row = self._cells.rows.get(columns[BARCODE], -1)
        self._seen[row] = True
        return start, end, count, int(self._cells.groups[row])

    def _append(self, chrom: str, rows: np.ndarray) -> None:
        """Spool the ends of (n, 4) `rows`, see `_line`."""
        self._shape.add(chrom, rows[:, 0], rows[:, 1])
        start, end, count, group = rows[rows[:, 3] >= 0].T
        self._listed = [self._listed[0] + len(start), self._listed[1] + len(rows)]
        if self._config.kind == "reads":
            start, end = np.where(count > 0, start, ABSENT), np.where(count < 0, end - 1, ABSENT)
        times, ends = np.abs(count), np.stack([start, end], axis=1)
        if (times != 1).any():
            ends, group = np.repeat(ends, times, axis=0), np.repeat(group, times)
        self._spooled.append(chrom, ends, group)

    def _check_listed(self, least: int) -> None:
        """Raise DataError where none of `least` fragments or more is of the table's barcodes."""
        if self._cells is not None and not self._listed[0] and self._listed[1] >= least:
            raise DataError(f"{self._where}: {self._cells.mismatch(self._barcode)}")

    def _complaint(self, row: bytes, number: int) -> str:
        line = row.decode("utf-8", "replace").strip()[:80]
        if self._config.kind == "reads":
            return (
                f"{self._where}, line {number}: {line!r} is not a read. Columns are "
                f"{READ_COLUMNS}; 0 <= start < end. Start a header with #."
            )
        if self._cells is not None and row.count(b"\t") < BARCODE:
            return (
                f"{self._where}, line {number}: {line!r} has no barcode, the fourth column, by "
                f"which fragments.groups={self._config.groups} would tell groups apart. Give the "
                "file as it came from the aligner, or leave fragments.groups out."
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

    @property
    def n(self) -> int:
        """How many there are."""
        return sum(of["n"] for of in self._of.values())

    def doubt(self) -> str:
        """Why these may be no fragments, in words; nothing if they may."""
        n = self.n
        if n >= SAME_LENGTH and len(self._lengths) == 1:
            length = next(iter(self._lengths))
            return f"all {n:,} lines are {length:,} bases long, as peaks or reads are"
        overlaps = sum(of["n"] * of["bases"] / of["end"] for of in self._of.values())
        if not self._overlap and overlaps > EXPECTED_OVERLAPS:
            return f"no two of its {n:,} lines overlap, as of peaks and not of fragments"
        return ""


def _decoded(name: bytes) -> str | None:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return None


def _whole(text: bytes) -> int:
    if not WHOLE.match(text):
        raise ValueError("not a whole number")
    return int(text)
