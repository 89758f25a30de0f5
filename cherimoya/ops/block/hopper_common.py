"""Parts of the Gluon kernels for GPUs with TMA and wgmma (sm_90): see `hopper_kernels`."""

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

from cherimoya.ops.block.kernels import CUBIC, CUBIC_SLOPE, SCALE

# Triton 3.6 calls it thread_barrier.
sync_threads = getattr(gl, "barrier", None) or gl.thread_barrier

# 2 gelu of two fp32 values as a pair of fp16: SCALE = 0x3A62, CUBIC = 0x2891, see `kernels`.
TWICE_GELU_HALF = gl.constexpr("""{ .reg .b32 a, b, k, j;
cvt.rn.f16x2.f32 a, $2, $1;
mul.rn.f16x2 b, a, a;
mov.b32 k, 0x3A623A62;
mov.b32 j, 0x28912891;
fma.rn.f16x2 b, b, j, k;
mul.rn.f16x2 b, b, a;
tanh.approx.f16x2 b, b;
fma.rn.f16x2 $0, a, b, a; }""")
# Two bf16 to two fp32, one instruction each.
WIDEN_BF16 = gl.constexpr("""{ .reg .b32 a, b;
shl.b32 a, $2, 16;
and.b32 b, $2, 0xffff0000;
mov.b32 $0, a;
mov.b32 $1, b; }""")


@gluon.jit
def twice_gelu_half(pre):
    """2 gelu(pre) in fp16."""
    return gl.inline_asm_elementwise(
        TWICE_GELU_HALF, "=r,f,f", [pre], dtype=gl.float16, is_pure=True, pack=2
    )


@gluon.jit
def tanh(u):
    """The GPU's own tanh, with a relative error of 5e-4."""
    return gl.inline_asm_elementwise(
        "tanh.approx.f32 $0, $1;", "=f,f", [u], dtype=gl.float32, is_pure=True, pack=1
    )


@gluon.jit
def twice_gelu_and_slope(pre):
    """2 gelu(pre) and its derivative."""
    pre2 = pre * pre
    t = tanh(pre * (pre2 * CUBIC + SCALE))
    return pre + pre * t, pre * (pre2 * CUBIC_SLOPE + SCALE) * (1.0 - t * t) + (1.0 + t)


@gluon.jit
def widen(x):
    """bf16 or fp16 to fp32."""
    if x.dtype == gl.bfloat16:
        return gl.inline_asm_elementwise(
            WIDEN_BF16, "=f,=f,r", [x], dtype=gl.float32, is_pure=True, pack=2
        )
    else:
        return x.to(gl.float32)


@gluon.jit
def wait_for_previous_kernel(PDL: gl.constexpr):
    """Block until the kernel before this one has finished, when launched before it had."""
    if PDL:
        gl.inline_asm_elementwise(
            "griddepcontrol.wait; mov.u32 $0, 0;", "=r", [],
            dtype=gl.int32, is_pure=False, pack=1,
        )  # fmt: skip


@gluon.jit
def let_next_kernel_start(PDL: gl.constexpr):
    """As `conv_norm.kernels` has it."""
    if PDL:
        gl.inline_asm_elementwise(
            "griddepcontrol.launch_dependents; mov.u32 $0, 0;", "=r", [],
            dtype=gl.int32, is_pure=False, pack=1,
        )  # fmt: skip


@gluon.constexpr_function
def mma_layout(columns):
    """Layout of a wgmma accumulator of 64 rows, one warpgroup."""
    return gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, columns, 16]
    )


@gluon.constexpr_function
def store_layout(columns):
    """Rows as in the accumulator, but 4 neighbouring columns a lane, 16 a quad: full sectors.

    One lane bit differs from the accumulator's layout, so the conversion is a shuffle.
    """
    registers = [[0, 1], [0, 2], [8, 0]] + [[0, c] for c in (16, 32, 64) if c < columns]
    lanes = [[0, 8], [0, 4], [1, 0], [2, 0], [4, 0]]
    return gl.DistributedLinearLayout(registers, lanes, [[16, 0], [32, 0]], [], [64, columns])


