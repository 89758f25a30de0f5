"""What the launchers ask about the machine and the process."""

import functools
import math
import os
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

FILLING_ROWS = 128 * 1024  # positions that keep every multiprocessor busy


def constant_when_compiled(function: Callable[..., T]) -> Callable[..., T]:
    """As torch.compiler.assume_constant_result, which would import the whole compiler."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def interpreting() -> bool:
    """Whether Triton's interpreter runs the kernels, on the CPU (TRITON_INTERPRET=1)."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def portable() -> bool:
    """Whether kernels for one GPU generation alone are to be left out (CHERIMOYA_KERNELS)."""
    return os.environ.get("CHERIMOYA_KERNELS") == "portable"


@functools.cache
def multiprocessors(device: torch.device) -> int:
    """Streaming multiprocessors of the GPU; 2 in the interpreter."""
    if device.type != "cuda":
        return 2
    return torch.cuda.get_device_properties(device).multi_processor_count


@functools.cache
def capability(device: torch.device) -> tuple[int, int]:
    """NVIDIA's compute capability, (0, 0) where there is none."""
    if device.type != "cuda" or torch.version.hip:
        return (0, 0)
    return torch.cuda.get_device_capability(device)


@functools.cache
def shared_memory(device: torch.device) -> int:
    """Bytes of shared memory that one program may have."""
    if device.type != "cuda":
        return 2**31
    from triton.runtime import driver

    index = torch.cuda.current_device() if device.index is None else device.index
    return driver.active.utils.get_device_properties(index)["max_shared_mem"]


@constant_when_compiled
def total_memory(device: torch.device) -> int:
    """Bytes of memory of the GPU; none in the interpreter."""
    if device.type != "cuda":
        return 0
    return torch.cuda.get_device_properties(device).total_memory


def bind_thread(device: torch.device) -> None:
    """Let this thread's driver calls find the current GPU, as descriptors of tensors need.

    A thread of autograd whose first work is a kernel, with its memory from torch's cache, has
    called nothing before that would.
    """
    if device.type == "cuda":
        torch.cuda.is_current_stream_capturing()


def dependent_launch(device: torch.device) -> dict[str, bool]:
    """Launch options: start a kernel's set-up while the one before still runs (sm_90 and later).

    The kernels then wait before they read what may be of the kernel before, and before they write,
    see `wait_for_previous_kernel` and `ops.complete`.
    """
    return {"PDL": True, "launch_pdl": True} if capability(device)[0] >= 9 else {"PDL": False}


def fast_tanh(device: torch.device) -> bool:
    """Whether to use the GPU's tanh instruction: its relative error is that of fp16's rounding."""
    return device.type == "cuda" and not torch.version.hip


def tf32_allowed() -> bool:
    """Whether torch may use TF32 for products of fp32 matrices on a GPU."""
    matmul = torch.backends.cuda.matmul
    if hasattr(matmul, "fp32_precision"):
        return matmul.fp32_precision == "tf32"
    return matmul.allow_tf32


def full_precision(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether products of such tensors must keep all bits of fp32."""
    return dtype == torch.float32 and device.type == "cuda" and not tf32_allowed()


def operand_dtype(x: Tensor) -> torch.dtype:
    """What matrix products read: fp16 for fp32, whose 11 bits are those of TF32."""
    return torch.float16 if x.dtype == torch.float32 and x.device.type == "cuda" else x.dtype


def filling(x: Tensor, examples: int | None = None) -> Tensor:
    """Random numbers like x (N, L, C), with as many examples as fill a GPU unless given."""
    if examples is None:
        examples = -(-FILLING_ROWS // x.shape[1])
    generator = torch.Generator(x.device).manual_seed(0)  # the process's own is left alone
    size = (examples, *x.shape[1:])
    return torch.randn(size, generator=generator, device=x.device).to(x.dtype)


def length_bucket(length: int) -> int:
    """The power of two nearest to a length: what launch options are chosen for."""
    return 1 << max(0, round(math.log2(max(1, length))))


def contiguous(x: Tensor) -> Tensor:
    """x with dense rows that start at a multiple of 16 bytes, as the copy engine wants them."""
    x = x.contiguous()
    return x if x.data_ptr() % 16 == 0 else x.clone()
