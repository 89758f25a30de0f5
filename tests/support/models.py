"""Small untrained networks and sequences for them."""

import numpy as np
import torch

from cherimoya import Cherimoya

GROUPS = [1, 2]


def model(seed: int = 0, controls: int = 0, groups=GROUPS) -> Cherimoya:
    torch.manual_seed(seed)
    made = Cherimoya(8, 3, signal_groups=groups, n_control_tracks=controls, trimming=20)
    for p in made.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return made.eval()


def sequences(n: int = 3, length: int = 100, seed: int = 0) -> torch.Tensor:
    codes = torch.from_numpy(np.random.default_rng(seed).integers(0, 4, (n, length)))
    return torch.nn.functional.one_hot(codes, 4).transpose(1, 2).float().contiguous()
