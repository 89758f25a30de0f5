"""The rules of the simulated experiment: motifs, and the signal that a sequence gives rise to.

`expected_signal` is a deterministic function of the sequence, so that what a model has learned
can be compared with the truth. Nothing in it prefers a strand: the reverse complement of a
sequence has the reversed signal with its two strands exchanged.
"""

from dataclasses import dataclass

import numpy as np

from cherimoya.genome.sequence import COMPLEMENT, N_CODE, encode, reverse_complement

CONSERVED, VARIABLE = 0.97, 0.7  # chance of the consensus base


@dataclass(frozen=True)
class Motif:
    """A binding site. Upper case bases of the consensus are conserved, lower case ones variable."""

    name: str
    consensus: str
    role: str


MOTIFS = (
    Motif("INR", "ccTCAGTTCg", "initiator: sharp initiation at its A, divergent 35 bp upstream"),
    Motif("SP1", "gGGGCGGGGc", "activator: up to 2.5 x initiation, best 50 bp upstream of it"),
    Motif("ETS", "aCCGGAAGTg", "enhancer: 2.5 x initiation within 110 bp, more so with SP1"),
    Motif("ZEB", "cCAGGTGAtt", "repressor: a quarter of the initiation within 100 bp"),
    Motif("NFY", "agCCAATCAg", "footprint: protected site, shoulders shifted between strands"),
)
CORE, ACTIVATOR, ENHANCER, REPRESSOR, FOOTPRINT = range(len(MOTIFS))

CUTOFF = 4.2  # nats below the consensus: two variable bases may differ, no conserved one
ENZYME = np.array(  # log of its preference for A, C, G, T from 4 bases before the cut to 3 after it
    [
        [-0.2, 0.1, 0.6, -0.4], [0.3, -0.5, -0.1, 0.3], [-0.4, 0.2, -0.3, 0.5],
        [0.6, -0.6, 0.3, -0.3], [-0.5, 0.7, -0.2, 0.1], [0.2, -0.3, 0.5, -0.4],
        [0.4, -0.1, -0.5, 0.2], [-0.2, 0.4, -0.3, 0.1],
    ]
)  # fmt: skip
REACH = 60  # bases on each side of a motif where it adds signal
BACKGROUND = 2e-4  # signal per base and strand, in units of a lone core promoter
MEAN_PEAK = 1.96  # mean signal of a simulated peak in the default windows, in that unit


@dataclass(frozen=True, eq=False)
class Instances:
    """Motif instances, ordered by locus; every array (m,).

    locus: row of the sequence array; motif: index in MOTIFS; position: first base on the forward
    strand; strand: 1 or -1; strength: 1 for the consensus, at least 0.5.
    """

    locus: np.ndarray
    motif: np.ndarray
    position: np.ndarray
    strand: np.ndarray
    strength: np.ndarray

    def __len__(self) -> int:
        return len(self.locus)

    @property
    def centre(self) -> np.ndarray:
        """Middle of each instance, in bases (m,)."""
        return self.position + (_WIDTHS[self.motif] - 1) / 2


def probabilities(motif: Motif) -> np.ndarray:
    """Position weight matrix (width, 4): the chance of A, C, G and T at each base."""
    kept = np.array([CONSERVED if base.isupper() else VARIABLE for base in motif.consensus])
    matrix = np.repeat((1 - kept[:, None]) / 3, 4, axis=1)
    matrix[np.arange(len(kept)), encode(motif.consensus)] = kept
    return matrix


def known_motifs(shuffled: int = 95, seed: int = 0) -> dict[str, np.ndarray]:
    """The motifs as matrices (4, width) by name, among copies whose columns and letters are
    shuffled: what discovered motifs are matched with, enough for TOMTOM's p-values."""
    known = {motif.name: probabilities(motif).T for motif in MOTIFS}
    rng = np.random.default_rng(seed)
    for i in range(shuffled):
        columns = rng.permutation(probabilities(MOTIFS[i % len(MOTIFS)]))
        known[f"shuffled_{i}"] = rng.permuted(columns, axis=1).T
    return known


