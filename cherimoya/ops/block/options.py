"""Launch options of the block's portable kernels, and which of them a GPU has room for."""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from cherimoya.ops import autotune
from cherimoya.ops.autotune import Config, Run, configs
from cherimoya.ops.block.weights import ROWS_OF_SUMS, OutputGradient, Tables
from cherimoya.ops.conv_norm.launch import key_of
from cherimoya.ops.device import filling, shared_memory

_gemm = partial(configs, ("rows", "hidden", "stages", "num_warps"))

# Launch options to choose from; the first is the default.
FORWARD = _gemm(
    (128, 64, 3, 8), (64, 64, 3, 4), (128, 64, 2, 8), (64, 32, 3, 4), (128, 32, 4, 8),
    (256, 64, 2, 16), (64, 32, 2, 4), (64, 32, 5, 8),
)  # fmt: skip
BACKWARD_XHAT = _gemm(
    (64, 32, 2, 4), (64, 64, 2, 4), (64, 64, 2, 8), (64, 32, 3, 4), (128, 32, 2, 8), (64, 32, 4, 4),
)  # fmt: skip
BACKWARD_WEIGHTS = _gemm(
    (64, 64, 3, 4), (32, 64, 3, 4), (64, 64, 2, 4), (64, 64, 3, 8), (32, 64, 3, 8), (64, 64, 2, 8),
    (32, 64, 5, 4),
)  # fmt: skip

MOST_ACCUMULATED = 192  # elements of accumulators that a thread can hold


def best_options(
    kernel: str,
    x: Tensor,
    tables: Tables,
    dout: OutputGradient | None,
    choices: list[Config],
    rehearse: Callable[[Tensor], Run],
) -> Config:
    """The launch options for x (N, L, C), of the choices that the GPU has room for.

    `rehearse(big)` is what `autotune.best` measures, for an x that fills the GPU. Where dout has
    scales, a tile is what one of them belongs to.
    """
    rows, columns = tables.up.shape
    scaled = dout is not None and dout.scales is not None
    possible = [
        choice
        for choice in choices
        if rows % choice["hidden"] == 0
        and (not scaled or choice["rows"] == ROWS_OF_SUMS)
        and _accumulated(kernel, choice) * columns <= MOST_ACCUMULATED * 32 * choice["num_warps"]
    ]
    by_need = sorted(possible, key=lambda choice: _shared_bytes(kernel, choice, columns))
    room = shared_memory(x.device)
    fitting = [c for c in possible if _shared_bytes(kernel, c, columns) <= room]
    key = key_of(x, H=rows, scaled=int(scaled))
    return autotune.best(kernel, key, fitting or by_need[:1], lambda: rehearse(filling(x)))


def _accumulated(kernel: str, choice: Config) -> int:
    """Rows of a program's accumulators."""
    return 2 * choice["hidden"] if kernel == "block_bwd_weights" else choice["rows"]


def _shared_bytes(kernel: str, choice: Config, columns: int) -> int:
    """Shared memory of a program: rows that stay, and pairs of tiles that stream through."""
    stays, streams = {
        "block_fwd": (choice["rows"], choice["hidden"]),
        "block_bwd_xhat": (2 * choice["rows"], choice["hidden"]),
        "block_bwd_weights": (2 * choice["hidden"], choice["rows"]),
    }[kernel]
    return 2 * columns * (stays + 2 * streams * choice["stages"])
