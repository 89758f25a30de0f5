"""Native PyTorch, float64, and the comparison that comes before any time.

The reference is loaded by its path, so that the process of upstream's package, which has our
name, can compare with it too.
"""

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from cases import RESIDUAL_SCALE, Case
from timing import Build, Forward, in_one_line, make_inputs, make_weights
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]

# Relative RMS error: (dtype, TF32 allowed) -> limit; half precision also against native's own.
LIMITS = {
    ("fp32", False): 1e-5,
    ("fp32", True): 1e-3,
    ("bf16", False): 1e-2,
    ("fp16", False): 1e-2,
}
NATIVE_FACTOR, NATIVE_SLACK = 1.5, 1e-5


def load_reference() -> ModuleType:
    """cherimoya/ops/reference.py, without the package around it."""
    name = "cherimoya_reference"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "cherimoya/ops/reference.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


def native(case: Case, weights: list[Tensor]) -> tuple[Forward, list[Tensor]]:
    """Plain PyTorch; the weights of the products are cast to the dtype of x, as by autocast."""
    reference = load_reference()

    def forward(x: Tensor) -> Tensor:
        if case.work == "conv_norm":
            return reference.dilated_conv_norm(x, weights[0], case.d)
        for i, dilation in enumerate(case.dilations):
            conv, up, down = weights[3 * i : 3 * i + 3]
            up, down = up.to(x.dtype), down.to(x.dtype)
            x = reference.cheri_block_composed(x, conv, up, down, dilation, RESIDUAL_SCALE)
        return x

    return forward, weights


def compiled(case: Case, weights: list[Tensor]) -> tuple[Forward, list[Tensor]]:
    """`native` through torch.compile."""
    torch.compiler.reset()  # or recompiling stops after a few shapes
    forward, _ = native(case, weights)
    return torch.compile(forward, dynamic=False), weights


def errors(build: Build, case: Case, device: torch.device, tf32: bool) -> dict[str, float]:
    """Relative RMS error of both outputs and of every gradient against float64."""
    torch.backends.cuda.matmul.allow_tf32 = tf32
    weights = make_weights(case, device)
    ((x, dout),) = make_inputs(case, device, 1)
    exact_weights = [weight.detach().double().requires_grad_() for weight in weights]
    exact_x = x.detach().double().requires_grad_()
    exact = _results(*native(case, exact_weights), exact_x, dout.double())
    found = _results(*build(case, weights), x, dout)
    return {name: _relative_rms(found[name], value) for name, value in exact.items()}


def _results(
    forward: Forward, parameters: list[Tensor], x: Tensor, dout: Tensor
) -> dict[str, Tensor]:
    with torch.no_grad():
        inference = forward(x)
    out = forward(x)
    dx, *dparameters = torch.autograd.grad(out, [x, *parameters], dout)
    parts = ("conv", "linear1", "linear2")
    gradients = {f"d {parts[i % 3]} {i // 3}": value for i, value in enumerate(dparameters)}
    return {"inference": inference, "out": out.detach(), "dx": dx, **gradients}


def _relative_rms(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


@dataclass(frozen=True)
class Verdict:
    """Of one contender on one work, dtype and TF32 setting."""

    case: Case
    tf32: bool
    worst: float
    native: float
    broken: tuple[str, ...]  # what missed its limit

    def __str__(self) -> str:
        precision = f"{self.case.dtype}{' tf32' if self.tf32 else ''}"
        numbers = f"worst {self.worst:.1e} (native {self.native:.1e})"
        end = f"FAILED: {'; '.join(self.broken)}" if self.broken else "ok"
        return f"parity {self.case.work:9} {precision:9} {numbers}  {end}"


def judge(ours: Build, case: Case, device: torch.device, tf32: bool) -> Verdict:
    """Ours against the limits, and against native's own error in half precision."""
    native_errors = errors(native, case, device, tf32)
    limit = LIMITS[case.dtype, tf32]
    worst_native = max(native_errors.values())
    try:
        our_errors = errors(ours, case, device, tf32)
    except Exception as error:  # whatever a kernel raises, the other works are still judged
        broken = (in_one_line(error),)
        return Verdict(case, tf32, float("nan"), worst_native, broken)
    broken = []
    for name, value in our_errors.items():
        bound = limit
        if case.dtype != "fp32":
            bound = min(limit, NATIVE_FACTOR * native_errors[name] + NATIVE_SLACK)
        if not value <= bound:  # a NaN fails
            broken.append(f"{name} {value:.1e} > {bound:.1e}")
    return Verdict(case, tf32, max(our_errors.values()), worst_native, tuple(broken))
