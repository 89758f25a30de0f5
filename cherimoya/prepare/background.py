"""Background loci: windows away from every peak, with the peaks' distribution of GC."""

from dataclasses import dataclass

import numpy as np

from cherimoya.config.prepare import PrepareConfig
from cherimoya.genome.fasta import Genome
from cherimoya.genome.intervals import Intervals, joined
from cherimoya.prepare.workers import Workers

STRETCH = 1 << 22  # bases that are counted at a time
MAX_BIN_SHIFT = 2  # a window may stand in for one this many GC bins away
GC, KNOWN, N = np.array([[0, 1, 1, 0, 0], [1, 1, 1, 1, 0], [0, 0, 0, 0, 1]], np.int32)  # by code


@dataclass(frozen=True)
class Windows:
    """Lengths in bases of the input and output windows and of the margin on each side."""

    in_window: int
    out_window: int
    max_jitter: int

    @property
    def stored(self) -> int:
        """Length of the stored sequence."""
        return self.in_window + 2 * self.max_jitter

    def starts(self, center: np.ndarray) -> np.ndarray:
        """Where the stored sequence of each centre starts."""
        return center - self.in_window // 2 - self.max_jitter


def gc_fraction(codes: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    """(n,) share of G and C among the A C G T of codes[start : start + length], 0 if none."""
    gc, known = _window_sums(codes, starts, length, GC, KNOWN)
    return gc / np.maximum(known, 1)


def n_fraction(codes: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    """(n,) share of N in codes[start : start + length]."""
    return _window_sums(codes, starts, length, N)[0] / length


def candidates(
    genome: Genome,
    peaks: Intervals,
    windows: Windows,
    config: PrepareConfig,
    rng: np.random.Generator,
    workers: Workers,
) -> tuple[Intervals, np.ndarray]:
    """Intervals whose output windows touch neither each other nor a peak, and their GC (n,).

    A peak is its interval and the output window at its centre, `config.min_distance` bases wider
    on each side. Only chromosomes with peaks are searched, so a masked or foreign one gives none.
    """
    jobs = []
    for chrom in dict.fromkeys(peaks.chrom.tolist()):
        there = peaks.take(peaks.chrom == chrom)
        jobs.append(
            (chrom, _free_centers(genome.lengths[chrom], there, windows, config.min_distance, rng))
        )
    parts, gc = [], []
    fractions = workers.map(_fractions, (genome, windows), jobs)
    for (chrom, centers), (n, gc_there) in zip(jobs, fractions, strict=True):
        keep = n <= config.max_n_fraction
        kept, left = centers[keep], centers[keep] - windows.out_window // 2
        parts.append(Intervals(np.full(len(kept), chrom), kept, left, left + windows.out_window))
        gc.append(gc_there[keep])
    return joined(parts), np.concatenate(gc)


def _fractions(
    shared: tuple[Genome, Windows], job: tuple[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """(n,) share of N in the stored and of GC in the input windows at centres on a chromosome."""
    (genome, windows), (chrom, centers) = shared, job
    codes = genome.codes(chrom)
    return (
        n_fraction(codes, windows.starts(centers), windows.stored),
        gc_fraction(codes, centers - windows.in_window // 2, windows.in_window),
    )


def match_gc(
    target: np.ndarray, pool: np.ndarray, count: int, width: float, rng: np.random.Generator
) -> np.ndarray:
    """Ascending rows of `pool`, at most `count`, whose GC is distributed as `target`'s.

    target, pool: GC fractions, compared in bins of `width`. A bin that runs out borrows from
    bins up to MAX_BIN_SHIFT away and then stays short.
    """
    bins = int(np.ceil(1 / width)) + 1
    share = np.bincount((target / width).astype(int), minlength=bins) / len(target)
    wanted = np.diff(np.rint(np.cumsum(share) * count).astype(int), prepend=0)
    shuffled = rng.permutation(len(pool))
    of_bin = (pool[shuffled] / width).astype(int)
    queues = [shuffled[of_bin == i].tolist() for i in range(bins)]
    taken: list[int] = []
    for shift in (0, *(s for d in range(1, MAX_BIN_SHIFT + 1) for s in (-d, d))):
        for i in range(max(0, -shift), min(bins, bins - shift)):
            queue = queues[i + shift]
            drawn = queue[: wanted[i]]
            del queue[: wanted[i]]
            wanted[i] -= len(drawn)
            taken += drawn
    return np.sort(np.array(taken, np.int64))


def _free_centers(
    length: int, peaks: Intervals, windows: Windows, min_distance: int, rng: np.random.Generator
) -> np.ndarray:
    """Centres of adjacent output windows that fill each gap between peaks, placed at random."""
    out_left = peaks.center - windows.out_window // 2
    low = np.minimum(peaks.start, out_left) - min_distance
    high = np.maximum(peaks.end, out_left + windows.out_window) + min_distance
    order = np.argsort(low, kind="stable")
    low, high = low[order], np.maximum.accumulate(high[order])
    before = windows.in_window // 2 + windows.max_jitter - windows.out_window // 2
    after = windows.stored - before - windows.out_window
    gap_start = np.clip(np.concatenate([[0], high]), before, None)
    gap_end = np.clip(np.concatenate([low, [length]]), None, length - after)
    room = np.maximum(gap_end - gap_start, 0)
    number = room // windows.out_window
    first = gap_start + rng.integers(0, room - number * windows.out_window + 1)
    rank = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
    return np.repeat(first, number) + rank * windows.out_window + windows.out_window // 2


def _window_sums(
    codes: np.ndarray, starts: np.ndarray, length: int, *kinds: np.ndarray
) -> list[np.ndarray]:
    """For each of `kinds`, (n,) how many of codes[start : start + length] are of it.

    Takes the windows in stretches of the sequence, so that memory stays small for a chromosome.
    """
    sums = [np.zeros(len(starts), np.int64) for _ in kinds]
    order = np.argsort(starts, kind="stable")
    stretch = starts[order] // STRETCH
    for rows in np.split(order, np.flatnonzero(np.diff(stretch)) + 1) if len(order) else []:
        first = int(starts[rows[0]])
        part = codes[first : int(starts[rows[-1]]) + length]
        left = starts[rows] - first
        for total, kind in zip(sums, kinds, strict=True):
            before = np.zeros(len(part) + 1, np.int32)
            np.cumsum(kind[part], out=before[1:])
            total[rows] = before[left + length] - before[left]
    return sums
