"""Launches of the kernels of the whole Cheri Block."""

from functools import partial
from types import ModuleType

import torch
import triton
from torch import Tensor

from cherimoya.ops.autotune import Config, Run
from cherimoya.ops.block import kernels
from cherimoya.ops.block.options import BACKWARD_WEIGHTS, BACKWARD_XHAT, FORWARD, best_options
from cherimoya.ops.block.weights import (
    HIDDEN_STEP,
    ROWS_OF_SUMS,
    OutputGradient,
    Tables,
    empty_partial_sums,
    padded_hidden,
    table_scales,
)
from cherimoya.ops.complete import note_complete
from cherimoya.ops.conv_norm import launch as conv
from cherimoya.ops.conv_norm.launch import March, Parts
from cherimoya.ops.device import (
    capability,
    dependent_launch,
    fast_tanh,
    filling,
    interpreting,
    multiprocessors,
    portable,
)

WEIGHT_BLOCK = 1024


def stats_and_tables(
    x: Tensor,
    conv_weight: Tensor,
    linear1_weight: Tensor,
    linear2_weight: Tensor,
    dilation: int,
    tables: Tables,
    config: Config | None = None,
) -> Parts:
    """Statistics of the convolution of x, and the weights' `tables` filled, in one launch."""
    n, length, channels = x.shape
    weights = (conv_weight, linear1_weight, linear2_weight)
    if config is None:
        config = conv.best("block_stats", x, conv.STATS, lambda big: partial(
            stats_and_tables, big, *weights, dilation, tables
        ))  # fmt: skip
    march = March.over(length, dilation, channels, config)
    parts = Parts.empty(x, march.tiles)
    padded_rows, padded_channels = tables.up.shape[-2:]
    weight_programs = triton.cdiv(padded_rows * padded_channels, WEIGHT_BLOCK)
    kernels.block_stats_kernel[(n * march.tiles + weight_programs,)](
        x, conv_weight, parts.mean, parts.m2, parts.count, linear1_weight, linear2_weight,
        tables.up, tables.down, tables.down_half,
        length, dilation, march.lanes, march.tiles, n * march.tiles, tables.scale,
        H=len(linear1_weight), CP=padded_channels, HP=padded_rows, BLOCK=WEIGHT_BLOCK,
        HALF=tables.down_half is not tables.down, SPLIT=tables.up.dim() == 3,
        **march.options, **dependent_launch(x.device),
    )  # fmt: skip
    return parts.few()


def products(
    xhat: Tensor, x: Tensor, tables: Tables, trim: int, config: Config | None = None
) -> Tensor:
    """x + residual_scale * linear2(gelu(linear1(xhat))): (N, L - 2 trim, C)."""
    n, window, channels = xhat.shape
    if config is None:

        def rehearse(big: Tensor) -> Run:
            return partial(products, big, filling(x, len(big)), tables, trim)

        config = best_options("block_fwd", xhat, tables, None, FORWARD, rehearse)
    out = torch.empty_like(xhat, dtype=x.dtype)
    tiles = triton.cdiv(window, config["rows"])
    kernels.block_fwd_kernel[(n * tiles,)](
        xhat, x, tables.up, tables.down, out, x.shape[1], window, trim, tiles, tables.unscale,
        C=channels, **tables.options(), **_options(config, x),
    )  # fmt: skip
    return out


