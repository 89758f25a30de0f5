"""Triton kernels of the whole Cheri Block, forward and backward, for any GPU that Triton knows.

The matrix products' operands are in the dtype of xhat, their sums in fp32. C columns are handled
as CA + CB, powers of two, so that 96 costs 64 + 32 and not 128; the weights are copied once per
call into padded (HP, CA + CB) tables: `w1` as it is, `w2` transposed and multiplied by half the
residual scale, since the kernels work with 2 gelu(h) = h + h tanh(..) and its slope.

fp32 tensors are multiplied in fp16, whose 11 bits are those of TF32 at twice its speed. xhat and
the weights are in its range; the gradient is brought there by a power of two for each 64 rows,
and what is left of half the residual scale's power of two comes back as `unscale`.

The backward recomputes the hidden activations twice rather than store them: once for
g = d xhat, once for the gradients of the weights. The sum of g xhat over a position, which the
normalisation's backward needs, equals that of d pre * pre over the hidden units.
"""

import triton
import triton.language as tl

from cherimoya.ops import proxy_fence
from cherimoya.ops.block.half_kernels import halves
from cherimoya.ops.conv_norm.bwd_kernels import march_back
from cherimoya.ops.conv_norm.kernels import conv_stats, sum_rows, wait_for_previous_kernel

proxy_fence.install()  # for every kernel whose products read what is copied in a pipeline

SCALE = tl.constexpr(0.7978845608028654)  # sqrt(2 / pi), Hendrycks and Gimpel (2016)
CUBIC = tl.constexpr(0.7978845608028654 * 0.044715)
CUBIC_SLOPE = tl.constexpr(3 * 0.7978845608028654 * 0.044715)


