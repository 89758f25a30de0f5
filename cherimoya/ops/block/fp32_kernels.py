"""Triton kernels of the block for fp32 tensors in full precision, by fp16's fast units.

Each factor of a product is the sum of two numbers of fp16, high + low, and of the four products of
those the three that matter are added up in fp32 (Ootomo and Yokota 2022): 22 bits of each factor at
three times the cost of 11. Where a GPU adds to a sum it truncates, so small terms come first, and
the sums of linear2 are rounded once for each HS hidden units.

The weights come as tables of both halves, times SCALE, a power of two that keeps the low halves of
small weights from fp16's least numbers. Gradients are brought into its range by a power of two for
each tile, so that what is lost of a small one is small beside the tile's largest.
"""

import triton
import triton.language as tl

from cherimoya.ops.block.half_kernels import halves, scale_for
from cherimoya.ops.block.kernels import load_inside, load_rows, load_table, store_rows
from cherimoya.ops.conv_norm.kernels import (
    combine_stats,
    load_taps,
    wait_for_previous_kernel,
)


@triton.jit
def reciprocal(d, FAST: tl.constexpr):
    """1 / d; FAST: by the GPU's own instruction, with an error in its last bit."""
    if FAST:
        return tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=f,f", [d], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        return 1.0 / d


@triton.jit
def gelu_of_scaled(h, SCALE: tl.constexpr, LOG_SCALE: tl.constexpr, FAST: tl.constexpr):
    """gelu(h / SCALE), of which gelu(x) = x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)).

    FAST: by the GPU's own exponential and reciprocal, each with an error in its last bit.
    """
    LINEAR: tl.constexpr = -2 * 0.7978845608028654 * 1.4426950408889634 / SCALE  # of log2
    CUBIC: tl.constexpr = LINEAR * 0.044715 / (SCALE * SCALE)
    d = SCALE + tl.exp2(h * (h * h * CUBIC + LINEAR) + LOG_SCALE)
    return h * reciprocal(d, FAST)


@triton.jit
def gelu_and_slope(h, FAST: tl.constexpr):
    """gelu(h) and its derivative, as exact as `gelu_of_scaled`."""
    LINEAR: tl.constexpr = 2 * 0.7978845608028654
    h2 = h * h
    d = 1.0 + tl.exp2(h * (h2 * (-LINEAR * 0.044715) - LINEAR) * 1.4426950408889634)
    s = reciprocal(d, FAST)
    return h * s, s + h * s * (1.0 - s) * (h2 * (3 * LINEAR * 0.044715) + LINEAR)


@triton.jit
def dot_halves(a_high, a_low, b_high, b_low, acc):
    """acc + a b, of whose terms the smallest are added first."""
    acc = tl.dot(a_low, b_high, acc)
    acc = tl.dot(a_high, b_low, acc)
    return tl.dot(a_high, b_high, acc)


@triton.jit
def mid_range_scale(largest):
    """The power of two that brings `largest` far from both ends of fp16's range."""
    return scale_for(largest, 10, 40)


@triton.jit
def normalised_rows(
    x, weight, row, L, d, mean, rstd, C: tl.constexpr, FIRST: tl.constexpr, WIDTH: tl.constexpr
):
    """Columns FIRST .. FIRST + WIDTH of the normalised convolution of x (L, C) at these rows."""
    column = FIRST + tl.arange(0, WIDTH)
    w0, w1, w2 = load_taps(weight, column[None, :], C)
    before = load_inside(x, row - d, L, C, FIRST, WIDTH)
    here = load_inside(x, row, L, C, FIRST, WIDTH)
    after = load_inside(x, row + d, L, C, FIRST, WIDTH)
    v = (before * w0 + (here * w1 + (after * w2 - mean))) * rstd
    return tl.where((column < C)[None, :], v, 0.0)


