"""The Cheri Block: a dilated depthwise convolution, a normalisation and a residual MLP."""

import torch
from torch import Tensor, nn

from cherimoya.ops.block import cheri_block


class CheriBlock(nn.Module):
    """x + residual_scale * linear2(gelu(linear1(norm(conv(x))))), channels last.

    The convolution is depthwise with 3 taps `dilation` apart and zero padding; the normalisation
    spans the whole (L, C) plane of each example and has no affine part; GELU is the tanh form.
    Nothing has a bias.

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

    Raises
    ------
    ValueError
        If a size or the scale is not positive.
    """

    def __init__(
        self, n_filters: int, dilation: int, expansion: int = 2, residual_scale: float = 0.15
    ) -> None:
        super().__init__()
        sizes = {"n_filters": n_filters, "dilation": dilation, "expansion": expansion}
        for name, value in {**sizes, "residual_scale": residual_scale}.items():
            if value <= 0:
                raise ValueError(f"{name}={value}: must be positive")
        self.dilation = dilation
        self.residual_scale = residual_scale
        self.conv_weight = nn.Parameter(torch.empty(3, n_filters))
        self.linear1 = nn.Linear(n_filters, expansion * n_filters, bias=False)
        self.linear2 = nn.Linear(expansion * n_filters, n_filters, bias=False)
        for weight in self.parameters():
            nn.init.trunc_normal_(weight, std=0.02)

    def forward(self, x: Tensor, trim: int = 0) -> Tensor:
        """(N, L, C) to (N, L - 2 * trim, C): `trim` positions less on each side.

        The normalisation spans all L positions; only the MLP skips those left out.
        """
        return cheri_block(
            x,
            self.conv_weight,
            self.linear1.weight,
            self.linear2.weight,
            self.dilation,
            self.residual_scale,
            trim=trim,
        )

    def extra_repr(self) -> str:
        return f"dilation={self.dilation}, residual_scale={self.residual_scale}"
