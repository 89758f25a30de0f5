"""Both heads' first halves as one operation, with its gradients."""

from typing import Any

import torch
from torch import Tensor

from cherimoya.ops import reference
from cherimoya.ops.complete import note_complete
from cherimoya.ops.device import (
    contiguous,
    dependent_launch,
    full_precision,
    interpreting,
    multiprocessors,
)
from cherimoya.ops.dispatch import route

MOST_CHANNELS = 256  # that a tile of positions holds at once
MOST_GROUPS = 4

ROWS = 64  # positions of a tile
TAPS = 16  # taps of a step, the fewest that a product takes
DIAGONALS = 128  # positions whose products a program adds up
GRADIENT_TAPS = 128  # taps whose gradients a program adds up
WIDE = 128  # channels beyond which a tile is smaller, to have room on every GPU


@torch.library.custom_op("cherimoya::heads", mutates_args=())
def fused_heads(x: Tensor, weight: Tensor, bias: Tensor, cut: int) -> tuple[Tensor, Tensor]:
    """Logits (N, G, L - 2 cut) and features (N, C), fp32: see `heads`."""
    logits, features = _empty(x, weight, bias, cut)
    if x.numel():
        with torch.cuda.device_of(x):
            x, weight, bias = contiguous(x), contiguous(weight.float()), contiguous(bias.float())
            by_taps = _point_heads if weight.shape[2] == 1 else _heads_of_taps
            by_taps(x, weight, bias, cut, logits, features)
    return logits, features


@fused_heads.register_fake
def _empty(x: Tensor, weight: Tensor, bias: Tensor, cut: int) -> tuple[Tensor, Tensor]:
    n, length, channels = x.shape
    logits = x.new_empty(n, len(weight), length - 2 * cut, dtype=torch.float32)
    return logits, x.new_empty(n, channels, dtype=torch.float32)