@triton.jit(do_not_specialize=["L", "window", "trim", "d", "tiles", "parts"])
def block_full_fp32_fwd_kernel(
    x, weight, part_mean, part_m2, part_count, w1, w2, out, mean_out, rstd_out,
    L, window, trim, d, tiles, parts, eps, unscale,
    C: tl.constexpr, CA: tl.constexpr, CB: tl.constexpr, HP: tl.constexpr, HS: tl.constexpr,
    BM: tl.constexpr, STAGES: tl.constexpr, PARTS: tl.constexpr, SCALE: tl.constexpr,
    LOG_SCALE: tl.constexpr, FAST: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out = x + linear2(gelu(linear1(xhat))) for BM rows of one example.

    x (N, L, C) of which rows trim .. trim + window; out (N, window, C), and for the backward
    mean_out and rstd_out (N,). The tables (2, HP, CA + CB)
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
    if pid % tiles == 0:
        tl.store(mean_out + n, mean)
        tl.store(rstd_out + n, rstd)
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


@triton.jit(do_not_specialize=["window", "tiles"])
def block_full_fp32_bwd_xhat_kernel(
    xhat, dout, w1, w2, g, sum_g, sum_gx, window, tiles, residual_scale,
    C: tl.constexpr, CA: tl.constexpr, CB: tl.constexpr, HP: tl.constexpr, HS: tl.constexpr,
    BM: tl.constexpr, STAGES: tl.constexpr, SCALE: tl.constexpr, FAST: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """g = d xhat for BM rows of one example, and the tile's sums of g and g * xhat.

    xhat, dout, g (N, window, C); sum_g, sum_gx (N, tiles).
    """
    wait_for_previous_kernel(PDL)
    pid = tl.program_id(0)
    n = (pid // tiles).to(tl.int64)
    row = (pid % tiles) * BM + tl.arange(0, BM)
    CP: tl.constexpr = CA + CB
    xhat += n * window * C
    dout += n * window * C
    g += n * window * C
    va_high, va_low = halves(load_rows(xhat, row, window, C, 0, CA))
    ya = load_rows(dout, row, window, C, 0, CA)
    largest = tl.max(tl.abs(ya))
    if CB > 0:
        vb_high, vb_low = halves(load_rows(xhat, row, window, C, CA, CB))
        yb = load_rows(dout, row, window, C, CA, CB)
        largest = tl.maximum(largest, tl.max(tl.abs(yb)))
    scale = mid_range_scale(largest)
    ya_high, ya_low = halves(ya * scale)
    ga = tl.zeros((BM, CA), dtype=tl.float32)
    if CB > 0:
        yb_high, yb_low = halves(yb * scale)
        gb = tl.zeros((BM, CB), dtype=tl.float32)
    row_gx = tl.zeros((BM,), dtype=tl.float32)
    w1_low = w1 + HP * CP
    w2_low = w2 + HP * CP
    for first in tl.range(0, HP, HS, num_stages=STAGES, disable_licm=True):
        up_a = load_table(w1, first, CP, 0, HS, CA)
        up_a_low = load_table(w1_low, first, CP, 0, HS, CA)
        down_a = load_table(w2, first, CP, 0, HS, CA)
        down_a_low = load_table(w2_low, first, CP, 0, HS, CA)
        pre = tl.zeros((BM, HS), dtype=tl.float32)
        dact = tl.zeros((BM, HS), dtype=tl.float32)
        pre = dot_halves(va_high, va_low, tl.trans(up_a), tl.trans(up_a_low), pre)
        dact = dot_halves(ya_high, ya_low, tl.trans(down_a), tl.trans(down_a_low), dact)
        if CB > 0:
            up_b = load_table(w1, first, CP, CA, HS, CB)
            up_b_low = load_table(w1_low, first, CP, CA, HS, CB)
            down_b = load_table(w2, first, CP, CA, HS, CB)
            down_b_low = load_table(w2_low, first, CP, CA, HS, CB)
            pre = dot_halves(vb_high, vb_low, tl.trans(up_b), tl.trans(up_b_low), pre)
            dact = dot_halves(yb_high, yb_low, tl.trans(down_b), tl.trans(down_b_low), dact)
        pre *= 1 / SCALE
        _, slope = gelu_and_slope(pre, FAST)
        dpre = dact * (slope * (1 / (SCALE * scale)))
        row_gx += tl.sum(dpre * pre, 1)
        own = mid_range_scale(tl.max(tl.abs(dpre)))
        dpre_high, dpre_low = halves(dpre * own)
        share = tl.zeros((BM, CA), dtype=tl.float32)
        ga += dot_halves(dpre_high, dpre_low, up_a, up_a_low, share) * (1 / (SCALE * own))
        if CB > 0:
            share = tl.zeros((BM, CB), dtype=tl.float32)
            gb += dot_halves(dpre_high, dpre_low, up_b, up_b_low, share) * (1 / (SCALE * own))
    store_rows(g, row, window, ga * residual_scale, C, 0, CA)
    total = tl.sum(ga)
    if CB > 0:
        store_rows(g, row, window, gb * residual_scale, C, CA, CB)
        total += tl.sum(gb)
    tl.store(sum_g + pid, total * residual_scale)
    tl.store(sum_gx + pid, tl.sum(row_gx) * residual_scale)


@triton.jit(do_not_specialize=["all_rows", "all_tiles"])
def block_full_fp32_bwd_weights_kernel(
    xhat, dout, w1, w2, part_dw1, part_dw2, all_rows, all_tiles, unscale1, unscale2,
    C: tl.constexpr, CA: tl.constexpr, CB: tl.constexpr, HP: tl.constexpr, HS: tl.constexpr,
    BM: tl.constexpr, STAGES: tl.constexpr, SCALE: tl.constexpr, FAST: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """Partial gradients of HS hidden units' weights over every `parts`-th tile of BM rows.

    As `block_bwd_weights_kernel`, which see: xhat, dout (all_rows, C) -> part_dw1, part_dw2.
    """
    wait_for_previous_kernel(PDL)
    SLICES: tl.constexpr = HP // HS
    CP: tl.constexpr = CA + CB
    part = tl.program_id(0) // SLICES
    parts = tl.num_programs(0) // SLICES
    first = (tl.program_id(0) % SLICES) * HS
    w1_low = w1 + HP * CP
    w2_low = w2 + HP * CP
    dw1_a = tl.zeros((HS, CA), dtype=tl.float32)
    dw2_a = tl.zeros((HS, CA), dtype=tl.float32)
    if CB > 0:
        dw1_b = tl.zeros((HS, CB), dtype=tl.float32)
        dw2_b = tl.zeros((HS, CB), dtype=tl.float32)
    for tile in tl.range(part, all_tiles, parts, num_stages=STAGES, disable_licm=True):
        start = tl.cast(tile, tl.int64) * BM
        left = (all_rows - start).to(tl.int32)
        row = tl.arange(0, BM)
        va_high, va_low = halves(load_rows(xhat + start * C, row, left, C, 0, CA))
        ya = load_rows(dout + start * C, row, left, C, 0, CA)
        largest = tl.max(tl.abs(ya))
        if CB > 0:
            yb = load_rows(dout + start * C, row, left, C, CA, CB)
            largest = tl.maximum(largest, tl.max(tl.abs(yb)))
        scale = mid_range_scale(largest)
        ya_high, ya_low = halves(ya * scale)
        pre = tl.zeros((HS, BM), dtype=tl.float32)
        dact = tl.zeros((HS, BM), dtype=tl.float32)
        up = load_table(w1, first, CP, 0, HS, CA)
        up_low = load_table(w1_low, first, CP, 0, HS, CA)
        pre = dot_halves(up, up_low, tl.trans(va_high), tl.trans(va_low), pre)
        down = load_table(w2, first, CP, 0, HS, CA)
        down_low = load_table(w2_low, first, CP, 0, HS, CA)
        dact = dot_halves(down, down_low, tl.trans(ya_high), tl.trans(ya_low), dact)
        if CB > 0:
            vb_high, vb_low = halves(load_rows(xhat + start * C, row, left, C, CA, CB))
            yb_high, yb_low = halves(yb * scale)
            up = load_table(w1, first, CP, CA, HS, CB)
            up_low = load_table(w1_low, first, CP, CA, HS, CB)
            pre = dot_halves(up, up_low, tl.trans(vb_high), tl.trans(vb_low), pre)
            down = load_table(w2, first, CP, CA, HS, CB)
            down_low = load_table(w2_low, first, CP, CA, HS, CB)
            dact = dot_halves(down, down_low, tl.trans(yb_high), tl.trans(yb_low), dact)
        act, slope = gelu_and_slope(pre * (1 / SCALE), FAST)
        dpre = dact * (slope * (1 / (SCALE * scale)))
        own = mid_range_scale(tl.max(tl.abs(dpre)))
        dpre_high, dpre_low = halves(dpre * own)
        by_act = mid_range_scale(tl.max(tl.abs(act)))
        act_high, act_low = halves(act * by_act)
        by_act = 1 / (by_act * scale)
        share = tl.zeros((HS, CA), dtype=tl.float32)
        dw1_a += dot_halves(dpre_high, dpre_low, va_high, va_low, share) * (1 / own)
        dw2_a += dot_halves(act_high, act_low, ya_high, ya_low, share) * by_act
        if CB > 0:
            share = tl.zeros((HS, CB), dtype=tl.float32)
            dw1_b += dot_halves(dpre_high, dpre_low, vb_high, vb_low, share) * (1 / own)
            dw2_b += dot_halves(act_high, act_low, yb_high, yb_low, share) * by_act
    at = part.to(tl.int64) * (HP * CP) + (first + tl.arange(0, HS))[:, None] * CP
    at_a = at + tl.arange(0, CA)[None, :]
    tl.store(part_dw1 + at_a, dw1_a * unscale1)
    tl.store(part_dw2 + at_a, dw2_a * unscale2)
    if CB > 0:
        at_b = at + (CA + tl.arange(0, CB))[None, :]
        tl.store(part_dw1 + at_b, dw1_b * unscale1)
        tl.store(part_dw2 + at_b, dw2_b * unscale2)
