"""Launches of the kernels of the convolution with normalisation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
import triton
from torch import Tensor

from cherimoya.ops import autotune
from cherimoya.ops.autotune import Config, Run, configs
from cherimoya.ops.conv_norm import bwd_kernels, kernels
from cherimoya.ops.device import (
    contiguous,
    dependent_launch,
    filling,
    interpreting,
    length_bucket,
    multiprocessors,
)

# Launch options to choose from; the first is the default. A program holds `rows` pieces of
# `columns` channels at once, and loads them `ahead` steps early, in place of a pipeline's stages.
_march = partial(configs, ("columns", "rows", "steps", "ahead", "num_warps"))
STATS = _march(
    (32, 16, 17, 4, 4), (32, 32, 17, 2, 8), (32, 8, 34, 6, 2), (32, 16, 9, 4, 4), (64, 8, 34, 6, 4),
    (32, 64, 9, 2, 16), (32, 32, 9, 4, 8), (32, 128, 5, 2, 16),
)  # fmt: skip
FORWARD = _march(
    (32, 32, 5, 4, 4), (32, 32, 9, 2, 4), (32, 16, 9, 4, 4), (32, 16, 17, 4, 4), (64, 16, 9, 4, 4),
    (32, 64, 5, 3, 8), (32, 128, 3, 2, 16), (64, 32, 5, 5, 8),
)  # fmt: skip
BACKWARD = _march(
    (32, 16, 9, 4, 4), (32, 16, 5, 4, 4), (32, 8, 9, 4, 2), (64, 16, 9, 2, 4), (32, 16, 17, 3, 4),
    (64, 32, 9, 2, 16), (32, 32, 5, 3, 8),
)  # fmt: skip
BACKWARD_FP32 = [BACKWARD[1], BACKWARD[0], *BACKWARD[2:]]  # whose registers hold 5 steps, not 9
MANY_TILES = 512
REGISTERS = 32  # of a thread in the backward, for each position and channel that it holds


@dataclass(frozen=True)
class March:
    """How `rows` positions fall into lanes, see the kernels' docstring."""

    lanes: int
    tiles: int  # of an example
    splits: int  # pieces of a row
    options: dict[str, int]  # the kernels' constants and launch options

    @staticmethod
    def over(rows: int, dilation: int, channels: int, config: Mapping[str, int]) -> "March":
        in_lane = triton.cdiv(rows, dilation)
        steps = min(config["steps"], in_lane)
        if in_lane < 4 * steps:  # walks of equal length
            steps = triton.cdiv(in_lane, round(in_lane / steps))
        lanes = min(rows, dilation) * triton.cdiv(in_lane, steps)
        options = {
            "C": channels,
            "COLUMNS": config["columns"],
            "ROWS": config["rows"],
            "STEPS": steps,
            "AHEAD": min(config["ahead"], steps),
            "num_warps": config["num_warps"],
        }
        splits = triton.cdiv(channels, config["columns"])
        return March(lanes, triton.cdiv(lanes * splits, config["rows"]), splits, options)


def few_tiles(tiles: int) -> int:
    """Tiles an example that a program reads the results of: all, or 1 after they are joined."""
    return tiles if tiles <= MANY_TILES else 1


@dataclass(frozen=True)
class Parts:
    """Statistics of tiles, (N, tiles) each."""

    mean: Tensor
    m2: Tensor
    count: Tensor
    tiles: int

    @staticmethod
    def empty(x: Tensor, tiles: int) -> "Parts":
        mean, m2, count = (x.new_empty(len(x), tiles, dtype=torch.float32) for _ in range(3))
        return Parts(mean, m2, count, tiles)

    @staticmethod
    def constant(x: Tensor, tiles: int) -> "Parts":
        """Parts that stand for examples of variance 1."""
        mean, one = (x.new_full((len(x), tiles), v, dtype=torch.float32) for v in (0, 1))
        return Parts(mean, one, one, tiles)

    def few(self) -> "Parts":
        """The same with one tile an example, where there are many: each program reads them all."""
        if few_tiles(self.tiles) == self.tiles:
            return self
        count = self.count.sum(1, keepdim=True)
        mean = (self.mean * self.count).sum(1, keepdim=True) / count
        m2 = (self.m2 + self.count * (self.mean - mean).square()).sum(1, keepdim=True)
        return Parts(mean, m2, count, 1)


