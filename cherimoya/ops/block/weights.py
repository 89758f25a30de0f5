"""The linear weights and the output's gradient as the block's kernels read them."""

import math
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from cherimoya.ops.block.half_kernels import scale_to_half_kernel
from cherimoya.ops.device import dependent_launch, operand_dtype

HIDDEN_STEP = 64  # hidden units are padded to a multiple of this
ROWS_OF_SUMS = 64  # positions that share a sum of gradients or several, and a scale


@dataclass(frozen=True)
class Tables:
    """Both linear weights, (HP, CA + CB), or (2, ...) of both halves: see `prepare_weights`."""

    up: Tensor
    down: Tensor  # linear2 transposed, times `scale`
    down_half: Tensor  # the same in fp16
    widths: tuple[int, int]  # CA, CB
    scale: float
    unscale: float  # scale * unscale is half the residual scale

    @staticmethod
    def empty(
        x: Tensor, linear1_weight: Tensor, residual_scale: float, half: bool = False
    ) -> "Tables":
        """Tables to be filled for a block of x (N, L, C)."""
        hidden, channels = linear1_weight.shape
        dtype = operand_dtype(x)
        shape = (padded_hidden(hidden), sum(column_widths(channels)))
        up, down = (linear1_weight.new_empty(shape, dtype=dtype) for _ in range(2))
        separate = half and dtype != torch.float16
        down_half = torch.empty_like(down, dtype=torch.float16) if separate else down
        return Tables.of(x, up, down, down_half, residual_scale)

    @staticmethod
    def of(
        x: Tensor, up: Tensor, down: Tensor, down_half: Tensor, residual_scale: float
    ) -> "Tables":
        """Tables of a block of x (N, L, C), from their contents."""
        return Tables(
            up, down, down_half, column_widths(x.shape[2]), *table_scales(x, residual_scale)
        )

    def options(self) -> dict[str, int]:
        """The kernels' constants."""
        return {"CA": self.widths[0], "CB": self.widths[1], "HP": self.up.shape[-2]}


def table_scales(x: Tensor, residual_scale: float) -> tuple[float, float]:
    """`Tables.scale` and `Tables.unscale` for a block of x."""
    if operand_dtype(x) == x.dtype:
        return residual_scale / 2, 1.0
    scale, exponent = math.frexp(residual_scale / 2)  # the weights alone are in fp16's range
    return scale, 2.0**exponent


def column_widths(channels: int) -> tuple[int, int]:
    """CA + CB >= channels: one power of two, or two where that is less."""
    whole = max(16, triton.next_power_of_2(channels))
    first = whole // 2
    second = max(16, triton.next_power_of_2(max(1, channels - first)))
    return (first, second) if first >= 16 and first + second < whole else (whole, 0)


def padded_hidden(hidden: int) -> int:
    """Hidden units of a table."""
    return triton.cdiv(hidden, HIDDEN_STEP) * HIDDEN_STEP


def empty_partial_sums(x: Tensor, parts: int, table: Tensor) -> Tensor:
    """Gradients of both tables in parts, (2, parts, HP, CA + CB), fp32, to be filled."""
    return x.new_empty(2, parts, *table.shape[-2:], dtype=torch.float32)


@dataclass(frozen=True)
class OutputGradient:
    """The gradient of a block's output (N, window, C), in the dtype of the products."""

    values: Tensor
    scales: Tensor | None  # (N, tiles of ROWS_OF_SUMS positions): what each was multiplied by
    complete: bool = False  # although the kernel before may still run

    @staticmethod
    def of(dout: Tensor, complete: bool) -> "OutputGradient":
        """fp32 is scaled to fp16 where products are fp16, anything else is taken as it is."""
        if operand_dtype(dout) == dout.dtype:
            return OutputGradient(dout, None, complete)
        n, window, channels = dout.shape
        tiles = triton.cdiv(window, ROWS_OF_SUMS)
        values = torch.empty_like(dout, dtype=torch.float16)
        scales = dout.new_empty(n, tiles)
        tile = ROWS_OF_SUMS * channels
        scale_to_half_kernel[(n * tiles,)](
            dout, values, scales, window * channels, tiles, TILE=tile,
            BLOCK=triton.next_power_of_2(tile), EARLY=complete, num_warps=8,
            **dependent_launch(dout.device),
        )  # fmt: skip
        return OutputGradient(values, scales)

    def like(self, values: Tensor) -> "OutputGradient":
        """A gradient of these values, for as many examples as they are."""
        if self.scales is None:
            return OutputGradient(values, None)
        return OutputGradient(values, self.scales.new_ones(len(values), self.scales.shape[1]))

    @property
    def scales_or_any(self) -> Tensor:
        """An argument for the kernels, which read it only if there are scales."""
        return self.values if self.scales is None else self.scales
