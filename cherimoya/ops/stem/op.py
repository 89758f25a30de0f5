"""The stem as one operation, with its gradients: a convolution of the sequence, then GELU(tanh)."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from cherimoya.ops import reference
from cherimoya.ops.complete import is_complete
from cherimoya.ops.device import (
    capability,
    dependent_launch,
    fast_tanh,
    full_precision,
    interpreting,
    multiprocessors,
)
from cherimoya.ops.dispatch import autocast_dtype, route, wants_gradient

WIDEST = 256  # channels; a convolution of more is PyTorch's
SLICE = 128  # channels of one launch, whose sums a program can hold
MANY = 96  # channels; of more, a program needs more registers
FORWARD = {"BM": 64, "num_warps": 4}


@torch.library.custom_op("cherimoya::stem", mutates_args=())
def fused_stem(
    X: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype, taken: int = 0
) -> Tensor:
    """gelu_tanh(conv1d(X)), (N, L, C) in `dtype`, for X (N, 4, L) and weight (C, 4, K).

    taken: of `stem_backward`.
    """
    import triton

    from cherimoya.ops.stem import kernels

    out = _empty(X, weight, bias, dtype)
    if not out.numel():
        return out
    n, length, _ = out.shape
    tiles = triton.cdiv(length, FORWARD["BM"])
    full = full_precision(X.device, dtype)
    programs = min(n * tiles, _resident(weight, dtype, full) * multiprocessors(X.device))
    parameters = weight.float().contiguous(), bias.float().contiguous()
    with torch.cuda.device_of(X):
        for sizes in _slices(weight, dtype, MANY if full else SLICE):
            kernels.stem_fwd_kernel[(programs,)](
                X, *parameters, out, length, tiles, n * tiles, *X.stride(),
                **sizes, **FORWARD, FAST=fast_tanh(X.device) and not full, FULL=full,
                **dependent_launch(X.device),
            )  # fmt: skip
    return out


@fused_stem.register_fake
def _empty(X: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype, taken: int = 0) -> Tensor:
    return X.new_empty(X.shape[0], X.shape[2], weight.shape[0], dtype=dtype)


@torch.library.custom_op("cherimoya::stem_backward", mutates_args=())
def stem_backward(
    dout: Tensor, X: Tensor, weight: Tensor, bias: Tensor, taken: int = 0
) -> tuple[Tensor, Tensor]:
    """Gradients of weight (C, 4, K) and bias (C,), from that of the output (N, L, C).

    taken: multiprocessors that something else keeps busy meanwhile.
    """
    import triton

    from cherimoya.ops.stem import kernels

    n, length, channels = dout.shape
    if not dout.numel():
        return weight.new_zeros(weight.shape), bias.new_zeros(channels)
    options, resident = _backward_options(X.device, dout.dtype, channels)
    tiles = triton.cdiv(length, options["BM"])
    parts = min(n * tiles, resident * max(1, multiprocessors(X.device) - taken))
    size = weight.numel() + channels
    part_dw = X.new_empty(parts, size, dtype=torch.float32)
    dweight = weight.new_empty(weight.shape, dtype=torch.float32)
    dbias = bias.new_empty(channels, dtype=torch.float32)
    parameters = weight.float().contiguous(), bias.float().contiguous()
    copied = parameters[0] is not weight or parameters[1] is not bias or not dout.is_contiguous()
    complete = is_complete(dout) and not copied
    dout = dout.contiguous()
    single = dout.dtype == torch.float32 and capability(X.device)[0] < 9
    with torch.cuda.device_of(X):
        for sizes in _slices(weight, dout.dtype, MANY if single else SLICE):
            kernels.stem_bwd_kernel[(parts,)](
                X, *parameters, dout, part_dw, length, tiles, n * tiles, *X.stride(),
                **sizes, **options, FAST=fast_tanh(X.device),
                EARLY=complete, **dependent_launch(X.device),
            )  # fmt: skip
        block = 1024 if interpreting() else 32  # the interpreter likes few programs
        kernels.stem_reduce_kernel[(triton.cdiv(size, block),)](
            part_dw, dweight, dbias, parts, C=channels, K=weight.shape[2], BLOCK=block, DEPTH=128,
            num_warps=4, **dependent_launch(X.device),
        )  # fmt: skip
    return dweight.to(weight.dtype), dbias.to(bias.dtype)


@stem_backward.register_fake
def _(dout, X, weight, bias, taken=0):  # type: ignore[no-untyped-def]
    return weight.new_empty(weight.shape), bias.new_empty(bias.shape)


def _resident(weight: Tensor, dtype: torch.dtype, full: bool) -> int:
    """Programs of the forward that a multiprocessor holds."""
    if full:
        return 2
    return 4 - (len(weight) > MANY) - (dtype == torch.float32)


def _backward_options(
    device: torch.device, dtype: torch.dtype, channels: int
) -> tuple[dict[str, int], int]:
    """Launch options of the backward, and how many programs a multiprocessor holds."""
    if channels <= MANY:
        return {"BM": 64, "num_warps": 4}, 2
    many_rows = dtype.itemsize == 2 and capability(device)[0] >= 9
    return {"BM": 128 if many_rows else 64, "num_warps": 8}, 1


def _slices(weight: Tensor, dtype: torch.dtype, width: int) -> Iterator[dict[str, int]]:
    """The kernels' constants of each launch of up to `width` channels for weight (C, 4, K).

    The backward's windows have one column more than 4 K, of ones. From sm_90 on, products have 64
    rows or more, which are columns of the windows in the backward.
    """
    from cherimoya.ops.block.weights import column_widths

    channels, bases, taps = weight.shape
    ka, kb = column_widths(bases * taps + 1)
    if 0 < kb < 64 and dtype.itemsize == 2 and capability(weight.device)[0] >= 9:
        ka, kb = 2 * ka, 0
    for first in range(0, channels, width):
        ca, cb = column_widths(min(width, channels - first))
        yield {
            "C": channels, "K": taps, "FIRST": first, "CA": ca, "CB": cb, "KA": ka, "KB": kb,
        }  # fmt: skip


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.taken = inputs[4]
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, dout: Tensor | None) -> tuple[Tensor | None, ...]:
    if dout is None:
        return None, None, None, None, None
    return None, *stem_backward(dout, *ctx.saved_tensors, ctx.taken), None, None


fused_stem.register_autograd(_gradients, setup_context=_save)


def stem(X: Tensor, weight: Tensor, bias: Tensor, taken: int = 0) -> Tensor:
    """gelu_tanh(conv1d(X, weight, bias, padding=K // 2)), channels last.

    On a GPU by fused kernels that never store the windows of X, forward and backward; elsewhere,
    and where X wants a gradient, by `reference.stem`. fp32 is multiplied as TF32, if torch may;
    else in full, by the kernels only where no gradient is wanted.

    Parameters
    ----------
    X : Tensor (N, 4, L)
        One-hot sequence, or any numbers; fp32, bf16 or fp16.
    weight : Tensor (C, 4, K)
        K is odd.
    bias : Tensor (C,)
    taken : int
        Of the GPU's multiprocessors, as many are something else's during the backward.

    Returns
    -------
    Tensor (N, L, C), contiguous, in the dtype of the surrounding torch.autocast, else of X

    Raises
    ------
    ValueError
        If the shapes do not fit each other or K is even.
    """
    if X.dim() != 3 or X.shape[1] != 4:
        raise ValueError(f"X has shape {tuple(X.shape)}; it must be (N, 4, L)")
    if weight.dim() != 3 or weight.shape[1] != 4 or weight.shape[2] % 2 == 0:
        raise ValueError(
            f"the weight has shape {tuple(weight.shape)}; it must be (C, 4, K) with K odd"
        )
    if bias.shape != weight.shape[:1]:
        raise ValueError(
            f"the bias has shape {tuple(bias.shape)}; for a weight {tuple(weight.shape)} it must "
            f"be ({weight.shape[0]},)"
        )
    dtype = autocast_dtype(X)  # the kernels read X as it is
    fits = weight.shape[0] <= WIDEST and not wants_gradient(X)
    if fits and route(X.device, dtype).whole(weight, bias):
        return fused_stem(X, weight, bias, dtype, taken)
    return reference.stem(X, weight, bias)
