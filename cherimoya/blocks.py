"""Other blocks than Cheri's, to compare it with, and what a block of your own has to be.

A block is called with `n_filters`, `dilation` and its settings, the fields of its dataclass
`Settings`, as keywords. Its `forward` takes x (N, L, C), channels last, and `trim`, positions to
leave out on each side, and returns (N, L - 2 trim, C). It may have

- `matrices`: names of the parameters that are matrices of a product, for Muon;
- `reach`: bases on each side that an output position reads; by default its dilation.

For DeepLIFT/SHAP each nonlinearity has to be a module of torch's, called once a forward: an
activation, or a LayerNorm over the channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cherimoya.config import options

TAPS = 3


class BPNetBlock(nn.Module):
    """x + relu(conv(x)): a dense convolution of 3 taps `dilation` apart, zero padded, with bias.

    The residual block of BPNet (Avsec et al. 2021) and ChromBPNet, with zeros where those cut off
    the ends.

    Parameters
    ----------
    n_filters : int
        Channels C.
    dilation : int
        Distance between the taps, in bases.
    """

    matrices = ("weight",)

    def __init__(self, n_filters: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.weight = nn.Parameter(torch.empty(n_filters, n_filters * TAPS))  # (C out, C in * taps)
        self.bias = nn.Parameter(torch.zeros(n_filters))
        self.activation = nn.ReLU()
        # As torch's convolutions: the residual sum has no factor that keeps it small.
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, x: Tensor, trim: int = 0) -> Tensor:
        """(N, L, C) to (N, L - 2 * trim, C)."""
        weight = self.weight.view(len(self.weight), -1, TAPS)
        h = F.conv1d(
            x.transpose(1, 2), weight, self.bias, padding=self.dilation, dilation=self.dilation
        )
        out = x + self.activation(h).transpose(1, 2)
        return out[:, trim : x.shape[1] - trim]

    def extra_repr(self) -> str:
        return f"dilation={self.dilation}"


class ConvNeXtBlock(nn.Module):
    """x + residual_scale * linear2(gelu(linear1(norm(conv(x))))), normalised by position.

    As the Cheri Block, but for the normalisation, which is ConvNeXt's (Liu et al. 2022): over the
    channels of each position, with a learned scale and shift.

    Parameters
    ----------
    n_filters, dilation, expansion, residual_scale
        As of CheriBlock.
    """

    Settings = options.Cheri
    matrices = ("linear1.weight", "linear2.weight")

    def __init__(
        self, n_filters: int, dilation: int, expansion: int = 2, residual_scale: float = 0.15
    ) -> None:
        super().__init__()
        self.dilation, self.residual_scale = dilation, residual_scale
        self.conv = nn.Conv1d(
            n_filters, n_filters, TAPS, padding=dilation, dilation=dilation, groups=n_filters,
            bias=False,
        )  # fmt: skip
        self.norm = nn.LayerNorm(n_filters)
        self.linear1 = nn.Linear(n_filters, expansion * n_filters, bias=False)
        self.activation = nn.GELU(approximate="tanh")
        self.linear2 = nn.Linear(expansion * n_filters, n_filters, bias=False)
        for weight in (self.conv.weight, self.linear1.weight, self.linear2.weight):
            nn.init.trunc_normal_(weight, std=0.02)

    def forward(self, x: Tensor, trim: int = 0) -> Tensor:
        """(N, L, C) to (N, L - 2 * trim, C)."""
        window = slice(trim, x.shape[1] - trim)
        h = self.norm(self.conv(x.transpose(1, 2)).transpose(1, 2)[:, window])
        return x[:, window] + self.residual_scale * self.linear2(self.activation(self.linear1(h)))

    def extra_repr(self) -> str:
        return f"dilation={self.dilation}, residual_scale={self.residual_scale}"
