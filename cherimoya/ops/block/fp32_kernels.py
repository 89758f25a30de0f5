"""Triton kernels of the block's forward for fp32 tensors in full precision, by fp16's fast units.

Each factor of a product is the sum of two numbers of fp16, high + low, and of the four products of
those the three that matter are added up in fp32 (Ootomo and Yokota 2022): 22 bits of each factor at
three times the cost of 11. Where a GPU adds to a sum it truncates, so small terms come first, and
the sums of linear2 are rounded once for each HS hidden units.

The weights come as tables of both halves, times SCALE, a power of two that keeps the low halves of
small weights from fp16's least numbers. There is no backward: training in full precision
multiplies by cuBLAS.
"""

import triton
import triton.language as tl

from cherimoya.ops.block.kernels import halves, load_inside, load_rows, load_table, store_rows
from cherimoya.ops.conv_norm.kernels import (
    combine_stats,
    load_taps,
    wait_for_previous_kernel,
)


@triton.jit
def gelu_of_scaled(h, SCALE: tl.constexpr, LOG_SCALE: tl.constexpr, FAST: tl.constexpr):
    """gelu(h / SCALE), of which gelu(x) = x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)).

    FAST: by the GPU's own exponential and reciprocal, each with an error in its last bit.
    """
    LINEAR: tl.constexpr = -2 * 0.7978845608028654 * 1.4426950408889634 / SCALE  # of log2
    CUBIC: tl.constexpr = LINEAR * 0.044715 / (SCALE * SCALE)
    d = SCALE + tl.exp2(h * (h * h * CUBIC + LINEAR) + LOG_SCALE)
    if FAST:
        inverse = tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=f,f", [d], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        inverse = 1.0 / d
    return h * inverse


@triton.jit
def normalised_rows(
    x, weight, row, L, d, mean, rstd, C: tl.constexpr, FIRST: tl.constexpr, WIDTH: tl.constexpr
):
    """Columns FIRST .. FIRST + WIDTH of the normalised convolution of x (L, C) at these rows."""
    column = FIRST + tl.arange(0, WIDTH)
    w0, w1, w2 = load_taps(weight, column, C)
    before = load_inside(x, row - d, L, C, FIRST, WIDTH)
    here = load_inside(x, row, L, C, FIRST, WIDTH)
    after = load_inside(x, row + d, L, C, FIRST, WIDTH)
    v = (before * w0 + (here * w1 + (after * w2 - mean))) * rstd
    return tl.where((column < C)[None, :], v, 0.0)


@triton.jit(do_not_specialize=["L", "window", "trim", "d", "tiles", "parts"])
def block_full_fp32_fwd_kernel(
    x, weight, part_mean, part_m2, part_count, w1, w2, out,
    L, window, trim, d, tiles, parts, eps, unscale,
    C: tl.constexpr, CA: tl.constexpr, CB: tl.constexpr, HP: tl.constexpr, HS: tl.constexpr,
    BM: tl.constexpr, STAGES: tl.constexpr, PARTS: tl.constexpr, SCALE: tl.constexpr,
    LOG_SCALE: tl.constexpr, FAST: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out = x + linear2(gelu(linear1(xhat))) for BM rows of one example.

    x (N, L, C) of which rows trim .. trim + window; out (N, window, C). The tables (2, HP, CA + CB)
    hold SCALE times the weights, see `prepare_weights`; `unscale` brings the sums over linear2's
    back.
    """
    wait_for_previous_kernel(PDL)
    pid = tl.program_id(0)
    n = (pid // tiles).to(tl.int64)
    row = (pid % tiles) * BM + tl.arange(0, BM)
    CP: tl.constexpr = CA + CB
    x += n * L * C
    out += n * window * C
    size = (L * C).to(tl.float32)
    mean, rstd = combine_stats(part_mean, part_m2, part_count, n, parts, size, eps, PARTS)
    va = normalised_rows(x, weight, row + trim, L, d, mean, rstd, C, 0, CA)
    va_high, va_low = halves(va)
    acc_a = tl.zeros((BM, CA), dtype=tl.float32)
    if CB > 0:
        vb = normalised_rows(x, weight, row + trim, L, d, mean, rstd, C, CA, CB)
        vb_high, vb_low = halves(vb)
        acc_b = tl.zeros((BM, CB), dtype=tl.float32)
    w1_low = w1 + HP * CP
    w2_low = w2 + HP * CP
    for first in tl.range(0, HP, HS, num_stages=STAGES, disable_licm=True):
        wa = tl.trans(load_table(w1, first, CP, 0, HS, CA))
        pre = tl.dot(va_low, wa)
        pre = tl.dot(va_high, tl.trans(load_table(w1_low, first, CP, 0, HS, CA)), pre)
        if CB > 0:
            wb = tl.trans(load_table(w1, first, CP, CA, HS, CB))
            pre = tl.dot(vb_low, wb, pre)
            pre = tl.dot(vb_high, tl.trans(load_table(w1_low, first, CP, CA, HS, CB)), pre)
            pre = tl.dot(vb_high, wb, pre)
        pre = tl.dot(va_high, wa, pre)
        act_high, act_low = halves(gelu_of_scaled(pre, SCALE, LOG_SCALE, FAST))
        wa = load_table(w2, first, CP, 0, HS, CA)
        share = tl.dot(act_low, wa)
        share = tl.dot(act_high, load_table(w2_low, first, CP, 0, HS, CA), share)
        acc_a += tl.dot(act_high, wa, share)
        if CB > 0:
            wb = load_table(w2, first, CP, CA, HS, CB)
            share = tl.dot(act_low, wb)
            share = tl.dot(act_high, load_table(w2_low, first, CP, CA, HS, CB), share)
            acc_b += tl.dot(act_high, wb, share)
    x += trim * C
    store_rows(out, row, window, load_rows(x, row, window, C, 0, CA) + acc_a * unscale, C, 0, CA)
    if CB > 0:
        residual = load_rows(x, row, window, C, CA, CB)
        store_rows(out, row, window, residual + acc_b * unscale, C, CA, CB)
