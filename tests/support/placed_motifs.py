"""Attributions by construction: motifs at known places contribute, and all else is noise."""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from cherimoya.data import motif_grammar
from cherimoya.genome.sequence import one_hot, reverse_complement
from cherimoya.records.attributions import write_attributions
from cherimoya.records.hits import Hits

WIDTH = 10  # of each motif


@dataclass
class Planted:
    """What was placed: (locus, motif, offset, strand) of each instance, in a file."""

    path: Path
    instances: set[tuple[int, int, int, int]]


def plant(
    path: Path, n: int = 24, length: int = 120, each: int = 3, noise: float = 0.02, seed: int = 0,
    known: bool = True, targets: tuple[str, ...] = ("counts_0",),
) -> Planted:  # fmt: skip
    """A file of n loci with `each` instances of the simulated motifs, of either strand and at least
    two bases apart; ZEB's lower the prediction. Loci lie 1,000 bases apart, if that is known."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 4, (n, length)).astype(np.uint8)
    hypothetical = rng.normal(0, noise, (n, 4, length))
    placed = set()
    for locus in range(n):
        slots = rng.permutation(length // (WIDTH + 2))[:each] * (WIDTH + 2)
        for first in slots.tolist():
            motif, strand = int(rng.integers(5)), int(rng.choice([-1, 1]))
            matrix = motif_grammar.probabilities(motif_grammar.MOTIFS[motif])
            drawn = np.array([rng.choice(4, p=row) for row in matrix], np.uint8)
            drawn = drawn if strand == 1 else reverse_complement(drawn)
            codes[locus, first : first + WIDTH] = drawn
            heights = (matrix - 0.25) * (2 + (matrix * np.log2(matrix)).sum(1, keepdims=True))
            heights *= rng.uniform(0.3, 1.5) * (-1 if motif == motif_grammar.REPRESSOR else 1)
            own = heights.T if strand == 1 else heights.T[::-1, ::-1]
            hypothetical[locus, :, first : first + WIDTH] += own
            placed.add((locus, motif, first, strand))
    chrom = np.array([f"chr{1 + i % 2}" if known else "" for i in range(n)])
    start = np.arange(n) * 1000 if known else np.full(n, -1)
    values = hypothetical.astype(np.float32)
    write_attributions(path, codes, chrom, start, dict.fromkeys(targets, values), {}, {})
    return Planted(path, placed)


def called(hits: Hits) -> list[tuple[int, int, int, int]]:
    """The same of instances whose motifs are those of `write_motifs`."""
    names = [motif.name for motif in motif_grammar.MOTIFS]
    kinds = [names.index(motif.name.removesuffix("(-)")) for motif in hits.motifs]
    return [(locus, kinds[motif], offset, strand) for locus, motif, offset, strand in zip(
        hits.locus.tolist(), hits.motif.tolist(), hits.offset.tolist(), hits.strand.tolist(),
        strict=True)]  # fmt: skip


def write_motifs(path: Path) -> Path:
    """The simulated motifs as a MEME file."""
    lines = ["MEME version 4", "ALPHABET= ACGT"]
    for motif in motif_grammar.MOTIFS:
        lines += [f"MOTIF {motif.name}", f"letter-probability matrix: alength= 4 w= {WIDTH}"]
        lines += [" ".join(f"{p:.6f}" for p in row) for row in motif_grammar.probabilities(motif)]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_patterns(folder: Path, flank: int = 10) -> Path:
    """The same as TF-MoDISco writes them, between flanks that contribute little, with matches."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    rows = ["pattern\tmatch\tq_value"]
    with h5py.File(folder / "modisco.h5", "w") as file:
        for i, motif in enumerate(motif_grammar.MOTIFS):
            sign, number = ("neg", 0) if i == motif_grammar.REPRESSOR else ("pos", i)
            matrix = motif_grammar.probabilities(motif)
            heights = matrix * (2 + (matrix * np.log2(matrix)).sum(1, keepdims=True))
            whole = np.abs(rng.normal(0, 0.01, (WIDTH + 2 * flank, 4)))
            whole[flank:-flank] = heights
            group = file.create_group(f"{sign}_patterns/pattern_{number}")
            group["contrib_scores"] = -whole if sign == "neg" else whole
            rows.append(f"{sign}_patterns.pattern_{number}\t{motif.name}\t0.001")
    (folder / "motifs.tsv").write_text("\n".join(rows) + "\n")
    return folder


def hot(codes: np.ndarray) -> np.ndarray:
    """One-hot (n, 4, L)."""
    return one_hot(codes).numpy()
