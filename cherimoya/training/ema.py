"""The exponential moving average of the parameters."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """A running average of a model's parameters, updated after every step.

    The decay is min(decay, (1 + t) / (10 + t)) at step t with `warmup`, else constant.
    """

    def __init__(self, model: nn.Module, decay: float, warmup: bool) -> None:
        self.decay = decay
        self.warmup = warmup
        self.step = 0
        self._names = [name for name, _ in model.named_parameters()]
        self._source: list[Tensor] = list(model.parameters())
        self.average = [p.detach().clone() for p in self._source]

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the parameters as they are now."""
        decay = self.decay
        if self.warmup:
            decay = min(decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.average, self._source, 1 - decay)
        self.step += 1

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """The model holds the average inside the block, and its own parameters after it."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for parameter, average in zip(self._source, self.average, strict=True):
            parameter.data, average.data = average.data, parameter.data

    def state_dict(self) -> dict[str, object]:
        """The averages by parameter name, and the number of updates."""
        return {"step": self.step, "average": dict(zip(self._names, self.average, strict=True))}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Restore what `state_dict` returned."""
        averages: dict[str, Tensor] = state["average"]  # type: ignore[assignment]
        for name, average in zip(self._names, self.average, strict=True):
            average.copy_(averages[name])
        self.step = int(state["step"])  # type: ignore[call-overload]
