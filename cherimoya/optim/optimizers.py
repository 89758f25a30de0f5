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
    """torch.optim.AdamW, fused; without `decay_1d` biases and the like do not decay."""

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
        decay_1d: bool = True,
    ) -> None:
        kept = [p for p in params if p.ndim < 2 and not decay_1d]
        decayed = [p for p in params if p.ndim >= 2 or decay_1d]
        groups = [(decayed, weight_decay), (kept, 0.0)]
        super().__init__(
            [{"params": members, "weight_decay": decay} for members, decay in groups if members],
            lr=lr, weight_decay=weight_decay, betas=(beta1, beta2), eps=eps,
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
