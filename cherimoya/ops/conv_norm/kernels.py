"""Triton kernels of the dilated depthwise convolution with normalisation, forward and backward.

Activations are (N, L, C), contiguous; the taps are (3, C) in fp32; all arithmetic is fp32.

Every kernel marches: rows l, l + d, l + 2d, ... are a lane, and a program walks down STEPS rows of
it with the neighbours x[l - d], x[l], x[l + d] in registers. So each row is loaded once whatever
the dilation, with AHEAD loads in flight. The rows of an example fall into
d * ceil(ceil(L / d) / STEPS) lanes, and each lane into pieces of COLUMNS channels. A tile is ROWS
pieces in the order of memory, so that a warp reads whole lines. Pieces past the end are masked.

Sums over an example or the batch go through partial results that are combined in a fixed order:
no atomics, so two runs are equal to the bit. An example's own results do not depend on N.
"""

import triton
import triton.language as tl


@triton.jit
def wait_for_previous_kernel(PDL: tl.constexpr):
    """Block until the kernel before this one has finished, when launched before it had."""
    if PDL:
        tl.extra.cuda.gdc_wait()


@triton.jit
def columns_of(tile, C: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr):
    """Columns (ROWS, COLUMNS) of a tile's pieces."""
    SPLIT: tl.constexpr = (C + COLUMNS - 1) // COLUMNS
    piece = tile * ROWS + tl.arange(0, ROWS)
    return (piece % SPLIT * COLUMNS)[:, None] + tl.arange(0, COLUMNS)[None, :]


