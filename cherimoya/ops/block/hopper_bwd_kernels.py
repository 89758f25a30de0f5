"""All matrix products of the block's backward in one Gluon kernel, see `hopper_kernels`.

g = d xhat and the gradients of both linear weights from one pass over xhat and dout: the hidden
activations are made again once, and five products are left of the seven that
`block_bwd_xhat_kernel` and `block_bwd_weights_kernel` need.

Everything but g is transposed, hidden units by rows, in CHUNKS of 64: so the activations leave
the first products in the registers where the gradients of the weights want them. These
gradients stay in registers for the life of the program, at 96 channels more than half of what a
multiprocessor has. The first consumer owns chunk 0 and makes g. The second owns chunk 1 and makes
d pre of chunk 2, if there is one; the gradients of that chunk's weights are divided, linear1's to
the first consumer, linear2's to the second. The second consumer's d pre goes to the first through
a ring of SLOTS in shared memory.
"""

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from cherimoya.ops.block.hopper_common import (
    load_weights,
    make_ring,
    mma_layout,
    more_for_the_first,
    multiply_down,
    produce,
    store_tile,
    sync_threads,
    twice_gelu_and_slope,
    wait_down,
    wait_for_previous_kernel,
)


@gluon.jit
def rows_of(tiles_a, tiles_b, stage, part: gl.constexpr, CB: gl.constexpr, P: gl.constexpr):
    """Positions part * P .. (part + 1) * P of one stage, their first CA and last CB columns."""
    a = tiles_a.index(stage).slice(part * P, P, 0)
    b = a
    if CB > 0:
        b = tiles_b.index(stage).slice(part * P, P, 0)
    return a, b


@gluon.jit
def multiply_rows(w_a, w_b, rows_a, rows_b, CB: gl.constexpr, P: gl.constexpr):
    """Start w (64, C) @ rows (P, C) transposed."""
    zero = gl.zeros([64, P], gl.float32, mma_layout(P))
    product = warpgroup_mma(w_a, rows_a.permute((1, 0)), zero, use_acc=False, is_async=True)
    if CB > 0:
        product = warpgroup_mma(w_b, rows_b.permute((1, 0)), product, is_async=True)
    return product


@gluon.jit
def activations(pre, dact):
    """2 gelu(pre) and d pre = dact * slope, fp32."""
    pre, dact = warpgroup_mma_wait(0, deps=[pre, dact])
    act, slope = twice_gelu_and_slope(pre)
    return act, dact * slope


@gluon.jit
def zero_sums(CA: gl.constexpr, CB: gl.constexpr):
    """Accumulators (64, CA) and (64, CB)."""
    a = gl.zeros([64, CA], gl.float32, mma_layout(CA))
    b = a
    if CB > 0:
        b = gl.zeros([64, CB], gl.float32, mma_layout(CB))
    return a, b


