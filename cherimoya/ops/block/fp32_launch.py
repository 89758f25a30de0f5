"""Launches of the block in full fp32, see `fp32_kernels`."""

import functools
import itertools
from collections.abc import Callable
from functools import partial

import torch
import triton
from torch import Tensor

from cherimoya.ops import autotune
from cherimoya.ops.autotune import Config, Run, configs
from cherimoya.ops.block import fp32_kernels as kernels
from cherimoya.ops.block.launch import weight_parts
from cherimoya.ops.block.options import MOST_ACCUMULATED
from cherimoya.ops.block.weights import (
    ROWS_OF_SUMS,
    Tables,
    column_widths,
    empty_partial_sums,
    padded_hidden,
    table_scales,
)
from cherimoya.ops.conv_norm.launch import (
    Parts,
    empty_sums,
    few_sums,
    key_of,
    padded,
    unit_statistics,
)
from cherimoya.ops.device import dependent_launch, fast_tanh, filling, shared_memory

OPTIONS = ("rows", "hidden", "stages", "num_warps", "registers")

# Launch options to choose from; the first is the default. `registers`: the most a thread may have,
# 0 for any; with 168 three programs of 4 warps share a multiprocessor.
FORWARD = configs(
    OPTIONS, (64, 32, 2, 4, 168), (64, 32, 2, 4, 0), (64, 32, 3, 4, 0), (128, 32, 2, 8, 0),
    (128, 64, 2, 8, 0), (64, 16, 2, 8, 0),
)  # fmt: skip
# Of the backward, whose tiles are of 64 rows: hidden units at once, stages and warps.
BACKWARD_XHAT = configs(("hidden", "stages", "num_warps"), (32, 2, 8), (32, 2, 4), (64, 2, 8))
BACKWARD_WEIGHTS = configs(("hidden", "stages", "num_warps"), (64, 1, 8), (64, 1, 4))
CAPPED_COLUMNS = 128  # beyond, a program's rows do not fit in `registers`
LOG_SCALE = 6  # times 2^6, weights down to 2^-9 keep 22 bits; 2^10 is the first beyond fp16
SCALE = 2.0**LOG_SCALE


def empty_tables(x: Tensor, linear1_weight: Tensor, residual_scale: float) -> Tables:
    """Tables to be filled with both halves of the weights, for a block of x (N, L, C)."""
    hidden, channels = linear1_weight.shape
    shape = 2, padded_hidden(hidden), sum(column_widths(channels))
    up, down = (x.new_empty(shape, dtype=torch.float16) for _ in range(2))
    return tables_of(x, up, down, residual_scale)


def tables_of(x: Tensor, up: Tensor, down: Tensor, residual_scale: float) -> Tables:
    """The same from their contents."""
    return Tables(up, down, down, column_widths(x.shape[2]), SCALE, residual_scale / SCALE)


def products(
    x: Tensor,
    conv_weight: Tensor,
    parts: Parts,
    statistics: tuple[Tensor, Tensor],
    tables: Tables,
    dilation: int,
    eps: float,
    trim: int,
    config: Config | None = None,
) -> Tensor:
    """x + residual_scale * linear2(gelu(linear1(xhat))): (N, L - 2 trim, C).

    `statistics`, mean and 1 / std (N,), are filled.
    """
    n, length, channels = x.shape
    if config is None:

        def rehearse() -> Run:
            big = filling(x)
            given, unit = Parts.constant(big, parts.tiles), unit_statistics(big)
            return partial(products, big, conv_weight, given, unit, tables, dilation, eps, trim)

        key = key_of(x, H=tables.up.shape[1])
        config = autotune.best(
            "block_full_fp32_fwd", key, _fitting(shared_memory(x.device), channels), rehearse
        )
    window = length - 2 * trim
    out = x.new_empty(n, window, channels)
    tiles = triton.cdiv(window, config["rows"])
    kernels.block_full_fp32_fwd_kernel[(n * tiles,)](
        x, conv_weight, parts.mean, parts.m2, parts.count, tables.up, tables.down, out,
        *statistics, length, window, trim, dilation, tiles, parts.tiles, eps, tables.unscale,
        C=channels, **tables.options(), HS=config["hidden"],
        BM=config["rows"], STAGES=config["stages"], PARTS=padded(parts.tiles),
        SCALE=SCALE, LOG_SCALE=LOG_SCALE, FAST=fast_tanh(x.device),
        num_warps=config["num_warps"], num_stages=config["stages"],
        maxnreg=config["registers"] or None, **dependent_launch(x.device),
    )  # fmt: skip
    return out