@torch.library.custom_op("cherimoya::heads_backward", mutates_args=())
def fused_heads_backward(
    dlogits: Tensor, dfeatures: Tensor, x: Tensor, weight: Tensor, cut: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x (its dtype), of weight (G, C, k) and of bias (G,), both fp32."""
    from cherimoya.ops.heads import kernels

    dx, dweight, dbias = _empty_gradients(dlogits, dfeatures, x, weight, cut)
    if not x.numel():
        return dx, dweight.zero_(), dbias.zero_()
    with torch.cuda.device_of(x):
        x, weight = contiguous(x), contiguous(weight.float())
        dlogits, dfeatures = contiguous(dlogits.float()), contiguous(dfeatures.float())
        groups, channels, taps = weight.shape
        by_taps = _point_gradients if taps == 1 else _gradients_of_taps
        parts = by_taps(dlogits, dfeatures, x, weight, cut, dx)
        block = 1024 if interpreting() else 32  # the interpreter likes few programs
        kernels.heads_reduce_kernel[(-(-parts.shape[1] // block),)](
            parts, dweight, dbias, len(parts), C=channels, G=groups, K=taps, BLOCK=block,
            DEPTH=128, num_warps=4, **dependent_launch(x.device),
        )  # fmt: skip
        note_complete(dx)
    return dx, dweight, dbias


@fused_heads_backward.register_fake
def _empty_gradients(
    dlogits: Tensor, dfeatures: Tensor, x: Tensor, weight: Tensor, cut: int
) -> tuple[Tensor, Tensor, Tensor]:
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    dweight = weight.new_empty(weight.shape, dtype=torch.float32)
    return dx, dweight, weight.new_empty(len(weight), dtype=torch.float32)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, bias, ctx.cut = inputs
    ctx.save_for_backward(x, weight)
    ctx.dtypes = weight.dtype, bias.dtype


def _gradients(ctx: Any, dlogits: Tensor, dfeatures: Tensor) -> tuple[Tensor | None, ...]:
    dx, *gradients = fused_heads_backward(dlogits, dfeatures, *ctx.saved_tensors, ctx.cut)
    dweight, dbias = (g.to(dtype) for g, dtype in zip(gradients, ctx.dtypes, strict=True))
    return dx, dweight, dbias, None


fused_heads.register_autograd(_gradients, setup_context=_save)


def _point_heads(
    x: Tensor, weight: Tensor, bias: Tensor, cut: int, logits: Tensor, features: Tensor
) -> None:
    """Fill both outputs, for one tap."""
    from cherimoya.ops.heads import kernels

    (n, length, channels), window = x.shape, logits.shape[2]
    rows, num_warps = _point_tile(channels)
    tiles = -(-window // rows)
    parts = x.new_empty(n, tiles, channels, dtype=torch.float32)
    kernels.point_heads_fwd_kernel[(n * tiles,)](
        x, weight, bias, logits, parts, length, window, cut, tiles, 1 / window,
        BM=rows, num_warps=num_warps, **_options(x, weight),
    )  # fmt: skip
    kernels.heads_features_kernel[(n * -(-channels // 32),)](
        parts, features, tiles, C=channels, BLOCK=32, DEPTH=16, num_warps=4,
        **dependent_launch(x.device),
    )  # fmt: skip


def _heads_of_taps(
    x: Tensor, weight: Tensor, bias: Tensor, cut: int, logits: Tensor, features: Tensor
) -> None:
    """Fill both outputs, for more taps than one."""
    from cherimoya.ops.heads import kernels

    (n, length, channels), window = x.shape, logits.shape[2]
    groups, _, taps = weight.shape
    full = full_precision(x.device, x.dtype)
    rounded = _rounding(x) and not full
    table = _table(weight, x.dtype, rounded)
    rows = ROWS if channels > WIDE else 2 * ROWS
    tiles = -(-length // rows)
    parts = x.new_empty(n, tiles, channels, dtype=torch.float32)
    z = x.new_empty(n, groups, taps, tiles * rows, dtype=torch.float32)
    kernels.heads_products_kernel[(n * tiles,)](
        x, table, z, parts, length, window, cut, tiles, 1 / window,
        K=taps, TP=table.shape[1], BM=rows, TAPS=TAPS, ROUND=rounded,
        PRECISION="tf32x3" if full else "tf32", **_pipeline(4), **_options(x, weight),
    )  # fmt: skip
    blocks = -(-window // DIAGONALS)
    kernels.heads_diagonals_kernel[(n * groups * blocks,)](
        z, bias, parts, logits, features, length, window, cut, blocks, z.shape[3], tiles,
        C=channels, CP=_power_of_two(channels, MOST_CHANNELS), G=groups, K=taps, BLOCK=DIAGONALS,
        DEPTH=16, num_warps=4, **dependent_launch(x.device),
    )  # fmt: skip


def _point_gradients(
    dlogits: Tensor, dfeatures: Tensor, x: Tensor, weight: Tensor, cut: int, dx: Tensor
) -> Tensor:
    """Fill dx; the other gradients in parts (programs, G C + G), for one tap."""
    from cherimoya.ops.heads import kernels

    (n, length, channels), window = x.shape, dlogits.shape[2]
    groups = len(weight)
    rows, num_warps = _point_tile(channels)
    tiles = -(-length // rows)
    programs = _programs(n * tiles, 16 // num_warps * multiprocessors(x.device))
    parts = x.new_empty(programs, weight.numel() + groups, dtype=torch.float32)
    kernels.point_heads_bwd_kernel[(programs,)](
        x, weight, dlogits, dfeatures, dx, parts,
        length, window, cut, tiles, n * tiles, 1 / window,
        GP=_power_of_two(groups, MOST_GROUPS, least=1), BM=rows, num_warps=num_warps,
        **_options(x, weight),
    )  # fmt: skip
    return parts


def _gradients_of_taps(
    dlogits: Tensor, dfeatures: Tensor, x: Tensor, weight: Tensor, cut: int, dx: Tensor
) -> Tensor:
    """Fill dx; the other gradients in parts (programs, G k C + G), taps before channels."""
    from cherimoya.ops.heads import kernels

    (n, length, channels), window = x.shape, dlogits.shape[2]
    groups, _, taps = weight.shape
    half = x.dtype == torch.bfloat16
    options = {"K": taps, "ROUND": _rounding(x), **_options(x, weight)}
    table = _table(weight, x.dtype if half else torch.float32, _rounding(x))
    narrow = channels <= 96  # room in registers for more taps at a time
    tiles = -(-length // ROWS)
    kernels.heads_bwd_x_kernel[(n * tiles,)](
        table, dlogits, dfeatures, dx, length, window, cut, tiles, 1 / window,
        TP=table.shape[1], BM=ROWS, TAPS=TAPS * (4 if narrow and groups == 1 else 2), LEAST=TAPS,
        num_warps=4 if narrow else 8, **options,
    )  # fmt: skip
    rows = ROWS // 2 if channels > WIDE else ROWS
    tiles = -(-length // rows)
    block = _power_of_two(taps, GRADIENT_TAPS)
    share = groups * -(-taps // block)  # programs that read the same tiles
    programs = _programs(n * tiles, 2 * multiprocessors(x.device) // share)
    parts = x.new_empty(programs, weight.numel() + groups, dtype=torch.float32)
    kernels.heads_bwd_weight_kernel[(programs * share,)](
        x, dlogits, parts, length, window, cut, tiles, n * tiles,
        BM=rows, TAPS=block, HALF=half, **_pipeline(8), **options,
    )  # fmt: skip
    return parts


def _options(x: Tensor, weight: Tensor) -> dict[str, Any]:
    """What every kernel that reads x or makes its gradient is told."""
    from cherimoya.ops.block.weights import column_widths

    first, second = column_widths(x.shape[2])
    sizes = {"C": x.shape[2], "CA": first, "CB": second, "G": len(weight)}
    return {**sizes, **dependent_launch(x.device)}


def _pipeline(num_warps: int) -> dict[str, int]:
    """The launch options of a loop of products."""
    return {"STAGES": 2, "num_stages": 2, "num_warps": num_warps}


def _rounding(v: Tensor) -> bool:
    """Whether fp32 operands are to be rounded to TF32: NVIDIA's products would truncate them."""
    return v.device.type == "cuda" and not torch.version.hip


def _table(weight: Tensor, dtype: torch.dtype, rounded: bool) -> Tensor:
    """The weight as products in this dtype read it: (G, k, C), both padded with zeros."""
    from cherimoya.ops.block.weights import column_widths
    from cherimoya.ops.heads import kernels

    groups, channels, taps = weight.shape
    shape = (groups, -(-taps // TAPS) * TAPS, sum(column_widths(channels)))
    table = weight.new_empty(shape, dtype=dtype)
    kernels.heads_table_kernel[(-(-table.numel() // 256),)](
        weight, table, C=channels, CP=shape[2], G=groups, K=taps, TP=shape[1], BLOCK=256,
        ROUND=rounded, num_warps=4, **dependent_launch(weight.device),
    )  # fmt: skip
    return table


def _point_tile(channels: int) -> tuple[int, int]:
    """Positions of a tile, and warps, that keep it and its gradient in registers."""
    return ROWS // 2 if channels > WIDE else ROWS, 4 if channels <= 96 else 8


def _programs(tiles: int, most: int) -> int:
    """Up to `most` programs (1 at least) that share the tiles evenly."""
    each = -(-tiles // max(1, most))
    return -(-tiles // each)


def _power_of_two(size: int, most: int, least: int = 16) -> int:
    """The power of two that holds `size`, between two others."""
    return max(least, min(most, 1 << (size - 1).bit_length()))


def heads_composed(x: Tensor, weight: Tensor, bias: Tensor, cut: int) -> tuple[Tensor, Tensor]:
    """`heads` in PyTorch; the logits have the dtype of torch's product."""
    logits = reference.profile_head(x, weight, bias)
    at_least_float = torch.promote_types(x.dtype, torch.float32)
    features = x[:, cut : x.shape[1] - cut].mean(dim=1, dtype=at_least_float)
    return logits[:, :, cut : logits.shape[2] - cut], features


def heads(x: Tensor, weight: Tensor, bias: Tensor, cut: int) -> tuple[Tensor, Tensor]:
    """Profile logits and the mean of x, which the count head reads, inside the window.

    The logits are a convolution over positions with padding k // 2; the window is what is left
    of it, and of x, without `cut` positions on each side. By fused kernels where the blocks are,
    with up to 256 channels and 4 groups; elsewhere by `heads_composed`. fp32 is multiplied as TF32,
    if torch may; else in full, by the kernels only where no gradient is wanted.

    Parameters
    ----------
    x : Tensor (N, L, C)
        The last block's output, fp32, bf16 or fp16.
    weight : Tensor (G, C, k)
        k is odd.
    bias : Tensor (G,)
    cut : int
        Positions left out on each side.

    Returns
    -------
    tuple of Tensor
        Logits (N, G, L - 2 * cut) and features (N, C), fp32 by the kernels.

    Raises
    ------
    ValueError
        If the shapes do not fit each other, k is even, or nothing is left.
    """
    if x.dim() != 3:
        raise ValueError(f"x has shape {tuple(x.shape)}; it must be (N, L, C)")
    if weight.dim() != 3 or weight.shape[1] != x.shape[2] or weight.shape[2] % 2 == 0:
        raise ValueError(
            f"the profile head's weight has shape {tuple(weight.shape)}; for x {tuple(x.shape)} "
            f"it must be (G, {x.shape[2]}, k) with k odd"
        )
    if bias.shape != (len(weight),):
        raise ValueError(
            f"the profile head's bias has shape {tuple(bias.shape)}; it must be ({len(weight)},)"
        )
    if cut < 0 or 2 * cut >= x.shape[1]:
        raise ValueError(f"cut={cut} leaves nothing of {x.shape[1]} positions")
    fits = 0 < x.shape[2] <= MOST_CHANNELS and 0 < len(weight) <= MOST_GROUPS
    if fits and route(x.device, x.dtype).whole(x, weight, bias):
        return fused_heads(x, weight, bias, cut)
    return heads_composed(x, weight, bias, cut)
