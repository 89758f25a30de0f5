"""The Cheri Block: a dilated depthwise convolution, a normalisation and a residual MLP."""

import torch
from torch import Tensor, nn

from cherimoya.config import options
from cherimoya.ops.block.op import cheri_block
from cherimoya.ops.conv_norm.op import FusedDilatedConvNormFunc, fused_dilated_conv_norm
from cherimoya.ops.reference import dilated_conv_norm as _cheri_conv_norm_cpu

__all__ = [
    "CheriBlock",
    "DilatedConvNorm",
    "FusedDilatedConvNormFunc",
    "_cheri_conv_norm_cpu",
    "fused_dilated_conv_norm",
]


class DilatedConvNorm(nn.Module):
    """`fused_dilated_conv_norm` of (x, weight) as a module, for hooks. It has no parameters."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """x (N, L, C), weight (3, C) -> (N, L, C)."""
        return fused_dilated_conv_norm(x, weight, self.dilation)

    def extra_repr(self) -> str:
        return f"dilation={self.dilation}"


class CheriBlock(nn.Module):
    """x + residual_scale * linear2(gelu(linear1(norm(conv(x))))), channels last.

    The convolution is depthwise with 3 taps `dilation` apart and zero padding; the normalisation
    spans the whole (L, C) plane of each example and has no affine part; GELU is the tanh form.
    Nothing has a bias. On a GPU the block is one fused operation; where a hook is registered on
    one of its pieces (`conv_norm`, `linear1`, `activation`, `linear2`), or one was replaced, it
    runs piece by piece.

    Parameters
    ----------
    n_filters : int
        Channels C.
    dilation : int
        Distance between the taps, in bases.
    expansion : int
        Hidden channels of the MLP per channel.
    residual_scale : float
        Factor of the MLP's output.
    fused : bool
        Whether it may run as one operation. False: always piece by piece.

    Raises
    ------
    ValueError
        If a size or the scale is not positive.
    """

    Settings = options.Cheri
    matrices = ("linear1.weight", "linear2.weight")

    def __init__(
        self,
        n_filters: int,
        dilation: int,
        expansion: int = 2,
        residual_scale: float = 0.15,
        fused: bool = True,
    ) -> None:
        super().__init__()
        sizes = {"n_filters": n_filters, "dilation": dilation, "expansion": expansion}
        for name, value in {**sizes, "residual_scale": residual_scale}.items():
            if value <= 0:
                raise ValueError(f"{name}={value}: must be positive")
        self.dilation = dilation
        self.residual_scale = residual_scale
        self.fused = fused
        self.conv_norm = DilatedConvNorm(dilation)
        self.activation = nn.GELU(approximate="tanh")
        self.conv_weight = nn.Parameter(torch.empty(3, n_filters))
        self.linear1 = nn.Linear(n_filters, expansion * n_filters, bias=False)
        self.linear2 = nn.Linear(expansion * n_filters, n_filters, bias=False)
        for weight in self.parameters():
            nn.init.trunc_normal_(weight, std=0.02)

    def forward(self, x: Tensor, trim: int = 0) -> Tensor:
        """(N, L, C) to (N, L - 2 * trim, C): `trim` positions less on each side.

        The normalisation spans all L positions; only the MLP skips those left out.
        """
        if not self.fused or self._pieces_are_watched():
            xhat = self.conv_norm(x, self.conv_weight)
            window = slice(trim, x.shape[1] - trim)
            h = self.linear2(self.activation(self.linear1(xhat[:, window])))
            return x[:, window] + self.residual_scale * h
        return cheri_block(
            x,
            self.conv_weight,
            self.linear1.weight,
            self.linear2.weight,
            self.dilation,
            self.residual_scale,
            trim=trim,
        )

    def _pieces_are_watched(self) -> bool:
        """Whether a piece has a hook or was replaced, so that the fused operation misses it."""
        expected = (DilatedConvNorm, nn.Linear, nn.GELU, nn.Linear)
        pieces = (self.conv_norm, self.linear1, self.activation, self.linear2)
        return any(
            type(piece) is not kind
            or piece._forward_hooks
            or piece._forward_pre_hooks
            or piece._backward_hooks
            or piece._backward_pre_hooks
            for piece, kind in zip(pieces, expected, strict=True)
        )

    def extra_repr(self) -> str:
        return f"dilation={self.dilation}, residual_scale={self.residual_scale}"