def xhat_gradient(
    xhat: Tensor,
    dout: OutputGradient,
    tables: Tables,
    dtype: torch.dtype,
    config: Config | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """g = d xhat (N, window, C), and its sums."""
    n, window, channels = xhat.shape
    if config is None:

        def rehearse(big: Tensor) -> Run:
            return partial(xhat_gradient, big, dout.like(big), tables, dtype)

        config = best_options("block_bwd_xhat", xhat, tables, dout, BACKWARD_XHAT, rehearse)
    g = torch.empty_like(xhat, dtype=dtype)
    tiles = triton.cdiv(window, config["rows"])
    sums = conv.empty_sums(xhat, triton.cdiv(window, ROWS_OF_SUMS))
    kernels.block_bwd_xhat_kernel[(n * tiles,)](
        xhat, dout.values, dout.scales_or_any, tables.up, tables.down, g, *sums,
        window, tiles, sums[0].shape[1], tables.unscale,
        C=channels, **tables.options(), SCALED=dout.scales is not None, **_options(config, xhat),
    )  # fmt: skip
    return g, *conv.few_sums(*sums)


def weight_gradients(
    xhat: Tensor,
    dout: OutputGradient,
    tables: Tables,
    config: Config | None = None,
    early: bool = False,
) -> Tensor:
    """Gradients of both tables in parts (2, parts, HP, CA + CB).

    early: the kernel before, such as that of `xhat_gradient`, makes nothing that is read here, and
    waits, or waited, for what does.
    """
    n, window, channels = xhat.shape
    if config is None:

        def rehearse(big: Tensor) -> Run:
            return partial(weight_gradients, big, dout.like(big), tables)

        config = best_options("block_bwd_weights", xhat, tables, dout, BACKWARD_WEIGHTS, rehearse)
    scaled = dout.scales is not None
    parts = weight_parts(xhat, len(tables.up))
    if not scaled:  # nothing asks for the examples' borders
        n, window = 1, n * window
    tiles = triton.cdiv(window, config["rows"])
    slices = len(tables.up) // config["hidden"]
    partial_sums = empty_partial_sums(xhat, parts, tables.up)
    kernels.block_bwd_weights_kernel[(parts * slices,)](
        xhat, dout.values, dout.scales_or_any, tables.up, tables.down, *partial_sums,
        window, tiles, n * tiles, C=channels, **tables.options(), SCALED=scaled,
        EARLY=early,
        OWNED=triton.next_power_of_2(triton.cdiv(n * tiles, parts)) if scaled else 1,
        **_options(config, xhat),
    )  # fmt: skip
    return partial_sums


def weight_parts(xhat: Tensor, padded_rows: int) -> int:
    """Programs that share xhat (N, window, C) for the gradient of one step of hidden units."""
    rows = xhat.shape[0] * xhat.shape[1]
    resident = 2 * multiprocessors(xhat.device) // (padded_rows // HIDDEN_STEP)
    return max(1, min(-(-rows // ROWS_OF_SUMS), resident))


def backward_sizes(dout: Tensor, hidden: int, joint: bool) -> tuple[int, int]:
    """Sums of g an example, and parts of the weights' gradients, that the backward makes."""
    if joint:
        from cherimoya.ops.block import hopper_launch

        return conv.few_tiles(hopper_launch.joint_sums(dout)), hopper_launch.joint_programs(dout)
    tiles = conv.few_tiles(triton.cdiv(dout.shape[1], ROWS_OF_SUMS))
    return tiles, weight_parts(dout, padded_hidden(hidden))


def backward_conv(
    x: Tensor,
    weight: Tensor,
    g: Tensor,
    dout: Tensor,
    statistics: tuple[Tensor, Tensor],
    sums: tuple[Tensor, Tensor],
    partial_sums: Tensor,
    hidden: int,
    dilation: int,
    residual_scale: float,
    trim: int,
    config: Config | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, and of the taps (3, C), linear1 (H, C) and linear2 (C, H), fp32.

    g (N, L - 2 trim, C) is the gradient of the normalised convolution, dout that of the block's
    output, of the same shape; partial_sums (2, parts, HP, CP) those of both tables.
    """
    n, length, channels = x.shape
    window, n_sums = g.shape[1], sums[0].shape[1]
    if config is None:

        def rehearse(big: Tensor) -> Run:
            zero = big.new_zeros(len(big), n_sums, dtype=torch.float32)
            grad, given, both = filling(g, len(big)), conv.unit_statistics(big), (zero, zero)
            shape = 2, multiprocessors(x.device), *partial_sums.shape[2:]
            many = big.new_zeros(shape, dtype=torch.float32)
            return partial(
                backward_conv, big, weight, grad, grad, given, both, many, hidden, dilation,
                residual_scale, trim,
            )  # fmt: skip

        config = conv.best("block_bwd_conv", x, conv.backward_choices(x), rehearse)
    _, parts, padded_rows, padded_channels = partial_sums.shape
    block = 1024 if interpreting() else 64  # the interpreter likes few slices
    slices = 2 * triton.cdiv(padded_rows * padded_channels, block)
    march, dx, part_dw = conv.backward_march(x, dilation, config, slices)
    shapes = (hidden, channels), (channels, hidden)
    dw1, dw2 = (x.new_empty(shape, dtype=torch.float32) for shape in shapes)
    _, unscale = table_scales(x, residual_scale)
    kernels.block_bwd_conv_kernel[(len(part_dw),)](
        x, weight, g, dout, *statistics, *sums, dx, part_dw, partial_sums, dw1, dw2,
        n, length, window, trim, dilation, march.lanes, march.tiles, n_sums, parts,
        slices, unscale, residual_scale / 2,
        SUMS=conv.padded(n_sums), H=hidden, CP=padded_channels, HP=padded_rows, BLOCK=block,
        DEPTH=64, **march.options, **conv.registers(config), **dependent_launch(x.device),
    )  # fmt: skip
    dweight = conv.sum_rows(part_dw)
    note_complete(dx)
    return dx, dweight, dw1, dw2


def _options(config: Config, x: Tensor) -> dict[str, object]:
    return {
        "BM": config["rows"],
        "HS": config["hidden"],
        "STAGES": config["stages"],
        "num_warps": config["num_warps"],
        "num_stages": config["stages"],
        "FAST": fast_tanh(x.device),
        **dependent_launch(x.device),
    }


def hopper_launches(x: Tensor, hidden: int) -> ModuleType | None:
    """The launches in Gluon, where they serve x (N, L, C)."""
    hopper = _hopper(x.device)
    return hopper if hopper and hopper.is_supported(x, padded_hidden(hidden)) else None


def joint_sizes(device: torch.device) -> tuple[tuple[int, int, int], ...]:
    """The sizes of `hopper_launch.joint_gradients`, where it serves this device."""
    hopper = _hopper(device)
    return hopper.JOINT_SIZES if hopper else ()


def _hopper(device: torch.device) -> ModuleType | None:
    if capability(device)[0] != 9 or portable():
        return None
    try:
        from cherimoya.ops.block import hopper_launch
    except ImportError:  # a Triton without this Gluon
        return None
    return hopper_launch
