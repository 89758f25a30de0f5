"""Which implementation runs an operation, and why."""

import functools
import importlib.util
import os

import torch
from torch import Tensor

from cherimoya.errors import ConfigError
from cherimoya.ops.gpu import interpreting
from cherimoya.progress import say

CHOICES = ("reference", "triton", "portable")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def use_kernels(x: Tensor) -> bool:
    """Whether the Triton kernels serve x (N, L, C), else the reference; says once why not.

    CHERIMOYA_KERNELS=reference or triton forces one of them; portable is triton without the
    kernels that only one generation of GPUs can run. On the CPU, TRITON_INTERPRET=1 runs the
    kernels in Triton's interpreter.

    Raises
    ------
    ConfigError
        If CHERIMOYA_KERNELS has another value, or asks for kernels that cannot run.
    """
    choice = os.environ.get("CHERIMOYA_KERNELS", "")
    if choice and choice not in CHOICES:
        raise ConfigError(
            f"CHERIMOYA_KERNELS={choice} is not one of {', '.join(CHOICES)}. Unset it to choose "
            "by device."
        )
    if choice == "reference":
        return False
    obstacle = _obstacle(x.device.type, x.dtype, importlib.util.find_spec("triton") is not None)
    if obstacle and choice:
        raise ConfigError(
            f"CHERIMOYA_KERNELS={choice}, but {obstacle}. Unset it, or set it to reference."
        )
    if obstacle and x.device.type == "cuda":
        _say_once(f"PyTorch instead of the fused kernels: {obstacle}")
    return not obstacle


def _obstacle(device: str, dtype: torch.dtype, triton: bool) -> str | None:
    """Why the kernels cannot take such a tensor."""
    if not triton:
        return "Triton is not installed (pip install triton)"
    if device != "cuda" and not interpreting():
        return f"the tensors are on the {device}, without Triton's interpreter (TRITON_INTERPRET=1)"
    if dtype not in DTYPES:
        return f"{str(dtype).removeprefix('torch.')} is not one of fp32, bf16 and fp16"
    if device == "cuda" and not torch.version.hip and torch.cuda.get_device_capability() < (7, 5):
        return "the GPU is older than compute capability 7.5"
    return None


@functools.cache
def _say_once(line: str) -> None:
    say(line)


def autocast(x: Tensor) -> Tensor:
    """x in the dtype of the surrounding torch.autocast, if there is one."""
    device = x.device.type
    if torch.is_autocast_enabled(device) and x.dtype in DTYPES:
        return x.to(torch.get_autocast_dtype(device))
    return x
