"""Upstream's operation and blocks, timed in a process of its own."""

import sys
from pathlib import Path

import torch
from cases import RESIDUAL_SCALE, Case
from timing import Forward, Result, autocast, free_memory, measure
from torch import Tensor

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))

from upstream_process import Answer, UpstreamProcess, import_upstream, serve  # noqa: E402

CASE_SECONDS = 120.0


class Upstream(UpstreamProcess):
    """Upstream's side of the comparison."""

    def __init__(self, folder: Path, device: str) -> None:
        super().__init__(Path(__file__).resolve(), folder, device)

    def measure(self, case: Case, seconds: float) -> Result:
        """As `timing.measure`. Raises RuntimeError when it fails or takes too long."""
        return Result(**self.ask(case.as_dict(), min(seconds, CASE_SECONDS)))


def _build(case: Case, weights: list[Tensor]) -> tuple[Forward, list[Tensor]]:
    """Upstream's operation, or its blocks with our weights, under autocast in half precision."""
    from cherimoya.cheri import CheriBlock, fused_dilated_conv_norm

    blocks, parameters = [], weights
    if case.work != "conv_norm":
        blocks = [CheriBlock(case.C, d, residual_scale=RESIDUAL_SCALE) for d in case.dilations]
        blocks = [block.to(weights[0].device) for block in blocks]
        layers = [(b.conv.conv_weight, b.linear1.weight, b.linear2.weight) for b in blocks]
        parameters = [parameter for layer in layers for parameter in layer]
        for parameter, weight in zip(parameters, weights, strict=True):
            parameter.data.copy_(weight.data)

    def forward(x: Tensor) -> Tensor:
        with autocast(x):
            if case.work == "conv_norm":
                return fused_dilated_conv_norm(x, weights[0], case.d).to(x.dtype)
            out = x
            for block in blocks:
                out = block(out)
        return out.to(x.dtype)

    return forward, parameters


def _serve(folder: Path, device: torch.device) -> None:
    version = import_upstream(folder, "cheri")

    def handle(request: Answer) -> Answer:
        try:
            return measure(_build, Case(**request), device).as_dict()
        finally:
            free_memory(device)

    serve({"version": version}, handle)


if __name__ == "__main__":
    _serve(Path(sys.argv[2]).resolve(), torch.device(sys.argv[3]))