@triton.jit
def first_rows(
    tile, lanes, L, d,
    C: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """First rows (ROWS, 1) of a tile's pieces; beyond every row for pieces that do not exist."""
    SPLIT: tl.constexpr = (C + COLUMNS - 1) // COLUMNS
    lane = (tile * ROWS + tl.arange(0, ROWS)) // SPLIT
    first = lane % d + (lane // d) * (STEPS * d)
    return tl.where(lane < lanes, first, L + 4 * d)[:, None]


@triton.jit
def below(column, C: tl.constexpr, COLUMNS: tl.constexpr):
    """Whether these columns are below C: the mask of a tile, (1, 1) where all of them are."""
    if C % COLUMNS == 0:
        return tl.full((1, 1), True, tl.int1)
    else:
        return column < C


@triton.jit
def load_row(x, offset, row, step: tl.constexpr, d, dC, L, in_columns):
    """x[row + step * d] in its own dtype, zero outside 0..L; offset is that of x[row]."""
    r = row + step * d
    return tl.load(x + offset + step * dC, mask=(r >= 0) & (r < L) & in_columns, other=0)


@triton.jit
def load_ahead(x, offset, row, FIRST: tl.constexpr, STOP: tl.constexpr, d, dC, L, in_columns):
    """A tuple of `load_row` for the steps from FIRST to before STOP."""
    queue = ()
    for k in tl.static_range(FIRST, STOP):
        queue = queue + (load_row(x, offset, row, k, d, dC, L, in_columns),)
    return queue


@triton.jit
def load_taps(weight, column, C: tl.constexpr):
    """The three taps of these columns."""
    inside = column < C
    w0 = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    w1 = tl.load(weight + C + column, mask=inside, other=0.0).to(tl.float32)
    w2 = tl.load(weight + 2 * C + column, mask=inside, other=0.0).to(tl.float32)
    return w0, w1, w2


@triton.jit
def conv_stats(
    x, weight, part_mean, part_m2, part_count, pid, L, d, lanes, tiles,
    C: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr, STEPS: tl.constexpr,
    AHEAD: tl.constexpr,
):  # fmt: skip
    """Mean, sum of squared deviations and count of the convolution over one tile.

    Each element's lane is summed about its first value, then lanes are joined as by Chan et al.
    (1983): exact enough when |mean| >> std.
    """
    n = pid // tiles
    column = columns_of(pid % tiles, C, COLUMNS, ROWS)
    row = first_rows(pid % tiles, lanes, L, d, C, COLUMNS, ROWS, STEPS)
    in_columns = below(column, C, COLUMNS)
    dC = d * C
    x += n.to(tl.int64) * L * C
    offset = row * C + column
    queue = load_ahead(x, offset, row, -1, AHEAD + 1, d, dC, L, in_columns)
    w0, w1, w2 = load_taps(weight, column, C)
    before = queue[0].to(tl.float32)
    here = queue[1].to(tl.float32)
    origin = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    square = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for k in tl.static_range(STEPS):
        if k + AHEAD + 1 <= STEPS:
            queue = queue + (load_row(x, offset, row, k + AHEAD + 1, d, dC, L, in_columns),)
        after = queue[k + 2].to(tl.float32)
        if k == 0:
            origin = before * w0 + (here * w1 + after * w2)
        else:
            dev = before * w0 + (here * w1 + (after * w2 - origin))
            dev = tl.where(row + k * d < L, dev, 0.0)
            total += dev
            square += dev * dev
        before = here
        here = after
    count = tl.minimum(tl.maximum((L - row + d - 1) // d, 0), STEPS).to(tl.float32)
    count = tl.broadcast_to(tl.where(in_columns, count, 0.0), ROWS, COLUMNS)
    counted = count > 0.5
    inverse = 1.0 / tl.maximum(count, 1.0)
    lane_mean = origin + total * inverse
    all_count = tl.sum(count)
    mean = tl.sum(tl.where(counted, lane_mean * count, 0.0)) / tl.maximum(all_count, 1.0)
    dev = lane_mean - mean
    m2 = tl.where(counted, square - total * total * inverse + count * dev * dev, 0.0)
    tl.store(part_mean + pid, mean)
    tl.store(part_m2 + pid, tl.sum(m2))
    tl.store(part_count + pid, all_count)


@triton.jit
def combine_stats(part_mean, part_m2, part_count, n, parts, size, eps, PARTS: tl.constexpr):
    """Mean and 1 / std of one example from its tiles, in a fixed order."""
    i = tl.arange(0, PARTS)
    at = n.to(tl.int64) * parts + i
    mean_i = tl.load(part_mean + at, mask=i < parts, other=0.0)
    m2_i = tl.load(part_m2 + at, mask=i < parts, other=0.0)
    count_i = tl.load(part_count + at, mask=i < parts, other=0.0)
    mean = tl.sum(mean_i * count_i) / size
    var = tl.sum(m2_i + count_i * (mean_i - mean) * (mean_i - mean)) / size
    return mean, 1.0 / tl.sqrt_rn(var + eps)


@triton.jit(do_not_specialize=["L", "d", "lanes", "tiles"])
def conv_stats_kernel(
    x, weight, part_mean, part_m2, part_count, L, d, lanes, tiles,
    C: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr, STEPS: tl.constexpr,
    AHEAD: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """x (N, L, C), weight (3, C) -> part_* (N, tiles). One program a tile."""
    wait_for_previous_kernel(PDL)
    conv_stats(
        x, weight, part_mean, part_m2, part_count, tl.program_id(0), L, d, lanes, tiles,
        C, COLUMNS, ROWS, STEPS, AHEAD,
    )  # fmt: skip


@triton.jit(do_not_specialize=["L", "window", "trim", "d", "lanes", "tiles", "parts"])
def conv_norm_fwd_kernel(
    x, weight, part_mean, part_m2, part_count, mean_out, rstd_out, y,
    L, window, trim, d, lanes, tiles, parts, eps,
    C: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr, STEPS: tl.constexpr,
    AHEAD: tl.constexpr, PARTS: tl.constexpr, COMBINE: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """y = normalised convolution of rows trim .. trim + window. One program a tile of y.

    x (N, L, C), weight (3, C), y (N, window, C), mean_out and rstd_out (N,): written from
    part_* (N, parts) when COMBINE, else read.
    """
    wait_for_previous_kernel(PDL)
    pid = tl.program_id(0)
    n = pid // tiles
    column = columns_of(pid % tiles, C, COLUMNS, ROWS)
    row = first_rows(pid % tiles, lanes, L, d, C, COLUMNS, ROWS, STEPS)
    in_columns = below(column, C, COLUMNS)
    dC = d * C
    x += n.to(tl.int64) * L * C
    y += n.to(tl.int64) * window * C
    y_offset = row * C + column  # x is `trim` rows ahead
    row += trim
    offset = row * C + column
    queue = load_ahead(x, offset, row, -1, AHEAD + 1, d, dC, L, in_columns)
    if COMBINE:
        size = (L * C).to(tl.float32)
        mean, rstd = combine_stats(part_mean, part_m2, part_count, n, parts, size, eps, PARTS)
        if pid % tiles == 0:
            tl.store(mean_out + n, mean)
            tl.store(rstd_out + n, rstd)
    else:
        mean = tl.load(mean_out + n)
        rstd = tl.load(rstd_out + n)
    w0, w1, w2 = load_taps(weight, column, C)
    before = queue[0].to(tl.float32)
    here = queue[1].to(tl.float32)
    for k in tl.static_range(STEPS):
        if k + AHEAD + 1 <= STEPS:
            queue = queue + (load_row(x, offset, row, k + AHEAD + 1, d, dC, L, in_columns),)
        after = queue[k + 2].to(tl.float32)
        v = (before * w0 + (here * w1 + (after * w2 - mean))) * rstd
        inside = (row + k * d < trim + window) & in_columns
        tl.store(y + y_offset + k * dC, v.to(y.dtype.element_ty), mask=inside)
        before = here
        here = after


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


@triton.jit
def sum_rows(parts, rows, size, at, BLOCK: tl.constexpr, DEPTH: tl.constexpr):
    """Sum over the rows of parts (rows, size) at these columns, in a fixed order."""
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for first in range(0, rows, DEPTH):
        row = first + tl.arange(0, DEPTH)
        inside = (row < rows)[:, None] & (at < size)[None, :]
        total += tl.sum(
            tl.load(parts + row[:, None] * size + at[None, :], mask=inside, other=0.0), 0
        )
    return total


@triton.jit(do_not_specialize=["rows", "size"])
def sum_rows_kernel(
    parts, out, rows, size, BLOCK: tl.constexpr, DEPTH: tl.constexpr, PDL: tl.constexpr
):
    """out (size,) = sum over the rows of parts (rows, size), in a fixed order."""
    wait_for_previous_kernel(PDL)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, sum_rows(parts, rows, size, at, BLOCK, DEPTH), mask=at < size)