def xhat_gradient(
    xhat: Tensor, dout: Tensor, tables: Tables, config: Config | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """g = d xhat (N, window, C), its sums by tiles, and those of g * xhat."""
    n, window, channels = xhat.shape
    if config is None:

        def rehearse(big: Tensor) -> Run:
            return partial(xhat_gradient, big, filling(dout, len(big)), tables)

        name = "block_full_fp32_bwd_xhat"
        config = _best_backward(name, xhat, tables, BACKWARD_XHAT, rehearse)
    g = torch.empty_like(xhat)
    tiles = triton.cdiv(window, ROWS_OF_SUMS)
    sums = empty_sums(xhat, tiles)
    kernels.block_full_fp32_bwd_xhat_kernel[(n * tiles,)](
        xhat, dout, tables.up, tables.down, g, *sums, window, tiles,
        tables.unscale * SCALE, C=channels, **_backward_options(config, tables, xhat),
    )  # fmt: skip
    return g, *few_sums(*sums)


def weight_gradients(
    xhat: Tensor, dout: Tensor, tables: Tables, config: Config | None = None
) -> Tensor:
    """Gradients of linear1 and of linear2 transposed, in parts (2, parts, HP, CA + CB).

    They are in the units that `launch.backward_conv` expects of either precision.
    """
    all_rows, channels = xhat.shape[0] * xhat.shape[1], xhat.shape[2]
    if config is None:

        def rehearse(big: Tensor) -> Run:
            return partial(weight_gradients, big, filling(dout, len(big)), tables)

        name = "block_full_fp32_bwd_weights"
        config = _best_backward(name, xhat, tables, BACKWARD_WEIGHTS, rehearse)
    rows = tables.up.shape[-2]
    parts = weight_parts(xhat, rows)
    partial_sums = empty_partial_sums(xhat, parts, tables.up)
    residual_scale = tables.unscale * SCALE
    _, unscale = table_scales(xhat, residual_scale)
    kernels.block_full_fp32_bwd_weights_kernel[(parts * (rows // config["hidden"]),)](
        xhat, dout, tables.up, tables.down, *partial_sums, all_rows,
        triton.cdiv(all_rows, ROWS_OF_SUMS), residual_scale / unscale, 2.0, C=channels,
        **_backward_options(config, tables, xhat),
    )  # fmt: skip
    return partial_sums


def _best_backward(
    kernel: str,
    xhat: Tensor,
    tables: Tables,
    choices: list[Config],
    rehearse: Callable[[Tensor], Run],
) -> Config:
    """The launch options of a kernel of the backward."""
    fitting = _fitting_backward(choices, shared_memory(xhat.device), xhat.shape[2])
    key = key_of(xhat, H=tables.up.shape[-2])
    return autotune.best(kernel, key, fitting, lambda: rehearse(filling(xhat)))


def _backward_options(config: Config, tables: Tables, x: Tensor) -> dict[str, object]:
    return {
        **tables.options(), "HS": config["hidden"], "BM": ROWS_OF_SUMS, "STAGES": config["stages"],
        "SCALE": SCALE, "FAST": fast_tanh(x.device),
        "num_warps": config["num_warps"], "num_stages": config["stages"],
        **dependent_launch(x.device),
    }  # fmt: skip


@functools.cache
def widest(room: int, backward: bool) -> int:
    """The most channels that these kernels serve, in so many bytes of shared memory."""
    both = (BACKWARD_XHAT, BACKWARD_WEIGHTS) if backward else ()

    def fits(channels: int) -> bool:
        back = all(_fitting_backward(choices, room, channels) for choices in both)
        return back and bool(_fitting(room, channels))

    return next(c for c in itertools.count() if not fits(c + 1))


def _fitting_backward(choices: list[Config], room: int, channels: int) -> list[Config]:
    """The choices of a kernel of the backward for which there is room."""
    columns, small = sum(column_widths(channels)), 4096
    # both halves of the rows of xhat and dout, and of the tiles of two tables
    return [
        c
        for c in choices
        if 8 * columns * (ROWS_OF_SUMS + c["hidden"] * c["stages"]) + small <= room
    ]


def _fitting(room: int, channels: int) -> list[Config]:
    """The choices for which there is room."""
    columns = sum(column_widths(channels))
    possible = [
        choice
        for choice in FORWARD
        if choice["rows"] * columns <= MOST_ACCUMULATED * 32 * choice["num_warps"]
        and (columns <= CAPPED_COLUMNS or not choice["registers"])
    ]
    # both halves of the rows that stay, and of the pairs of tiles that stream through
    return [
        choice
        for choice in possible
        if 4 * columns * (choice["rows"] + 2 * choice["hidden"] * choice["stages"]) <= room
    ]
