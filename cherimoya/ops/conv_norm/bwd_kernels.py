"""Triton kernels of the convolution with normalisation: its backward, marching as `kernels` do."""

import triton
import triton.language as tl

from cherimoya.ops.conv_norm.kernels import (
    below,
    columns_of,
    first_rows,
    load_ahead,
    load_row,
    load_taps,
    wait_for_previous_kernel,
)


@triton.jit(do_not_specialize=["L", "d", "lanes", "tiles"])
def conv_norm_bwd_sums_kernel(
    x, weight, dy, mean, rstd, sum_g, sum_gx, L, d, lanes, tiles,
    C: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr, STEPS: tl.constexpr,
    AHEAD: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Sums of dy and of dy * xhat over tiles, with xhat computed again from x.

    x, dy (N, L, C), weight (3, C), mean, rstd (N,) -> sum_g, sum_gx (N, tiles).
    """
    wait_for_previous_kernel(PDL)
    pid = tl.program_id(0)
    n = pid // tiles
    column = columns_of(pid % tiles, C, COLUMNS, ROWS)
    row = first_rows(pid % tiles, lanes, L, d, C, COLUMNS, ROWS, STEPS)
    in_columns = below(column, C, COLUMNS)
    dC = d * C
    x += n.to(tl.int64) * L * C
    dy += n.to(tl.int64) * L * C
    offset = row * C + column
    queue = load_ahead(x, offset, row, -1, AHEAD + 1, d, dC, L, in_columns)
    gs = load_ahead(dy, offset, row, 0, AHEAD, d, dC, L, in_columns)
    shift = tl.load(mean + n)
    w0, w1, w2 = load_taps(weight, column, C)
    before = queue[0].to(tl.float32)
    here = queue[1].to(tl.float32)
    g_total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    gx_total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for k in tl.static_range(STEPS):
        if k + AHEAD + 1 <= STEPS:
            queue = queue + (load_row(x, offset, row, k + AHEAD + 1, d, dC, L, in_columns),)
        if k + AHEAD < STEPS:
            gs = gs + (load_row(dy, offset, row, k + AHEAD, d, dC, L, in_columns),)
        after = queue[k + 2].to(tl.float32)
        g = gs[k].to(tl.float32)  # zero outside
        g_total += g
        gx_total += g * (before * w0 + (here * w1 + (after * w2 - shift)))
        before = here
        here = after
    tl.store(sum_g + pid, tl.sum(g_total))
    tl.store(sum_gx + pid, tl.sum(gx_total) * tl.load(rstd + n))


@triton.jit
def norm_coefficients(sum_g, sum_gx, mean, rstd, n, sums, size, SUMS: tl.constexpr):
    """b, c with d conv = rstd g + b conv + c, from the sums of g and g xhat over an example.

    d conv = rstd (g - mean(g) - xhat mean(g xhat)), and xhat = (conv - mean) rstd.
    """
    i = tl.arange(0, SUMS)
    at = n.to(tl.int64) * sums + i
    mean_g = tl.sum(tl.load(sum_g + at, mask=i < sums, other=0.0)) / size
    mean_gx = tl.sum(tl.load(sum_gx + at, mask=i < sums, other=0.0)) / size
    b = -rstd * rstd * mean_gx
    return b, -rstd * mean_g - b * mean


@triton.jit
def owned_groups(groups, SPLIT: tl.constexpr):
    """The first group of this program's range, and the first after it."""
    part = tl.program_id(0) // SPLIT
    parts = tl.num_programs(0) // SPLIT
    start = part * groups.to(tl.int64) // parts
    stop = (part + 1) * groups.to(tl.int64) // parts
    return start.to(tl.int32), stop.to(tl.int32)


@triton.jit
def march_back(
    x, weight, g, dout, mean, rstd, sum_g, sum_gx, dx, part_dw,
    N, L, window, trim, d, lanes, tiles, sums,
    C: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr, STEPS: tl.constexpr,
    AHEAD: tl.constexpr, SUMS: tl.constexpr, RESIDUAL: tl.constexpr,
):  # fmt: skip
    """Gradients of the convolution with normalisation by its input and its taps.

    x (N, L, C), g and dout (N, window, C): the gradient of the normalised convolution and, when
    RESIDUAL, that of the block's output, of rows trim .. trim + window; mean, rstd (N,);
    sum_g, sum_gx (N, sums) -> dx (N, L, C), part_dw (programs, 3, C). A program's
    tiles lie SPLIT apart, so they have the same columns: the taps and the sums of their gradient
    stay in registers, and few of these are left to add. It owns one of a fixed range of groups.
    """
    SPLIT: tl.constexpr = (C + COLUMNS - 1) // COLUMNS
    phase = tl.program_id(0) % SPLIT
    column = columns_of(phase, C, COLUMNS, ROWS)
    in_columns = below(column, C, COLUMNS)
    w0, w1, w2 = load_taps(weight, column, C)
    dw0 = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    dw1 = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    dw2 = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    dC = d * C
    size = (L * C).to(tl.float32)
    groups = tl.cdiv(tiles, SPLIT)  # of SPLIT tiles each, in an example
    start, stop = owned_groups(N * groups, SPLIT)
    current = -1
    b = 0.0
    c = 0.0
    scale = 0.0
    for group in tl.range(start, stop, num_stages=1, disable_licm=True):
        n = group // groups
        tile = group % groups * SPLIT + phase
        row = first_rows(tile, lanes, L, d, C, COLUMNS, ROWS, STEPS)
        x_n = x + n.to(tl.int64) * L * C
        dx_n = dx + n.to(tl.int64) * L * C
        g_n = g + n.to(tl.int64) * window * C
        dout_n = dout + n.to(tl.int64) * window * C
        offset = row * C + column
        g_row = row - trim
        g_offset = g_row * C + column
        xs = load_ahead(x_n, offset, row, -2, AHEAD + 2, d, dC, L, in_columns)
        gs = load_ahead(g_n, g_offset, g_row, -1, AHEAD + 1, d, dC, window, in_columns)
        douts = ()
        if RESIDUAL:
            douts = load_ahead(dout_n, g_offset, g_row, 0, AHEAD, d, dC, window, in_columns)
        if n != current:
            scale = tl.load(rstd + n)
            b, c = norm_coefficients(sum_g, sum_gx, tl.load(mean + n), scale, n, sums, size, SUMS)
        current = n
        # xs[k + 2] = x[row + k d], gs[k + 1] = g[row + k d]; dconv is zero outside 0..L
        before2 = xs[0].to(tl.float32)
        before = xs[1].to(tl.float32)
        here = xs[2].to(tl.float32)
        after = xs[3].to(tl.float32)
        conv = before2 * w0 + (before * w1 + here * w2)
        inside = (row >= d) & (row - d < L)
        dconv_before = tl.where(inside, gs[0].to(tl.float32) * scale + (conv * b + c), 0.0)
        conv = before * w0 + (here * w1 + after * w2)
        dconv = tl.where(row < L, gs[1].to(tl.float32) * scale + (conv * b + c), 0.0)
        for k in tl.static_range(STEPS):
            if k + AHEAD < STEPS:
                xs = xs + (load_row(x_n, offset, row, k + AHEAD + 2, d, dC, L, in_columns),)
                gs = gs + (
                    load_row(g_n, g_offset, g_row, k + AHEAD + 1, d, dC, window, in_columns),
                )
                if RESIDUAL:
                    douts = douts + (
                        load_row(dout_n, g_offset, g_row, k + AHEAD, d, dC, window, in_columns),
                    )
            after2 = xs[k + 4].to(tl.float32)
            conv = here * w0 + (after * w1 + after2 * w2)
            inside = row + (k + 1) * d < L
            dconv_after = tl.where(inside, gs[k + 2].to(tl.float32) * scale + (conv * b + c), 0.0)
            v = w0 * dconv_after + w1 * dconv + w2 * dconv_before
            if RESIDUAL:
                v += douts[k].to(tl.float32)
            here_inside = (row + k * d < L) & in_columns
            tl.store(dx_n + offset + k * dC, v.to(dx.dtype.element_ty), mask=here_inside)
            dw0 += dconv * before
            dw1 += dconv * here
            dw2 += dconv * after
            before = here
            here = after
            after = after2
            dconv_before = dconv
            dconv = dconv_after
    out = part_dw + tl.program_id(0) * (3 * C)
    part = column // COLUMNS
    column = tl.arange(0, COLUMNS)
    for i in tl.static_range(SPLIT):
        at = out + i * COLUMNS + column
        inside = i * COLUMNS + column < C
        tl.store(at, tl.sum(tl.where(part == i, dw0, 0.0), 0), mask=inside)
        tl.store(at + C, tl.sum(tl.where(part == i, dw1, 0.0), 0), mask=inside)
        tl.store(at + 2 * C, tl.sum(tl.where(part == i, dw2, 0.0), 0), mask=inside)


@triton.jit(do_not_specialize=["N", "L", "d", "lanes", "tiles", "sums"])
def conv_norm_bwd_kernel(
    x, weight, g, mean, rstd, sum_g, sum_gx, dx, part_dw, N, L, d, lanes, tiles, sums,
    C: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr, STEPS: tl.constexpr,
    AHEAD: tl.constexpr, SUMS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """`march_back` of all rows."""
    wait_for_previous_kernel(PDL)
    march_back(
        x, weight, g, g, mean, rstd, sum_g, sum_gx, dx, part_dw, N, L, L, 0, d, lanes, tiles,
        sums, C, COLUMNS, ROWS, STEPS, AHEAD, SUMS, False,
    )  # fmt: skip
