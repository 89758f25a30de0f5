"""Which base's effect depends on which: every pair of single-base changes of a locus."""

import numpy as np
import torch
from torch import Tensor

from cherimoya.genome.sequence import BASES
from cherimoya.interpret.mutagenesis import Mutagenesis, centred
from cherimoya.util import console


def dependency_maps(
    engine: Mutagenesis, codes: Tensor, positions: range, controls: Tensor | None
) -> np.ndarray:
    """Effects of single changes, and how much each depends on another base.

    Parameters
    ----------
    engine : Mutagenesis
        Of the model and the T targets.
    codes : Tensor (n, L)
        On the engine's device.
    positions : range
        The W positions that are changed.
    controls : Tensor (n, tracks, L), optional
        For models with control tracks.

    Returns
    -------
    ndarray (T, n, 4 + W, W) float32
        First the effects of each base at each position, less their mean over the bases, then
        at (i, j) the largest change, over the changes at i and the bases at j, of what a base at j
        does when the base at i is another one: |f(i, j) - f(i) - f(j) + f|, with f the target of
        the sequence with the changes in brackets; 0 where i = j. As the nucleotide dependencies of
        Tomaz da Silva et al. 2025, of a target in place of a language model's probabilities.
    """
    own, width = engine(codes, positions, controls), len(positions)  # (T, n, 4, W)
    maps = own.new_zeros(*own.shape[:2], width, width)
    for i in console.track(range(width), "dependency", width, "base"):
        at = positions.start + i
        for shift in range(1, len(BASES)):
            changed = codes.clone()
            changed[:, at] = (codes[:, at] + shift) % len(BASES)  # of an N three of the four bases
            other = engine(changed, positions, controls)
            largest = (other - own).abs().amax(dim=2)  # over the bases at j
            maps[:, :, i] = torch.maximum(maps[:, :, i], largest)
        maps[:, :, i, i] = 0
    return np.concatenate([centred(own.cpu().numpy()), maps.cpu().numpy()], axis=2)