def scan(codes: np.ndarray) -> Instances:
    """Every motif instance in `codes` (n, L), on both strands, within CUTOFF of its consensus."""
    found = []
    for index, motif in enumerate(MOTIFS):
        for strand in (1, -1):
            score = _scores(codes, motif, strand)  # (n, L - width + 1)
            locus, position = np.nonzero(score > -CUTOFF)
            constant = np.broadcast_to([[index], [strand]], (2, len(locus)))
            found.append((locus, constant[0], position, constant[1], score[locus, position]))
    locus, kind, position, side, score = (
        np.concatenate(parts) for parts in zip(*found, strict=True)
    )
    order = np.lexsort((kind, position, locus))
    strength = np.exp(score[order] / 6)
    return Instances(locus[order], kind[order], position[order], side[order], strength)


def expected_signal(
    codes: np.ndarray, mean_count: float, background: float = BACKGROUND
) -> np.ndarray:
    """Expected counts (n, 2, L) on the forward and reverse strand of sequences (n, L).

    Every motif instance adds its footprint; core promoters scale theirs by their activators and
    repressors; bound sites are protected. A simulated peak expects `mean_count` counts on average,
    in the default windows. background: signal per base and strand, in units of a lone core promoter
    """
    instances = scan(codes)
    n, length = codes.shape
    signal = np.full((n, 2, length + 2 * REACH), background)
    exposed = np.ones_like(signal)
    amount = amounts(instances)
    for index, motif in enumerate(MOTIFS):
        added, hidden = _footprint(index, len(motif.consensus))
        for strand in (1, -1):
            chosen = np.flatnonzero((instances.motif == index) & (instances.strand == strand))
            bases = instances.position[chosen, None] + np.arange(added.shape[1])
            where = (instances.locus[chosen, None, None], np.arange(2)[:, None], bases[:, None])
            np.add.at(signal, where, amount[chosen, None, None] * added[::strand, ::strand])
            strength = instances.strength[chosen, None, None]
            np.multiply.at(exposed, where, 1 - strength * hidden[::strand, ::strand])
    return (signal * exposed)[:, :, REACH : REACH + length] * (mean_count / MEAN_PEAK)


def removal_effects(
    codes: np.ndarray, instances: Instances, predicted: slice, mean_count: float
) -> np.ndarray:
    """What each instance (m,) in `codes` (n, L) adds to log(1 + expected counts) of the bases that
    are `predicted`: what is lost where its own bases are unknown."""
    hidden = codes[instances.locus].copy()
    bases = np.arange(codes.shape[1])
    first, width = instances.position[:, None], _WIDTHS[instances.motif][:, None]
    hidden[(bases >= first) & (bases < first + width)] = N_CODE

    def totals(some: np.ndarray) -> np.ndarray:
        return np.log1p(expected_signal(some, mean_count)[:, :, predicted].sum((1, 2)))

    effects: np.ndarray = totals(codes)[instances.locus] - totals(hidden)
    return effects


def preference(codes: np.ndarray) -> np.ndarray:
    """How much more an enzyme cuts at each base and strand than on average: (n, 2, L) of (n, L).

    A forward cut at base i depends on the bases i - 4 to i + 3, a reverse one on their complement.
    """
    table = np.zeros((len(ENZYME), 5))  # an N is like the average
    table[:, :4] = ENZYME - np.log(np.exp(ENZYME).mean(axis=1, keepdims=True))
    length = codes.shape[1]
    before, after = len(ENZYME) // 2, len(ENZYME) - len(ENZYME) // 2 - 1
    both = []
    for own in (codes, reverse_complement(codes)):
        padded = np.pad(own, ((0, 0), (before, after)), constant_values=4)
        both.append(sum(row[padded[:, i : i + length]] for i, row in enumerate(table)))
    return np.exp(np.stack([both[0], both[1][:, ::-1]], axis=1))


