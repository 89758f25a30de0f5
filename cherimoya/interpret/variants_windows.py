"""The two sequences of a variant, each with its allele in the middle of the input window."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from cherimoya.errors import DataError
from cherimoya.genome.chrom_names import Aliases
from cherimoya.genome.fasta import Genome
from cherimoya.genome.sequence import decode, encode
from cherimoya.genome.vcf import Variants, shortened
from cherimoya.util import console
from cherimoya.util.console import counted

OK = "ok"
NO_CHROMOSOME = "chromosome not in the genome"
PAST_END = "too near an end of the chromosome"
BEYOND = "beyond the end of the chromosome"
TOO_LONG = "longer than half the input window ({:,} bases)"
MISMATCH = "reference differs"
OTHER_ASSEMBLY = 0.1  # part of the reference alleles that differ, from which on nothing is scored
FEW = 10  # of which so many must differ, or all


def _ends(pos: int, ref: str, allele: str, length: int) -> tuple[int, int]:
    """Genomic start and end of an input window of `length` with `allele` instead of `ref` at `pos`:
    the middle base of the allele is the window's."""
    left = length // 2 - len(allele) // 2
    return pos - left, pos + len(ref) + length - left - len(allele)


def allele_window(codes: np.ndarray, pos: int, ref: str, allele: str, length: int) -> np.ndarray:
    """`length` bases of a chromosome's `codes` with `allele` instead of `ref` at `pos`."""
    start, end = _ends(pos, ref, allele, length)
    return np.concatenate([codes[start:pos], encode(allele), codes[pos + len(ref) : end]])


def renamed(variants: Variants, genome: Genome, choice: str, path: str) -> Variants:
    """`variants` with the genome's names of chromosomes, as chrom_alias=`choice` says.

    Raises DataError, with a proposal, when they are still named differently.
    """
    names = variants.chrom.tolist()
    aliases = Aliases(choice, genome).accepted(names, f"variants={path}")
    return replace(variants, chrom=np.array([aliases.get(n, n) for n in names], dtype=object))


def check_variants(variants: Variants, genome: Genome, length: int, path: str) -> np.ndarray:
    """(n,) text, "ok" or why a variant cannot be scored.

    Raises DataError when none can, or so many reference alleles differ from the genome that it
    must be another assembly.
    """
    codes, n = cache(genome.codes), len(variants)
    rows = console.track(range(n), "comparing with the genome", n, "variant")
    reasons = [_status(variants, i, codes, genome.lengths, length) for i in rows]
    status = np.array(reasons, dtype=object)
    differ = np.flatnonzero((status == MISMATCH) | (status == BEYOND))
    compared = len(differ) + int((status == OK).sum())
    some = (status[differ] == MISMATCH).any() or len(differ) >= FEW
    if some and len(differ) > OTHER_ASSEMBLY * compared and len(differ) >= min(FEW, compared):
        raise DataError(_another_assembly(variants, differ, compared, genome, path))
    if not (status == OK).any():
        raise DataError(
            f"variants={path}: none can be scored. "
            f"{'. '.join(not_scored(variants, status, genome.lengths))}. "
            f"A window is {length:,} bases (in_window) with the variant in its middle, all of them "
            f"in fasta={genome.path}."
        )
    return status


def not_scored(variants: Variants, status: np.ndarray, lengths: Mapping[str, int]) -> Iterator[str]:
    """How many variants have which `status` other than "ok", in words."""
    for reason in sorted(set(status.tolist()) - {OK}):
        rows = np.flatnonzero(status == reason)
        first = f"{variants.describe(rows[0])} in line {variants.line[rows[0]]:,}"
        many = counted(len(rows), "variant")
        if reason == BEYOND:
            chrom = str(variants.chrom[rows[0]])
            first += f", where {chrom} has {lengths[chrom]:,} bases"
        yield f"{many} not scored, {reason}: {'such as ' if len(rows) > 1 else ''}{first}"


def _status(
    variants: Variants,
    row: int,
    codes: Callable[[str], np.ndarray],
    lengths: Mapping[str, int],
    length: int,
) -> str:
    chrom, pos = str(variants.chrom[row]), int(variants.pos[row])
    ref, alt = str(variants.ref[row]), str(variants.alt[row])
    if chrom not in lengths:
        return NO_CHROMOSOME
    if pos + len(ref) > lengths[chrom]:
        return BEYOND
    if max(len(ref), len(alt)) > length // 2:
        return TOO_LONG.format(length // 2)
    if (codes(chrom)[pos : pos + len(ref)] != encode(ref)).any():
        return MISMATCH
    for allele in (ref, alt):
        start, end = _ends(pos, ref, allele, length)
        if start < 0 or end > lengths[chrom]:
            return PAST_END
    return OK


def _another_assembly(
    variants: Variants, differ: np.ndarray, compared: int, genome: Genome, path: str
) -> str:
    row = int(differ[0])
    chrom, pos, ref = str(variants.chrom[row]), int(variants.pos[row]), str(variants.ref[row])
    held = shortened(decode(genome.codes(chrom)[pos : pos + len(ref)]))
    if pos + len(ref) > genome.lengths[chrom]:
        there = f"but {chrom} has {genome.lengths[chrom]:,} bases"
    else:
        there = f"where the genome has {held}"
    exchanged = sum(
        decode(genome.codes(str(chrom))[at : at + len(alt)]) == alt
        for chrom, at, alt in zip(
            variants.chrom[differ], variants.pos[differ], variants.alt[differ], strict=True
        )
    )
    what = f"{Path(path).name} is of another assembly, or its positions start at 0"
    if exchanged > len(differ) / 2:
        what = f"in {exchanged:,} of them ALT is what the genome has: REF and ALT are exchanged"
    return (
        f"variants={path}: {len(differ):,} of {compared:,} reference alleles differ from "
        f"fasta={genome.path}, or lie beyond its ends. The first is {variants.describe(row)} in "
        f"line {variants.line[row]}, {there}. Probably {what}. Give the FASTA that "
        "the variants were called with, or correct the file."
    )
