"""What a bias model reads: the bases around the cuts that it predicts, beside known motifs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cherimoya.data.motif_grammar import ENZYME
from cherimoya.genome.cut_sites import HALF, LIKE, Surroundings, match

SHOWN = 14  # bases on each side of a cut that are drawn
NEAR = 1  # bases by which the strands may be off, as with a shift of +4/-5 in place of +4/-4


@dataclass(frozen=True, eq=False)
class Seen:
    """The motif around predicted cuts of one signal group.

    enzyme: whose known motif is most alike; correlation: with that, where cuts are counted;
    shift: at which it would be most alike, by strand; frequencies: (strands, 2 * SHOWN + 1, 4)
    """

    enzyme: str
    correlation: float
    shift: tuple[int, int]
    frequencies: np.ndarray

    @property
    def is_like(self) -> bool:
        """Whether the motif is seen where cuts are counted."""
        return self.correlation >= LIKE


def seen_around(profile: np.ndarray, codes: np.ndarray, simulated: bool = False) -> Seen:
    """What lies around the cuts of a predicted profile (n, strands, L), each position as often as
    it is predicted, in the sequences (n, W) in whose middle it is. Of simulated data it is compared
    with the enzyme of the simulation."""
    around = Surroundings(profile.shape[1])
    first = (codes.shape[1] - profile.shape[2]) // 2
    at = first + np.arange(profile.shape[2])
    for own, strands in zip(codes, profile, strict=True):
        for strand, weight in enumerate(strands):
            around.add(strand, own, at, weight)
    frequencies = around.frequencies()[:, HALF - SHOWN : HALF + SHOWN + 1]
    if simulated:
        return Seen("simulated", _like_simulated(around.ratios()), (0, 0), frequencies)
    found = match(around)
    near = range(-NEAR, NEAR + 1)
    score = max(found.score((plus, minus)) for plus in near for minus in near)
    return Seen(found.enzyme, score, found.shift, frequencies)


def _like_simulated(ratios: np.ndarray) -> float:
    """The correlation of log ratios (strands, 2 * HALF + 1, 4) with the simulated enzyme's."""
    before, after = len(ENZYME) // 2, len(ENZYME) - len(ENZYME) // 2 - 1
    known = ENZYME - ENZYME.mean(axis=1, keepdims=True)
    own = [ratios[0, HALF - before : HALF + after + 1]]
    if len(ratios) == 2:  # the other strand is read from its end, in complements
        own.append(ratios[1, HALF - after : HALF + before + 1][::-1, ::-1])
    return _correlation(np.concatenate(own), np.concatenate([known] * len(own)))


def _correlation(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.corrcoef(one.ravel(), two.ravel())[0, 1])


def groups_of(profile: np.ndarray, signal_groups: Sequence[int]) -> list[np.ndarray]:
    """A profile (n, tracks, L) by signal group."""
    return np.split(profile, np.cumsum(signal_groups)[:-1], axis=1)
