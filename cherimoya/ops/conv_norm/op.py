"""The dilated convolution with normalisation as one operation, with its gradients."""

from typing import Any

import torch
from torch import Tensor

from cherimoya.ops import reference
from cherimoya.ops.device import contiguous
from cherimoya.ops.dispatch import autocast_dtype, route
from cherimoya.ops.reference import EPS


@torch.library.custom_op("cherimoya::conv_norm", mutates_args=())
def conv_norm(
    x: Tensor, weight: Tensor, dilation: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """y (N, L, C), mean and 1 / std (N,) of the convolution of x (N, L, C) by weight (3, C)."""
    from cherimoya.ops.conv_norm import launch

    if not x.numel():
        return _empty(x, weight, dilation, eps)
    with torch.cuda.device_of(x):
        x, weight, dilation = launch.prepared(x, weight, dilation)
        statistics = launch.empty_statistics(x)
        parts = launch.stats(x, weight, dilation)
        y = launch.normalised(x, weight, dilation, 0, x.dtype, parts, statistics, eps)
        return y, *statistics


@conv_norm.register_fake
def _empty(x: Tensor, weight: Tensor, dilation: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    return y, x.new_empty(len(x), dtype=torch.float32), x.new_empty(len(x), dtype=torch.float32)


@torch.library.custom_op("cherimoya::conv_norm_backward", mutates_args=())
def conv_norm_backward(
    dy: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor, dilation: int
) -> tuple[Tensor, Tensor]:
    """Gradients of x (N, L, C) and of weight (3, C)."""
    from cherimoya.ops.conv_norm import launch

    if not x.numel():
        return torch.empty_like(x), torch.zeros_like(weight)
    with torch.cuda.device_of(x):
        x, taps, dilation = launch.prepared(x, weight, dilation)
        dy, statistics = contiguous(dy.to(x.dtype)), (mean, rstd)
        sums = launch.gradient_sums(x, taps, dy, statistics, dilation)
        dx, parts = launch.backward(x, taps, dy, statistics, sums, dilation)
        return dx, launch.sum_rows(parts).to(weight.dtype)


@conv_norm_backward.register_fake
def _(dy, x, weight, mean, rstd, dilation):  # type: ignore[no-untyped-def]
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    return dx, torch.empty_like(weight, memory_format=torch.contiguous_format)


class FusedDilatedConvNormFunc:
    """`fused_dilated_conv_norm` as upstream calls it, and without a look at autocast."""

    @staticmethod
    def apply(x: Tensor, weight: Tensor, dilation: int, eps: float = EPS) -> Tensor:
        """By the kernels, or by PyTorch where they do not serve x, such as on the CPU."""
        check(x, weight, dilation)
        if route(x.device, x.dtype).conv_norm:
            return conv_norm(x, weight, dilation, eps)[0]
        return reference.dilated_conv_norm(x, weight, dilation, eps)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, ctx.dilation, _ = inputs
    ctx.save_for_backward(x, weight, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, dy: Tensor | None, *_: Tensor) -> tuple[Tensor | None, ...]:
    if dy is None:
        return None, None, None, None
    return *conv_norm_backward(dy, *ctx.saved_tensors, ctx.dilation), None, None


conv_norm.register_autograd(_gradients, setup_context=_save)


def fused_dilated_conv_norm(x: Tensor, weight: Tensor, dilation: int, eps: float = EPS) -> Tensor:
    """Dilated depthwise convolution, then normalisation of each example over its (L, C) plane.

    conv[l] = w0 x[l - d] + w1 x[l] + w2 x[l + d], zero outside; y = (conv - mean) / sqrt(var + eps)
    with the biased variance, no affine part. Statistics are fp32 and hold when |mean| >> std.
    On a GPU by two kernels that read x once each; elsewhere by `reference.dilated_conv_norm`.

    Parameters
    ----------
    x : Tensor (N, L, C)
        fp32, bf16 or fp16; under autocast it is cast first.
    weight : Tensor (3, C)
    dilation : int
        Distance between the taps.
    eps : float
        Added to the variance.

    Returns
    -------
    Tensor (N, L, C), in the dtype of x

    Raises
    ------
    ValueError
        If the shapes do not fit each other or the dilation is not positive.
    """
    return FusedDilatedConvNormFunc.apply(x.to(autocast_dtype(x)), weight, dilation, eps)


def check(x: Tensor, weight: Tensor, dilation: int) -> None:
    """Refuse what no path could compute."""
    if x.dim() != 3:
        raise ValueError(f"x has shape {tuple(x.shape)}; it must be (N, L, C)")
    if weight.shape != (3, x.shape[2]):
        raise ValueError(
            f"the taps have shape {tuple(weight.shape)}; for x {tuple(x.shape)} they must be "
            f"(3, {x.shape[2]})"
        )
    if dilation < 1:
        raise ValueError(f"dilation={dilation}: must be positive")
