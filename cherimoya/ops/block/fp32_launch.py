"""Launches of the block's forward in full fp32, see `fp32_kernels`."""

from functools import partial

import torch
import triton
from torch import Tensor

from cherimoya.ops import autotune
from cherimoya.ops.autotune import Config, Run, configs
from cherimoya.ops.block import fp32_kernels as kernels
from cherimoya.ops.block.options import MOST_ACCUMULATED
from cherimoya.ops.block.weights import Tables, column_widths, padded_hidden
from cherimoya.ops.conv_norm.launch import Parts, key_of, padded
from cherimoya.ops.device import dependent_launch, fast_tanh, filling, shared_memory

OPTIONS = ("rows", "hidden", "stages", "num_warps", "registers")

# Launch options to choose from; the first is the default. `registers`: the most a thread may have,
# 0 for any; with 168 three programs of 4 warps share a multiprocessor.
FORWARD = configs(
    OPTIONS, (64, 32, 2, 4, 168), (64, 32, 2, 4, 0), (64, 32, 3, 4, 0), (128, 32, 2, 8, 0),
    (128, 64, 2, 8, 0), (64, 16, 2, 8, 0),
)  # fmt: skip
CAPPED_COLUMNS = 128  # beyond, a program's rows do not fit in `registers`
LOG_SCALE = 6  # times 2^6, weights down to 2^-9 keep 22 bits; 2^10 is the first beyond fp16
SCALE = 2.0**LOG_SCALE


def empty_tables(x: Tensor, linear1_weight: Tensor, residual_scale: float) -> Tables:
    """Tables to be filled with both halves of the weights, for a block of x (N, L, C)."""
    hidden, channels = linear1_weight.shape
    widths = column_widths(channels)
    up, down = x.new_empty(2, 2, padded_hidden(hidden), sum(widths), dtype=torch.float16)
    return Tables(up, down, down, widths, SCALE, residual_scale / SCALE)


def products(
    x: Tensor,
    conv_weight: Tensor,
    parts: Parts,
    tables: Tables,
    dilation: int,
    eps: float,
    trim: int,
    config: Config | None = None,
) -> Tensor:
    """x + residual_scale * linear2(gelu(linear1(xhat))): (N, L - 2 trim, C)."""
    n, length, channels = x.shape
    if config is None:

        def rehearse() -> Run:
            big = filling(x)
            given = Parts.constant(big, parts.tiles)
            return partial(products, big, conv_weight, given, tables, dilation, eps, trim)

        key = key_of(x, H=tables.up.shape[1])
        config = autotune.best("block_full_fp32_fwd", key, _fitting(x.device, channels), rehearse)
    window = length - 2 * trim
    out = x.new_empty(n, window, channels)
    tiles = triton.cdiv(window, config["rows"])
    kernels.block_full_fp32_fwd_kernel[(n * tiles,)](
        x, conv_weight, parts.mean, parts.m2, parts.count, tables.up, tables.down, out,
        length, window, trim, dilation, tiles, parts.tiles, eps, tables.unscale,
        C=channels, **tables.options(), HS=config["hidden"],
        BM=config["rows"], STAGES=config["stages"], PARTS=padded(parts.tiles),
        SCALE=SCALE, LOG_SCALE=LOG_SCALE, FAST=fast_tanh(x.device),
        num_warps=config["num_warps"], num_stages=config["stages"],
        maxnreg=config["registers"] or None, **dependent_launch(x.device),
    )  # fmt: skip
    return out


def is_supported(device: torch.device, channels: int) -> bool:
    """Whether the GPU has room for these kernels: not for the widest blocks."""
    return bool(_fitting(device, channels))


def _fitting(device: torch.device, channels: int) -> list[Config]:
    """The choices that the GPU has room for."""
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
        if 4 * columns * (choice["rows"] + 2 * choice["hidden"] * choice["stages"])
        <= shared_memory(device)
    ]
