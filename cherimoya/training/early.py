"""An optimizer's step before the end of the backward: Muon's of the blocks beside the stem's."""

import weakref
from collections.abc import Mapping
from typing import Any

import torch

from cherimoya.network import Cherimoya
from cherimoya.ops.device import multiprocessors

SHARE = 4  # of the GPU, one part in so many at most is taken from the stem's backward


class EarlyStep:
    """Makes `optimizer`'s step within the backward, as soon as all its gradients are there.

    What is left of the backward must not read its parameters any more.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._missing = 0
        # Python does not see that a parameter's hooks are held by its optimizer in turn.
        itself = weakref.ref(self)
        for parameter in self._parameters:
            parameter.register_post_accumulate_grad_hook(lambda _: _arrived(itself()))

    def begin(self, last: bool = True) -> None:
        """Expect the gradients, if the backward that comes next is the `last` of a batch."""
        self._missing = len(self._parameters) if last else 0

    def arrived(self) -> None:
        """One more gradient is there."""
        if self._missing:
            self._missing -= 1
            if not self._missing:
                self.optimizer.step()

    def end(self) -> None:
        """Make the step after the backward, if a gradient did not come."""
        if self._missing:
            self._missing = 0
            self.optimizer.step()


def _arrived(early: EarlyStep | None) -> None:
    if early is not None:
        early.arrived()


def beside_the_stem(
    model: Cherimoya, optimizers: Mapping[str, Any], routes: Mapping[str, list[str]]
) -> EarlyStep | None:
    """The optimizer of the blocks' matrices, if its step and the stem's backward fit a GPU at once.

    The stem's backward, which is the last, then leaves it the multiprocessors that it needs. The
    blocks' own must be over by then, as those of Cheri Blocks are.
    """
    device = model.lw0.device
    if device.type != "cuda":
        return None
    most = multiprocessors(device) // SHARE
    for name, optimizer in optimizers.items():
        needs = getattr(optimizer, "multiprocessors", 0)
        if 0 < needs <= most and all(n.startswith("blocks.") for n in routes[name]):
            model.multiprocessors_taken = needs
            return EarlyStep(optimizer)
    return None
