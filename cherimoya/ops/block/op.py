"""The whole Cheri Block as one operation, with its gradients."""

import math
from typing import Any

import torch
from torch import Tensor

from cherimoya.ops import reference
from cherimoya.ops.block.sizes import is_joint, widest_full_fp32
from cherimoya.ops.complete import forget, is_complete
from cherimoya.ops.conv_norm.op import check, fused_dilated_conv_norm
from cherimoya.ops.device import contiguous, operand_dtype, total_memory
from cherimoya.ops.dispatch import autocast_dtype, route, wants_gradient
from cherimoya.ops.reference import EPS

# xhat is kept for the backward, one tensor a block, unless it is larger than this part of the
# GPU's memory: recomputing it takes a launch.
KEPT_SHARE = 1 / 64


@torch.library.custom_op("cherimoya::cheri_block", mutates_args=())
def fused_block(
    x: Tensor,
    conv_weight: Tensor,
    linear1_weight: Tensor,
    linear2_weight: Tensor,
    dilation: int,
    residual_scale: float,
    eps: float,
    trim: int,
    keep: bool,
    joint: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The block's output (N, L - 2 trim, C), and what its backward needs besides x and the taps.

    That is mean and 1 / std (N,), xhat like the output (of no elements unless `keep`), and the
    tables. joint: of the backward, an argument here since torch.compile's caches go by these.
    """
    from cherimoya.ops.block import launch
    from cherimoya.ops.block.weights import Tables
    from cherimoya.ops.conv_norm import launch as conv

    weights = (conv_weight, linear1_weight, linear2_weight)
    if not x.numel() or x.shape[1] == 2 * trim:
        return _empty(x, *weights, dilation, residual_scale, eps, trim, keep, joint)
    with torch.cuda.device_of(x):
        x, taps, d = conv.prepared(x, conv_weight, dilation)
        w1, w2 = contiguous(linear1_weight), contiguous(linear2_weight)
        statistics = conv.empty_statistics(x)
        hopper = launch.hopper_launches(x, len(w1))
        tables = Tables.empty(x, w1, residual_scale, half=hopper is not None)
        forget()
        parts = launch.stats_and_tables(x, taps, w1, w2, d, tables)
        if hopper:
            out, xhat = hopper.forward(x, taps, tables, parts, statistics, d, trim, eps, keep)
        else:
            xhat = conv.normalised(x, taps, d, trim, operand_dtype(x), parts, statistics, eps)
            out = launch.products(xhat, x, tables, trim)
    return out, *statistics, xhat if keep else x.new_empty(0), tables.up, tables.down


@fused_block.register_fake
def _empty(
    x: Tensor, conv_weight: Tensor, linear1_weight: Tensor, linear2_weight: Tensor,
    dilation: int, residual_scale: float, eps: float, trim: int, keep: bool, joint: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    from cherimoya.ops.block.weights import Tables

    n, length, channels = x.shape
    out = x.new_empty(n, length - 2 * trim, channels)
    xhat = torch.empty_like(out, dtype=operand_dtype(x)) if keep else x.new_empty(0)
    tables = Tables.empty(x, linear1_weight, residual_scale)
    mean, rstd = (x.new_empty(n, dtype=torch.float32) for _ in range(2))
    return out, mean, rstd, xhat, tables.up, tables.down


@torch.library.custom_op("cherimoya::cheri_block_backward_products", mutates_args=())
def backward_products(
    dout: Tensor,
    x: Tensor,
    conv_weight: Tensor,
    mean: Tensor,
    rstd: Tensor,
    xhat: Tensor,
    up: Tensor,
    down: Tensor,
    hidden: int,
    dilation: int,
    residual_scale: float,
    trim: int,
    joint: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The part of the backward that reads xhat, which may have no elements.

    Returns g = d xhat (N, window, C), its sums by tiles (N, sums) and those of g * xhat, and the
    gradients of the tables in parts (2, parts, HP, CA + CB). Tables of both halves: in full fp32.
    joint: in one kernel, see `sizes.is_joint`.
    """
    from cherimoya.ops.block import fp32_launch, launch
    from cherimoya.ops.block.weights import OutputGradient, Tables
    from cherimoya.ops.conv_norm import launch as conv

    if not dout.numel():
        tensors = (dout, x, conv_weight, mean, rstd, xhat, up, down)
        return _empty_products(*tensors, hidden, dilation, residual_scale, trim, joint)
    with torch.cuda.device_of(x):
        x, taps, d = conv.prepared(x, conv_weight, dilation)
        statistics, full = (mean, rstd), up.dim() == 3
        dout = contiguous(dout.to(x.dtype))
        complete = is_complete(dout) and xhat.numel() > 0
        if not xhat.numel():
            dtype = x.dtype if full else operand_dtype(x)
            xhat = conv.normalised(x, taps, d, trim, dtype, None, statistics, 0.0)
        if full:
            halves = fp32_launch.tables_of(x, up, down, residual_scale)
            g, sum_g, sum_gx = fp32_launch.xhat_gradient(xhat, dout, halves)
            return g, sum_g, sum_gx, fp32_launch.weight_gradients(xhat, dout, halves)
        tables = Tables.of(x, up, down, down, residual_scale)
        gradient = OutputGradient.of(dout, complete)
        if joint:
            from cherimoya.ops.block import hopper_launch

            return hopper_launch.joint_gradients(xhat, gradient, tables, x.dtype)
        by_xhat = (launch.hopper_launches(x, hidden) or launch).xhat_gradient
        g, sum_g, sum_gx = by_xhat(xhat, gradient, tables, x.dtype)
        return g, sum_g, sum_gx, launch.weight_gradients(xhat, gradient, tables, early=True)


@backward_products.register_fake
def _empty_products(
    dout: Tensor, x: Tensor, conv_weight: Tensor, mean: Tensor, rstd: Tensor, xhat: Tensor,
    up: Tensor, down: Tensor, hidden: int, dilation: int, residual_scale: float, trim: int,
    joint: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    from cherimoya.ops.block.launch import backward_sizes
    from cherimoya.ops.block.weights import empty_partial_sums

    g = torch.empty_like(dout, dtype=x.dtype, memory_format=torch.contiguous_format)
    sums, parts = backward_sizes(dout, hidden, joint)
    sum_g, sum_gx = (x.new_empty(x.shape[0], sums, dtype=torch.float32) for _ in range(2))
    return g, sum_g, sum_gx, empty_partial_sums(x, parts, up)


@torch.library.custom_op("cherimoya::cheri_block_backward_conv", mutates_args=())
def backward_conv(
    dout: Tensor,
    x: Tensor,
    conv_weight: Tensor,
    mean: Tensor,
    rstd: Tensor,
    g: Tensor,
    sum_g: Tensor,
    sum_gx: Tensor,
    partial_sums: Tensor,
    hidden: int,
    dilation: int,
    residual_scale: float,
    trim: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x (its dtype), of the taps (3, C), linear1 (H, C) and linear2 (C, H), fp32."""
    from cherimoya.ops.block import launch
    from cherimoya.ops.conv_norm import launch as conv

    if not dout.numel():
        tensors = (dout, x, conv_weight, mean, rstd, g, sum_g, sum_gx, partial_sums)
        empty = _empty_gradients(*tensors, hidden, dilation, residual_scale, trim)
        dx, dw, dw1, dw2 = (gradient.zero_() for gradient in empty)
        return dx, dw, dw1, dw2
    with torch.cuda.device_of(x):
        x, taps, d = conv.prepared(x, conv_weight, dilation)
        dout = contiguous(dout.to(x.dtype))
        statistics, sums = (mean, rstd), (sum_g, sum_gx)
        return launch.backward_conv(
            x, taps, g, dout, statistics, sums, partial_sums, hidden, d, residual_scale, trim
        )


@backward_conv.register_fake
def _empty_gradients(
    dout: Tensor, x: Tensor, conv_weight: Tensor, mean: Tensor, rstd: Tensor, g: Tensor,
    sum_g: Tensor, sum_gx: Tensor, partial_sums: Tensor,
    hidden: int, dilation: int, residual_scale: float, trim: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    channels = x.shape[2]
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    shapes = (3, channels), (hidden, channels), (channels, hidden)
    dw, dw1, dw2 = (x.new_empty(shape, dtype=torch.float32) for shape in shapes)
    return dx, dw, dw1, dw2


@torch.library.custom_op("cherimoya::cheri_block_full_fp32", mutates_args=())
def fused_block_full_fp32(
    x: Tensor,
    conv_weight: Tensor,
    linear1_weight: Tensor,
    linear2_weight: Tensor,
    dilation: int,
    residual_scale: float,
    eps: float,
    trim: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The block's output (N, L - 2 trim, C) in full fp32, and what its backward needs.

    That is, besides x and the taps, mean and 1 / std (N,) and the tables of both halves.
    """
    from cherimoya.ops.block import fp32_launch, launch
    from cherimoya.ops.conv_norm import launch as conv

    weights = (conv_weight, linear1_weight, linear2_weight)
    if not x.numel() or x.shape[1] == 2 * trim:
        return _empty_full_fp32(x, *weights, dilation, residual_scale, eps, trim)
    with torch.cuda.device_of(x):
        x, taps, d = conv.prepared(x, conv_weight, dilation)
        w1, w2 = contiguous(linear1_weight), contiguous(linear2_weight)
        tables = fp32_launch.empty_tables(x, w1, residual_scale)
        statistics = conv.empty_statistics(x)
        parts = launch.stats_and_tables(x, taps, w1, w2, d, tables)
        out = fp32_launch.products(x, taps, parts, statistics, tables, d, eps, trim)
    return out, *statistics, tables.up, tables.down


@fused_block_full_fp32.register_fake
def _empty_full_fp32(
    x: Tensor, conv_weight: Tensor, linear1_weight: Tensor, linear2_weight: Tensor,
    dilation: int, residual_scale: float, eps: float, trim: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    from cherimoya.ops.block.fp32_launch import empty_tables

    n, length, channels = x.shape
    out = x.new_empty(n, length - 2 * trim, channels)
    mean, rstd = (x.new_empty(n, dtype=torch.float32) for _ in range(2))
    tables = empty_tables(x, linear1_weight, residual_scale)
    return out, mean, rstd, tables.up, tables.down


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, conv_weight, linear1_weight, linear2_weight, dilation, residual_scale, _, trim = inputs[:8]
    ctx.joint = len(inputs) > 9 and inputs[9]
    _, mean, rstd, *xhat, up, down = output  # in full fp32 it is not kept
    ctx.save_for_backward(x, conv_weight, mean, rstd, up, down)
    ctx.kept = xhat  # not saved: the backward drops it before the gradient of x needs room
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    ctx.sizes = len(linear1_weight), dilation, residual_scale, trim
    ctx.dtypes = conv_weight.dtype, linear1_weight.dtype, linear2_weight.dtype


def _gradients(ctx: Any, dout: Tensor | None, *_: Tensor) -> tuple[Tensor | None, ...]:
    none = (None,) * (len(ctx.needs_input_grad) - 4)
    if dout is None:
        return None, None, None, None, *none
    *given, up, down = ctx.saved_tensors
    kept = ctx.kept.pop() if ctx.kept else dout.new_empty(0)  # a second backward has none
    products = backward_products(dout, *given, kept, up, down, *ctx.sizes, ctx.joint)
    del kept
    dx, *gradients = backward_conv(dout, *given, *products, *ctx.sizes)
    weights = (g.to(dtype) for g, dtype in zip(gradients, ctx.dtypes, strict=True))
    return dx, *weights, *none


fused_block.register_autograd(_gradients, setup_context=_save)
fused_block_full_fp32.register_autograd(_gradients, setup_context=_save)


def cheri_block(
    x: Tensor,
    conv_weight: Tensor,
    linear1_weight: Tensor,
    linear2_weight: Tensor,
    dilation: int,
    residual_scale: float,
    eps: float = EPS,
    trim: int = 0,
) -> Tensor:
    """x + residual_scale * linear2(gelu_tanh(linear1(dilated_conv_norm(x)))).

    On a GPU by fused kernels, forward and backward; elsewhere by `reference.cheri_block`. The
    kernels keep x, two numbers an example and, where it is small beside the GPU's memory, the
    normalised convolution for the backward; the rest is computed again. fp32 is multiplied with
    11 significant bits, as TF32 is, if torch may (`torch.set_float32_matmul_precision("high")`).
    If not, as three products of fp16: 22 bits of numbers over 0.1, an absolute error of 3e-8 in
    smaller ones, and weights must be below 1,000, activations below 65,000; the widest blocks by
    cuBLAS between the fused kernels of the convolution with normalisation.

    Parameters
    ----------
    x : Tensor (N, L, C)
        fp32, bf16 or fp16; under autocast it is cast first.
    conv_weight : Tensor (3, C)
    linear1_weight : Tensor (H, C)
    linear2_weight : Tensor (C, H)
    dilation : int
        Distance between the taps.
    residual_scale : float
        Factor of the MLP's output.
    eps : float
        Added to the variance.
    trim : int
        Positions left out of the result on each side. The normalisation still reads them, the
        MLP does not: worth it in the last block, whose ends no head reads.

    Returns
    -------
    Tensor (N, L - 2 * trim, C), in the dtype of x

    Raises
    ------
    ValueError
        If the shapes do not fit each other, the dilation is not positive, or nothing is left.
    """
    check(x, conv_weight, dilation)
    channels, hidden = x.shape[2], len(linear1_weight)
    expected = {"linear1": (hidden, channels), "linear2": (channels, hidden)}
    for (name, shape), weight in zip(
        expected.items(), (linear1_weight, linear2_weight), strict=True
    ):
        if weight.shape != shape:
            raise ValueError(
                f"{name}'s weight has shape {tuple(weight.shape)}; with {channels} channels and "
                f"{hidden} hidden units it must be {shape}"
            )
    if 2 * trim > x.shape[1] or trim < 0:
        raise ValueError(f"trim={trim} leaves nothing of {x.shape[1]} positions")
    x = x.to(autocast_dtype(x))
    weights = (conv_weight, linear1_weight, linear2_weight)
    chosen = route(x.device, x.dtype)
    if not chosen.conv_norm:
        return reference.cheri_block(x, *weights, dilation, residual_scale, eps, trim)
    if chosen.block:
        size = math.prod(x.shape) * x.element_size()  # x.nbytes is not for symbolic shapes
        keep = size <= KEPT_SHARE * total_memory(x.device) and wants_gradient(x, *weights)
        joint = is_joint(x.device, channels, hidden)
        return fused_block(x, *weights, dilation, residual_scale, eps, trim, keep, joint)[0]
    backward = wants_gradient(x, *weights)
    if chosen.inference and channels <= widest_full_fp32(x.device, backward):
        return fused_block_full_fp32(x, *weights, dilation, residual_scale, eps, trim)[0]
    return reference.cheri_block_composed(
        x, *weights, dilation, residual_scale, eps, trim, conv_norm=fused_dilated_conv_norm
    )
