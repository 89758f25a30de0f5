"""Launches of the block's Gluon kernels, see `hopper_kernels`."""

from collections.abc import Callable
from functools import cache, partial

import torch
import triton
from torch import Tensor
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from cherimoya.ops import autotune
from cherimoya.ops.autotune import Config, Run
from cherimoya.ops.block import hopper_kernels as kernels
from cherimoya.ops.block.hopper_bwd_kernels import hopper_bwd_kernel
from cherimoya.ops.block.hopper_fp32_kernels import hopper_fwd_fp32_kernel
from cherimoya.ops.block.weights import (
    HIDDEN_STEP,
    ROWS_OF_SUMS,
    OutputGradient,
    Tables,
    empty_partial_sums,
)
from cherimoya.ops.conv_norm.launch import (
    Parts,
    empty_sums,
    few_sums,
    few_tiles,
    key_of,
    padded,
    unit_statistics,
)
from cherimoya.ops.device import bind_thread, dependent_launch, filling, multiprocessors

TILE = ROWS_OF_SUMS  # positions
FP32_WIDTH = 32  # columns of an fp32 stage
SHARED_BYTES = 227 * 1024  # that one program may have
CHANNELS = (32, 64, 96, 128)
# Channels, and fewest and most hidden units, whose weights' gradients one program can add up.
JOINT_SIZES = ((64, 65, 192), (96, 65, 192))
# By consumers: registers a thread at entry, and a consumer's after the producer gave its own up.
REGISTERS = {2: (168, 232), 3: (128, 160)}
JOINT_REGISTERS = (168, 240)

FORWARD: list[Config] = [
    {"consumers": consumers, "stages": stages, "hidden": 64, "rolled": rolled}
    for consumers, stages, rolled in ((3, 3, 1), (2, 2, 0), (3, 6, 1), (2, 4, 0), (2, 2, 1))
]
FORWARD_FP32: list[Config] = [
    {"consumers": 2, "stages": stages, "hidden": 64, "rolled": rolled}
    for stages, rolled in ((2, 0), (2, 1), (3, 0), (3, 1))
]
BACKWARD: list[Config] = [
    {"consumers": consumers, "stages": stages, "hidden": 64}
    for consumers, stages in ((3, 6), (3, 3), (2, 2), (2, 4), (2, 6))
]
JOINT: list[Config] = [  # all of them fit in shared memory
    {"stages": stages, "slots": slots} for stages, slots in ((3, 2), (2, 1), (3, 1))
]


def is_supported(x: Tensor, hidden: int) -> bool:
    """Whether these kernels take x (N, L, C) with so many hidden units, padded."""
    both = (_forward_choices(x), (BACKWARD, 2 * TILE * 2 * x.shape[2]))
    return x.shape[2] in CHANNELS and all(
        _fitting(choices, x.shape[2], hidden, size) for choices, size in both
    )


def _forward_choices(x: Tensor) -> tuple[list[Config], int]:
    """Choices of the forward for x, and the bytes of one of their stages."""
    if x.dtype == torch.float32:  # a ring for each of two consumers
        return FORWARD_FP32, 2 * 3 * TILE * FP32_WIDTH * 4
    return FORWARD, 3 * TILE * 2 * x.shape[2]


def _best_forward(x: Tensor, tables: Tables, rehearse: Callable[[], Run]) -> Config:
    """The launch options of the forward."""
    kernel = "hopper_fwd_fp32" if x.dtype == torch.float32 else "hopper_fwd"
    candidates, stage_bytes = _forward_choices(x)
    hidden = len(tables.up)
    choices = _fitting(candidates, x.shape[2], hidden, stage_bytes)
    return autotune.best(kernel, key_of(x, H=hidden), choices, rehearse)


