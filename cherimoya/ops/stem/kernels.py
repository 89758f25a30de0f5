"""Triton kernels of the stem, forward and backward: a convolution of 4 bases by K taps, then GELU.

An implicit matrix product. The windows of BM positions of one example, (BM, 4 K) with base b and
tap k in column b * K + k as in the weight (C, 4, K), are gathered from X and never stored. Both
the inner size and the C columns are handled as two powers of two, KA + KB and CA + CB, so that 84
costs 64 + 32 and 96 the same. Operands are in the dtype of the output, fp32 as TF32; sums are
fp32. The forward's may be in full fp32 (FULL), as three products of TF32. The backward's windows
have one more column, of ones: its product is the bias's gradient. A program works off every
`programs`-th tile of positions, in order, and reads the weights once, before the first.
"""

# Triton's language, not Python's.

import triton
import triton.language as tl

from cherimoya.ops.block.kernels import (
    CUBIC,
    CUBIC_SLOPE,
    SCALE,
    operand,
    store_rows,
    tanh,
    twice_gelu,
)
from cherimoya.ops.conv_norm.kernels import sum_rows, wait_for_previous_kernel


@triton.jit
def load_windows(
    x, row, L, base_stride, stride, K: tl.constexpr, FIRST: tl.constexpr, WIDTH: tl.constexpr,
    DT: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    """Columns FIRST .. FIRST + WIDTH of these positions' windows: 4 K of x (4, L), a one, zeros.

    Transposed, (WIDTH, BM): so they lie in memory, and go to shared memory as they are.
    """
    column = FIRST + tl.arange(0, WIDTH)
    base = column // K
    at = row[None, :] + (column - base * K - K // 2)[:, None]
    inside = at.to(tl.uint32) < L.to(tl.uint32)  # nor below 0
    if FIRST + WIDTH > 4 * K:
        inside = inside & (column < 4 * K)[:, None]
    v = tl.load(x + (base * base_stride)[:, None] + at * stride, mask=inside, other=0.0)
    v = operand(v, DT, FAST)
    if FIRST + WIDTH > 4 * K:
        one = tl.where(column == 4 * K, 1.0, 0.0).to(DT)
        v = tl.where((column == 4 * K)[:, None], one[:, None], v)
    return v


@triton.jit
def load_both_windows(
    x, row, L, base_stride, stride, K: tl.constexpr, KA: tl.constexpr, KB: tl.constexpr,
    DT: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    """Windows (KA, BM) and, if KB > 0, (KB, BM) of these positions."""
    va = load_windows(x, row, L, base_stride, stride, K, 0, KA, DT, FAST)
    vb = va
    if KB > 0:
        vb = load_windows(x, row, L, base_stride, stride, K, KA, KB, DT, FAST)
    return va, vb


@triton.jit
def load_weight(
    weight, C: tl.constexpr, K: tl.constexpr, FIRST_C: tl.constexpr, WC: tl.constexpr,
    FIRST_K: tl.constexpr, WK: tl.constexpr, DT: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    """A tile (WK, WC) of weight (C, 4 K) transposed, zero outside."""
    c = FIRST_C + tl.arange(0, WC)
    column = FIRST_K + tl.arange(0, WK)
    inside = (c < C)[:, None] & (column < 4 * K)[None, :]
    w = tl.load(weight + c[:, None] * (4 * K) + column[None, :], mask=inside, other=0.0)
    return tl.trans(operand(w, DT, FAST))


@triton.jit
def load_columns(
    weight, bias, C: tl.constexpr, K: tl.constexpr, KA: tl.constexpr, KB: tl.constexpr,
    FIRST: tl.constexpr, WIDTH: tl.constexpr, DT: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    """Weights (KA, WIDTH) and (KB, WIDTH) and bias (WIDTH,) of columns FIRST .. FIRST + WIDTH."""
    wa = load_weight(weight, C, K, FIRST, WIDTH, 0, KA, DT, FAST)
    wb = wa
    if KB > 0:
        wb = load_weight(weight, C, K, FIRST, WIDTH, KA, KB, DT, FAST)
    c = FIRST + tl.arange(0, WIDTH)
    return wa, wb, tl.load(bias + c, mask=c < C, other=0.0)


@triton.jit
def convolved(va, vb, wa, wb, b, KB: tl.constexpr, PRECISION: tl.constexpr):
    """The convolution of windows va (KA, BM) and vb (KB, BM): (BM, WIDTH), see `load_columns`."""
    pre = tl.dot(tl.trans(va), wa, input_precision=PRECISION)
    if KB > 0:
        pre = tl.dot(tl.trans(vb), wb, pre, input_precision=PRECISION)
    return pre + b[None, :]


@triton.jit(do_not_specialize=["L", "tiles", "all_tiles", "example_stride", "base_stride"])
def stem_fwd_kernel(
    x, weight, bias, out, L, tiles, all_tiles, example_stride, base_stride, stride,
    C: tl.constexpr, K: tl.constexpr, FIRST: tl.constexpr, CA: tl.constexpr, CB: tl.constexpr,
    KA: tl.constexpr, KB: tl.constexpr, BM: tl.constexpr, FAST: tl.constexpr,
    FULL: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out = gelu(conv(x)) for every `programs`-th tile, columns FIRST .. FIRST + CA + CB.

    x (N, 4, L) with any strides, weight (C, 4, K) and bias (C,) fp32, out (N, L, C). A tile is BM
    positions of one example.
    """
    wait_for_previous_kernel(PDL)
    DT: tl.constexpr = out.dtype.element_ty
    PRECISION: tl.constexpr = "tf32x3" if FULL else "tf32" if FAST else "ieee"
    w_aa, w_ba, bias_a = load_columns(weight, bias, C, K, KA, KB, FIRST, CA, DT, FAST)
    if CB > 0:
        w_ab, w_bb, bias_b = load_columns(weight, bias, C, K, KA, KB, FIRST + CA, CB, DT, FAST)
    for tile in tl.range(
        tl.program_id(0), all_tiles, tl.num_programs(0), num_stages=1, disable_licm=True
    ):
        n = (tile // tiles).to(tl.int64)
        row = (tile % tiles) * BM + tl.arange(0, BM)
        x_n = x + n * example_stride
        out_n = out + n * L * C
        va, vb = load_both_windows(x_n, row, L, base_stride, stride, K, KA, KB, DT, FAST)
        pre = convolved(va, vb, w_aa, w_ba, bias_a, KB, PRECISION)
        store_rows(out_n, row, L, 0.5 * twice_gelu(pre, FAST), C, FIRST, CA)
        if CB > 0:
            pre = convolved(va, vb, w_ab, w_bb, bias_b, KB, PRECISION)
            store_rows(out_n, row, L, 0.5 * twice_gelu(pre, FAST), C, FIRST + CA, CB)


@triton.jit
def gelu_slope(h, FAST: tl.constexpr):
    """The derivative of gelu(h)."""
    h2 = h * h
    t = tanh(h * (h2 * CUBIC + SCALE), FAST)
    return h * (h2 * (0.5 * CUBIC_SLOPE) + 0.5 * SCALE) * (1.0 - t * t) + (0.5 * t + 0.5)


@triton.jit
def load_gradient(p, row, rows, C: tl.constexpr, FIRST: tl.constexpr, WIDTH: tl.constexpr):
    """`load_rows`, but not from the first-level cache, see `let_next_kernel_start`."""
    column = FIRST + tl.arange(0, WIDTH)
    inside = (row < rows)[:, None]
    if FIRST + WIDTH > C:
        inside = inside & (column < C)[None, :]
    at = (row * C)[:, None] + column[None, :]
    return tl.load(p + at, mask=inside, other=0.0, cache_modifier=".cg")


@triton.jit
def store_part(
    part, value, C: tl.constexpr, K: tl.constexpr, FIRST_K: tl.constexpr, WK: tl.constexpr,
    FIRST_C: tl.constexpr, WC: tl.constexpr,
):  # fmt: skip
    """Write a tile (WK, WC) of part (4 K + 1, C): the weight's gradient transposed, the bias's."""
    column = (FIRST_K + tl.arange(0, WK))[:, None]
    c = (FIRST_C + tl.arange(0, WC))[None, :]
    tl.store(part + column * C + c, value, mask=(column <= 4 * K) & (c < C))


@triton.jit(do_not_specialize=["L", "tiles", "all_tiles", "example_stride", "base_stride"])
def stem_bwd_kernel(
    x, weight, bias, dout, part_dw, L, tiles, all_tiles, example_stride, base_stride, stride,
    C: tl.constexpr, K: tl.constexpr, FIRST: tl.constexpr, CA: tl.constexpr, CB: tl.constexpr,
    KA: tl.constexpr, KB: tl.constexpr, BM: tl.constexpr, FAST: tl.constexpr,
    EARLY: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Partial gradients of weight and bias over every `programs`-th tile of BM positions.

    x (N, 4, L) with any strides, weight (C, 4, K) and bias (C,) fp32, dout (N, L, C) -> part_dw
    (programs, 4 K + 1, C), columns FIRST .. FIRST + CA + CB. The convolution is computed again.
    EARLY: nothing that is read here is made by the kernel before, which may be Muon's: so only
    writing waits for it.
    """
    if not EARLY:
        wait_for_previous_kernel(PDL)
    DT: tl.constexpr = dout.dtype.element_ty
    PRECISION: tl.constexpr = "tf32" if FAST else "ieee"
    w_aa, w_ba, bias_a = load_columns(weight, bias, C, K, KA, KB, FIRST, CA, DT, FAST)
    dw_aa = tl.zeros((KA, CA), dtype=tl.float32)
    if KB > 0:
        dw_ba = tl.zeros((KB, CA), dtype=tl.float32)
    if CB > 0:
        w_ab, w_bb, bias_b = load_columns(weight, bias, C, K, KA, KB, FIRST + CA, CB, DT, FAST)
        dw_ab = tl.zeros((KA, CB), dtype=tl.float32)
        if KB > 0:
            dw_bb = tl.zeros((KB, CB), dtype=tl.float32)
    for tile in tl.range(
        tl.program_id(0), all_tiles, tl.num_programs(0), num_stages=1, disable_licm=True
    ):
        n = (tile // tiles).to(tl.int64)
        row = (tile % tiles) * BM + tl.arange(0, BM)
        x_n = x + n * example_stride
        dout_n = dout + n * L * C
        va, vb = load_both_windows(x_n, row, L, base_stride, stride, K, KA, KB, DT, FAST)
        dy = load_gradient(dout_n, row, L, C, FIRST, CA).to(tl.float32)
        if CB > 0:  # before its turn, so that it is there in time
            dy_b = load_gradient(dout_n, row, L, C, FIRST + CA, CB)
        pre = convolved(va, vb, w_aa, w_ba, bias_a, KB, PRECISION)
        dpre = operand(dy * gelu_slope(pre, FAST), DT, FAST)
        dw_aa = tl.dot(va, dpre, dw_aa, input_precision=PRECISION)
        if KB > 0:
            dw_ba = tl.dot(vb, dpre, dw_ba, input_precision=PRECISION)
        if CB > 0:
            pre = convolved(va, vb, w_ab, w_bb, bias_b, KB, PRECISION)
            dpre = operand(dy_b.to(tl.float32) * gelu_slope(pre, FAST), DT, FAST)
            dw_ab = tl.dot(va, dpre, dw_ab, input_precision=PRECISION)
            if KB > 0:
                dw_bb = tl.dot(vb, dpre, dw_bb, input_precision=PRECISION)
    if EARLY:
        wait_for_previous_kernel(PDL)
    part = part_dw + tl.program_id(0).to(tl.int64) * (C * (4 * K + 1))
    store_part(part, dw_aa, C, K, 0, KA, FIRST, CA)
    if KB > 0:
        store_part(part, dw_ba, C, K, KA, KB, FIRST, CA)
    if CB > 0:
        store_part(part, dw_ab, C, K, 0, KA, FIRST + CA, CB)
        if KB > 0:
            store_part(part, dw_bb, C, K, KA, KB, FIRST + CA, CB)


@triton.jit(do_not_specialize=["parts"])
def stem_reduce_kernel(
    part_dw, dweight, dbias, parts, C: tl.constexpr, K: tl.constexpr, BLOCK: tl.constexpr,
    DEPTH: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """dweight (C, 4, K), dbias (C,) = sum of part_dw (parts, 4 K + 1, C), in a fixed order."""
    wait_for_previous_kernel(PDL)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = sum_rows(part_dw, parts, (4 * K + 1) * C, at, BLOCK, DEPTH)
    column = at // C
    c = at % C
    tl.store(dweight + c * (4 * K) + column, total, mask=column < 4 * K)
    tl.store(dbias + c, total, mask=column == 4 * K)
