"""The bases around cuts, and which enzyme's motif they show at which distance."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from cherimoya.genome.sequence import BASES

TABLE = Path(__file__).with_name("cut_motifs.tsv")  # which says where its numbers are from
FIRST, LENGTH = -10, 20  # positions of its motifs
STRANDS = ("plus", "minus")
REACH = 12  # bases of the largest shift that is looked for
FLANK = 24  # bases from a cut beyond which its enzyme sees nothing
HALF = 34  # bases to either side that are counted
PSEUDO = 1.0  # cuts of each base that are added
LIKE = 0.6  # correlation with a motif from which on it is seen
CLEAR = 0.08  # by how much it exceeds that of all other shifts

Shift = tuple[int, int]


class Surroundings:
    """How often each base lies at each position around cuts, on the genome's plus strand.

    strands: 2, plus and minus, or 1 where they are not told apart
    counts: (strands, 2 * HALF + 1, 4)
    """

    def __init__(self, strands: int) -> None:
        self.counts = np.zeros((strands, 2 * HALF + 1, len(BASES)))
        self._sums = np.zeros((2, strands))  # of weights, and of their squares

    def add(self, strand: int, codes: np.ndarray, at: np.ndarray, weight: np.ndarray) -> None:
        """Count what lies in `codes` (length,) of a chromosome around positions `at` (n,), each
        `weight` (n,) times; those near an end of the chromosome are passed over."""
        inside = (at >= HALF) & (at < len(codes) - HALF)
        at, weight = at[inside], weight[inside]
        if not len(at):
            return
        around = np.lib.stride_tricks.sliding_window_view(codes, 2 * HALF + 1)[at - HALF]
        for base in range(len(BASES)):
            self.counts[strand, :, base] += weight @ (around == base)
        self._sums[:, strand] += weight.sum(), (weight**2).sum()

    @property
    def cuts(self) -> int:
        """As many cuts as say the same if each counts once, on the strand with fewer."""
        total, squares = self._sums
        return round(float((total**2 / np.maximum(squares, 1e-300)).min()))

    def frequencies(self) -> np.ndarray:
        """(strands, 2 * HALF + 1, 4)"""
        counts = self.counts + PSEUDO
        return counts / counts.sum(axis=2, keepdims=True)

    def ratios(self) -> np.ndarray:
        """(strands, 2 * HALF + 1, 4) log ratios to the flanks, their mean at a position is 0."""
        flanks = np.abs(np.arange(-HALF, HALF + 1)) >= FLANK
        return np.stack([_ratios(one, one[flanks].mean(axis=0)) for one in self.frequencies()])


@dataclass(frozen=True)
class Match:
    """What is known of cuts: whose they are like, and which shift would bring both strands to its
    motif.

    enzyme: of the motif that is most alike; shift: bases to be added on the plus and the minus
    strand; scores: enzyme -> (2 * REACH + 1, 2 * REACH + 1) correlation with its motif by shift of
    the plus and of the minus strand; is_stranded: whether the strands are told apart
    """

    enzyme: str
    shift: Shift
    scores: Mapping[str, np.ndarray]
    is_stranded: bool

    def score(self, shift: Shift, enzyme: str | None = None) -> float:
        """The correlation at one shift, of the enzyme that is most alike by default."""
        plus, minus = (min(max(bases, -REACH), REACH) + REACH for bases in shift)
        return float(self.scores[enzyme or self.enzyme][plus, minus])

    @property
    def is_clear(self) -> bool:
        """Whether a motif is seen, at one distance alone."""
        scores = self.scores[self.enzyme]
        others = scores.copy()
        plus, minus = (bases + REACH for bases in self.shift)
        others[plus, minus] = -1
        if not self.is_stranded:  # what remains if the strands are exchanged is nearly the same
            others[minus, plus] = -1
        best = float(scores[plus, minus])
        return best >= LIKE and best - float(others.max()) >= CLEAR


def match(surroundings: Surroundings) -> Match:
    """Compare the surroundings of cuts with every known motif at every distance."""
    ratios = surroundings.ratios()
    scores: dict[str, np.ndarray] = {}
    for name, motif in _motifs().items():
        enzyme = _enzyme(name)
        found = _stranded(ratios, motif) if len(ratios) == 2 else _both(ratios[0], motif)
        scores[enzyme] = np.maximum(scores.get(enzyme, found), found)
    best = max(scores, key=lambda enzyme: float(scores[enzyme].max()))
    plus, minus = np.unravel_index(int(scores[best].argmax()), scores[best].shape)
    return Match(best, (int(plus) - REACH, int(minus) - REACH), scores, len(ratios) == 2)


def known_frequencies(enzyme: str) -> np.ndarray:
    """(2, LENGTH, 4) of the bases around an enzyme's plus and minus cuts, from FIRST on."""
    found = [both for name, both in _table().items() if _enzyme(name) == enzyme]
    mean: np.ndarray = np.mean(found, axis=0)
    return mean


@cache
def _motifs() -> dict[str, np.ndarray]:
    """Name of a motif -> (2, LENGTH, 4) log ratios around plus and minus cuts."""
    return {
        name: np.stack([_ratios(one, one.mean(axis=0)) for one in both])
        for name, both in _table().items()
    }


@cache
def _table() -> dict[str, np.ndarray]:
    """Name of a motif -> (2, LENGTH, 4) frequencies."""
    found: dict[str, np.ndarray] = {}
    for line in TABLE.read_text().splitlines():
        name, *rest = line.split("\t")
        if rest and name != "motif":
            both = found.setdefault(name, np.zeros((2, LENGTH, len(BASES))))
            both[STRANDS.index(rest[0]), int(rest[1]) - FIRST] = [float(v) for v in rest[2:]]
    return found


def _enzyme(motif: str) -> str:
    """DNase I for its motifs DNase I a and DNase I b."""
    return motif.removesuffix(" a").removesuffix(" b")


def _ratios(frequencies: np.ndarray, usual: np.ndarray) -> np.ndarray:
    ratios = np.log(frequencies / usual)
    centred: np.ndarray = ratios - ratios.mean(axis=1, keepdims=True)
    return centred


def _stranded(ratios: np.ndarray, motif: np.ndarray) -> np.ndarray:
    """The scores of both strands, each compared with the motif at every distance."""
    each = [
        [_correlation(own[HALF + FIRST + at :][:LENGTH], known) for at in range(-REACH, REACH + 1)]
        for own, known in zip(ratios, motif, strict=True)
    ]
    scores: np.ndarray = np.add.outer(each[0], each[1]) / 2
    return scores


def _both(ratios: np.ndarray, motif: np.ndarray) -> np.ndarray:
    """The scores of strands that are not told apart: half of the cuts are of either."""
    reach = range(-REACH, REACH + 1)
    placed = np.zeros((2, len(reach), 2 * HALF + 1, len(BASES)))
    for strand, known in enumerate(motif):
        for i, at in enumerate(reach):
            placed[strand, i, HALF + FIRST + at :][:LENGTH] = known / 2
    seen = slice(HALF + FIRST - REACH, HALF + FIRST + REACH + LENGTH)
    return np.array(
        [[_correlation(ratios[seen], (one + two)[seen]) for two in placed[1]] for one in placed[0]]
    )


def _correlation(one: np.ndarray, two: np.ndarray) -> float:
    one, two = one.ravel(), two.ravel()  # the mean of each is 0
    scale = float(np.sqrt((one @ one) * (two @ two)))
    return float(one @ two) / scale if scale else 0.0
