"""The count head as one operation, with its gradients."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cherimoya.ops.device import dependent_launch
from cherimoya.ops.dispatch import route

ROWS = 64  # examples that a program holds at once
COLUMNS = 32  # features whose gradients a program makes
MOST_FEATURES = 512


@torch.library.custom_op("cherimoya::counts", mutates_args=())
def fused_counts(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """features (N, F) @ weight (G, F) transposed + bias (G,): (N, G), fp32."""
    import triton

    from cherimoya.ops.counts import kernels

    out = _empty(features, weight, bias)
    (n, f), rows = features.shape, 8
    if n:
        with torch.cuda.device_of(features):
            kernels.counts_fwd_kernel[(triton.cdiv(n, rows),)](
                features.contiguous(), weight.contiguous(), bias.contiguous(), out, n,
                F=f, FP=triton.next_power_of_2(f), G=len(weight), BN=rows,
                **dependent_launch(features.device),
            )  # fmt: skip
    return out


@fused_counts.register_fake
def _empty(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return features.new_empty(features.shape[0], weight.shape[0])


@torch.library.custom_op("cherimoya::counts_backward", mutates_args=())
def counts_backward(
    dout: Tensor, features: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of features (N, F), weight (G, F) and bias (G,)."""
    import triton

    from cherimoya.ops.counts import kernels

    dfeatures, dweight, dbias = _empty_gradients(dout, features, weight)
    n, f = features.shape
    with torch.cuda.device_of(features):
        kernels.counts_bwd_kernel[(triton.cdiv(f, COLUMNS),)](
            dout.contiguous(), features.contiguous(), weight.contiguous(), dfeatures, dweight,
            dbias, n, F=f, G=len(weight), BF=COLUMNS, BN=ROWS, **dependent_launch(features.device),
        )  # fmt: skip
    return dfeatures, dweight, dbias


@counts_backward.register_fake
def _empty_gradients(
    dout: Tensor, features: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    dfeatures, dweight = (t.new_empty(t.shape) for t in (features, weight))
    return dfeatures, dweight, weight.new_empty(weight.shape[0])


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _gradients(ctx: Any, dout: Tensor) -> tuple[Tensor, ...]:
    return counts_backward(dout, *ctx.saved_tensors)


fused_counts.register_autograd(_gradients, setup_context=_save)


def counts(features: Tensor, weight: Tensor, bias: Tensor, like: torch.dtype) -> Tensor:
    """The count head: torch's linear; in full fp32 by a kernel where the other head has one.

    Parameters
    ----------
    features : Tensor (N, F)
        Means over the positions, and the total of the controls if there are any.
    weight : Tensor (G, F)
    bias : Tensor (G,)
    like : dtype
        Of the activations.

    Returns
    -------
    Tensor (N, G)
        Log counts of each signal group.
    """
    single = all(t.dtype == torch.float32 for t in (features, weight, bias))
    fits = single and features.shape[1] <= MOST_FEATURES
    if fits and route(features.device, like).whole(features, weight, bias):
        return fused_counts(features, weight, bias)
    return F.linear(features, weight, bias)
