"""The optimizers that a name chooses, each called with its parameters and its settings.

One with `on_device` can be part of a captured step: `lr` may be a tensor (), and a step leaves
everything as it is while the attribute `found_inf` is a tensor () of 1, as torch's fused ones do.
Any other one is given a number for `lr`, and is not called for a step that is to change nothing;
for that each step waits for the device, and none is captured.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cherimoya.config import options
from cherimoya.optim.muon import Muon

__all__ = ["SGD", "AdamW", "Muon"]


class AdamW(torch.optim.AdamW):
    """torch.optim.AdamW, fused."""

    Settings = options.AdamW
    on_device = True

    def __init__(
        self,
        params: Sequence[Tensor],
        lr: float,
        weight_decay: float,
        beta1: float,
        beta2: float,
        eps: float,
    ) -> None:
        super().__init__(
            params, lr=lr, weight_decay=weight_decay, betas=(beta1, beta2), eps=eps,
            fused=True, capturable=params[0].is_cuda,
        )  # fmt: skip


class SGD(torch.optim.SGD):
    """torch.optim.SGD with momentum, fused."""

    Settings = options.SGD
    on_device = True

    def __init__(self, params: Sequence[Tensor], lr: float, momentum: float) -> None:
        super().__init__(params, lr=lr, momentum=momentum, fused=True)
        for p in params:  # which the first step would make, but not while it is captured
            self.state[p]["momentum_buffer"] = torch.zeros_like(p)
