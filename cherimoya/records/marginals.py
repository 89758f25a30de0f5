"""What cherimoya-marginalize measured."""

from dataclasses import dataclass, field

import numpy as np

from cherimoya.genome.motif import Motif

STATISTICS = ("log2_fold_change", "log2_fold_change_sd", "fraction_up", "jsd", "jsd_sd")
PAIRED = ("difference", "difference_se")  # of log2 fold changes, from the motif `against`


@dataclass(frozen=True, eq=False)
class Marginals:
    """Effects of motifs: (m, G) each of STATISTICS over the backgrounds, and of PAIRED where they
    were set against one motif, by name; and (m,) each what a contrast of two groups has."""

    motifs: list[Motif]
    values: dict[str, np.ndarray]
    backgrounds: int
    contrast: dict[str, np.ndarray] = field(default_factory=dict)
