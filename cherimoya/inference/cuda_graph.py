"""A model's predictions as CUDA graphs: one launch for the whole network."""

from typing import Any

import torch
from torch import Tensor, nn


class CUDAGraphModel:
    """Predictions of `model`, captured once per shape of the input and replayed.

    The graphs read the weights where they are, so that weights changed in place count at once;
    parameters moved elsewhere, another precision or another shape are captured anew.
    Without a GPU, or with `capture=False`, it just calls the model. No gradients.

    Parameters
    ----------
    model : nn.Module
        Of (X, X_ctl=None), returning a tuple of tensors, such as Cherimoya.
    capture : bool
        Whether to capture at all.
    """

    def __init__(self, model: nn.Module, capture: bool = True) -> None:
        self.model, self._capture = model, capture
        self._graphs: dict[Any, _Graph] = {}

    @torch.no_grad()
    def __call__(self, X: Tensor, X_ctl: Tensor | None = None) -> tuple[Tensor, ...]:
        """The model's outputs for X and X_ctl, in memory of their own."""
        if X.device.type != "cuda" or not self._capture:
            return self.model(X, X_ctl)
        key = (
            *((None if t is None else (t.shape, t.dtype, t.device)) for t in (X, X_ctl)),
            torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda"),
            torch.get_float32_matmul_precision(),
            *(parameter.data_ptr() for parameter in self.model.parameters()),
        )
        if key not in self._graphs:
            self._graphs[key] = _Graph(self.model, X, X_ctl)
        return self._graphs[key](X, X_ctl)


class _Graph:
    """One captured forward, with the buffers that it reads and writes."""

    def __init__(self, model: nn.Module, X: Tensor, X_ctl: Tensor | None) -> None:
        self.inputs = [None if t is None else t.clone() for t in (X, X_ctl)]
        cache = torch.is_autocast_cache_enabled()
        torch.set_autocast_cache_enabled(False)  # its copies of weights die with the autocast
        try:
            self._capture(model)
        finally:
            torch.set_autocast_cache_enabled(cache)

    def _capture(self, model: nn.Module) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # compiles and chooses launch options
            model(*self.inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.outputs = model(*self.inputs)

    def __call__(self, *inputs: Tensor | None) -> tuple[Tensor, ...]:
        for buffer, given in zip(self.inputs, inputs, strict=True):
            if buffer is not None and given is not None:
                buffer.copy_(given)
        self.graph.replay()
        return tuple(output.clone() for output in self.outputs)
