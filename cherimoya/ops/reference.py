"""Pure PyTorch operations: the CPU path, the oracle of the tests, the baseline of the benchmarks.

Activations are channels-last, (N, L, C). `cheri_block_composed` is the formula of a block;
`cheri_block` is the same function with its backward written by hand for the CPU, where the tanh
of torch's GELU and the tensors that autograd keeps cost much beside the matrix products. In a graph
that is exported all convolutions are convolutions, as other runtimes know them.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

EPS = 1e-3

# gelu_tanh(h) = h sigmoid(z) with z = GELU_SCALE (h + 0.044715 h^3), Hendrycks and Gimpel (2016):
# torch's sigmoid is faster than its tanh on a CPU. With p = GELU_SCALE h, z = p + GELU_CUBIC p^3.
GELU_SCALE = 2 * (2 / torch.pi) ** 0.5
GELU_CUBIC = 0.044715 / GELU_SCALE**2

CHUNK_ELEMENTS = 512 * 1024  # hidden activations handled at once, so that they stay in the cache


def dilated_conv(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Three-tap depthwise convolution with zero padding, as shifted multiply-adds.

    y[l] = w0 x[l - d] + w1 x[l] + w2 x[l + d] for x (N, L, C) and weight (3, C). Its transpose
    is the same function with the taps in reverse order.
    """
    if torch.compiler.is_exporting():
        taps = weight.t().unsqueeze(1)  # (C, 1, 3)
        return F.conv1d(
            x.transpose(1, 2), taps, padding=dilation, dilation=dilation, groups=x.shape[2]
        ).transpose(1, 2)
    y = x * weight[1]
    y[:, dilation:].addcmul_(x[:, :-dilation], weight[0])
    y[:, :-dilation].addcmul_(x[:, dilation:], weight[2])
    return y


def dilated_conv_norm(x: Tensor, weight: Tensor, dilation: int, eps: float = EPS) -> Tensor:
    """Dilated depthwise convolution, then normalisation of each example over its (L, C) plane.

    x (N, L, C), weight (3, C) -> (N, L, C) in the dtype of x. The variance is biased and taken
    after the mean is removed, so that it holds when |mean| >> std; statistics are at least fp32.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    return _conv_norm(x.to(dtype), weight.to(dtype), dilation, eps)[0].to(x.dtype)


def _conv_norm(x: Tensor, weight: Tensor, dilation: int, eps: float) -> tuple[Tensor, Tensor]:
    """The normalised convolution (N, L, C) and each example's 1 / std (N, 1, 1)."""
    y = dilated_conv(x, weight, dilation)
    y -= y.mean((1, 2), keepdim=True)
    rstd = torch.rsqrt(y.square().mean((1, 2), keepdim=True) + eps)
    return y * rstd, rstd


def cheri_block_composed(
    x: Tensor,
    conv_weight: Tensor,
    linear1_weight: Tensor,
    linear2_weight: Tensor,
    dilation: int,
    residual_scale: float,
    eps: float = EPS,
    trim: int = 0,
    conv_norm: Callable[[Tensor, Tensor, int, float], Tensor] | None = None,
) -> Tensor:
    """`cheri_block` by autograd: its formula, and its path for everything but CPU training."""
    xhat = (conv_norm or dilated_conv_norm)(x, conv_weight, dilation, eps)
    window = slice(trim, x.shape[1] - trim)
    up, down = linear1_weight.to(x.dtype), linear2_weight.to(x.dtype)
    h = F.gelu(F.linear(xhat[:, window], up), approximate="tanh")
    return x[:, window] + residual_scale * F.linear(h, down)


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
    """x + residual_scale * linear2(gelu_tanh(linear1(dilated_conv_norm(x)))): (N, L - 2 trim, C).

    Parameters as of `cherimoya.ops.block.op.cheri_block`.
    """
    weights = (conv_weight, linear1_weight, linear2_weight)
    if not _by_hand(x):
        return cheri_block_composed(x, *weights, dilation, residual_scale, eps, trim)
    training = torch.is_grad_enabled()
    return _CheriBlock.apply(x, *weights, dilation, residual_scale, eps, trim, training)


def _by_hand(x: Tensor) -> bool:
    """Whether the hand-written gradients serve x: not forward mode, nor a compiler."""
    supported = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
    forward_mode = torch.autograd.forward_ad._current_level >= 0
    return supported and not forward_mode and not torch.compiler.is_compiling()


