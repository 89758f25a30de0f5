"""The block's two kernels of chained matrix products in Gluon, for GPUs with TMA and wgmma (sm_90).

The same functions as `block_fwd_kernel` and `block_bwd_xhat_kernel`, but the first reads x
itself, so that the normalised convolution need not exist in memory. One producer warp streams
tiles of BM = 64 positions through a ring of STAGES buffers in shared memory; two or three
consumer warpgroups each own a tile from its taps to its result, so that they never wait for
each other. The weights stay in shared memory for the life of the program, one program per SM.

A consumer reads the taps straight into the registers that wgmma takes its first operand from,
where it convolves, normalises and rounds them; the middle tap, converted, is the accumulator's
start, so the residual costs nothing. C = CA + CB columns, powers of two (96 = 64 + 32).
Hidden activations are fp16 in the forward: |2 gelu(pre)| must stay below 65504. In place of the
second, `hopper_bwd_kernels` makes the weights' gradients too, where a program can hold them.
"""

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    warpgroup_mma_wait,
)

from cherimoya.ops.block.hopper_common import (
    combine_stats,
    let_next_kernel_start,
    load_weights,
    make_ring,
    mma_layout,
    multiply_down,
    multiply_up,
    owned_tiles,
    produce,
    release,
    store_tile,
    sync_threads,
    taps_to_shared,
    twice_gelu_and_slope,
    twice_gelu_half,
    wait_down,
    wait_for_previous_kernel,
    widen,
)


@gluon.jit
def convolve(tiles, stage, taps, rstd, shift, OPERAND: gl.constexpr):
    """xhat = rstd * conv + shift from the three taps of one stage, and the middle tap."""
    SLICE: gl.constexpr = gl.SliceLayout(0, OPERAND)
    here = tiles.index(3 * stage + 1).load(OPERAND)
    v = widen(tiles.index(3 * stage).load(OPERAND)) * gl.expand_dims(taps.index(0).load(SLICE), 0)
    v = widen(here) * gl.expand_dims(taps.index(1).load(SLICE), 0) + v
    after = tiles.index(3 * stage + 2).load(OPERAND)
    v = widen(after) * gl.expand_dims(taps.index(2).load(SLICE), 0) + v
    return (v * rstd + shift).to(here.dtype), here


