"""The embedded default data set: a simulated experiment whose truth is known.

Peaks hold core promoters and the motifs that modulate them (see `motif_grammar`), background holds
none; GC content differs between chromosomes and loci. Observed counts are Poisson around the
expected signal times a log-normal factor per locus, which no sequence model can foresee.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cherimoya.config.data import SyntheticConfig
from cherimoya.data import motif_grammar
from cherimoya.data.cache import made_once
from cherimoya.data.loci import Loci, smallest_integers
from cherimoya.data.motif_grammar import MOTIFS
from cherimoya.errors import ConfigError
from cherimoya.genome.sequence import reverse_complement

GENERATOR_VERSION = 1  # part of the cache key: raise it whenever the same seed gives other data
OF_BIASED = 10  # times the background, from which a bias can be learned
NOISE = 0.1  # standard deviation of log counts among loci of the same sequence
SHORTEST = 128  # bases of input that hold a core promoter and its signal
GAP = 2000  # bases between neighbouring loci, give or take half of them
BLOCK = 1024  # loci simulated at once: bounds the memory
ATTEMPTS = 20  # tries to find room for a motif before going without

# what may be planted around the first core promoter of a peak, and the chance that it is
PLAN = (
    (motif_grammar.CORE, 0.2),
    (motif_grammar.ACTIVATOR, 0.5),
    (motif_grammar.ENHANCER, 0.5),
    (motif_grammar.REPRESSOR, 0.45),
    (motif_grammar.FOOTPRINT, 0.4),
)


def simulate(config: SyntheticConfig, in_window: int, out_window: int, max_jitter: int) -> Loci:
    """The loci that `config` stands for, on chromosomes sim1, sim2, ..., in genomic order.

    `truth` holds, one row for each locus: expected (2, out_window + 2 max_jitter), the counts
    that the sequence alone predicts; with a bias also unbiased, of the same shape: what they would
    be without; log_count (1,), log(1 + the sum of expected over out_window); and, padded with -1,
    the motifs (k,) between start and end: motif, an index in provenance["motifs"], motif_start
    (genomic), motif_strand (1 forward, 0 reverse) and motif_strength (0.5 to 1).

    Raises ConfigError when the input window is too short.
    """
    if in_window < SHORTEST:
        raise ConfigError(
            f"data.in_window={in_window}: simulated promoters need {SHORTEST} bases or more. "
            f"Set data.in_window={SHORTEST} or higher, or use data=hdf5."
        )
    length, margin = in_window + 2 * max_jitter, (in_window - out_window) // 2
    chrom, start, label, gc = _layout(_generator(config.seed, 0), config, length)
    background = motif_grammar.BACKGROUND * (OF_BIASED if config.bias else 1)
    codes, expected, unbiased, observed = [], [], [], []
    for block, first in enumerate(range(0, len(label), BLOCK)):
        rng, rows = _generator(config.seed, 1 + block), slice(first, first + BLOCK)
        codes.append(_sequences(rng, label[rows], gc[rows], length, out_window))
        rates = motif_grammar.expected_signal(codes[-1], config.mean_count, background)
        if config.bias:
            unbiased.append(rates[:, :, margin : length - margin].astype(np.float32))
            rates = rates * motif_grammar.preference(codes[-1])
        rates = rates[:, :, margin : length - margin]
        expected.append(rates.astype(np.float32))
        observed.append(_observe(rng, rates))
    sequence, profile = np.concatenate(codes), np.concatenate(expected)
    inside = profile[:, :, max_jitter : max_jitter + out_window].sum((1, 2), dtype=np.float64)
    truth = {"expected": profile, "log_count": np.log1p(inside)[:, None]}
    if config.bias:
        truth["unbiased"] = np.concatenate(unbiased)
    return Loci(
        sequence=sequence,
        signal=smallest_integers(np.concatenate(observed)),
        control=None,
        label=label,
        chrom=np.char.add("sim", (chrom + 1).astype(str)),
        start=start,
        end=start + length,
        in_window=in_window,
        out_window=out_window,
        max_jitter=max_jitter,
        track_names=["plus", "minus"],
        control_names=[],
        signal_groups=[2],
        control_groups=[],
        genome="simulated",
        provenance=_parameters(config, in_window, out_window, max_jitter)
        | {"motifs": [asdict(motif) for motif in MOTIFS]},
        truth=truth | _instances(sequence, start),
    )


def cached(
    config: SyntheticConfig,
    in_window: int,
    out_window: int,
    max_jitter: int,
    cache_dir: str | Path | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """The HDF5 file of `simulate` with these arguments, made on first use; see `made_once`."""
    parameters = _parameters(config, in_window, out_window, max_jitter)
    return made_once(
        "synthetic", parameters, lambda: simulate(config, in_window, out_window, max_jitter),
        cache_dir, say,
    )  # fmt: skip


def _parameters(
    config: SyntheticConfig, in_window: int, out_window: int, max_jitter: int
) -> dict[str, Any]:
    """All that decides what is simulated."""
    return {
        "generator": "cherimoya.data.synthetic",
        "generator_version": GENERATOR_VERSION,
        **{k: v for k, v in asdict(config).items() if v or k != "bias"},  # as before there was one
        "in_window": in_window,
        "out_window": out_window,
        "max_jitter": max_jitter,
    }


def _generator(seed: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, stream]))


def _layout(
    rng: np.random.Generator, config: SyntheticConfig, length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Chromosome index, start, label and GC content of each locus, in genomic order: (n,) each."""
    peaks, background = config.n_peaks, config.n_background
    label = np.repeat(np.array([1, 0], dtype=np.uint8), [peaks, background])
    chrom = np.concatenate([np.arange(peaks), np.arange(background)]) % config.n_chromosomes
    order = np.lexsort((rng.random(len(label)), chrom))
    chrom, label = chrom[order], label[order]
    rank = np.arange(len(chrom)) - np.searchsorted(chrom, chrom)
    start = rank * (length + GAP) + rng.integers(GAP // 2, GAP, len(chrom))
    gc = rng.normal(rng.uniform(0.38, 0.52, config.n_chromosomes)[chrom], 0.04).clip(0.25, 0.7)
    return chrom, start, label, gc


def _sequences(
    rng: np.random.Generator, label: np.ndarray, gc: np.ndarray, length: int, out_window: int
) -> np.ndarray:
    """Codes (n, length) with the GC content `gc` (n,): peaks with motifs, background without."""
    codes = _random_bases(rng, np.repeat(gc[:, None], length, axis=1))
    peaks, background = np.flatnonzero(label == 1), np.flatnonzero(label == 0)
    codes[peaks] = _with_motifs(rng, codes[peaks], out_window)
    while len(background):
        found = motif_grammar.scan(codes[background])
        rows, widths = background[found.locus], [len(MOTIFS[m].consensus) for m in found.motif]
        for row, first, width in zip(rows, found.position, widths, strict=True):
            codes[row, first : first + width] = _random_bases(rng, np.full(width, gc[row]))
        background = np.unique(rows)
    return codes


def _random_bases(rng: np.random.Generator, gc: np.ndarray) -> np.ndarray:
    """Codes of the shape of `gc`: C or G with that chance, else A or T."""
    strong, second = rng.random(gc.shape) < gc, rng.integers(0, 2, gc.shape)
    return np.where(strong, 1 + second, 3 * second).astype(np.uint8)


def _with_motifs(rng: np.random.Generator, codes: np.ndarray, out_window: int) -> np.ndarray:
    """`codes` (n, L) with a core promoter near the middle, and the motifs of PLAN."""
    codes, (n, length) = codes.copy(), codes.shape
    taken = np.zeros((n, length), dtype=bool)
    spread = max(out_window // 2 - 48, 8)  # keeps a promoter's signal within the output window
    middle, facing = length // 2 + rng.integers(-spread, spread + 1, n), rng.choice([1, -1], n)
    _plant(rng, codes, taken, motif_grammar.CORE, np.arange(n), middle, facing)
    for motif, chance in PLAN:
        rows = np.flatnonzero(rng.random(n) < chance)
        for _ in range(ATTEMPTS):
            strand = rng.choice([1, -1], len(rows))
            if motif in (motif_grammar.CORE, motif_grammar.FOOTPRINT):
                place = length // 2 + rng.integers(-spread, spread + 1, len(rows))
            else:
                place = middle[rows] + facing[rows] * _distances(rng, motif, len(rows))
            planted = _plant(rng, codes, taken, motif, rows, place, strand)
            rows = rows[~planted]
    return codes


def _distances(rng: np.random.Generator, motif: int, n: int) -> np.ndarray:
    """How far downstream of a core promoter to plant what modulates it (n,)."""
    limit = 115 if motif == motif_grammar.ENHANCER else 95
    anywhere = rng.integers(-limit, limit + 1, n)
    if motif != motif_grammar.ACTIVATOR:
        return anywhere
    well_spaced = np.rint(rng.normal(-50, 15, n)).astype(np.int64)
    return np.where(rng.random(n) < 0.5, well_spaced, anywhere)


def _plant(
    rng: np.random.Generator,
    codes: np.ndarray,
    taken: np.ndarray,
    motif: int,
    rows: np.ndarray,
    middle: np.ndarray,
    strand: np.ndarray,
) -> np.ndarray:
    """Write `motif` into `rows` of `codes` where nothing is `taken`; returns where it was (m,)."""
    width = len(MOTIFS[motif].consensus)
    first = np.clip(middle - width // 2, 0, codes.shape[1] - width)
    bases = first[:, None] + np.arange(width)
    free = ~taken[rows[:, None], bases].any(axis=1)
    where = (rows[free, None], bases[free])
    codes[where] = _motif_sequences(rng, motif, strand[free])
    taken[where] = True
    return free


def _motif_sequences(rng: np.random.Generator, motif: int, strand: np.ndarray) -> np.ndarray:
    """Codes (n, width) drawn from the motif's matrix, as the forward strand reads them."""
    below = motif_grammar.probabilities(MOTIFS[motif]).cumsum(axis=1)[:, :3]
    codes = np.empty((len(strand), len(below)), dtype=np.uint8)
    todo = np.arange(len(strand))
    while len(todo):
        codes[todo] = (rng.random((len(todo), len(below), 1)) > below).sum(axis=2)
        found = motif_grammar.scan(codes[todo])
        todo = np.setdiff1d(todo, todo[found.locus[(found.motif == motif) & (found.strand == 1)]])
    return np.where(strand[:, None] == 1, codes, reverse_complement(codes))


def _observe(rng: np.random.Generator, rates: np.ndarray) -> np.ndarray:
    """Poisson counts (n, 2, L) of expected counts, with a factor per locus whose mean is 1."""
    factor = np.exp(rng.normal(-(NOISE**2) / 2, NOISE, (len(rates), 1, 1)))
    return rng.poisson(rates * factor).astype(np.int32)


def _instances(sequence: np.ndarray, start: np.ndarray) -> dict[str, np.ndarray]:
    """The motif instances of each locus as arrays (n, k), padded with -1."""
    found = motif_grammar.scan(sequence)
    rank = np.arange(len(found)) - np.searchsorted(found.locus, found.locus)
    values = {
        "motif": found.motif.astype(np.int8),
        "motif_start": start[found.locus] + found.position,
        "motif_strand": (found.strand == 1).astype(np.int8),
        "motif_strength": found.strength.astype(np.float32),
    }
    padded = {}
    for name, column in values.items():
        padded[name] = np.full((len(sequence), rank.max(initial=0) + 1), -1, dtype=column.dtype)
        padded[name][found.locus, rank] = column
    return padded