def empty_sums(x: Tensor, tiles: int) -> tuple[Tensor, Tensor]:
    """Sums of g and g * xhat over tiles, (N, tiles) each, to be filled."""
    g, gx = (x.new_empty(len(x), tiles, dtype=torch.float32) for _ in range(2))
    return g, gx


def few_sums(g: Tensor, gx: Tensor) -> tuple[Tensor, Tensor]:
    """The same with one tile an example, where there are many: each program reads them all."""
    if few_tiles(g.shape[1]) == g.shape[1]:
        return g, gx
    return g.sum(1, keepdim=True), gx.sum(1, keepdim=True)


def key_of(x: Tensor, **more: int | str) -> dict[str, int | str]:
    """What launch options are chosen for: never the number of examples."""
    dtype = str(x.dtype).removeprefix("torch.")
    return {"C": x.shape[2], **more, "dtype": dtype, "L": length_bucket(x.shape[1])}


def padded(size: int) -> int:
    """The power of two, at least 32, that one program reads `size` partial results with."""
    return max(32, triton.next_power_of_2(size))


def stats(x: Tensor, weight: Tensor, dilation: int, config: Config | None = None) -> Parts:
    """Statistics of the convolution of x (N, L, C) by tiles."""
    n, length, channels = x.shape
    if config is None:
        config = best("conv_stats", x, STATS, lambda big: partial(stats, big, weight, dilation))
    march = March.over(length, dilation, channels, config)
    parts = Parts.empty(x, march.tiles)
    kernels.conv_stats_kernel[(n * march.tiles,)](
        x, weight, parts.mean, parts.m2, parts.count, length, dilation, march.lanes,
        march.tiles, **march.options, **dependent_launch(x.device),
    )  # fmt: skip
    return parts.few()


def normalised(
    x: Tensor,
    weight: Tensor,
    dilation: int,
    trim: int,
    dtype: torch.dtype,
    parts: Parts | None,
    statistics: tuple[Tensor, Tensor],
    eps: float,
    config: Config | None = None,
) -> Tensor:
    """The normalised convolution (N, L - 2 trim, C).

    `statistics` are mean and 1 / std (N,): filled from `parts` if given, else read.
    """
    n, length, channels = x.shape
    if config is None:

        def rehearse(big: Tensor) -> Run:
            given = Parts.constant(big, parts.tiles) if parts else None
            return partial(
                normalised, big, weight, dilation, trim, dtype, given, unit_statistics(big), eps
            )

        config = best("conv_norm_fwd", x, FORWARD, rehearse)
    window = length - 2 * trim
    y = torch.empty(n, window, channels, dtype=dtype, device=x.device)
    march = March.over(window, dilation, channels, config)
    mean, rstd = statistics
    given = parts or Parts(mean, mean, mean, 1)
    kernels.conv_norm_fwd_kernel[(n * march.tiles,)](
        x, weight, given.mean, given.m2, given.count, mean, rstd, y,
        length, window, trim, dilation, march.lanes, march.tiles, given.tiles, eps,
        PARTS=padded(given.tiles), COMBINE=parts is not None,
        **march.options, **dependent_launch(x.device),
    )  # fmt: skip
    return y


def gradient_sums(
    x: Tensor,
    weight: Tensor,
    dy: Tensor,
    statistics: tuple[Tensor, Tensor],
    dilation: int,
    config: Config | None = None,
) -> tuple[Tensor, Tensor]:
    """Sums of dy and dy * xhat (N, L, C) over tiles of each example."""
    n, length, channels = x.shape
    if config is None:

        def rehearse(big: Tensor) -> Run:
            return partial(gradient_sums, big, weight, big, unit_statistics(big), dilation)

        config = best("conv_norm_bwd_sums", x, FORWARD, rehearse)
    march = March.over(length, dilation, channels, config)
    sums = empty_sums(x, march.tiles)
    bwd_kernels.conv_norm_bwd_sums_kernel[(n * march.tiles,)](
        x, weight, dy, *statistics, *sums, length, dilation, march.lanes, march.tiles,
        **march.options, **dependent_launch(x.device),
    )  # fmt: skip
    return few_sums(*sums)


