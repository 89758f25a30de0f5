"""Predicted tracks around variants."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Track:
    """Expected counts around the variant in `row` of a table, with either allele.

    ref, alt: (tracks, W), the same base of the genome in the same column; at: of the first base of
    the variant
    """

    row: int
    ref: np.ndarray
    alt: np.ndarray
    at: int
