"""The exponential moving average of the parameters."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from cherimoya.ops.update.op import Average


def ema_decay(steps: np.ndarray, decay: float, warmup: bool) -> np.ndarray:
    """The decay at `steps`, counted from 0: min(decay, (1 + t) / (10 + t)) with `warmup`."""
    return np.minimum(decay, (1 + steps) / (10 + steps) if warmup else np.ones(steps.shape))


class EMA:
    """A running average of named parameters, updated after every step."""

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        named = dict(parameters)
        self._names = [*named]
        self._source: list[Tensor] = [*named.values()]
        self.average = [p.detach().clone() for p in self._source]
        self._mover = Average(self.average, self._source)

    @torch.no_grad()
    def update(self, decay: Tensor, found_inf: Tensor) -> None:
        """Move the average towards the parameters as they are now: 1 - `decay` () of the way.

        Where `found_inf` () is 1 it stays.
        """
        self._mover.move(decay, found_inf)

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

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by parameter name."""
        return dict(zip(self._names, self.average, strict=True))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        for name, average in zip(self._names, self.average, strict=True):
            average.copy_(state[name])