@gluon.jit
def fwd_consume(
    ID: gl.constexpr, x_a, x_b, w1_a, w1_b, w2_a, w2_b, taps_a, taps_b, full, empty, loaded,
    part_mean, part_m2, part_count, mean_out, rstd_out, out, xhat,
    start, stop, tiles, L, window, parts, eps,
    C: gl.constexpr, CA: gl.constexpr, CB: gl.constexpr, HS: gl.constexpr, CHUNKS: gl.constexpr,
    STAGES: gl.constexpr, CONSUMERS: gl.constexpr, PARTS: gl.constexpr, KEEP: gl.constexpr,
    ROLLED: gl.constexpr,
):  # fmt: skip
    """Every CONSUMERS-th tile: taps -> xhat -> linear1 -> gelu -> linear2 on top of the residual.

    ROLLED: one copy of the loop's body, which the instruction cache likes; else the next
    chunk's first product runs under this chunk's gelu.
    """
    OPERAND: gl.constexpr = gl.DotOperandLayout(0, mma_layout(HS), 2)
    mbarrier.wait(loaded, 0)
    current = -1
    mean = 0.0
    rstd = 0.0
    size = (L * C).to(gl.float32)
    for k in tl.range(ID, stop - start, CONSUMERS, disable_licm=True):
        tile = start + k
        n = tile // tiles
        first = (tile % tiles) * 64
        if n != current:
            mean, rstd = combine_stats(part_mean, part_m2, part_count, n, parts, size, eps, PARTS)
        current = n
        if first == 0:
            gl.store(mean_out + n, mean)
            gl.store(rstd_out + n, rstd)
        stage = k % STAGES
        mbarrier.wait(full.index(stage), (k // STAGES) & 1)
        shift = -mean * rstd
        va, here = convolve(x_a, stage, taps_a, rstd, shift, OPERAND)
        acc_a = gl.convert_layout(widen(here), mma_layout(CA))
        vb = va
        acc_b = acc_a
        if CB > 0:
            vb, here = convolve(x_b, stage, taps_b, rstd, shift, OPERAND)
            acc_b = gl.convert_layout(widen(here), mma_layout(CB))
        release(empty.index(stage))
        if KEEP:
            store_tile(xhat, n, first, window, va, C, 0, CA)
            if CB > 0:
                store_tile(xhat, n, first, window, vb, C, CA, CB)
        if ROLLED:
            for c in tl.range(0, CHUNKS, disable_licm=True):
                product = multiply_up(va, vb, w1_a.index(c), w1_b.index(c), CB, HS)
                pre = warpgroup_mma_wait(0, deps=[product])
                act = gl.convert_layout(twice_gelu_half(pre), OPERAND)
                acc_a, acc_b = multiply_down(act, w2_a.index(c), w2_b.index(c), acc_a, acc_b, CB)
                acc_a, acc_b = wait_down(acc_a, acc_b, CB)
        else:
            product = multiply_up(va, vb, w1_a.index(0), w1_b.index(0), CB, HS)
            for c in gl.static_range(CHUNKS):
                if c == 0:
                    pre = warpgroup_mma_wait(0, deps=[product])
                else:  # linear2 of the chunk before may still run
                    pre = warpgroup_mma_wait(2 if CB > 0 else 1, deps=[product])
                if c + 1 < CHUNKS:
                    product = multiply_up(va, vb, w1_a.index(c + 1), w1_b.index(c + 1), CB, HS)
                act = gl.convert_layout(twice_gelu_half(pre), OPERAND)
                acc_a, acc_b = multiply_down(act, w2_a.index(c), w2_b.index(c), acc_a, acc_b, CB)
            acc_a, acc_b = wait_down(acc_a, acc_b, CB)
        store_tile(out, n, first, window, acc_a, C, 0, CA)
        if CB > 0:
            store_tile(out, n, first, window, acc_b, C, CA, CB)


@gluon.jit(do_not_specialize=["L", "window", "trim", "d", "tiles", "all_tiles", "parts"])
def hopper_fwd_kernel(
    xa, xb, w1a, w1b, w2a, w2b, weight,
    part_mean, part_m2, part_count, mean_out, rstd_out, out, xhat,
    L, window, trim, d, tiles, all_tiles, parts, eps,
    C: gl.constexpr, CA: gl.constexpr, CB: gl.constexpr, HS: gl.constexpr, CHUNKS: gl.constexpr,
    STAGES: gl.constexpr, CONSUMERS: gl.constexpr, PARTS: gl.constexpr, KEEP: gl.constexpr,
    ROLLED: gl.constexpr, REGISTERS: gl.constexpr, PDL: gl.constexpr,
):  # fmt: skip
    """out = x + scale * linear2(gelu(linear1(xhat(x)))) for rows trim .. trim + window.

    Descriptors: xa, xb of x (N, L, C), boxes (1, 64, CA | CB); w1a, w1b, w2a, w2b of the tables
    (HS * CHUNKS, C), boxes (HS, CA | CB), the second in fp16. weight: taps (3, C) fp32; part_*
    (N, parts) -> mean_out, rstd_out (N,), out and, if KEEP, xhat (N, window, C). Program p of P
    owns tiles p T / P .. (p + 1) T / P of the T = N * tiles.
    """
    x_a = gl.allocate_shared_memory(xa.dtype, [3 * STAGES, 64, CA], w1a.layout)
    w1_a = gl.allocate_shared_memory(w1a.dtype, [CHUNKS, HS, CA], w1a.layout)
    w2_a = gl.allocate_shared_memory(w2a.dtype, [CHUNKS, HS, CA], w2a.layout)
    taps_a = taps_to_shared(weight, C, 0, CA, CA)
    x_b, w1_b, w2_b, taps_b = x_a, w1_a, w2_a, taps_a
    if CB > 0:
        x_b = gl.allocate_shared_memory(xb.dtype, [3 * STAGES, 64, CB], w1b.layout)
        w1_b = gl.allocate_shared_memory(w1b.dtype, [CHUNKS, HS, CB], w1b.layout)
        w2_b = gl.allocate_shared_memory(w2b.dtype, [CHUNKS, HS, CB], w2b.layout)
        taps_b = taps_to_shared(weight, C, CA, CB, CB)
    full = make_ring(STAGES)
    empty = make_ring(STAGES)
    loaded = make_ring(1).index(0)
    fence_async_shared()
    wait_for_previous_kernel(PDL)
    load_weights(w1a, w1b, w2a, w2b, w1_a, w1_b, w2_a, w2_b, loaded, C, CA, CB, HS, CHUNKS)
    start, stop = owned_tiles(all_tiles)
    sync_threads()
    given = (
        x_a, x_b, w1_a, w1_b, w2_a, w2_b, taps_a, taps_b, full, empty, loaded,
        part_mean, part_m2, part_count, mean_out, rstd_out, out, xhat,
        start, stop, tiles, L, window, parts, eps,
    )  # fmt: skip
    SIZES: gl.constexpr = (C, CA, CB, HS, CHUNKS, STAGES, CONSUMERS, PARTS, KEEP, ROLLED)
    streamed = (xa, xb, xa, xb, x_a, x_b, x_a, x_b, full, empty, start, stop, tiles, trim, d)
    STREAMED: gl.constexpr = (C, CA, CB, STAGES, 3, False)
    if CONSUMERS == 2:
        gl.warp_specialize([
            (fwd_consume, (0,) + given + SIZES),
            (fwd_consume, (1,) + given + SIZES),
            (produce, streamed + STREAMED),
        ], [4, 1], [REGISTERS, 24])  # fmt: skip
    else:
        gl.warp_specialize([
            (fwd_consume, (0,) + given + SIZES),
            (fwd_consume, (1,) + given + SIZES),
            (fwd_consume, (2,) + given + SIZES),
            (produce, streamed + STREAMED),
        ], [4, 4, 1], [REGISTERS, REGISTERS, 24])  # fmt: skip


@gluon.jit
def bwd_consume(
    ID: gl.constexpr, v_a, v_b, y_a, y_b, w1_a, w1_b, w2_a, w2_b, full, empty, loaded,
    scales, g, sum_g, sum_gx, start, stop, tiles, window, unscale,
    C: gl.constexpr, CA: gl.constexpr, CB: gl.constexpr, HS: gl.constexpr, CHUNKS: gl.constexpr,
    STAGES: gl.constexpr, CONSUMERS: gl.constexpr, SCALED: gl.constexpr, WAIT: gl.constexpr,
):  # fmt: skip
    """Every CONSUMERS-th tile: d pre = (dout w2) gelu'(xhat w1), g = d pre w1, and their sums."""
    OPERAND: gl.constexpr = gl.DotOperandLayout(0, mma_layout(HS), 2)
    ROWS_A: gl.constexpr = gl.SliceLayout(1, mma_layout(CA))
    mbarrier.wait(loaded, 0)
    for k in tl.range(ID, stop - start, CONSUMERS, disable_licm=True):
        tile = start + k
        n = tile // tiles
        first = (tile % tiles) * 64
        stage = k % STAGES
        mbarrier.wait(full.index(stage), (k // STAGES) & 1)
        va = v_a.index(stage)
        ya = y_a.index(stage)
        vb = va
        yb = ya
        ga = gl.zeros([64, CA], gl.float32, mma_layout(CA))
        gb = ga
        if CB > 0:
            vb = v_b.index(stage)
            yb = y_b.index(stage)
            gb = gl.zeros([64, CB], gl.float32, mma_layout(CB))
        row_gx = gl.zeros([64], gl.float32, gl.SliceLayout(1, mma_layout(HS)))
        for c in tl.range(0, CHUNKS, disable_licm=True):
            product = multiply_up(va, vb, w1_a.index(c), w1_b.index(c), CB, HS)
            dproduct = multiply_up(ya, yb, w2_a.index(c), w2_b.index(c), CB, HS)
            pre, dact = warpgroup_mma_wait(0, deps=[product, dproduct])
            _, slope = twice_gelu_and_slope(pre)
            dpre = dact * slope
            row_gx += gl.sum(dpre * pre, 1)
            dpre = gl.convert_layout(dpre.to(v_a.dtype), OPERAND)
            ga, gb = multiply_down(dpre, w1_a.index(c), w1_b.index(c), ga, gb, CB)
            ga, gb = wait_down(ga, gb, CB)
        release(empty.index(stage))
        # rows past the window have dout = 0 and add nothing
        row_g = gl.sum(ga, 1)
        if CB > 0:
            row_g = row_g + gl.convert_layout(gl.sum(gb, 1), ROWS_A)
        factor = unscale
        if SCALED:
            factor = unscale / gl.load(scales + tile)
            ga *= factor
            if CB > 0:
                gb *= factor
        wait_for_previous_kernel(WAIT)
        gl.store(sum_g + tile, gl.sum(row_g, 0) * factor)
        gl.store(sum_gx + tile, gl.sum(row_gx, 0) * factor)
        store_tile(g, n, first, window, ga, C, 0, CA)
        if CB > 0:
            store_tile(g, n, first, window, gb, C, CA, CB)


@gluon.jit(do_not_specialize=["window", "tiles", "all_tiles"])
def hopper_bwd_xhat_kernel(
    va, vb, ya, yb, w1a, w1b, w2a, w2b, scales, g, sum_g, sum_gx,
    window, tiles, all_tiles, unscale,
    C: gl.constexpr, CA: gl.constexpr, CB: gl.constexpr, HS: gl.constexpr, CHUNKS: gl.constexpr,
    STAGES: gl.constexpr, CONSUMERS: gl.constexpr, SCALED: gl.constexpr, EARLY: gl.constexpr,
    REGISTERS: gl.constexpr, PDL: gl.constexpr,
):  # fmt: skip
    """g = d xhat, and the sums of g and g * xhat over each tile of 64 rows of an example.

    Descriptors: va, vb of xhat and ya, yb of dout, both (N, window, C), boxes (1, 64, CA | CB);
    w1a, w1b, w2a, w2b of the tables, boxes (HS, CA | CB). g (N, window, C), sum_g and sum_gx
    (N, tiles). SCALED: dout was multiplied by scales (N, tiles). Programs own tiles as in
    `hopper_fwd_kernel`. EARLY: nothing that is read here is made by the kernel before, so only
    writing waits for it. The next, of the weights' gradients, needs nothing of this one.
    """
    v_a = gl.allocate_shared_memory(va.dtype, [STAGES, 64, CA], w1a.layout)
    y_a = gl.allocate_shared_memory(ya.dtype, [STAGES, 64, CA], w1a.layout)
    w1_a = gl.allocate_shared_memory(w1a.dtype, [CHUNKS, HS, CA], w1a.layout)
    w2_a = gl.allocate_shared_memory(w2a.dtype, [CHUNKS, HS, CA], w2a.layout)
    v_b, y_b, w1_b, w2_b = v_a, y_a, w1_a, w2_a
    if CB > 0:
        v_b = gl.allocate_shared_memory(vb.dtype, [STAGES, 64, CB], w1b.layout)
        y_b = gl.allocate_shared_memory(yb.dtype, [STAGES, 64, CB], w1b.layout)
        w1_b = gl.allocate_shared_memory(w1b.dtype, [CHUNKS, HS, CB], w1b.layout)
        w2_b = gl.allocate_shared_memory(w2b.dtype, [CHUNKS, HS, CB], w2b.layout)
    full = make_ring(STAGES)
    empty = make_ring(STAGES)
    loaded = make_ring(1).index(0)
    fence_async_shared()
    if not EARLY:
        wait_for_previous_kernel(PDL)
    let_next_kernel_start(PDL)
    load_weights(w1a, w1b, w2a, w2b, w1_a, w1_b, w2_a, w2_b, loaded, C, CA, CB, HS, CHUNKS)
    start, stop = owned_tiles(all_tiles)
    sync_threads()
    given = (
        v_a, v_b, y_a, y_b, w1_a, w1_b, w2_a, w2_b, full, empty, loaded,
        scales, g, sum_g, sum_gx, start, stop, tiles, window, unscale,
    )  # fmt: skip
    WAIT: gl.constexpr = PDL and EARLY
    SIZES: gl.constexpr = (C, CA, CB, HS, CHUNKS, STAGES, CONSUMERS, SCALED, WAIT)
    streamed = (va, vb, ya, yb, v_a, v_b, y_a, y_b, full, empty, start, stop, tiles)
    STREAMED: gl.constexpr = (0, 0, C, CA, CB, STAGES, 1, True)
    if CONSUMERS == 2:
        gl.warp_specialize([
            (bwd_consume, (0,) + given + SIZES),
            (bwd_consume, (1,) + given + SIZES),
            (produce, streamed + STREAMED),
        ], [4, 1], [REGISTERS, 24])  # fmt: skip
    else:
        gl.warp_specialize([
            (bwd_consume, (0,) + given + SIZES),
            (bwd_consume, (1,) + given + SIZES),
            (bwd_consume, (2,) + given + SIZES),
            (produce, streamed + STREAMED),
        ], [4, 4, 1], [REGISTERS, REGISTERS, 24])  # fmt: skip
