"""Which implementation runs an operation, and why."""

import functools
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import forward_ad

from cherimoya.errors import ConfigError
from cherimoya.ops.device import capability, constant_when_compiled, full_precision, interpreting
from cherimoya.util.console import say_once

CHOICE = "CHERIMOYA_KERNELS"  # in the environment
CHOICES = ("reference", "triton", "portable")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Route:
    """Where kernels run, else PyTorch."""

    conv_norm: bool  # the convolution with normalisation
    block: bool  # whole blocks, the stem and the heads
    inference: bool  # whole blocks, and the stem and the heads where no gradients are wanted
    why: str  # for people, in a few words

    def whole(self, *inputs: Tensor) -> bool:
        """Whether they run the stem and the heads of these inputs."""
        return self.block or (self.inference and not wants_gradient(*inputs))


def route(device: torch.device, dtype: torch.dtype) -> Route:
    """Which implementation serves tensors of this dtype on this device, and why.

    CHERIMOYA_KERNELS=reference or triton forces one of them; portable is triton without the
    kernels that only one generation of GPUs can run. On the CPU, TRITON_INTERPRET=1 runs the
    kernels in Triton's interpreter.

    Raises
    ------
    ConfigError
        If CHERIMOYA_KERNELS has another value, or asks for kernels that cannot run.
    """
    if forward_ad._current_level >= 0:
        return Route(False, False, False, "PyTorch, for derivatives in forward mode")
    kernels, why = _decide(device, dtype)
    whole = kernels == "whole"
    return Route(kernels != "none", whole, whole or kernels == "inference", why)


@contextmanager
def plain_pytorch() -> Iterator[None]:
    """Where PyTorch's own operations run in place of kernels, whatever CHERIMOYA_KERNELS says."""
    before = os.environ.get(CHOICE)
    os.environ[CHOICE] = "reference"
    try:
        yield
    finally:
        if before is None:
            del os.environ[CHOICE]
        else:
            os.environ[CHOICE] = before


@constant_when_compiled  # it asks for much that a compiler cannot follow
def _decide(device: torch.device, dtype: torch.dtype) -> tuple[str, str]:
    """What kernels run: none, conv_norm, inference of all besides, or the whole; and why."""
    choice = os.environ.get(CHOICE, "")
    if choice and choice not in CHOICES:
        raise ConfigError(
            f"CHERIMOYA_KERNELS={choice} is not one of {', '.join(CHOICES)}. Unset it to choose "
            "by device."
        )
    if choice == "reference":
        return "none", "PyTorch (CHERIMOYA_KERNELS=reference)"
    obstacle = _obstacle(device, dtype)
    if obstacle and choice:
        raise ConfigError(
            f"CHERIMOYA_KERNELS={choice}, but {obstacle}. Unset it, or set it to reference."
        )
    if obstacle:
        if device.type == "cuda":
            say_once(f"PyTorch instead of the fused kernels: {obstacle}")
            return "none", f"PyTorch: {obstacle}"
        return "none", f"PyTorch, on the {device.type.upper()}"
    if full_precision(device, dtype):
        if torch.version.hip:
            return (
                "conv_norm",
                "fused convolution and normalisation, products in full fp32 by cuBLAS",
            )
        return "inference", "fused blocks in full fp32"
    forced = f" (CHERIMOYA_KERNELS={choice})" if choice else ""
    return "whole", f"fused blocks in {_name(dtype)}{forced}"


def _obstacle(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the kernels cannot take such tensors."""
    if device.type != "cuda" and not interpreting():
        name = device.type.upper()
        return f"the {name} runs kernels only in Triton's interpreter (TRITON_INTERPRET=1)"
    if not _triton_is_installed():
        return "Triton is not installed (pip install triton)"
    if dtype not in DTYPES:
        return f"{_name(dtype)} is not one of fp32, bf16 and fp16"
    if device.type == "cuda" and not torch.version.hip and capability(device) < (8, 0):
        return "the GPU is older than compute capability 8.0"
    return None


@functools.cache
def _triton_is_installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def wants_gradient(*inputs: Tensor) -> bool:
    """Whether autograd follows an operation on these."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in inputs)


def autocast_dtype(x: Tensor) -> torch.dtype:
    """The dtype of the surrounding torch.autocast, if there is one for x; else that of x."""
    device = x.device.type
    if torch.is_autocast_enabled(device) and x.dtype in DTYPES:
        return torch.get_autocast_dtype(device)
    return x.dtype
