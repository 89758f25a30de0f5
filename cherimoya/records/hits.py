"""Motif instances that cherimoya-hits finds: the table, BED, the track, and the counts by locus."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from cherimoya.util.files import atomic_write
from cherimoya.util.marks import marked_path

NUMBERS = ("score", "similarity", "contribution", "importance")  # of each instance
COLUMNS = (
    "chrom", "start", "end", "strand", "motif", "match", *NUMBERS, "locus", "offset",
)  # fmt: skip
MOST_BED = 1000  # score of a BED line


@dataclass(frozen=True, eq=False)
class HitMotif:
    """What is looked for: contributions (4, width) of the bases A C G T, whose sum of squares is 1.

    match: the known motif that it is most like, or nothing
    """

    name: str
    weights: np.ndarray
    match: str = ""


@dataclass(frozen=True, eq=False)
class Hits:
    """h motif instances in n loci of W bases, ordered by locus and offset; (h,) unless said.

    motifs: what was looked for; motif: which of them; locus: row of the attributions; offset: of
    the first base in the locus; strand: 1 or -1; score: coefficient of the fit; similarity: cosine
    of the contributions there with the motif; contribution, importance: sums of contributions and
    of their sizes, over the instance's bases
    chrom (n,), start (n,), -1 unknown; explained: (n,) share of the sum of squares of a locus's
    contributions that lies in its instances
    """

    motifs: list[HitMotif]
    motif: np.ndarray
    locus: np.ndarray
    offset: np.ndarray
    strand: np.ndarray
    score: np.ndarray
    similarity: np.ndarray
    contribution: np.ndarray
    importance: np.ndarray
    chrom: np.ndarray
    start: np.ndarray
    explained: np.ndarray

    def __len__(self) -> int:
        return len(self.motif)

    @property
    def width(self) -> np.ndarray:
        """Bases of each instance (h,)."""
        return np.array([motif.weights.shape[1] for motif in self.motifs])[self.motif]

    @property
    def counts(self) -> np.ndarray:
        """Instances of each motif in each locus (n, motifs)."""
        made = np.zeros((len(self.chrom), len(self.motifs)), np.int64)
        np.add.at(made, (self.locus, self.motif), 1)
        return made

    def of_genome(self) -> np.ndarray:
        """Rows (u,) of instances with coordinates, by these; of those that overlapping loci share,
        the one with the largest score."""
        rows = np.flatnonzero(self.start[self.locus] >= 0)
        chrom, at = self.chrom[self.locus[rows]], (self.start[self.locus] + self.offset)[rows]
        keys = (self.score[rows] * -1, self.strand[rows], self.motif[rows], at, chrom)
        order = np.lexsort(keys)
        same = np.ones(len(order), bool)
        for key in keys[1:]:
            same[1:] &= key[order][1:] == key[order][:-1]
        if len(same):
            same[0] = False
        return rows[order][~same]


def write_table(
    path: Path, hits: Hits, provenance: Mapping[str, Any], settings: Mapping[str, Any]
) -> Path:
    """A row for each instance, after a comment that says where they come from; with a mark.

    chrom, start and end are empty where the attributions do not say where a locus is.
    """
    marked = marked_path(path, {"settings": settings})
    with marked as temporary, open(temporary, "wb") as file:
        file.write(f"# {json.dumps(dict(provenance), sort_keys=True)}\n".encode())
        file.write(("\t".join(COLUMNS) + "\n").encode())
        for row, (place, motif) in enumerate(_places(hits, np.arange(len(hits)))):
            cells = [*place, _strand(hits.strand[row]), motif.name, motif.match]
            cells += [f"{getattr(hits, name)[row]:.6g}" for name in NUMBERS]
            cells += [str(hits.locus[row]), str(hits.offset[row])]
            file.write(("\t".join(cells) + "\n").encode())
    return path


def read_table(path: Path, motifs: list[HitMotif]) -> dict[str, np.ndarray]:
    """Columns (h,) of the table that `write_table` wrote, by the names that `Hits` has for them.

    motifs: those that were looked for
    """
    number = {motif.name: i for i, motif in enumerate(motifs)}
    with open(path, encoding="utf-8") as file:
        lines = [line.rstrip("\n").split("\t") for line in islice(file, 2, None)]
    cells = dict(zip(COLUMNS, zip(*lines, strict=True), strict=False))
    made = {name: np.array(cells.get(name, ()), np.float64) for name in NUMBERS}
    made |= {name: np.array(cells.get(name, ()), np.int64) for name in ("locus", "offset")}
    made["motif"] = np.array([number[name] for name in cells.get("motif", ())], np.int64)
    made["strand"] = np.array([1 if s == "+" else -1 for s in cells.get("strand", ())], np.int64)
    return made


def write_bed(path: Path, hits: Hits) -> Path:
    """BED6 of the instances with coordinates, each once; score 1000 is the largest coefficient."""
    rows = hits.of_genome()
    largest = hits.score.max(initial=0) or 1
    with atomic_write(path) as file:
        for row, (place, motif) in zip(rows, _places(hits, rows), strict=True):
            score = round(MOST_BED * float(hits.score[row] / largest))
            cells = [*place, motif.name, str(score), _strand(hits.strand[row])]
            file.write(("\t".join(cells) + "\n").encode())
    return path


def write_track(path: Path, hits: Hits, contributions: np.ndarray) -> Path:
    """bedGraph of the contributions (n, W) of bases in instances, the mean where loci overlap."""
    rows = np.flatnonzero(hits.start[hits.locus] >= 0)
    with atomic_write(path) as file:
        file.write(b'track type=bedGraph name="contributions of motif instances"\n')
        for chrom in sorted(set(hits.chrom[hits.locus[rows]].tolist())):
            own = rows[hits.chrom[hits.locus[rows]] == chrom]
            locus = np.repeat(hits.locus[own], hits.width[own])
            offset = np.concatenate([o + np.arange(w) for o, w in zip(
                hits.offset[own].tolist(), hits.width[own].tolist(), strict=True)])  # fmt: skip
            both = np.unique(np.stack([locus, offset], axis=1), axis=0)  # a base of a locus once
            bases = hits.start[both[:, 0]] + both[:, 1]
            at, index, count = np.unique(bases, return_inverse=True, return_counts=True)
            mean = np.bincount(index.ravel(), contributions[both[:, 0], both[:, 1]]) / count
            for base, value in zip(at.tolist(), mean.tolist(), strict=True):
                file.write(f"{chrom}\t{base}\t{base + 1}\t{value:.6g}\n".encode())
    return path


def write_loci(path: Path, hits: Hits, length: int) -> Path:
    """A row for each locus of `length` bases: its instances, the share that they explain, and how
    many there are of each motif that has some."""
    counts = hits.counts
    shown = np.flatnonzero(counts.sum(axis=0))
    names = [hits.motifs[i].name for i in shown]
    with atomic_write(path) as file:
        header = ["locus", "chrom", "start", "end", "hits", "explained", *names]
        file.write(("\t".join(header) + "\n").encode())
        for row, of_motifs in enumerate(counts):
            place = _place(hits, row, 0, length)
            cells = [str(row), *place, str(of_motifs.sum()), f"{hits.explained[row]:.4g}"]
            cells += [str(n) for n in of_motifs[shown]]
            file.write(("\t".join(cells) + "\n").encode())
    return path


def _places(hits: Hits, rows: np.ndarray) -> Iterator[tuple[list[str], HitMotif]]:
    """chrom, start and end as text, and the motif, of each of `rows`."""
    width = hits.width
    for row in rows:
        offset = int(hits.offset[row])
        place = _place(hits, int(hits.locus[row]), offset, offset + int(width[row]))
        yield place, hits.motifs[hits.motif[row]]


def _place(hits: Hits, locus: int, first: int, end: int) -> list[str]:
    start = int(hits.start[locus])
    if start < 0:
        return ["", "", ""]
    return [str(hits.chrom[locus]), str(start + first), str(start + end)]


def _strand(strand: int) -> str:
    return "+" if strand > 0 else "-"