def forward(
    x: Tensor,
    conv_weight: Tensor,
    tables: Tables,
    parts: Parts,
    statistics: tuple[Tensor, Tensor],
    dilation: int,
    trim: int,
    eps: float,
    keep: bool,
    config: Config | None = None,
) -> tuple[Tensor, Tensor]:
    """The block's output (N, L - 2 trim, C), and xhat like it (of no elements unless `keep`)."""
    n, length, channels = x.shape
    single = x.dtype == torch.float32
    if config is None:

        def rehearse() -> Run:
            big = filling(x)
            given, unit = Parts.constant(big, parts.tiles), unit_statistics(big)
            return partial(
                forward, big, conv_weight, tables, given, unit, dilation, trim, eps, keep
            )

        config = _best_forward(x, tables, rehearse)
    window = length - 2 * trim
    bind_thread(x.device)
    out = torch.empty(n, window, channels, dtype=x.dtype, device=x.device)
    xhat = torch.empty_like(out, dtype=tables.up.dtype) if keep else out.new_empty(0)
    tiles = triton.cdiv(window, TILE)
    grid = (min(multiprocessors(x.device), n * tiles),)
    written = (
        conv_weight, parts.mean, parts.m2, parts.count, *statistics, out, xhat if keep else out,
        length, window, trim, dilation, tiles, n * tiles, parts.tiles, eps,
    )  # fmt: skip
    options = {**_options(tables, channels, config), **dependent_launch(x.device)}
    options |= {"PARTS": padded(parts.tiles), "KEEP": keep, "ROLLED": bool(config["rolled"])}
    down = _tables(tables.down_half, tables, config)
    if single:
        hopper_fwd_fp32_kernel[grid](
            TensorDescriptor.from_tensor(x, [1, TILE, FP32_WIDTH], _layout_fp32()),
            _descriptor(tables.up, config["hidden"], FP32_WIDTH), *down, *written,
            tables.unscale, **options,
        )  # fmt: skip
    else:
        up = _tables(tables.up, tables, config)
        kernels.hopper_fwd_kernel[grid](
            *_rows(x, tables), *up, *down, *written, CONSUMERS=config["consumers"], **options
        )
    return out, xhat


