"""Triton kernels that cut the windows of a batch out of the tables of all loci."""

import triton
import triton.language as tl

from cherimoya.ops.conv_norm.kernels import wait_for_previous_kernel


@triton.jit
def _source(rows, shift, flip, n, at, LENGTH):
    """Row, strand, and the stored position of each window position `at` of example n."""
    turned = tl.load(flip + n) != 0
    position = tl.load(shift + n) + tl.where(turned, LENGTH - 1 - at, at)
    return tl.load(rows + n), turned, position


@triton.jit
def one_hot_kernel(
    sequence, rows, shift, flip, X, stored, LENGTH,
    BASES: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """sequence (loci, stored) codes; rows, shift, flip (N,) -> X (N, 4, LENGTH)."""
    wait_for_previous_kernel(PDL)
    n = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < LENGTH
    row, turned, position = _source(rows, shift, flip, n, at, LENGTH)
    code = tl.load(sequence + row * stored + position, mask=inside, other=BASES).to(tl.int32)
    code = tl.where(turned & (code < BASES), BASES - 1 - code, code)
    for base in tl.static_range(BASES):
        hot = (code == base).to(X.dtype.element_ty)
        tl.store(X + (n * BASES + base) * LENGTH + at, hot, mask=inside)


@triton.jit
def values_kernel(
    values, channels, rows, shift, flip, out, stored, LENGTH, tracks,
    BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """values (loci, tracks, stored), channels (2, tracks) by strand -> out (N, tracks, LENGTH)."""
    wait_for_previous_kernel(PDL)
    n = tl.program_id(0).to(tl.int64)
    track = tl.program_id(2)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < LENGTH
    row, turned, position = _source(rows, shift, flip, n, at, LENGTH)
    channel = tl.load(channels + turned.to(tl.int32) * tracks + track)
    value = tl.load(values + (row * tracks + channel) * stored + position, mask=inside, other=0)
    tl.store(out + (n * tracks + track) * LENGTH + at, value.to(tl.float32), mask=inside)