@gluon.jit
def store_tile(p, n, first, rows, value, C: gl.constexpr, C0: gl.constexpr, CW: gl.constexpr):
    """Write columns C0 .. C0 + CW of rows first .. first + 64 of p (N, rows, C)."""
    LAYOUT: gl.constexpr = store_layout(CW)
    value = gl.convert_layout(value.to(p.dtype.element_ty), LAYOUT)
    row = first + gl.arange(0, 64, gl.SliceLayout(1, LAYOUT))
    column = C0 + gl.arange(0, CW, gl.SliceLayout(0, LAYOUT))
    at = gl.expand_dims(row * C, 1) + gl.expand_dims(column, 0)
    gl.store(p + n.to(gl.int64) * rows * C + at, value, mask=gl.expand_dims(row < rows, 1))


@gluon.jit
def combine_stats(part_mean, part_m2, part_count, n, parts, size, eps, PARTS: gl.constexpr):
    """Mean and 1 / std of one example from its tiles, in a fixed order; every warp does it all."""
    LAYOUT: gl.constexpr = gl.BlockedLayout([PARTS // 32], [32], [4], [0])
    i = gl.arange(0, PARTS, LAYOUT)
    at = n.to(gl.int64) * parts + i
    mean_i = gl.load(part_mean + at, mask=i < parts, other=0.0)
    m2_i = gl.load(part_m2 + at, mask=i < parts, other=0.0)
    count_i = gl.load(part_count + at, mask=i < parts, other=0.0)
    mean = gl.sum(mean_i * count_i, 0) / size
    var = gl.sum(m2_i + count_i * (mean_i - mean) * (mean_i - mean), 0) / size
    return mean, 1.0 / gl.sqrt_rn(var + eps)


@gluon.jit
def multiply_up(va, vb, wa, wb, CB: gl.constexpr, HS: gl.constexpr):
    """Start v (64, C) @ w (HS, C) transposed."""
    LAYOUT: gl.constexpr = mma_layout(HS)
    zero = gl.zeros([64, HS], gl.float32, LAYOUT)
    product = warpgroup_mma(va, wa.permute((1, 0)), zero, use_acc=False, is_async=True)
    if CB > 0:
        product = warpgroup_mma(vb, wb.permute((1, 0)), product, is_async=True)
    return product


@gluon.jit
def multiply_down(act, wa, wb, acc_a, acc_b, CB: gl.constexpr):
    """Start acc (64, C) += act (64, HS) @ w (HS, C)."""
    acc_a = warpgroup_mma(act, wa, acc_a, is_async=True)
    if CB > 0:
        acc_b = warpgroup_mma(act, wb, acc_b, is_async=True)
    return acc_a, acc_b


@gluon.jit
def wait_down(acc_a, acc_b, CB: gl.constexpr):
    """Wait for every product in flight."""
    if CB > 0:
        acc_a, acc_b = warpgroup_mma_wait(0, deps=[acc_a, acc_b])
    else:
        acc_a = warpgroup_mma_wait(0, deps=[acc_a])
    return acc_a, acc_b


@gluon.jit
def produce(
    xa, xb, ya, yb, x_a, x_b, y_a, y_b, full, empty, start, stop, tiles, trim, d,
    C: gl.constexpr, CA: gl.constexpr, CB: gl.constexpr, STAGES: gl.constexpr,
    TAPS: gl.constexpr, SECOND: gl.constexpr,
):  # fmt: skip
    """One warp: TAPS shifted tiles of x and, if SECOND, one of y into each stage of the ring.

    xa, xb, ya, yb are descriptors of (N, rows, C), boxes (1, 64, CA | CB); rows outside the
    example arrive as zeros.
    """
    DT: gl.constexpr = xa.dtype
    EACH: gl.constexpr = 64 * C * 2  # bytes
    for k in tl.range(0, stop - start):
        tile = start + k
        n = tile // tiles
        row = (tile % tiles) * 64
        stage = k % STAGES
        bar = full.index(stage)
        mbarrier.wait(empty.index(stage), ((k // STAGES) & 1) ^ 1)
        mbarrier.expect(bar, EACH * (TAPS + (1 if SECOND else 0)))
        for j in gl.static_range(TAPS):
            at = row + trim + (j - TAPS // 2) * d
            target = x_a.index(TAPS * stage + j)._reinterpret(DT, [1, 64, CA], xa.layout)
            tma.async_copy_global_to_shared(xa, [n, at, 0], bar, target)
            if CB > 0:
                target = x_b.index(TAPS * stage + j)._reinterpret(DT, [1, 64, CB], xb.layout)
                tma.async_copy_global_to_shared(xb, [n, at, CA], bar, target)
        if SECOND:
            target = y_a.index(stage)._reinterpret(DT, [1, 64, CA], ya.layout)
            tma.async_copy_global_to_shared(ya, [n, row, 0], bar, target)
            if CB > 0:
                target = y_b.index(stage)._reinterpret(DT, [1, 64, CB], yb.layout)
                tma.async_copy_global_to_shared(yb, [n, row, CA], bar, target)


@gluon.jit
def make_ring(count: gl.constexpr, arrivals: gl.constexpr = 1):
    """`count` barriers, each waiting for so many arrivals."""
    bars = gl.allocate_shared_memory(gl.int64, [count, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(count):
        mbarrier.init(bars.index(i), count=arrivals)
    return bars


@gluon.jit
def release(empty):
    """Give a stage of the ring back to the copy engine; all warps of a consumer call it.

    A barrier orders ordinary accesses to shared memory alone. The fence holds the copy engine,
    which writes through another proxy, until the reads before it are done.
    """
    fence_async_shared()
    sync_threads()
    mbarrier.arrive(empty, count=1)


@gluon.jit
def load_weights(
    w1a, w1b, w2a, w2b, w1_a, w1_b, w2_a, w2_b, loaded,
    C: gl.constexpr, CA: gl.constexpr, CB: gl.constexpr, HS: gl.constexpr, CHUNKS: gl.constexpr,
):  # fmt: skip
    """Start the copy of both weight tables to shared memory, CHUNKS tiles of HS hidden units."""
    mbarrier.expect(loaded, CHUNKS * HS * C * 2 * 2)
    for c in gl.static_range(CHUNKS):
        tma.async_copy_global_to_shared(w1a, [c * HS, 0], loaded, w1_a.index(c))
        tma.async_copy_global_to_shared(w2a, [c * HS, 0], loaded, w2_a.index(c))
        if CB > 0:
            tma.async_copy_global_to_shared(w1b, [c * HS, CA], loaded, w1_b.index(c))
            tma.async_copy_global_to_shared(w2b, [c * HS, CA], loaded, w2_b.index(c))


@gluon.jit
def taps_to_shared(
    weight, C: gl.constexpr, C0: gl.constexpr, CW: gl.constexpr, WIDTH: gl.constexpr
):
    """Columns C0 .. C0 + CW of the taps (3, C), fp32, in shared memory: (3 CW / WIDTH, WIDTH)."""
    LAYOUT: gl.constexpr = gl.BlockedLayout([1], [32], [gl.num_warps()], [0])
    SHARED: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    taps = gl.allocate_shared_memory(gl.float32, [3 * (CW // WIDTH), WIDTH], SHARED)
    for j in gl.static_range(CW // WIDTH):
        for t in gl.static_range(3):
            column = C0 + j * WIDTH + gl.arange(0, WIDTH, LAYOUT)
            taps.index(3 * j + t).store(gl.load(weight + t * C + column))
    return taps


@gluon.jit
def owned_tiles(all_tiles):
    """This program's tiles: the first, and the first of the next program."""
    start = gl.program_id(0).to(gl.int64) * all_tiles // gl.num_programs(0)
    stop = (gl.program_id(0) + 1).to(gl.int64) * all_tiles // gl.num_programs(0)
    return start.to(gl.int32), stop.to(gl.int32)


@gluon.jit
def more_for_the_first(all_tiles):
    """`owned_tiles` where the last programs, which may start later, have one less."""
    p = gl.program_id(0)
    each = all_tiles // gl.num_programs(0)
    more = all_tiles % gl.num_programs(0)
    return p * each + gl.minimum(p, more), (p + 1) * each + gl.minimum(p + 1, more)
