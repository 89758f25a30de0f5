"""Other blocks than Cheri's, to compare it with, and what a block of your own has to be.

A block is called with `n_filters`, `dilation` and its settings, the fields of its dataclass
`Settings`, as keywords. Its `forward` takes x (N, L, C), channels last, and `trim`, positions to
leave out on each side, and returns (N, L - 2 trim, C). It may have

- `matrices`: names of the parameters that are matrices of a product, for Muon;
- `reach`: bases on each side that an output position reads; by default its dilation.

For DeepLIFT/SHAP each nonlinearity has to be a module of torch's, called once a forward: an
activation, or a LayerNorm over the channels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from cherimoya.config import options
from cherimoya.config.schema import Choice, choose, to_dict
from cherimoya.errors import ConfigError
from cherimoya.util.own_code import own_errors

TAPS = 3
FARTHEST_REACH = 1_000_000_000  # bases to each side that a block may say it reads: a chromosome


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


def chosen_block(block: Choice | Mapping[str, Any], n_filters: int) -> Choice:
    """The block; one of the user's own is tried. Raises ConfigError."""
    if not isinstance(block, Choice):
        block = choose("model.blocks", block, "block")
    if not block.is_ours:
        _check_block(block, n_filters)
    return block


def _check_block(block: Choice, n_filters: int) -> None:
    """Raise ConfigError for a block that does not map x as blocks do."""
    length, trim = 40, 3
    one = block.make(n_filters, 1)
    given = f"x (2, {length}, {n_filters}) with trim={trim}"
    with torch.no_grad(), own_errors(f"the block {block.name} on {given}"):
        for name, held in (*one.named_parameters(), *one.named_buffers()):
            if is_lazy(held):
                raise ConfigError(
                    f"the block {block.name} has {name} without a shape, as torch's lazy layers "
                    "do. Name its sizes, as nn.Linear(n_filters, ...) has them."
                )
        out = one(torch.zeros(2, length, n_filters), trim=trim)
    expected = (2, length - 2 * trim, n_filters)
    if not isinstance(out, Tensor) or out.shape != expected:
        got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ConfigError(
            f"the block {block.name} makes {got} of {given}: "
            f"expected {expected}, channels last, with trim positions less on each side."
        )


def other_length(config: Mapping[str, Any], length: int, kept: int) -> str:
    """What to say of blocks that returned another length than they have to."""
    name = config.get("block", {}).get("name", "cheri")
    return (
        f"model.blocks.name={name}: of {length:,} bases the blocks returned {kept:,}. With every "
        "dilation a block has to keep the length of x, less trim on each side."
    )


def made_blocks(block: Choice, n_filters: int, dilations: Sequence[int]) -> nn.ModuleList:
    """A block for each dilation. Raises ConfigError for a `reach` that no block has."""
    blocks = nn.ModuleList(block.make(n_filters, d) for d in dilations)
    for reach in (getattr(one, "reach", 0) for one in blocks):
        if type(reach) is not int or not 0 <= reach <= FARTHEST_REACH:
            raise ConfigError(
                f"the block {block.name} has reach={reach!r}: expected the bases to each side that "
                f"an output reads, a whole number from 0 to {FARTHEST_REACH:,}."
            )
    return blocks


def described_block(block: Choice) -> dict[str, Any]:
    """The block among a model's configuration; the Cheri Block as checkpoints always had it."""
    content: dict[str, Any] = to_dict(block)
    if block.name == "cheri":
        return {key: content[key] for key in ("expansion", "residual_scale")}
    return {"block": content}
