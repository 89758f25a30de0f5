"""The training loss as one operation of three kernels, with its gradients."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cherimoya.ops.device import dependent_launch

BLOCK = 1024  # elements of a row that a program holds at once
TILE = 1024  # per-example results that the reduction reads at once


@torch.library.custom_op("cherimoya::training_loss", mutates_args=())
def loss_and_statistics(
    logits: Tensor, log_counts: Tensor, signal: Tensor, w0: Tensor, w1: Tensor,
    groups: Sequence[int], learned: bool, penalty: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """total (), profile and count (G,); for the backward `rows` (N, G, 4) and coefficients (4, G).

    For those see the kernels, and there `loss_reduce_kernel`.
    """
    from cherimoya.ops.loss import kernels

    outputs = _empty(logits, log_counts, signal, w0, w1, groups, learned, penalty)
    total, profile, count, rows, coefficients = outputs
    (n, tracks, length), g = logits.shape, len(groups)
    padded, pdl = _power_of_2(g), dependent_launch(logits.device)
    with torch.cuda.device_of(logits):
        if n:
            kernels.loss_fwd_kernel[(n, g)](
                logits.contiguous(), signal.contiguous(), rows, tracks, length,
                GROUPS=tuple(groups), G=g, BLOCK=_block(groups, length), num_warps=8, **pdl,
            )  # fmt: skip
        kernels.loss_reduce_kernel[(1,)](
            rows, log_counts.contiguous(), w0.contiguous(), w1.contiguous(),
            total, profile, count, coefficients, n,
            G=g, GP=padded, ROWS=max(1, min(_power_of_2(n), TILE // padded)), LEARNED=learned,
            PENALTY=penalty, num_warps=4, **pdl,
        )  # fmt: skip
    return outputs


@loss_and_statistics.register_fake
def _empty(
    logits: Tensor, log_counts: Tensor, signal: Tensor, w0: Tensor, w1: Tensor,
    groups: Sequence[int], learned: bool, penalty: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    n, g = len(logits), len(groups)
    shapes = (), (g,), (g,), (n, g, 4), (4 if learned else 2, g)
    total, profile, count, rows, coefficients = (
        logits.new_empty(shape, dtype=torch.float32) for shape in shapes
    )
    return total, profile, count, rows, coefficients


@torch.library.custom_op("cherimoya::training_loss_backward", mutates_args=())
def loss_backward(
    dtotal: Tensor, logits: Tensor, log_counts: Tensor, signal: Tensor, w0: Tensor, w1: Tensor,
    rows: Tensor, coefficients: Tensor, groups: Sequence[int], weights: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of logits, log_counts, w0 and w1; the last two are empty unless `weights`."""
    from cherimoya.ops.loss import kernels

    inputs = logits, log_counts, signal, w0, w1
    gradients = _empty_gradients(dtotal, *inputs, rows, coefficients, groups, weights)
    n, tracks, length = logits.shape
    if not n:
        for gradient in gradients:
            gradient.fill_(torch.nan)  # a mean over no examples
        return gradients
    block = _block(groups, length)
    blocks = max(1, -(-max(groups) * length // block))
    with torch.cuda.device_of(logits):
        kernels.loss_bwd_kernel[(n, len(groups), blocks)](
            dtotal, *(x.contiguous() for x in inputs[:3]), rows, coefficients, *gradients,
            tracks, length,
            GROUPS=tuple(groups), G=len(groups), WEIGHTS=weights, BLOCK=block, num_warps=8,
            **dependent_launch(logits.device),
        )  # fmt: skip
    return gradients


@loss_backward.register_fake
def _empty_gradients(
    dtotal: Tensor, logits: Tensor, log_counts: Tensor, signal: Tensor, w0: Tensor, w1: Tensor,
    rows: Tensor, coefficients: Tensor, groups: Sequence[int], weights: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    dlogits, dlog_counts = (logits.new_empty(logits.shape), log_counts.new_empty(log_counts.shape))
    dw0, dw1 = (w.new_empty(len(groups) if weights else 0) for w in (w0, w1))
    return dlogits, dlog_counts, dw0, dw1


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.groups, ctx.learned, _ = inputs
    ctx.save_for_backward(*tensors, *output[3:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, dtotal: Tensor | None, *_: Tensor) -> tuple[Tensor | None, ...]:
    if dtotal is None:
        return (None,) * 8
    needed = ctx.needs_input_grad[3:5]
    weights = ctx.learned and any(needed)
    dx, dlog_counts, *dw = loss_backward(dtotal, *ctx.saved_tensors, ctx.groups, weights)
    dw0, dw1 = (d if weights and wanted else None for d, wanted in zip(dw, needed, strict=True))
    return dx, dlog_counts, None, dw0, dw1, None, None, None


loss_and_statistics.register_autograd(_gradients, setup_context=_save)


def training_loss(
    logits: Tensor,
    log_counts: Tensor,
    signal: Tensor,
    w0: Tensor,
    w1: Tensor,
    groups: list[int],
    learned: bool,
    penalty: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The objective and its parts, by kernels: `losses.profile_and_count_losses`, weighed.

    total = sum(v0 profile) + sum(v1 count); with `penalty`, + sum(log(w0)^2) + sum(log(w1)^2).
    The weights v are 0.5 / w^2 if `learned`, else w itself, which then gets no gradient.

    Parameters
    ----------
    logits : Tensor (N, sum(groups), L)
        Predicted profile, in fp32, bf16 or fp16; the arithmetic is fp32.
    log_counts : Tensor (N, len(groups))
        Predicted log(1 + counts).
    signal : Tensor (N, sum(groups), L)
        Observed counts, which need not be integers.
    w0, w1 : Tensor (len(groups),)
        Of the profile and of the counts.
    groups : list of int
        Channels of each signal group.

    Returns
    -------
    tuple of Tensor (), (len(groups),), (len(groups),)
        Total, profile and count losses in fp32, averaged over examples. Only the total has a
        gradient.

    Raises
    ------
    ValueError
        If the shapes do not fit each other, or there is a penalty on weights that are not learned.
    """
    if logits.dim() != 3 or logits.shape[1] != sum(groups):
        raise ValueError(
            f"logits have shape {tuple(logits.shape)}; for groups {groups} they must be "
            f"(N, {sum(groups)}, L)"
        )
    per_example = (len(logits), len(groups))
    expected = [
        ("signal", signal, logits.shape),
        ("log_counts", log_counts, per_example),
        ("w0", w0, per_example[1:]),
        ("w1", w1, per_example[1:]),
    ]
    for name, tensor, shape in expected:
        if tensor.shape != shape:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}; for logits {tuple(logits.shape)} and "
                f"groups {groups} it must be {tuple(shape)}"
            )
    if penalty and not learned:
        raise ValueError("a penalty is on learned weights only")
    inputs = (logits, log_counts, signal, w0, w1)
    total, profile, count, *_ = loss_and_statistics(*inputs, groups, learned, penalty)
    return total, profile, count


def _block(groups: Sequence[int], length: int) -> int:
    """Elements of a row that one program works on at once."""
    return max(32, min(BLOCK, _power_of_2(max(groups) * length)))


def _power_of_2(size: int) -> int:
    """The power of two that is not below `size`."""
    return 1 << max(0, size - 1).bit_length()