def amounts(instances: Instances) -> np.ndarray:
    """Signal that each instance adds (m,), in units of a lone consensus core promoter.

    log amount of a core promoter = log strength + 0.9 activator + 0.9 enhancer - 1.4 repressor
    + 0.5 activator x enhancer, each between 0 and 1: its strength times a soft function of the
    distance, summed over instances, at most 1.
    """
    core, other = _pairs(instances)
    downstream = instances.centre[other] - instances.centre[core]
    downstream = downstream * instances.strand[core]
    felt = np.zeros((len(instances), len(MOTIFS)))
    weight = instances.strength[other] * _influence(instances.motif[other], downstream)
    np.add.at(felt, (core, instances.motif[other]), weight)
    activator, enhancer, repressor = np.minimum(felt, 1).T[[ACTIVATOR, ENHANCER, REPRESSOR]]
    effect = 0.9 * activator + 0.9 * enhancer + 0.5 * activator * enhancer - 1.4 * repressor
    return instances.strength * np.exp(effect)


def _pairs(instances: Instances) -> tuple[np.ndarray, np.ndarray]:
    """Every (core promoter, other instance) of the same locus, as two index arrays."""
    core = np.flatnonzero(instances.motif == CORE)
    first = np.searchsorted(instances.locus, instances.locus[core])
    count = np.searchsorted(instances.locus, instances.locus[core], side="right") - first
    within = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count)
    return np.repeat(core, count), np.repeat(first, count) + within


def _influence(motif: np.ndarray, downstream: np.ndarray) -> np.ndarray:
    """How much a motif `downstream` bases from a core promoter acts on it, 0 to 1: (pairs,)."""
    distance = np.abs(downstream)
    spaced = 0.4 + 0.6 * np.exp(-(((downstream + 50) / 25) ** 2) / 2)
    return np.select(
        [motif == ACTIVATOR, motif == ENHANCER, motif == REPRESSOR],
        [spaced * _within(distance, 100), _within(distance, 110), _within(distance, 100)],
        0.0,
    )


def _within(distance: np.ndarray, limit: float) -> np.ndarray:
    return 1 / (1 + np.exp((distance - limit) / 4))


def _footprint(motif: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Signal added, and fraction of it hidden, around a forward instance: (2, width + 2 REACH)."""
    x = np.arange(width + 2 * REACH) - (width - 1) / 2 - REACH  # bases from the motif's centre
    added, hidden = np.zeros((2, len(x))), np.zeros((2, len(x)))
    if motif == CORE:
        added[0] = _bump(x, -0.5, 1, 0.45) + _bump(x, 28, 5, 0.25)
        added[1] = _bump(x, -35.5, 1, 0.2) + _bump(x, -39, 5, 0.1)
    elif motif == FOOTPRINT:
        added[0], added[1] = _bump(x, -18, 4, 0.2), _bump(x, 18, 4, 0.2)
    elif motif == ACTIVATOR:
        added[:] = _bump(x, -13, 2, 0.1) + _bump(x, 13, 2, 0.1)
    elif motif == ENHANCER:
        added[0], added[1] = _bump(x, 12, 1.5, 0.15), _bump(x, -12, 1.5, 0.15)
    elif motif == REPRESSOR:
        added[0], added[1] = _bump(x, -10, 1.5, 0.15), _bump(x, 10, 1.5, 0.15)
    if motif != CORE:
        hidden[:, np.abs(x) < width / 2 + 2] = 0.9
    return added, hidden


def _bump(x: np.ndarray, centre: float, spread: float, mass: float) -> np.ndarray:
    """A normal density over the bases x, adding up to `mass`."""
    density = np.exp(-(((x - centre) / spread) ** 2) / 2)
    return mass * density / density.sum()


def _scores(codes: np.ndarray, motif: Motif, strand: int) -> np.ndarray:
    """Log-odds against the consensus, 0 at most, of each placement: (n, L - width + 1)."""
    matrix = probabilities(motif)
    table = np.full((len(matrix), 5), -np.inf)  # an N matches nothing
    table[:, :4] = np.log(matrix / matrix.max(axis=1, keepdims=True))
    if strand == -1:
        table = table[::-1, COMPLEMENT]
    places = codes.shape[1] - len(table) + 1
    return sum(row[codes[:, i : i + places]] for i, row in enumerate(table))


_WIDTHS = np.array([len(motif.consensus) for motif in MOTIFS])
