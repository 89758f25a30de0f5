"""The block's forward in Gluon for fp32 tensors, products in fp16: see `hopper_kernels`.

A tile's taps, at twice the bytes, come 32 columns at a time; each consumer has a producer and a
ring of its own.
"""

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from cherimoya.ops.block.hopper_common import (
    combine_stats,
    make_ring,
    mma_layout,
    multiply_down,
    owned_tiles,
    release,
    store_tile,
    sync_threads,
    taps_to_shared,
    twice_gelu_half,
    wait_down,
    wait_for_previous_kernel,
)

WIDTH = gl.constexpr(32)  # columns of a stage


@gluon.jit
def produce_fp32(
    ID: gl.constexpr, xd, ring, full, empty, start, stop, tiles, trim, d,
    C: gl.constexpr, STAGES: gl.constexpr, CONSUMERS: gl.constexpr,
):  # fmt: skip
    """One warp: the taps of consumer ID's tiles, WIDTH columns at a time, into its ring."""
    GROUPS: gl.constexpr = C // WIDTH
    for k in tl.range(ID, stop - start, CONSUMERS):
        tile = start + k
        n = tile // tiles
        row = (tile % tiles) * 64 + trim
        for j in gl.static_range(GROUPS):
            i = (k // CONSUMERS) * GROUPS + j
            stage = i % STAGES
            bar = full.index(stage)
            mbarrier.wait(empty.index(stage), ((i // STAGES) & 1) ^ 1)
            mbarrier.expect(bar, 3 * 64 * WIDTH * 4)
            for t in gl.static_range(3):
                target = ring.index(3 * stage + t)._reinterpret(
                    gl.float32, [1, 64, WIDTH], xd.layout
                )
                tma.async_copy_global_to_shared(xd, [n, row + (t - 1) * d, j * WIDTH], bar, target)


@gluon.jit
def beside(a, b, CW: gl.constexpr):
    """Two tiles (64, CW / 2) as one (64, CW) in the layout of an accumulator."""
    both = gl.join(a, b).permute((0, 2, 1)).reshape([64, CW])
    return gl.convert_layout(both, mma_layout(CW))


@gluon.jit
def accumulator(xs, FIRST: gl.constexpr, CW: gl.constexpr, factor):
    """factor * columns of x, from groups FIRST and on, as the start of an accumulator (64, CW)."""
    if CW == WIDTH:
        acc = gl.convert_layout(xs[FIRST], mma_layout(CW))
    elif CW == 2 * WIDTH:
        acc = beside(xs[FIRST], xs[FIRST + 1], CW)
    else:
        left = beside(xs[FIRST], xs[FIRST + 1], CW // 2)
        acc = beside(left, beside(xs[FIRST + 2], xs[FIRST + 3], CW // 2), CW)
    return acc * factor


@gluon.jit
def multiply_up_groups(vs, w1, c, GROUPS: gl.constexpr, HS: gl.constexpr):
    """Start v (64, C) @ w (HS, C) transposed, both in groups of WIDTH columns."""
    product = gl.zeros([64, HS], gl.float32, mma_layout(HS))
    for j in gl.static_range(GROUPS):
        product = warpgroup_mma(
            vs[j], w1.index(c * GROUPS + j).permute((1, 0)), product,
            use_acc=j > 0, is_async=True,
        )  # fmt: skip
    return product


@gluon.jit
def consume_fp32(
    ID: gl.constexpr, ring, full, empty, w1, w2_a, w2_b, taps, loaded,
    part_mean, part_m2, part_count, mean_out, rstd_out, out, xhat,
    start, stop, tiles, L, window, parts, eps, unscale,
    C: gl.constexpr, CA: gl.constexpr, CB: gl.constexpr, HS: gl.constexpr, CHUNKS: gl.constexpr,
    STAGES: gl.constexpr, CONSUMERS: gl.constexpr, PARTS: gl.constexpr, KEEP: gl.constexpr,
    ROLLED: gl.constexpr,
):  # fmt: skip
    """Every CONSUMERS-th tile: taps -> xhat -> linear1 -> gelu -> linear2 -> plus the residual."""
    GROUPS: gl.constexpr = C // WIDTH
    OPERAND: gl.constexpr = gl.DotOperandLayout(0, mma_layout(HS), 2)
    SLICE: gl.constexpr = gl.SliceLayout(0, OPERAND)
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
        vs = ()
        xs = ()
        for j in gl.static_range(GROUPS):
            i = (k // CONSUMERS) * GROUPS + j
            stage = i % STAGES
            mbarrier.wait(full.index(stage), (i // STAGES) & 1)
            v = ring.index(3 * stage).load(OPERAND)
            v = v * gl.expand_dims(taps.index(3 * j).load(SLICE), 0) - mean
            here = ring.index(3 * stage + 1).load(OPERAND)
            v = here * gl.expand_dims(taps.index(3 * j + 1).load(SLICE), 0) + v
            after = ring.index(3 * stage + 2).load(OPERAND)
            v = after * gl.expand_dims(taps.index(3 * j + 2).load(SLICE), 0) + v
            vs = vs + ((v * rstd).to(gl.float16),)
            xs = xs + (here,)
            release(empty.index(stage))
        if KEEP:
            for j in gl.static_range(GROUPS):
                store_tile(xhat, n, first, window, vs[j], C, j * WIDTH, WIDTH)
        acc_a = accumulator(xs, 0, CA, 1.0 / unscale)
        acc_b = acc_a
        if CB > 0:
            acc_b = accumulator(xs, CA // WIDTH, CB, 1.0 / unscale)
        if ROLLED:
            for c in tl.range(0, CHUNKS, disable_licm=True):
                product = multiply_up_groups(vs, w1, c, GROUPS, HS)
                pre = warpgroup_mma_wait(0, deps=[product])
                act = gl.convert_layout(twice_gelu_half(pre), OPERAND)
                acc_a, acc_b = multiply_down(act, w2_a.index(c), w2_b.index(c), acc_a, acc_b, CB)
                acc_a, acc_b = wait_down(acc_a, acc_b, CB)
        else:
            product = multiply_up_groups(vs, w1, 0, GROUPS, HS)
            for c in gl.static_range(CHUNKS):
                if c == 0:
                    pre = warpgroup_mma_wait(0, deps=[product])
                else:  # linear2 of the chunk before may still run
                    pre = warpgroup_mma_wait(2 if CB > 0 else 1, deps=[product])
                if c + 1 < CHUNKS:
                    product = multiply_up_groups(vs, w1, c + 1, GROUPS, HS)
                act = gl.convert_layout(twice_gelu_half(pre), OPERAND)
                acc_a, acc_b = multiply_down(act, w2_a.index(c), w2_b.index(c), acc_a, acc_b, CB)
            acc_a, acc_b = wait_down(acc_a, acc_b, CB)
        store_tile(out, n, first, window, acc_a * unscale, C, 0, CA)
        if CB > 0:
            store_tile(out, n, first, window, acc_b * unscale, C, CA, CB)


@gluon.constexpr_function
def row_layout():
    """Rows of 32 fp32 columns in swizzled 128 bytes."""
    return gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=32, rank=2)


@gluon.jit(do_not_specialize=["L", "window", "trim", "d", "tiles", "all_tiles", "parts"])
def hopper_fwd_fp32_kernel(
    xd, w1d, w2a, w2b, weight,
    part_mean, part_m2, part_count, mean_out, rstd_out, out, xhat,
    L, window, trim, d, tiles, all_tiles, parts, eps, unscale,
    C: gl.constexpr, CA: gl.constexpr, CB: gl.constexpr, HS: gl.constexpr, CHUNKS: gl.constexpr,
    STAGES: gl.constexpr, PARTS: gl.constexpr, KEEP: gl.constexpr, ROLLED: gl.constexpr,
    REGISTERS: gl.constexpr, PDL: gl.constexpr,
):  # fmt: skip
    """`hopper_fwd_kernel` for fp32 x and out; xhat and the tables are fp16.

    Descriptors: xd of x (N, L, C), boxes (1, 64, 32); w1d of linear1's table, boxes (HS, 32); w2a
    and w2b of linear2's, boxes (HS, CA | CB).
    """
    GROUPS: gl.constexpr = C // WIDTH
    ring_0 = gl.allocate_shared_memory(gl.float32, [3 * STAGES, 64, WIDTH], row_layout())
    ring_1 = gl.allocate_shared_memory(gl.float32, [3 * STAGES, 64, WIDTH], row_layout())
    w1 = gl.allocate_shared_memory(w1d.dtype, [CHUNKS * GROUPS, HS, WIDTH], w1d.layout)
    w2_a = gl.allocate_shared_memory(w2a.dtype, [CHUNKS, HS, CA], w2a.layout)
    w2_b = w2_a
    if CB > 0:
        w2_b = gl.allocate_shared_memory(w2b.dtype, [CHUNKS, HS, CB], w2b.layout)
    taps = taps_to_shared(weight, C, 0, C, WIDTH)
    full_0 = make_ring(STAGES)
    full_1 = make_ring(STAGES)
    empty_0 = make_ring(STAGES)
    empty_1 = make_ring(STAGES)
    loaded = make_ring(1).index(0)
    fence_async_shared()
    wait_for_previous_kernel(PDL)
    mbarrier.expect(loaded, CHUNKS * HS * C * 2 * 2)
    for c in gl.static_range(CHUNKS):
        for j in gl.static_range(GROUPS):
            tma.async_copy_global_to_shared(
                w1d, [c * HS, j * WIDTH], loaded, w1.index(c * GROUPS + j)
            )
        tma.async_copy_global_to_shared(w2a, [c * HS, 0], loaded, w2_a.index(c))
        if CB > 0:
            tma.async_copy_global_to_shared(w2b, [c * HS, CA], loaded, w2_b.index(c))
    start, stop = owned_tiles(all_tiles)
    sync_threads()
    given = (
        w1, w2_a, w2_b, taps, loaded, part_mean, part_m2, part_count, mean_out, rstd_out, out, xhat,
        start, stop, tiles, L, window, parts, eps, unscale,
    )  # fmt: skip
    SIZES: gl.constexpr = (C, CA, CB, HS, CHUNKS, STAGES, 2, PARTS, KEEP, ROLLED)
    gl.warp_specialize([
        (consume_fp32, (0, ring_0, full_0, empty_0) + given + SIZES),
        (consume_fp32, (1, ring_1, full_1, empty_1) + given + SIZES),
        (produce_fp32, (
            0, xd, ring_0, full_0, empty_0, start, stop, tiles, trim, d, C, STAGES, 2)),
        (produce_fp32, (
            1, xd, ring_1, full_1, empty_1, start, stop, tiles, trim, d, C, STAGES, 2)),
    ], [4, 1, 1], [REGISTERS, 24, 24])  # fmt: skip