def xhat_gradient(
    xhat: Tensor,
    dout: OutputGradient,
    tables: Tables,
    dtype: torch.dtype,
    config: Config | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """g = d xhat (N, window, C), and its sums."""
    n, window, channels = xhat.shape
    tiles = triton.cdiv(window, TILE)
    if config is None:

        def rehearse() -> Run:
            big = filling(xhat)
            return partial(xhat_gradient, big, dout.like(big), tables, dtype)

        choices = _fitting(BACKWARD, channels, len(tables.up), 2 * TILE * 2 * channels)
        key = key_of(xhat, H=len(tables.up), scaled=int(dout.scales is not None))
        config = autotune.best("hopper_bwd_xhat", key, choices, rehearse)
    bind_thread(xhat.device)
    g = torch.empty_like(xhat, dtype=dtype)
    sums = empty_sums(xhat, tiles)
    kernels.hopper_bwd_xhat_kernel[(min(multiprocessors(xhat.device), n * tiles),)](
        *_rows(xhat, tables), *_rows(dout.values, tables), *_tables(tables.up, tables, config),
        *_tables(tables.down, tables, config), dout.scales_or_any, g, *sums,
        window, tiles, n * tiles, tables.unscale, SCALED=dout.scales is not None,
        EARLY=dout.complete, CONSUMERS=config["consumers"],
        **_options(tables, channels, config), **dependent_launch(xhat.device),
    )  # fmt: skip
    return g, *few_sums(*sums)


def joint_positions(channels: int) -> int:
    """Positions that go through a consumer's first products at once: a thread has 240 registers."""
    return TILE if channels <= 64 else TILE // 2


def joint_programs(xhat: Tensor) -> int:
    """Programs of `joint_gradients` for xhat (N, window, C): parts of the weights' gradients."""
    return min(multiprocessors(xhat.device), xhat.shape[0] * triton.cdiv(xhat.shape[1], TILE))


def joint_sums(xhat: Tensor) -> int:
    """Sums of g an example: one for each warp of a tile, or for each tile where these are many."""
    tiles = triton.cdiv(xhat.shape[1], TILE)
    return 4 * tiles if few_tiles(4 * tiles) == 4 * tiles else tiles


def joint_gradients(
    xhat: Tensor,
    dout: OutputGradient,
    tables: Tables,
    dtype: torch.dtype,
    config: Config | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """g = d xhat (N, window, C), its sums, and both tables' gradients (2, parts, HP, CA + CB)."""
    n, window, channels = xhat.shape
    tiles = triton.cdiv(window, TILE)
    chunks = len(tables.up) // HIDDEN_STEP
    if config is None:

        def rehearse() -> Run:
            big = filling(xhat)
            return partial(joint_gradients, big, dout.like(big), tables, dtype)

        key = key_of(xhat, H=len(tables.up), scaled=int(dout.scales is not None))
        config = autotune.best("hopper_bwd", key, JOINT, rehearse)
    bind_thread(xhat.device)
    g = torch.empty_like(xhat, dtype=dtype)
    sums = empty_sums(xhat, joint_sums(xhat))
    programs = joint_programs(xhat)
    partial_sums = empty_partial_sums(xhat, programs, tables.up)
    of_table = {"hidden": HIDDEN_STEP}
    at_entry, consumer = JOINT_REGISTERS
    hopper_bwd_kernel[(programs,)](
        *_rows(xhat, tables), *_rows(dout.values, tables), *_tables(tables.up, tables, of_table),
        *_tables(tables.down, tables, of_table), dout.scales_or_any, g, *sums, *partial_sums,
        window, tiles, n * tiles, tables.unscale,
        C=channels, CA=tables.widths[0], CB=tables.widths[1], CHUNKS=chunks,
        STAGES=config["stages"], SLOTS=config["slots"], P=joint_positions(channels),
        SUMS=sums[0].shape[1] // tiles, SCALED=dout.scales is not None,
        EARLY=dout.complete, REGISTERS=consumer,
        num_warps=4, maxnreg=at_entry, **dependent_launch(xhat.device),
    )  # fmt: skip
    return g, *few_sums(*sums), partial_sums


def _fitting(choices: list[Config], channels: int, hidden: int, stage_bytes: int) -> list[Config]:
    """The choices whose weights and stages fit in shared memory."""
    used = 2 * hidden * 2 * channels + 12 * channels + 1024
    return [c for c in choices if used + c["stages"] * stage_bytes <= SHARED_BYTES]


def _options(tables: Tables, channels: int, config: Config) -> dict[str, object]:
    at_entry, consumer = REGISTERS[config["consumers"]]
    return {
        "C": channels,
        "CA": tables.widths[0],
        "CB": tables.widths[1],
        "HS": config["hidden"],
        "CHUNKS": len(tables.up) // config["hidden"],
        "STAGES": config["stages"],
        "REGISTERS": consumer,
        "num_warps": 4,
        "maxnreg": at_entry,
    }


@cache
def _layout(columns: int, rank: int) -> gl.NVMMASharedLayout:
    """Rows of 64 or more 16-bit columns in swizzled 128 bytes, of 32 in 64 bytes."""
    swizzle = 128 if columns >= 64 else 64
    return gl.NVMMASharedLayout(swizzle_byte_width=swizzle, element_bitwidth=16, rank=rank)


@cache
def _layout_fp32() -> gl.NVMMASharedLayout:
    return gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=32, rank=3)


def _rows(x: Tensor, tables: Tables) -> list[TensorDescriptor]:
    """Descriptors of x (N, rows, C) in tiles of CA and of CB columns."""
    return [
        TensorDescriptor.from_tensor(x, [1, TILE, width], _layout(width, 3))
        for width in _widths(tables)
    ]


def _tables(table: Tensor, tables: Tables, config: Config) -> list[TensorDescriptor]:
    """Descriptors of a table (HP, C) in tiles of CA and of CB columns."""
    return [_descriptor(table, config["hidden"], width) for width in _widths(tables)]


def _descriptor(table: Tensor, rows: int, columns: int) -> TensorDescriptor:
    return TensorDescriptor.from_tensor(table, [rows, columns], _layout(columns, 2))


def _widths(tables: Tables) -> tuple[int, int]:
    first, second = tables.widths
    return first, second or first