class _CheriBlock(torch.autograd.Function):
    """A block that keeps xhat, the hidden activations and the slopes of the GELU."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        conv_weight: Tensor,
        linear1_weight: Tensor,
        linear2_weight: Tensor,
        dilation: int,
        residual_scale: float,
        eps: float,
        trim: int,
        training: bool,
    ) -> Tensor:
        _, length, channels = x.shape
        window = slice(trim, length - trim)
        xhat, rstd = _conv_norm(x, conv_weight, dilation, eps)
        out = torch.empty_like(x[:, window], memory_format=torch.contiguous_format)
        act, slope = _mlp_forward(
            xhat[:, window].reshape(-1, channels),
            x[:, window].reshape(-1, channels),
            (linear1_weight * GELU_SCALE).t().contiguous(),
            (linear2_weight * (residual_scale / GELU_SCALE)).t().contiguous(),
            out.view(-1, channels),
            training,
        )
        weights = (conv_weight, linear1_weight, linear2_weight)
        ctx.save_for_backward(x, *weights, xhat, rstd, act, slope)
        ctx.dilation, ctx.residual_scale, ctx.window = dilation, residual_scale, window
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        x, conv_weight, linear1_weight, linear2_weight, xhat, rstd, act, slope = ctx.saved_tensors
        channels, window, scale = x.shape[2], ctx.window, ctx.residual_scale / GELU_SCALE
        g, dlinear1, dlinear2 = _mlp_backward(
            dout.reshape(-1, channels),
            xhat[:, window].reshape(-1, channels),
            act,
            slope,
            linear2_weight * scale,
            linear1_weight * GELU_SCALE,
        )
        dconv = _norm_backward(g.view(dout.shape), xhat, rstd, window)
        dx = dilated_conv(dconv, conv_weight.flip(0), ctx.dilation)
        dx[:, window] += dout
        dweight = _conv_weight_grad(x, dconv, ctx.dilation)
        return dx, dweight, dlinear1 * GELU_SCALE, dlinear2 * scale, None, None, None, None, None


def _mlp_forward(
    xhat: Tensor, x: Tensor, up: Tensor, down: Tensor, out: Tensor, training: bool
) -> tuple[Tensor | None, Tensor | None]:
    """out = x + gelu(xhat @ up) @ down, a chunk of rows at a time.

    xhat, x, out (M, C); up (C, H) holds GELU_SCALE, down (H, C) its inverse. Returns what the
    backward needs when `training`: GELU_SCALE times the activations, and the slopes, (M, H).
    """
    m, hidden = xhat.shape[0], up.shape[1]
    rows = max(1, CHUNK_ELEMENTS // hidden)
    p = x.new_empty(min(rows, m), hidden)
    act = x.new_empty(m, hidden) if training else torch.empty_like(p)
    slope = torch.empty_like(act) if training else None
    for start in range(0, m, rows):
        chunk = slice(start, min(start + rows, m))
        size = chunk.stop - start
        kept = chunk if training else slice(0, size)
        torch.mm(xhat[chunk], up, out=p[:size])
        _gelu(p[:size], act[kept], None if slope is None else slope[kept])
        torch.mm(act[kept], down, out=out[chunk])
        out[chunk] += x[chunk]
    return (act, slope) if training else (None, None)


def _gelu(p: Tensor, act: Tensor, slope: Tensor | None) -> None:
    """Write act = p s and slope = d act / d p = s + s (1 - s) (3 z - 2 p), s = sigmoid(z)."""
    z = act if slope is None else slope
    torch.mul(p, p, out=z)
    torch.addcmul(p, p, z, value=GELU_CUBIC, out=z)
    torch.sigmoid(z, out=act)
    if slope is not None:
        z.sub_(p, alpha=2 / 3)
        torch.ops.aten.sigmoid_backward.grad_input(z, act, grad_input=z)
        torch.add(act, z, alpha=3, out=slope)
    act *= p


def _mlp_backward(
    dout: Tensor, xhat: Tensor, act: Tensor, slope: Tensor, down: Tensor, up: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `_mlp_forward` without its residual.

    dout, xhat (M, C); act, slope (M, H); down (C, H) and up (H, C) scaled as in the forward.
    Returns d xhat (M, C), and d up (H, C) and d down (C, H) before that scaling.
    """
    m, hidden = act.shape
    rows = max(1, CHUNK_ELEMENTS // hidden)
    buffer = act.new_empty(min(rows, m), hidden)
    dxhat = torch.empty_like(xhat)
    dup, ddown = torch.zeros_like(down), torch.zeros_like(down)  # (C, H)
    for start in range(0, m, rows):
        chunk = slice(start, min(start + rows, m))
        dp = buffer[: chunk.stop - start]
        torch.mm(dout[chunk], down, out=dp)
        dp *= slope[chunk]
        torch.mm(dp, up, out=dxhat[chunk])
        dup.addmm_(xhat[chunk].t(), dp)
        ddown.addmm_(dout[chunk].t(), act[chunk])
    return dxhat, dup.t(), ddown


def _norm_backward(g: Tensor, xhat: Tensor, rstd: Tensor, window: slice) -> Tensor:
    """rstd (g - mean(g) - xhat mean(g xhat)) over each (L, C) plane, g zero outside `window`."""
    size = xhat.shape[1] * xhat.shape[2]
    mean_g = g.sum((1, 2), keepdim=True) / size
    mean_gx = (g * xhat[:, window]).sum((1, 2), keepdim=True) / size
    dconv = torch.addcmul(-rstd * mean_g, xhat, -rstd * mean_gx)  # (N, L, C)
    dconv[:, window].addcmul_(g, rstd)
    return dconv


def _conv_weight_grad(x: Tensor, dy: Tensor, dilation: int) -> Tensor:
    """Gradient of `dilated_conv` by its taps (3, C), for x and dy (N, L, C)."""
    taps = (
        x[:, :-dilation] * dy[:, dilation:],
        x * dy,
        x[:, dilation:] * dy[:, :-dilation],
    )
    return torch.stack([tap.sum((0, 1)) for tap in taps])


class _GeluTanh(torch.autograd.Function):
    """GELU(tanh) that keeps its slopes."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, training: bool) -> Tensor:
        act = torch.empty_like(h)
        slope = torch.empty_like(h) if training else None
        _gelu(h * GELU_SCALE, act, slope)
        ctx.save_for_backward(slope)
        return act.mul_(1 / GELU_SCALE)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return dout * slope, None


def stem(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolution over the one-hot sequence, then GELU(tanh).

    x (N, 4, L), weight (C, 4, K) with K odd, bias (C,) -> (N, L, C), contiguous. One matrix
    product over windows of the sequence, which is faster than conv1d on a CPU.
    """
    kernel = weight.shape[-1]
    if torch.compiler.is_exporting():
        h = F.conv1d(x, weight, bias, padding=kernel // 2).transpose(1, 2)
        return F.gelu(h, approximate="tanh")
    padded = F.pad(x.transpose(1, 2), (0, 0, kernel // 2, kernel // 2))  # (N, L + K - 1, 4)
    windows = padded.unfold(1, kernel, 1).transpose(2, 3).flatten(2)  # (N, L, 4 K)
    h = F.linear(windows, weight.transpose(1, 2).flatten(1), bias)
    if _by_hand(h):
        return _GeluTanh.apply(h, torch.is_grad_enabled())
    return F.gelu(h, approximate="tanh")


def profile_head(y: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Profile logits: a convolution over positions with padding k // 2.

    y (N, L, C), weight (G, C, k) with k odd, bias (G,) or None -> (N, G, L). On a CPU conv1d with
    so few outputs takes far longer than the product with every tap, shifted and summed.
    """
    groups, channels, kernel = weight.shape
    if kernel == 1:
        return F.linear(y, weight[:, :, 0], bias).transpose(1, 2)
    if y.device.type != "cpu" or torch.compiler.is_exporting():
        return F.conv1d(y.transpose(1, 2), weight, bias, padding=kernel // 2)
    taps = weight.transpose(1, 2).reshape(groups * kernel, channels)
    z = taps.expand(len(y), -1, -1) @ y.transpose(1, 2)  # (N, G k, L)
    logits = _sum_shifted(z.unflatten(1, (groups, kernel)))
    return logits if bias is None else logits + bias[:, None]


def _sum_shifted(z: Tensor) -> Tensor:
    """out[l] = sum_j z[j, l + j - k // 2], zero outside: z (N, G, k, L) -> (N, G, L).

    Rows padded to one element less than their stride start one position later each.
    """
    kernel, length = z.shape[2:]
    padded = F.pad(z, (kernel // 2, kernel // 2)).flatten(2)  # (N, G, k (L + k - 1))
    skewed = F.pad(padded, (0, kernel)).unflatten(2, (kernel, length + kernel))
    return skewed[..., :length].sum(2)
