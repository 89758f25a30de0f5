"""Random variants beside those of a file, and how unusual the effects are among theirs."""

from collections.abc import Callable
from functools import cache
from os.path import commonprefix

import numpy as np

from cherimoya.genome.fasta import Genome
from cherimoya.genome.sequence import N_CODE, decode, encode
from cherimoya.genome.vcf import Variants
from cherimoya.util.console import say


def shifts_bases(variants: Variants) -> np.ndarray:
    """(n,) bool: whether the alleles differ in length."""
    differ = [len(r) != len(a) for r, a in zip(variants.ref, variants.alt, strict=True)]
    return np.array(differ, dtype=bool)


def random_variants(
    variants: Variants, among: np.ndarray, genome: Genome, length: int, out: int, n: int, seed: int
) -> Variants:
    """Changes alike those of the variants in rows `among`, elsewhere in their output windows.

    Each is drawn for one of them: a single base that the genome has there too becomes the same
    other base, an insertion inserts the same bases, a deletion takes as many away. `n` for those
    that change no length, and as many for those that do; fewer, said, where there is no such place.
    """
    rng, codes = np.random.default_rng(seed), cache(genome.codes)
    found: list[tuple[str, int, str, str]] = []
    shifted = shifts_bases(variants)[among]
    for rows in (among[~shifted], among[shifted]):
        for row in rng.choice(rows, n) if len(rows) else ():
            if one := _elsewhere(variants, int(row), codes, length, out, rng):
                found.append(one)
    asked = n * (int(shifted.any()) + int(not shifted.all()))
    if len(found) < asked:
        say(f"{len(found):,} of {asked:,} random variants: there is no place nearby for the others")
    chrom, pos, ref, alt = (
        np.array([one[i] for one in found], dtype=kind)
        for i, kind in enumerate((object, np.int64, object, object))
    )
    nothing = np.zeros(len(found), np.int64)
    return Variants(chrom, pos, nothing, ref, alt, nothing, {}, False)


def _elsewhere(
    variants: Variants,
    row: int,
    codes: Callable[[str], np.ndarray],
    length: int,
    out: int,
    rng: np.random.Generator,
) -> tuple[str, int, str, str] | None:
    """The change of a variant at another position, chosen at random; None where none can be."""
    chrom, pos = str(variants.chrom[row]), int(variants.pos[row])
    ref, alt = str(variants.ref[row]), str(variants.alt[row])
    held, kept = codes(chrom), len(commonprefix([ref, alt]))  # noqa: RUF071  letters are meant
    margin = length // 2 + len(ref) + len(alt)  # a window around it lies within the chromosome
    first = max(pos - out // 2, margin)
    last = min(pos + out // 2, len(held) - margin)
    places = np.arange(first, max(last, first))
    if len(ref) == len(alt) == 1:
        places = places[held[places] == encode(ref)[0]]
    for at in rng.permutation(places[places != pos])[:10]:  # most are possible
        there = held[at : at + len(ref)]
        if (there == N_CODE).any():
            continue
        now = decode(there)
        then = now[:kept] + alt[kept:]
        if then != now:
            return chrom, int(at), now, then
    return None


def percentile(values: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Per cent of `among` (m,) that are smaller than each of `values` (n,), ties half."""
    ordered = np.sort(among)
    below, up_to = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    return 50 * (below + up_to) / len(among)


def p_values(values: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Of each of `values` (n,): how often one of `among` (m,), or itself, is as large.

    (r + 1) / (m + 1), r of `among` that are no smaller (Davison and Hinkley 1997, 4.2; Phipson and
    Smyth 2010): never 0, and uniform for values drawn as `among` were.
    """
    no_smaller = len(among) - np.searchsorted(np.sort(among), values, "left")
    return (no_smaller + 1) / (len(among) + 1)


def q_values(p: np.ndarray) -> np.ndarray:
    """The false discovery rates of Benjamini and Hochberg (1995) of p-values (n,); NaN stays."""
    q, known = np.full(len(p), np.nan), np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(-p[known], kind="stable")]  # from the largest
    ranks = np.arange(len(order), 0, -1)
    q[order] = np.minimum.accumulate(p[order] * len(order) / ranks).clip(max=1)
    return q
