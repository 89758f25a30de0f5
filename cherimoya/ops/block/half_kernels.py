"""Triton kernels that bring fp32 into fp16: as the sum of two, or scaled into its range."""

import triton
import triton.language as tl

from cherimoya.ops.conv_norm.kernels import wait_for_previous_kernel


@triton.jit
def halves(v):
    """fp32 v as high + low, both fp16."""
    high = v.to(tl.float16)
    return high, (v - high.to(tl.float32)).to(tl.float16)


@triton.jit
def scale_for(largest, LOG: tl.constexpr, LEAST: tl.constexpr):
    """The power of two that makes `largest`, if it is 2^(LEAST - 127) or more, about 2^LOG."""
    exponent = tl.minimum(tl.maximum(largest.to(tl.int32, bitcast=True) >> 23, LEAST), 253)
    return ((254 + LOG - exponent) << 23).to(tl.float32, bitcast=True)


@triton.jit(do_not_specialize=["size", "tiles"])
def scale_to_half_kernel(
    x, y, scales, size, tiles, TILE: tl.constexpr, BLOCK: tl.constexpr, EARLY: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """y = scale * x in fp16, with a power of two for each tile that makes its largest about 1.

    x, y (N, size) -> scales (N, tiles), for tiles of TILE <= BLOCK elements of one example; the
    last may be shorter. One program a tile. EARLY: x is not made by the kernel before, so only
    writing waits for it.
    """
    if not EARLY:
        wait_for_previous_kernel(PDL)
    pid = tl.program_id(0)
    first = (pid % tiles) * TILE
    i = tl.arange(0, BLOCK)
    inside = (i < TILE) & (first + i < size)
    at = (pid // tiles).to(tl.int64) * size + first + i
    v = tl.load(x + at, mask=inside, other=0.0)
    scale = scale_for(tl.max(tl.abs(v)), 0, 1)
    if EARLY:
        wait_for_previous_kernel(PDL)
    tl.store(y + at, (v * scale).to(tl.float16), mask=inside)
    tl.store(scales + pid, scale)
