"""Random variants beside those of a file, and how unusual the effects are among theirs."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from os.path import commonprefix
from zlib import crc32

import numpy as np

from cherimoya.genome.fasta import Genome
from cherimoya.genome.intervals import Intervals
from cherimoya.genome.sequence import N_CODE, decode
from cherimoya.genome.vcf import Variants
from cherimoya.util.console import say, warning

GC_STEP = 0.05  # of a window: variants of one kind have the same GC content to this
AT_ONCE = 256  # places that are tried
MOST_IN_VAIN = 20  # times so many

# ref and alt of a single base, else "" twice; bases taken away and put in; GC in steps
Kind = tuple[str, str, int, int, int]
Codes = Callable[[str], np.ndarray]


def shifts_bases(variants: Variants) -> np.ndarray:
    """(n,) bool: whether the alleles differ in length."""
    differ = [len(r) != len(a) for r, a in zip(variants.ref, variants.alt, strict=True)]
    return np.array(differ, dtype=bool)


def random_variants(
    variants: Variants,
    among: np.ndarray,
    genome: Genome,
    length: int,
    n: int,
    seed: int,
    peaks: Intervals | None = None,
) -> Variants:
    """Changes of the kinds of the variants in rows `among`, anywhere in the genome, or anywhere
    outside of `peaks`.

    A kind is the change of one base into another, or how many bases are taken away and how many
    put in, and the GC content of the `length` bases around. `n` for those that change no length,
    and as many for those that do, in the proportions of their kinds; fewer, said, where the genome
    has no such place. Of each kind the first ones are the same whatever file they are for.
    """
    rng, codes, outside = np.random.default_rng(seed), cache(genome.codes), _outside(peaks)
    found: list[tuple[str, int, str, str]] = []
    shifted = shifts_bases(variants)[among]
    for rows in (among[~shifted], among[shifted]):
        if not len(rows):
            continue
        drawn = Counter(rng.choice(rows, n).tolist())
        kinds: Counter[Kind] = Counter()
        for row, times in drawn.items():
            kinds[_kind(variants, row, codes, length)] += times
        for kind, times in sorted(kinds.items()):
            places = _places(kind, genome, codes, length, seed, outside)
            found += [one for one, _ in zip(places, range(times), strict=False)]
    asked = n * (int(shifted.any()) + int(not shifted.all()))
    if len(found) < asked:
        say(
            warning(
                f"{len(found):,} of {asked:,} random variants: the genome has no place for the "
                "others"
            )
        )
    chrom, pos, ref, alt = (
        np.array([one[i] for one in found], dtype=kind)
        for i, kind in enumerate((object, np.int64, object, object))
    )
    nothing = np.zeros(len(found), np.int64)
    return Variants(chrom, pos, nothing, ref, alt, nothing, {}, False)


def _outside(peaks: Intervals | None) -> Callable[[str, int, int], bool]:
    """Whether the positions from the first to before the second lie in none of the peaks."""
    if peaks is None:
        return lambda chrom, start, stop: True
    starts, ends = {}, {}
    for chrom in set(peaks.chrom.tolist()):
        own = peaks.take(peaks.chrom == chrom)
        order = np.argsort(own.start, kind="stable")
        starts[chrom] = own.start[order]
        ends[chrom] = np.maximum.accumulate(own.end[order])  # of all that start before

    def outside(chrom: str, start: int, stop: int) -> bool:
        if chrom not in starts:
            return True
        before = int(np.searchsorted(starts[chrom], stop, "left"))  # peaks that start before stop
        return before == 0 or int(ends[chrom][before - 1]) <= start

    return outside


def _kind(variants: Variants, row: int, codes: Codes, length: int) -> Kind:
    ref, alt = str(variants.ref[row]), str(variants.alt[row])
    pos, held = int(variants.pos[row]), codes(str(variants.chrom[row]))
    gc = _gc(held[max(pos - length // 2, 0) : pos + length - length // 2])
    kept = len(commonprefix([ref, alt]))  # noqa: RUF071  letters are meant
    single = len(ref) == len(alt) == 1
    letters = (ref, alt) if single else ("", "")
    return (*letters, len(ref) - kept, len(alt) - kept, round(gc / GC_STEP))


def _gc(codes: np.ndarray) -> float:
    """GC content of the bases that are known; 0 where none is."""
    known = int(np.count_nonzero(codes != N_CODE))
    return int(np.count_nonzero((codes == 1) | (codes == 2))) / max(known, 1)


def _places(
    kind: Kind,
    genome: Genome,
    codes: Codes,
    length: int,
    seed: int,
    outside: Callable[[str, int, int], bool],
) -> Iterator[tuple[str, int, str, str]]:
    """Changes of one kind at random: chrom, 0-based pos, ref, alt, without end where there are any.

    Where no place has a GC content as near, farther ones are taken.
    """
    ref, alt, taken, put, gc = kind
    rng = np.random.default_rng([seed, crc32(repr(kind).encode())])
    margin = length // 2 + taken + put + 1  # a window around it lies within the chromosome
    names = [name for name, bases in genome.lengths.items() if bases > 2 * margin]
    room = np.array([genome.lengths[name] - 2 * margin for name in names], np.int64)
    ends, apart, in_vain = np.cumsum(room), 0.5 * GC_STEP, 0
    while len(names) and in_vain < MOST_IN_VAIN:
        in_vain += 1
        at = rng.integers(ends[-1], size=AT_ONCE)
        for place, inserted in zip(at, rng.integers(4, size=(AT_ONCE, put)), strict=True):
            number = int(np.searchsorted(ends, place, "right"))
            pos = int(place - ends[number] + room[number]) + margin
            held = codes(names[number])
            first = pos if ref else pos - 1  # a base before it, as VCF files write it
            now = decode(held[first : pos + taken])
            then = alt or now[:1] + decode(inserted.astype(np.uint8))
            if "N" in now or then == now or (ref and now != ref):
                continue
            if not outside(names[number], pos, pos + max(taken, 1)):
                continue
            window = held[pos - length // 2 : pos + length - length // 2]
            if abs(_gc(window) - gc * GC_STEP) <= apart:
                in_vain = 0
                yield names[number], first, now, then
        if in_vain:
            apart *= 2


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
