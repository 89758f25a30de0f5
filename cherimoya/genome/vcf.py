"""Variants: a VCF file, or a table with the columns chrom, pos, ref, alt."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cherimoya.errors import DataError, printable
from cherimoya.genome.sequence import BASES
from cherimoya.genome.vcf_files import vcf_lines
from cherimoya.util.console import counted

NEEDED = ("chrom", "pos", "ref", "alt")
VCF_COLUMNS = ("chrom", "pos", "id", "ref", "alt")  # the first ones
LETTERS = frozenset(BASES + "N")
SHOWN_LETTERS = 20  # of an allele in a message, or fewer
MOST_DIGITS = 15  # of a position: no chromosome is longer


@dataclass(frozen=True, eq=False)
class Variants:
    """n pairs of alleles; a line with several ALT alleles is several of them.

    chrom, name, ref, alt: (n,) text; pos: (n,) int64, 0-based position of the first base of ref;
    line: (n,) int64, of the file, from 1; skipped: alleles left out, the lines of each reason
    """

    chrom: np.ndarray
    pos: np.ndarray
    name: np.ndarray
    ref: np.ndarray
    alt: np.ndarray
    line: np.ndarray
    skipped: dict[str, list[int]]
    is_vcf: bool

    def __len__(self) -> int:
        return len(self.pos)

    def describe(self, row: int) -> str:
        """One variant as people write it, without most letters of a long allele."""
        alleles = ">".join(shortened(str(allele)) for allele in (self.ref[row], self.alt[row]))
        return f"{printable(str(self.chrom[row]))}:{self.pos[row] + 1:,} {alleles}"


def shortened(allele: str) -> str:
    """An allele; of a long one the first letters, and how many it has."""
    return allele if len(allele) <= SHOWN_LETTERS else f"{allele[:4]}...({len(allele):,})"


def read_variants(path: str | Path) -> Variants:
    """The variants of a VCF, BCF or tab-separated file, plain or gzip. Positions start at 1.

    Alleles that are no sequence (<DEL>, *, breakends) or have other letters than A C G T N are
    left out, and noted. Raises DataError, naming the line, for one that cannot be understood, and
    for a file without variants.
    """
    path = Path(path)
    rows: list[tuple[str, int, str, str, str, int]] = []
    skipped: dict[str, list[int]] = {}
    columns: dict[str, int] = {}
    is_vcf = False
    for number, line in vcf_lines(path, "variants"):
        if line.startswith("##") or not line.strip():
            is_vcf |= line.startswith("##fileformat=VCF")
            continue
        cells = line.split("\t")
        where = f"variants={path}, line {number}"
        if not columns:
            columns, is_vcf = _columns(cells, is_vcf, where)
            continue
        if len(cells) <= max(columns.values()):
            raise DataError(
                f"{where}: {counted(len(cells), 'column')}, the header has more. Columns are "
                "separated by tabs."
            )
        first = cells[columns["ref"]].upper()
        letters = set(first)  # once, however many alleles
        for alt in cells[columns["alt"]].upper().split(","):
            variant = _variant(cells, columns, first, letters, alt, where)
            if isinstance(variant, str):
                skipped.setdefault(variant, []).append(number)
            else:
                rows.append((*variant, number))
    if not rows:
        listed = "".join(f"; {text}" for text in left_out(skipped))
        raise DataError(f"variants={path}: no variant in it{listed}. Give a VCF file or a table.")
    # objects, since one long allele would widen every cell of an array of text
    types = (object, np.int64, object, object, object, np.int64)
    columns_of = zip(zip(*rows, strict=True), types, strict=True)
    chrom, pos, name, ref, alts, lines = (np.array(cells, dtype=t) for cells, t in columns_of)
    return Variants(chrom, pos, name, ref, alts, lines, skipped, is_vcf)


def left_out(skipped: Mapping[str, Sequence[int]]) -> Iterator[str]:
    """What `Variants.skipped` says, in words, a reason at a time."""
    for reason, lines in skipped.items():
        count = len(lines)
        where = f"line {lines[0]:,}" if count == 1 else f"the first in line {lines[0]:,}"
        yield f"{counted(count, 'allele')} left out, {reason}: {where}"


def _columns(cells: list[str], is_vcf: bool, where: str) -> tuple[dict[str, int], bool]:
    """Which column is which, from the header; whether it is a VCF's."""
    names = [cell.lstrip("#").strip().lower() for cell in cells]
    as_vcf = cells[0] == "#CHROM" and tuple(names[: len(VCF_COLUMNS)]) == VCF_COLUMNS
    is_data = len(cells) >= len(VCF_COLUMNS) and cells[1].isdecimal()
    if is_data or (is_vcf and not as_vcf):
        raise DataError(
            f"{where}: the header is missing or damaged. A VCF file has the line #CHROM POS ID REF "
            "ALT QUAL FILTER INFO before its variants, separated by tabs. Add it."
        )
    missing = [name for name in NEEDED if name not in names]
    if missing:
        raise DataError(
            f"{where}: no column {', '.join(missing)} among {printable(', '.join(names[:8]))}. "
            "Give a VCF "
            "file, or a tab-separated table whose first line names chrom, pos (from 1), ref and "
            "alt; id may be there too."
        )
    return {name: names.index(name) for name in (*NEEDED, "id") if name in names}, as_vcf


def _variant(
    cells: list[str], columns: dict[str, int], ref: str, letters: set[str], alt: str, where: str
) -> tuple[str, int, str, str, str] | str:
    """chrom, 0-based pos, name, ref, alt; or why it is left out. letters: those of `ref`"""
    text = cells[columns["pos"]]
    if not text.isdecimal() or len(text) > MOST_DIGITS or int(text) < 1:
        raise DataError(f"{where}: pos '{printable(text)}' must be a whole number from 1.")
    if alt in (".", "*", "") or set(alt) & set("<>[]"):
        return "with a symbolic or no ALT allele"
    if not ref:
        raise DataError(f"{where}: no REF allele. Write its letters, as they are in the genome.")
    if not letters <= LETTERS or not set(alt) <= LETTERS:
        return "with letters other than A C G T N"
    name = cells[columns["id"]] if "id" in columns else "."
    return cells[columns["chrom"]], int(text) - 1, name, ref, alt
