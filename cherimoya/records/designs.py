"""Sequences that cherimoya-design made: the table of loci, the table of edits, and FASTA."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cherimoya.genome.sequence import BASES, decode
from cherimoya.util.files import atomic_write
from cherimoya.util.marks import marked_path

COLUMNS = (
    "chrom", "start", "end", "name", "strand", "before", "after", "goal", "reached", "n_edits",
    "edits",
)  # fmt: skip
OF_EDITS = ("chrom", "position", "ref", "alt", "name", "locus", "undone")
LINE = 60  # letters of a sequence


@dataclass(frozen=True, eq=False)
class Design:
    """A locus, and the sequence that was designed of it.

    name, strand: as in the file of loci; chrom, start: of the first base of the window, or nothing
    and -1 where they are unknown
    original, designed: codes (L,) of the whole window; editable: where edits were allowed in it
    before, after, goal: the target of the original, of the design, and what was to be reached, in
    natural log counts; reached: whether `after` is near enough
    undone: (edits,) what the target of the design changes by when that edit alone is undone
    """

    name: str
    strand: str
    chrom: str
    start: int
    original: np.ndarray
    designed: np.ndarray
    editable: slice
    before: float
    after: float
    goal: float
    reached: bool
    undone: np.ndarray

    @property
    def offsets(self) -> np.ndarray:
        """Where in the window the edits are (edits,), from 0."""
        return np.flatnonzero(self.original != self.designed)

    @property
    def edits(self) -> list[tuple[int, str, str]]:
        """Position, reference and alternative base of each edit; positions from 1 on the
        chromosome, or in the window where it is not known where that is."""
        return [
            (max(self.start, 0) + at + 1, BASES[self.original[at]], BASES[self.designed[at]])
            for at in self.offsets.tolist()
        ]

    def region(self, part: slice) -> tuple[str, str, str]:
        """chrom, start and end of a part of the window, as in BED; nothing where unknown."""
        if self.start < 0:
            return "", "", ""
        return self.chrom, str(self.start + part.start), str(self.start + part.stop)


def write_table(
    path: Path,
    designs: Sequence[Design],
    provenance: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> Path:
    """A row for each locus, after a comment that says where the numbers come from; with a mark."""
    marked = marked_path(path, {"settings": settings})
    with marked as temporary, open(temporary, "wb") as file:
        file.write(f"# {json.dumps(dict(provenance), sort_keys=True)}\n".encode())
        file.write(_line(COLUMNS))
        for one in designs:
            edits = ";".join(f"{position}:{ref}>{alt}" for position, ref, alt in one.edits)
            numbers = (f"{value:.6g}" for value in (one.before, one.after, one.goal))
            cells = (*one.region(one.editable), one.name, one.strand, *numbers)
            file.write(_line((*cells, _yes(one.reached), str(len(one.offsets)), edits)))
    return path


def write_edits(path: Path, designs: Sequence[Design]) -> Path:
    """A row for each edit of each locus; locus: its row in the table of loci, from 0."""
    with atomic_write(path) as file:
        file.write(_line(OF_EDITS))
        for row, one in enumerate(designs):
            chrom = one.chrom if one.start >= 0 else ""
            for (position, ref, alt), undone in zip(one.edits, one.undone, strict=True):
                cells = (chrom, str(position), ref, alt, one.name, str(row), f"{undone:.6g}")
                file.write(_line(cells))
    return path


def write_fasta(path: Path, designs: Sequence[Design]) -> Path:
    """The whole window of each locus, as it was and as designed, on the forward strand."""
    with atomic_write(path) as file:
        for one in designs:
            for what, codes in (("original", one.original), ("designed", one.designed)):
                chrom, start, end = one.region(slice(0, len(codes)))
                where = f" {chrom}:{int(start) + 1}-{end}" if start else ""
                file.write(f">{'_'.join(one.name.split())}.{what}{where}\n".encode())
                file.writelines(_wrapped(decode(codes)))
    return path


def read_designed(path: Path, original: np.ndarray, start: np.ndarray) -> np.ndarray:
    """The designs (n, L) that a table by `write_table` says, of loci with codes `original` (n, L)
    whose windows begin at `start` (n,), -1 where unknown."""
    designed = original.copy()
    for row, line in enumerate(path.read_bytes().decode().split("\n")[2:-1]):
        for edit in filter(None, line.rpartition("\t")[2].split(";")):
            position, _, change = edit.partition(":")
            designed[row, int(position) - 1 - max(int(start[row]), 0)] = BASES.index(change[-1])
    return designed


def _wrapped(letters: str) -> Iterator[bytes]:
    for first in range(0, len(letters), LINE):
        yield f"{letters[first : first + LINE]}\n".encode()


def _line(cells: Sequence[str]) -> bytes:
    return ("\t".join(cells) + "\n").encode()


def _yes(value: bool) -> str:
    return "yes" if value else "no"