@triton.jit
def tanh(u, FAST: tl.constexpr):
    """tanh; FAST: the GPU's own instruction, with a relative error of 5e-4."""
    if FAST:
        return tl.inline_asm_elementwise(
            "tanh.approx.f32 $0, $1;", "=f,f", [u], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        return 1.0 - 2.0 / (tl.exp(2.0 * u) + 1.0)


@triton.jit
def twice_gelu(h, FAST: tl.constexpr):
    """2 gelu(h)."""
    return h + h * tanh(h * (h * h * CUBIC + SCALE), FAST)


@triton.jit
def twice_gelu_and_slope(h, FAST: tl.constexpr):
    """2 gelu(h) and its derivative."""
    h2 = h * h
    t = tanh(h * (h2 * CUBIC + SCALE), FAST)
    return h + h * t, h * (h2 * CUBIC_SLOPE + SCALE) * (1.0 - t * t) + (1.0 + t)


@triton.jit
def prepare_weights(
    w1, w2, w1_table, w2_table, w2_half, pid, scale,
    C: tl.constexpr, H: tl.constexpr, CP: tl.constexpr, HP: tl.constexpr, BLOCK: tl.constexpr,
    HALF: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """w1 (H, C), w2 (C, H) -> padded (HP, CP) tables: w1, and scale * w2 transposed.

    HALF: `w2_half` is a copy of the second in fp16. SPLIT: the tables (2, HP, CP) are both halves
    of scale * w1, and of scale * w2 transposed.
    """
    i = pid * BLOCK + tl.arange(0, BLOCK)
    h = i // CP
    c = i % CP
    inside = (h < H) & (c < C)
    up = tl.load(w1 + h * C + c, mask=inside, other=0.0)
    down = tl.load(w2 + c * H + h, mask=inside, other=0.0).to(tl.float32) * scale
    if SPLIT:
        up, up_low = halves(up.to(tl.float32) * scale)
        down, down_low = halves(down)
        tl.store(w1_table + HP * CP + i, up_low, mask=h < HP)
        tl.store(w2_table + HP * CP + i, down_low, mask=h < HP)
    tl.store(w1_table + i, up.to(w1_table.dtype.element_ty), mask=h < HP)
    tl.store(w2_table + i, down.to(w2_table.dtype.element_ty), mask=h < HP)
    if HALF:
        tl.store(w2_half + i, down.to(tl.float16), mask=h < HP)


@triton.jit(do_not_specialize=["L", "d", "lanes", "tiles", "stats_programs"])
def block_stats_kernel(
    x, weight, part_mean, part_m2, part_count, w1, w2, w1_table, w2_table, w2_half,
    L, d, lanes, tiles, stats_programs, scale,
    C: tl.constexpr, H: tl.constexpr, CP: tl.constexpr, HP: tl.constexpr,
    COLUMNS: tl.constexpr, ROWS: tl.constexpr, STEPS: tl.constexpr, AHEAD: tl.constexpr,
    BLOCK: tl.constexpr, HALF: tl.constexpr, SPLIT: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """`conv_stats_kernel`, with the weights' tables made by the programs after `stats_programs`."""
    wait_for_previous_kernel(PDL)
    pid = tl.program_id(0)
    if pid < stats_programs:
        conv_stats(
            x, weight, part_mean, part_m2, part_count, pid,
            L, d, lanes, tiles, C, COLUMNS, ROWS, STEPS, AHEAD,
        )  # fmt: skip
    else:
        pid -= stats_programs
        prepare_weights(
            w1, w2, w1_table, w2_table, w2_half, pid, scale, C, H, CP, HP, BLOCK, HALF, SPLIT
        )


@triton.jit
def operand(v, DT: tl.constexpr, ROUND: tl.constexpr):
    """v as a product reads it; ROUND: fp32 to the nearest TF32, where the GPU would truncate."""
    v = v.to(DT)
    if ROUND and v.dtype == tl.float32:
        v = tl.inline_asm_elementwise(
            "cvt.rna.tf32.f32 $0, $1;", "=r,r", [v], dtype=tl.float32, is_pure=True, pack=1
        )
    return v


@triton.jit
def load_rows(p, row, rows, C: tl.constexpr, FIRST: tl.constexpr, WIDTH: tl.constexpr):
    """Columns FIRST .. FIRST + WIDTH of these rows of p (rows, C), zero outside."""
    column = FIRST + tl.arange(0, WIDTH)
    at = (row * C)[:, None] + column[None, :]
    inside = (row < rows)[:, None]
    if FIRST + WIDTH > C:
        inside = inside & (column < C)[None, :]
    return tl.load(p + at, mask=inside, other=0.0)


@triton.jit
def load_inside(p, row, rows, C: tl.constexpr, FIRST: tl.constexpr, WIDTH: tl.constexpr):
    """`load_rows`, for rows that may be negative too."""
    column = FIRST + tl.arange(0, WIDTH)
    inside = ((row >= 0) & (row < rows))[:, None]
    if FIRST + WIDTH > C:
        inside = inside & (column < C)[None, :]
    return tl.load(p + (row * C)[:, None] + column[None, :], mask=inside, other=0.0)


@triton.jit
def store_rows(p, row, rows, value, C: tl.constexpr, FIRST: tl.constexpr, WIDTH: tl.constexpr):
    """Write columns FIRST .. FIRST + WIDTH of these rows of p (rows, C)."""
    column = FIRST + tl.arange(0, WIDTH)
    at = (row * C)[:, None] + column[None, :]
    inside = (row < rows)[:, None]
    if FIRST + WIDTH > C:
        inside = inside & (column < C)[None, :]
    tl.store(p + at, value.to(p.dtype.element_ty), mask=inside)


@triton.jit
def load_table(p, first, CP: tl.constexpr, FIRST: tl.constexpr, HS: tl.constexpr, W: tl.constexpr):
    """A tile (HS, W) of a weight table (HP, CP)."""
    row = first + tl.arange(0, HS)
    return tl.load(p + row[:, None] * CP + (FIRST + tl.arange(0, W))[None, :])


@triton.jit(do_not_specialize=["L", "window", "trim", "tiles"])
def block_fwd_kernel(
    xhat, x, w1, w2, out, L, window, trim, tiles, unscale,
    C: tl.constexpr, CA: tl.constexpr, CB: tl.constexpr, HP: tl.constexpr, HS: tl.constexpr,
    BM: tl.constexpr, STAGES: tl.constexpr, FAST: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """out = x + unscale * w2(2 gelu(w1(xhat))) for BM rows of one example.

    xhat, out (N, window, C), x (N, L, C) of which rows trim .. trim + window; tables (HP, CA + CB).
    """
    wait_for_previous_kernel(PDL)
    pid = tl.program_id(0)
    n = (pid // tiles).to(tl.int64)
    row = (pid % tiles) * BM + tl.arange(0, BM)
    DT: tl.constexpr = xhat.dtype.element_ty
    CP: tl.constexpr = CA + CB
    xhat += n * window * C
    x += (n * L + trim) * C
    out += n * window * C
    va = load_rows(xhat, row, window, C, 0, CA)
    acc_a = tl.zeros((BM, CA), dtype=tl.float32)
    if CB > 0:
        vb = load_rows(xhat, row, window, C, CA, CB)
        acc_b = tl.zeros((BM, CB), dtype=tl.float32)
    for first in tl.range(0, HP, HS, num_stages=STAGES, disable_licm=True):
        pre = tl.dot(va, tl.trans(load_table(w1, first, CP, 0, HS, CA)), input_precision="ieee")
        if CB > 0:
            up = load_table(w1, first, CP, CA, HS, CB)
            pre = tl.dot(vb, tl.trans(up), pre, input_precision="ieee")
        act = twice_gelu(pre, FAST).to(DT)
        down = load_table(w2, first, CP, 0, HS, CA)
        acc_a = tl.dot(act, down, acc_a, input_precision="ieee")
        if CB > 0:
            down = load_table(w2, first, CP, CA, HS, CB)
            acc_b = tl.dot(act, down, acc_b, input_precision="ieee")
    residual = load_rows(x, row, window, C, 0, CA).to(tl.float32)
    store_rows(out, row, window, residual + acc_a * unscale, C, 0, CA)
    if CB > 0:
        residual = load_rows(x, row, window, C, CA, CB).to(tl.float32)
        store_rows(out, row, window, residual + acc_b * unscale, C, CA, CB)


@triton.jit(do_not_specialize=["window", "tiles", "sum_tiles"])
def block_bwd_xhat_kernel(
    xhat, dout, scales, w1, w2, g, sum_g, sum_gx, window, tiles, sum_tiles, unscale,
    C: tl.constexpr, CA: tl.constexpr, CB: tl.constexpr, HP: tl.constexpr, HS: tl.constexpr,
    BM: tl.constexpr, STAGES: tl.constexpr, SCALED: tl.constexpr, FAST: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """g = d xhat for BM rows of one example, and the tile's sums of g and g * xhat.

    xhat, dout, g (N, window, C); tables (HP, CA + CB); sum_g, sum_gx (N, sum_tiles), one for every
    64 positions, of which BM is a multiple. SCALED: dout was multiplied by scales, likewise, and
    BM is 64.
    """
    wait_for_previous_kernel(PDL)
    pid = tl.program_id(0)
    n = (pid // tiles).to(tl.int64)
    row = (pid % tiles) * BM + tl.arange(0, BM)
    DT: tl.constexpr = xhat.dtype.element_ty
    CP: tl.constexpr = CA + CB
    xhat += n * window * C
    dout += n * window * C
    g += n * window * C
    va = load_rows(xhat, row, window, C, 0, CA)
    ya = load_rows(dout, row, window, C, 0, CA).to(DT)
    ga = tl.zeros((BM, CA), dtype=tl.float32)
    if CB > 0:
        vb = load_rows(xhat, row, window, C, CA, CB)
        yb = load_rows(dout, row, window, C, CA, CB).to(DT)
        gb = tl.zeros((BM, CB), dtype=tl.float32)
    row_gx = tl.zeros((BM,), dtype=tl.float32)
    for first in tl.range(0, HP, HS, num_stages=STAGES, disable_licm=True):
        up_a = load_table(w1, first, CP, 0, HS, CA)
        down_a = load_table(w2, first, CP, 0, HS, CA)
        pre = tl.dot(va, tl.trans(up_a), input_precision="ieee")
        dact = tl.dot(ya, tl.trans(down_a), input_precision="ieee")
        if CB > 0:
            up_b = load_table(w1, first, CP, CA, HS, CB)
            down_b = load_table(w2, first, CP, CA, HS, CB)
            pre = tl.dot(vb, tl.trans(up_b), pre, input_precision="ieee")
            dact = tl.dot(yb, tl.trans(down_b), dact, input_precision="ieee")
        _, slope = twice_gelu_and_slope(pre, FAST)
        dpre = dact * slope
        row_gx += tl.sum(dpre * pre, 1)
        dpre = dpre.to(DT)
        ga = tl.dot(dpre, up_a, ga, input_precision="ieee")
        if CB > 0:
            gb = tl.dot(dpre, up_b, gb, input_precision="ieee")
    first_sum = (pid % tiles) * (BM // 64)
    if SCALED:
        unscale /= tl.load(scales + n * sum_tiles + first_sum)
    store_rows(g, row, window, ga * unscale, C, 0, CA)
    total = tl.sum(ga)
    if CB > 0:
        store_rows(g, row, window, gb * unscale, C, CA, CB)
        total += tl.sum(gb)
    total_gx = tl.sum(row_gx)
    for i in tl.static_range(BM // 64):  # the first of these holds the whole tile's
        share = unscale if i == 0 else 0.0
        inside = first_sum + i < sum_tiles
        tl.store(sum_g + n * sum_tiles + first_sum + i, total * share, mask=inside)
        tl.store(sum_gx + n * sum_tiles + first_sum + i, total_gx * share, mask=inside)


@triton.jit(do_not_specialize=["window", "tiles", "all_tiles"])
def block_bwd_weights_kernel(
    xhat, dout, scales, w1, w2, part_dw1, part_dw2, window, tiles, all_tiles,
    C: tl.constexpr, CA: tl.constexpr, CB: tl.constexpr, HP: tl.constexpr, HS: tl.constexpr,
    BM: tl.constexpr, STAGES: tl.constexpr, SCALED: tl.constexpr, OWNED: tl.constexpr,
    EARLY: tl.constexpr, FAST: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Partial gradients of HS hidden units' weights over every `parts`-th tile of BM rows.

    xhat, dout (all rows, C) -> part_dw1 and part_dw2 (parts, HP, CA + CB); tables (HP, CA + CB).
    Everything is transposed, hidden units by rows, so that the activations leave the first
    products in the registers where the second ones want them. There are `window` rows in all, or
    in each example of `tiles` tiles if SCALED: then dout was multiplied by `scales`, one for each
    tile, and a program, which owns up to OWNED tiles, brings them to the scale of its largest.
    EARLY: nothing that is read here is made by the kernel before, that of xhat's gradient, so only
    writing waits for it.
    """
    if not EARLY:
        wait_for_previous_kernel(PDL)
    SLICES: tl.constexpr = HP // HS
    DT: tl.constexpr = xhat.dtype.element_ty
    CP: tl.constexpr = CA + CB
    part = tl.program_id(0) // SLICES
    parts = tl.num_programs(0) // SLICES
    first = (tl.program_id(0) % SLICES) * HS
    up_a = load_table(w1, first, CP, 0, HS, CA)
    down_a = load_table(w2, first, CP, 0, HS, CA)
    dw1_a = tl.zeros((HS, CA), dtype=tl.float32)
    dw2_a = tl.zeros((HS, CA), dtype=tl.float32)
    if CB > 0:
        up_b = load_table(w1, first, CP, CA, HS, CB)
        down_b = load_table(w2, first, CP, CA, HS, CB)
        dw1_b = tl.zeros((HS, CB), dtype=tl.float32)
        dw2_b = tl.zeros((HS, CB), dtype=tl.float32)
    common = 1.0
    if SCALED:
        owned = part + parts * tl.arange(0, OWNED)
        common = tl.min(tl.load(scales + owned, mask=owned < all_tiles, other=float("inf")))
    for tile in tl.range(part, all_tiles, parts, num_stages=STAGES, disable_licm=True):
        if SCALED:  # examples do not share a tile
            inner = (tile % tiles) * BM
            start = tl.cast(tile // tiles, tl.int64) * window + inner
            left = window - inner
        else:
            start = tl.cast(tile, tl.int64) * BM
            left = window - tile * BM
        row = tl.arange(0, BM)
        v = xhat + start * C
        y = dout + start * C
        va = load_rows(v, row, left, C, 0, CA)
        ya = load_rows(y, row, left, C, 0, CA).to(DT)
        pre = tl.dot(up_a, tl.trans(va), input_precision="ieee")
        dact = tl.dot(down_a, tl.trans(ya), input_precision="ieee")
        if CB > 0:
            vb = load_rows(v, row, left, C, CA, CB)
            yb = load_rows(y, row, left, C, CA, CB).to(DT)
            pre = tl.dot(up_b, tl.trans(vb), pre, input_precision="ieee")
            dact = tl.dot(down_b, tl.trans(yb), dact, input_precision="ieee")
        act, slope = twice_gelu_and_slope(pre, FAST)
        if SCALED:
            ratio = common / tl.load(scales + tile)
            act *= ratio
            slope *= ratio
        dpre = (dact * slope).to(DT)
        act = act.to(DT)
        dw1_a = tl.dot(dpre, va, dw1_a, input_precision="ieee")
        dw2_a = tl.dot(act, ya, dw2_a, input_precision="ieee")
        if CB > 0:
            dw1_b = tl.dot(dpre, vb, dw1_b, input_precision="ieee")
            dw2_b = tl.dot(act, yb, dw2_b, input_precision="ieee")
    if EARLY:
        wait_for_previous_kernel(PDL)
    hidden = first + tl.arange(0, HS)
    unscale = 1.0 / common
    at = part.to(tl.int64) * (HP * CP) + hidden[:, None] * CP + tl.arange(0, CA)[None, :]
    tl.store(part_dw1 + at, dw1_a * unscale)
    tl.store(part_dw2 + at, dw2_a * unscale)
    if CB > 0:
        at = part.to(tl.int64) * (HP * CP) + hidden[:, None] * CP + (CA + tl.arange(0, CB))[None, :]
        tl.store(part_dw1 + at, dw1_b * unscale)
        tl.store(part_dw2 + at, dw2_b * unscale)


@triton.jit
def sum_weights(
    partial_sums, dw1, dw2, parts, s, slices, scale1, scale2,
    C: tl.constexpr, H: tl.constexpr, CP: tl.constexpr, HP: tl.constexpr,
    BLOCK: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """One of `slices` of the weights' gradients from their partial sums, in a fixed order.

    partial_sums (2, parts, HP, CP) -> dw1 (H, C) = scale1 * sum, the first half of the slices;
    dw2 (C, H) = scale2 * sum transposed, the others.
    """
    first = s < slices // 2
    at = tl.where(first, s, s - slices // 2) * BLOCK + tl.arange(0, BLOCK)
    h = at // CP
    c = at % CP
    inside = (h < H) & (c < C)
    if not first:
        partial_sums += parts.to(tl.int64) * (HP * CP)
    total = sum_rows(partial_sums, parts, HP * CP, at, BLOCK, DEPTH)
    if first:
        tl.store(dw1 + h * C + c, total * scale1, mask=inside)
    else:
        tl.store(dw2 + c * H + h, total * scale2, mask=inside)


@triton.jit(do_not_specialize=[
    "N", "L", "window", "trim", "d", "lanes", "tiles", "sums", "parts", "slices",
])  # fmt: skip
def block_bwd_conv_kernel(
    x, weight, g, dout, mean, rstd, sum_g, sum_gx, dx, part_dw, partial_sums, dw1, dw2,
    N, L, window, trim, d, lanes, tiles, sums, parts, slices, scale1, scale2,
    C: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr, STEPS: tl.constexpr,
    AHEAD: tl.constexpr, SUMS: tl.constexpr, H: tl.constexpr, CP: tl.constexpr,
    HP: tl.constexpr, BLOCK: tl.constexpr, DEPTH: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """`sum_weights`, each program its share of the slices; then `march_back` with the residual.

    In this order the partial sums still lie in the second-level cache.
    """
    wait_for_previous_kernel(PDL)
    for s in tl.range(
        tl.program_id(0), slices, tl.num_programs(0), num_stages=1, disable_licm=True
    ):
        sum_weights(
            partial_sums, dw1, dw2, parts, s, slices, scale1, scale2, C, H, CP, HP, BLOCK, DEPTH
        )
    march_back(
        x, weight, g, dout, mean, rstd, sum_g, sum_gx, dx, part_dw, N, L, window, trim, d, lanes,
        tiles, sums, C, COLUMNS, ROWS, STEPS, AHEAD, SUMS, True,
    )  # fmt: skip
