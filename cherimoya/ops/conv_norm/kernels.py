"""Triton kernels of the dilated depthwise convolution with normalisation; see `bwd_kernels` too.

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
def let_next_kernel_start(PDL: tl.constexpr):
    """Let programs of the next kernel, if launched so, start where these leave room.

    Called after `wait_for_previous_kernel`: so what the kernels before this one wrote is there for
    the next, though perhaps not in the first-level cache. The next must wait before it reads what
    this one writes, and before it writes at all, since its memory may be what this one reads; and
    before all else where it cannot know which kernel is before it, see `ops.complete`.
    """
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()


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
    let_next_kernel_start(PDL)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, sum_rows(parts, rows, size, at, BLOCK, DEPTH), mask=at < size)