def backward(
    x: Tensor,
    weight: Tensor,
    dy: Tensor,
    statistics: tuple[Tensor, Tensor],
    sums: tuple[Tensor, Tensor],
    dilation: int,
    config: Config | None = None,
) -> tuple[Tensor, Tensor]:
    """dx (N, L, C), and the taps' gradient in parts (parts, 3, C), for dy (N, L, C)."""
    n_sums = sums[0].shape[1]
    if config is None:

        def rehearse(big: Tensor) -> Run:
            zero = big.new_zeros(len(big), n_sums, dtype=torch.float32)
            grad, given = filling(dy, len(big)), unit_statistics(big)
            return partial(backward, big, weight, grad, given, (zero, zero), dilation)

        config = best("conv_norm_bwd", x, backward_choices(x), rehearse)
    march, dx, part_dw = backward_march(x, dilation, config)
    bwd_kernels.conv_norm_bwd_kernel[(len(part_dw),)](
        x, weight, dy, *statistics, *sums, dx, part_dw,
        len(x), x.shape[1], dilation, march.lanes, march.tiles, n_sums,
        SUMS=padded(n_sums), **march.options, **registers(config), **dependent_launch(x.device),
    )  # fmt: skip
    return dx, part_dw


def backward_choices(x: Tensor) -> list[Config]:
    """The launch options of the backward for x (N, L, C)."""
    return BACKWARD if x.element_size() == 2 else BACKWARD_FP32


def backward_march(
    x: Tensor, dilation: int, config: Config, shares: int = 1
) -> tuple[March, Tensor, Tensor]:
    """How the backward marches, dx (N, L, C) and the taps' gradient (programs, 3, C) to fill.

    Programs are as many as own a tile, or as there are shares of other work if these are more,
    but no more than the GPU holds at once.
    """
    n, length, channels = x.shape
    march = March.over(length, dilation, channels, config)
    groups = n * triton.cdiv(march.tiles, march.splits)
    wanted = max(groups, triton.cdiv(shares, march.splits))
    parts = max(1, min(wanted, _resident(x.device, config) // march.splits))
    part_dw = x.new_empty(parts * march.splits, 3, channels, dtype=torch.float32)
    return march, torch.empty_like(x), part_dw


def sum_rows(parts: Tensor) -> Tensor:
    """Sum over the first dimension of a contiguous fp32 tensor, in a fixed order."""
    rows, size = len(parts), parts[0].numel()
    out = torch.empty_like(parts[0])
    block = 256 if interpreting() else 8  # the interpreter likes few programs
    kernels.sum_rows_kernel[(triton.cdiv(size, block),)](
        parts, out, rows, size, BLOCK=block, DEPTH=2048, num_warps=8,
        **dependent_launch(parts.device),
    )  # fmt: skip
    return out


def best(
    kernel: str, x: Tensor, choices: list[Config], rehearse: Callable[[Tensor], Run]
) -> Config:
    """The launch options for x (N, L, C), of the choices whose columns are not mostly padding.

    `rehearse(big)` is what `autotune.best` measures, for an x that fills the GPU.
    """
    channels = x.shape[2]
    fitting = [choice for choice in choices if channels % choice["columns"] == 0]
    choices = fitting or choices[:1]
    return autotune.best(kernel, key_of(x), choices, lambda: rehearse(filling(x)))


def empty_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """mean and 1 / std (N,), to be filled."""
    return x.new_empty(len(x), dtype=torch.float32), x.new_empty(len(x), dtype=torch.float32)


def unit_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """mean and 1 / std (N,) of normalised examples."""
    return x.new_zeros(len(x), dtype=torch.float32), x.new_ones(len(x), dtype=torch.float32)


def registers(config: Config) -> dict[str, int]:
    """The launch option of the backward that bounds a thread's registers, on NVIDIA GPUs."""
    return {} if torch.version.hip else {"maxnreg": min(255, REGISTERS * _held(config))}


def _held(config: Config) -> int:
    """Positions and channels that a thread of a march holds at once."""
    return config["rows"] * config["columns"] // (32 * config["num_warps"])


def _resident(device: torch.device, config: Config) -> int:
    """Programs of the backward that the GPU holds at once."""
    return multiprocessors(device) * max(1, 64 // (_held(config) * config["num_warps"]))


def prepared(x: Tensor, weight: Tensor, dilation: int) -> tuple[Tensor, Tensor, int]:
    """The arguments as the kernels want them; no tap reaches further than the whole length."""
    return contiguous(x), contiguous(weight.float()), min(dilation, x.shape[1])