@gluon.jit
def chunk_gradients(
    chunk: gl.constexpr, v_a, v_b, y_a, y_b, w1_a, w1_b, w2_a, w2_b, stage, k, squares, at, free,
    ratio, dw1_a, dw1_b, dw2_a, dw2_b,
    CB: gl.constexpr, SLOTS: gl.constexpr, P: gl.constexpr, WAIT: gl.constexpr,
    SCALED: gl.constexpr,
):  # fmt: skip
    """Start to add the k-th tile to a chunk's gradients, and store its d pre in squares[at].

    WAIT: before the first store, until the slot is free. SCALED: what is added is times ratio.
    """
    DT: gl.constexpr = v_a.dtype
    OPERAND: gl.constexpr = gl.DotOperandLayout(0, mma_layout(P), 2)
    for part in gl.static_range(64 // P):
        va, vb = rows_of(v_a, v_b, stage, part, CB, P)
        ya, yb = rows_of(y_a, y_b, stage, part, CB, P)
        pre = multiply_rows(w1_a.index(chunk), w1_b.index(chunk), va, vb, CB, P)
        dact = multiply_rows(w2_a.index(chunk), w2_b.index(chunk), ya, yb, CB, P)
        if part > 0:
            dw1_a, dw1_b = wait_down(dw1_a, dw1_b, CB)
            dw2_a, dw2_b = wait_down(dw2_a, dw2_b, CB)
        act, dpre = activations(pre, dact)
        if WAIT and part == 0:
            mbarrier.wait(free.index(k % SLOTS), ((k // SLOTS) & 1) ^ 1)
        squares.index(at).slice(part * P, P, 1).store(dpre.to(DT))
        if SCALED:
            act *= ratio
            dpre *= ratio
        dpre = gl.convert_layout(dpre.to(DT), OPERAND)
        dw1_a, dw1_b = multiply_down(dpre, va, vb, dw1_a, dw1_b, CB)
        act = gl.convert_layout(act.to(DT), OPERAND)
        dw2_a, dw2_b = multiply_down(act, ya, yb, dw2_a, dw2_b, CB)
    return dw1_a, dw1_b, dw2_a, dw2_b


@gluon.jit
def sums_by_row(g, xhat, W: gl.constexpr):
    """Sums of g (64, W) and of g * xhat over the columns."""
    return gl.sum(g, 1), gl.sum(g * xhat.load(mma_layout(W)).to(gl.float32), 1)


@gluon.jit
def store_sums(p, tile, by_row, SUMS: gl.constexpr):
    """Write the sum of 64 rows, or those of each warp's 16, to p (tiles, SUMS)."""
    if SUMS == 1:
        gl.store(p + tile, gl.sum(by_row, 0))
    else:
        by_warp = gl.sum(gl.reshape(by_row, [4, 16]), 1)
        LAYOUT: gl.constexpr = by_warp.type.layout
        gl.store(p + tile * 4 + gl.arange(0, 4, LAYOUT), by_warp)


@gluon.jit
def store_gradient(p, chunk: gl.constexpr, a, b, factor, CA: gl.constexpr, CB: gl.constexpr):
    """Write factor * a chunk's sums to its rows of p (64 CHUNKS, CA + CB)."""
    store_columns(p, chunk, a * factor, 0, CA, CA + CB)
    if CB > 0:
        store_columns(p, chunk, b * factor, CA, CB, CA + CB)


@gluon.jit
def store_columns(
    p, chunk: gl.constexpr, value, C0: gl.constexpr, CW: gl.constexpr, CP: gl.constexpr
):
    LAYOUT: gl.constexpr = mma_layout(CW)
    row = chunk * 64 + gl.arange(0, 64, gl.SliceLayout(1, LAYOUT))
    column = C0 + gl.arange(0, CW, gl.SliceLayout(0, LAYOUT))
    gl.store(p + gl.expand_dims(row * CP, 1) + gl.expand_dims(column, 0), value)


@gluon.jit
def first_consume(
    v_a, v_b, y_a, y_b, w1_a, w1_b, w2_a, w2_b, own, others, full, empty, ready, free, loaded,
    g, sum_g, sum_gx, part_dw1, part_dw2, scales, least, start, stop, tiles, window, unscale,
    C: gl.constexpr, CA: gl.constexpr, CB: gl.constexpr, CHUNKS: gl.constexpr,
    STAGES: gl.constexpr, SLOTS: gl.constexpr, P: gl.constexpr, SUMS: gl.constexpr,
    SQUARES: gl.constexpr, SCALED: gl.constexpr, WAIT: gl.constexpr,
):  # fmt: skip
    """Every tile: gradients of chunk 0's weights, then g, and linear1's gradient of chunk 2."""
    ROWS_A: gl.constexpr = gl.SliceLayout(1, mma_layout(CA))
    mbarrier.wait(loaded, 0)
    ratio = 1.0
    sums_factor = 1.0
    if SCALED:
        sums_factor = 1.0 / least
    dw1_a, dw1_b = zero_sums(CA, CB)
    dw2_a, dw2_b = zero_sums(CA, CB)
    last_a, last_b = zero_sums(CA, CB)
    for k in tl.range(0, stop - start, disable_licm=True):
        stage = k % STAGES
        slot = k % SLOTS
        mbarrier.wait(full.index(stage), (k // STAGES) & 1)
        if SCALED:
            scale = gl.load(scales + start + k)
            ratio = least / scale
        dw1_a, dw1_b, dw2_a, dw2_b = chunk_gradients(
            0, v_a, v_b, y_a, y_b, w1_a, w1_b, w2_a, w2_b, stage, k, own, 0, free,
            ratio, dw1_a, dw1_b, dw2_a, dw2_b, CB, SLOTS, P, False, SCALED,
        )  # fmt: skip
        fence_async_shared()
        sync_threads()
        dw1_a, dw1_b = wait_down(dw1_a, dw1_b, CB)
        dw2_a, dw2_b = wait_down(dw2_a, dw2_b, CB)
        mbarrier.wait(ready.index(slot), (k // SLOTS) & 1)
        ga, gb = zero_sums(CA, CB)
        dpre = own.index(0).permute((1, 0))
        ga = warpgroup_mma(dpre, w1_a.index(0), ga, is_async=True)
        for c in gl.static_range(CHUNKS - 1):
            dpre = others.index(slot * SQUARES + c).permute((1, 0))
            ga = warpgroup_mma(dpre, w1_a.index(c + 1), ga, is_async=True)
        if CB > 0:
            dpre = own.index(0).permute((1, 0))
            gb = warpgroup_mma(dpre, w1_b.index(0), gb, is_async=True)
            for c in gl.static_range(CHUNKS - 1):
                dpre = others.index(slot * SQUARES + c).permute((1, 0))
                gb = warpgroup_mma(dpre, w1_b.index(c + 1), gb, is_async=True)
        if CHUNKS == 3:
            va, vb = rows_of(v_a, v_b, stage, 0, CB, 64)
            dpre = others.index(slot * SQUARES + SQUARES - 1)
            last_a, last_b = multiply_down(dpre, va, vb, last_a, last_b, CB)
            last_a, last_b = wait_down(last_a, last_b, CB)
        ga, gb = wait_down(ga, gb, CB)
        row_g, row_gx = sums_by_row(ga, v_a.index(stage), CA)
        if CB > 0:
            more_g, more_gx = sums_by_row(gb, v_b.index(stage), CB)
            row_g += gl.convert_layout(more_g, ROWS_A)
            row_gx += gl.convert_layout(more_gx, ROWS_A)
        if SCALED:
            factor = unscale / scale
            ga *= factor
            row_g *= factor
            row_gx *= factor
            if CB > 0:
                gb *= factor
        fence_async_shared()  # as in `release`
        sync_threads()
        mbarrier.arrive(empty.index(stage), count=1)
        mbarrier.arrive(free.index(slot), count=1)
        wait_for_previous_kernel(WAIT)
        tile = start + k
        n = tile // tiles
        first = (tile % tiles) * 64
        store_sums(sum_g, tile, row_g, SUMS)
        store_sums(sum_gx, tile, row_gx, SUMS)
        store_tile(g, n, first, window, ga, C, 0, CA)
        if CB > 0:
            store_tile(g, n, first, window, gb, C, CA, CB)
    store_gradient(part_dw1, 0, dw1_a, dw1_b, sums_factor, CA, CB)
    store_gradient(part_dw2, 0, dw2_a, dw2_b, sums_factor, CA, CB)
    if CHUNKS == 3:
        store_gradient(part_dw1, 2, last_a, last_b, sums_factor, CA, CB)


@gluon.jit
def second_consume(
    v_a, v_b, y_a, y_b, w1_a, w1_b, w2_a, w2_b, own, others, full, empty, ready, free, loaded,
    g, sum_g, sum_gx, part_dw1, part_dw2, scales, least, start, stop, tiles, window, unscale,
    C: gl.constexpr, CA: gl.constexpr, CB: gl.constexpr, CHUNKS: gl.constexpr,
    STAGES: gl.constexpr, SLOTS: gl.constexpr, P: gl.constexpr, SUMS: gl.constexpr,
    SQUARES: gl.constexpr, SCALED: gl.constexpr, WAIT: gl.constexpr,
):  # fmt: skip
    """Every tile: gradients of chunk 1's weights, then d pre and linear2's gradient of chunk 2."""
    DT: gl.constexpr = v_a.dtype
    OPERAND: gl.constexpr = gl.DotOperandLayout(0, mma_layout(P), 2)
    mbarrier.wait(loaded, 0)
    ratio = 1.0
    sums_factor = 1.0
    if SCALED:
        sums_factor = 1.0 / least
    dw1_a, dw1_b = zero_sums(CA, CB)
    dw2_a, dw2_b = zero_sums(CA, CB)
    last_a, last_b = zero_sums(CA, CB)
    for k in tl.range(0, stop - start, disable_licm=True):
        stage = k % STAGES
        slot = k % SLOTS
        mbarrier.wait(full.index(stage), (k // STAGES) & 1)
        if SCALED:
            ratio = least / gl.load(scales + start + k)
        dw1_a, dw1_b, dw2_a, dw2_b = chunk_gradients(
            1, v_a, v_b, y_a, y_b, w1_a, w1_b, w2_a, w2_b, stage, k, others, slot * SQUARES,
            free, ratio, dw1_a, dw1_b, dw2_a, dw2_b, CB, SLOTS, P, True, SCALED,
        )  # fmt: skip
        if CHUNKS == 3:
            for part in gl.static_range(64 // P):
                va, vb = rows_of(v_a, v_b, stage, part, CB, P)
                ya, yb = rows_of(y_a, y_b, stage, part, CB, P)
                pre = multiply_rows(w1_a.index(2), w1_b.index(2), va, vb, CB, P)
                dact = multiply_rows(w2_a.index(2), w2_b.index(2), ya, yb, CB, P)
                if part == 0:
                    dw1_a, dw1_b = wait_down(dw1_a, dw1_b, CB)
                    dw2_a, dw2_b = wait_down(dw2_a, dw2_b, CB)
                else:
                    last_a, last_b = wait_down(last_a, last_b, CB)
                act, dpre = activations(pre, dact)
                others.index(slot * SQUARES + 1).slice(part * P, P, 1).store(dpre.to(DT))
                if SCALED:
                    act *= ratio
                    dpre *= ratio
                    others.index(slot * SQUARES + 2).slice(part * P, P, 1).store(dpre.to(DT))
                act = gl.convert_layout(act.to(DT), OPERAND)
                last_a, last_b = multiply_down(act, ya, yb, last_a, last_b, CB)
        fence_async_shared()
        sync_threads()
        mbarrier.arrive(ready.index(slot), count=1)
        if CHUNKS == 3:
            last_a, last_b = wait_down(last_a, last_b, CB)
        else:
            dw1_a, dw1_b = wait_down(dw1_a, dw1_b, CB)
            dw2_a, dw2_b = wait_down(dw2_a, dw2_b, CB)
        sync_threads()  # no fence as in `release`: products alone have read the stage
        mbarrier.arrive(empty.index(stage), count=1)
    wait_for_previous_kernel(WAIT)
    store_gradient(part_dw1, 1, dw1_a, dw1_b, sums_factor, CA, CB)
    store_gradient(part_dw2, 1, dw2_a, dw2_b, sums_factor, CA, CB)
    if CHUNKS == 3:
        store_gradient(part_dw2, 2, last_a, last_b, sums_factor, CA, CB)


@gluon.jit
def least_scale(scales, start, stop):
    """The least of these tiles' scales, in every thread."""
    LAYOUT: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0])
    least = gl.full([128], 3e38, gl.float32, LAYOUT)
    for first in tl.range(start, stop, 128):
        at = first + gl.arange(0, 128, LAYOUT)
        least = gl.minimum(least, gl.load(scales + at, mask=at < stop, other=3e38))
    return gl.min(least, 0)


@gluon.jit(do_not_specialize=["window", "tiles", "all_tiles"])
def hopper_bwd_kernel(
    va, vb, ya, yb, w1a, w1b, w2a, w2b, scales, g, sum_g, sum_gx, part_dw1, part_dw2,
    window, tiles, all_tiles, unscale,
    C: gl.constexpr, CA: gl.constexpr, CB: gl.constexpr, CHUNKS: gl.constexpr,
    STAGES: gl.constexpr, SLOTS: gl.constexpr, P: gl.constexpr, SUMS: gl.constexpr,
    SCALED: gl.constexpr, EARLY: gl.constexpr, REGISTERS: gl.constexpr, PDL: gl.constexpr,
):  # fmt: skip
    """g = d xhat, its sums, and the partial gradients of both linear weights.

    Descriptors: va, vb of xhat and ya, yb of dout, both (N, window, C), boxes (1, 64, CA | CB);
    w1a, w1b, w2a, w2b of the tables (64 CHUNKS, C), boxes (64, CA | CB). g (N, window, C); sum_g
    and sum_gx (N, tiles, SUMS), of g and g * xhat over each tile or each warp's 16 positions of
    it; part_dw1 and part_dw2 (programs, 64 CHUNKS, CA + CB). P positions of a tile go through a
    consumer's first products at once. Programs own tiles as in `more_for_the_first`. SCALED: dout
    was multiplied by scales (N, tiles), powers of two. What a program adds up is brought to the
    least of its tiles' scales, so the third chunk's d pre is kept twice, for g and for that.
    EARLY: nothing that is read here is made by the kernel before, so only writing waits for it.
    """
    SQUARES: gl.constexpr = CHUNKS - 1 + (1 if SCALED and CHUNKS == 3 else 0)
    SQUARE: gl.constexpr = gl.NVMMASharedLayout(128, element_bitwidth=16, rank=2)
    v_a = gl.allocate_shared_memory(va.dtype, [STAGES, 64, CA], w1a.layout)
    y_a = gl.allocate_shared_memory(va.dtype, [STAGES, 64, CA], w1a.layout)
    w1_a = gl.allocate_shared_memory(va.dtype, [CHUNKS, 64, CA], w1a.layout)
    w2_a = gl.allocate_shared_memory(va.dtype, [CHUNKS, 64, CA], w2a.layout)
    v_b, y_b, w1_b, w2_b = v_a, y_a, w1_a, w2_a
    if CB > 0:
        v_b = gl.allocate_shared_memory(va.dtype, [STAGES, 64, CB], w1b.layout)
        y_b = gl.allocate_shared_memory(va.dtype, [STAGES, 64, CB], w1b.layout)
        w1_b = gl.allocate_shared_memory(va.dtype, [CHUNKS, 64, CB], w1b.layout)
        w2_b = gl.allocate_shared_memory(va.dtype, [CHUNKS, 64, CB], w2b.layout)
    own = gl.allocate_shared_memory(va.dtype, [1, 64, 64], SQUARE)
    others = gl.allocate_shared_memory(va.dtype, [SLOTS * SQUARES, 64, 64], SQUARE)
    full = make_ring(STAGES)
    empty = make_ring(STAGES, 2)
    ready = make_ring(SLOTS)
    free = make_ring(SLOTS)
    loaded = make_ring(1).index(0)
    fence_async_shared()
    if not EARLY:
        wait_for_previous_kernel(PDL)
    load_weights(w1a, w1b, w2a, w2b, w1_a, w1_b, w2_a, w2_b, loaded, C, CA, CB, 64, CHUNKS)
    start, stop = more_for_the_first(all_tiles)
    least = 1.0
    if SCALED:
        least = least_scale(scales, start, stop)
    sync_threads()
    part = gl.program_id(0) * (CHUNKS * 64 * (CA + CB))
    given = (
        v_a, v_b, y_a, y_b, w1_a, w1_b, w2_a, w2_b, own, others, full, empty, ready, free, loaded,
        g, sum_g, sum_gx, part_dw1 + part, part_dw2 + part, scales, least, start, stop, tiles,
        window, unscale,
    )  # fmt: skip
    WAIT: gl.constexpr = PDL and EARLY
    SIZES: gl.constexpr = (C, CA, CB, CHUNKS, STAGES, SLOTS, P, SUMS, SQUARES, SCALED, WAIT)
    streamed = (va, vb, ya, yb, v_a, v_b, y_a, y_b, full, empty, start, stop, tiles)
    STREAMED: gl.constexpr = (0, 0, C, CA, CB, STAGES, 1, True)
    gl.warp_specialize([
        (first_consume, given + SIZES),
        (second_consume, given + SIZES),
        (produce, streamed + STREAMED),
    ], [4, 1], [REGISTERS, 24])  # fmt: skip
