"""A model that knows one motif alone, so that what a design must hold is known."""

import torch
from torch import Tensor, nn

from cherimoya.genome.sequence import encode, one_hot, reverse_complement

MOTIF = "TCAGTTCG"
SHARP = 4.0  # how much more one base counts than the next best stretch


class Planted(nn.Module):
    """Log counts of group 0: about the most bases of MOTIF that any stretch of either strand has;
    group 1: as many as the sequence has G, tenths. Profiles are flat."""

    signal_groups = (1, 1)
    n_control_tracks = 0

    def __init__(self) -> None:
        super().__init__()
        codes = encode(MOTIF)
        kernels = torch.cat([one_hot(c[None]) for c in (codes, reverse_complement(codes))])
        self.kernels = nn.Parameter(kernels)

    def forward(self, X: Tensor, X_ctl: Tensor | None = None) -> tuple[Tensor, Tensor]:
        score = nn.functional.conv1d(X, self.kernels).flatten(1)
        counts = torch.stack([(SHARP * score).logsumexp(1) / SHARP, 0.1 * X[:, 2].sum(1)], 1)
        return X.new_zeros(len(X), 2, X.shape[2] - 20), counts
