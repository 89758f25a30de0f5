"""Triton kernels of both heads' first halves: profile logits and the window's mean.

x (N, L, C), contiguous; weight (G, C, K) and bias (G,) in fp32. The window is what `cut` leaves:
logits (N, G, window), features (N, C), both fp32. C columns are handled as CA + CB, powers of two.

A kernel of one tap adds up in fp32. Kernels of more multiply x by every tap, z = x @ weight[g],
and store that in fp32; the logits are sums along its diagonals. The gradients read the logits'
gradient along them, dz[l, j] = dlogits[l - cut - j + K // 2]. Products are in the dtype of x with
fp32 sums; where x is fp32 they are in TF32, and so are the gradients' where x is fp16, whose range
dlogits may leave. The logits' may be in full fp32 (PRECISION), as three of TF32. They read the
weight as a table in that dtype, (G, TP, CA + CB), zero where it has no value.

Tiles never span examples, and partial sums are added up in a fixed order: no atomics.
"""

import triton
import triton.language as tl

from cherimoya.ops.block.kernels import load_inside, load_table, operand, store_rows
from cherimoya.ops.conv_norm.kernels import (
    let_next_kernel_start,
    sum_rows,
    wait_for_previous_kernel,
)


@triton.jit
def load_columns(p, C: tl.constexpr, FIRST: tl.constexpr, WIDTH: tl.constexpr):
    """Columns FIRST .. FIRST + WIDTH of p (C,), zero outside."""
    column = FIRST + tl.arange(0, WIDTH)
    return tl.load(p + column, mask=column < C, other=0.0)


@triton.jit
def store_columns(p, value, C: tl.constexpr, FIRST: tl.constexpr, WIDTH: tl.constexpr):
    """Write columns FIRST .. FIRST + WIDTH of p (C,)."""
    column = FIRST + tl.arange(0, WIDTH)
    tl.store(p + column, value, mask=column < C)


@triton.jit
def load_diagonals(dlogits, row, tap, window, cut, K: tl.constexpr):
    """dz = dlogits[row - cut - tap + K // 2], zero outside: row and tap broadcast to a tile."""
    p = row - cut + K // 2 - tap
    inside = p.to(tl.uint32) < window.to(tl.uint32)  # nor below 0
    return tl.load(dlogits + p, mask=inside & (tap < K), other=0.0)


@triton.jit
def store_features(
    part_features, features, n, tiles, column,
    C: tl.constexpr, BLOCK: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """These columns of features (N, C) = sum of part_features (N, tiles, C), for example n."""
    total = sum_rows(part_features + n * tiles * C, tiles, C, column, BLOCK, DEPTH)
    tl.store(features + n * C + column, total, mask=column < C)


@triton.jit(do_not_specialize=["L", "window", "cut", "tiles"])
def point_heads_fwd_kernel(
    x, weight, bias, logits, part_features, L, window, cut, tiles, share,
    C: tl.constexpr, CA: tl.constexpr, CB: tl.constexpr, G: tl.constexpr, BM: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """Logits of one tap for BM positions of one example, and those positions' part of the mean.

    x (N, L, C), weight (G, C), bias (G,) -> logits (N, G, window), part_features (N, tiles, C);
    share is 1 / window.
    """
    wait_for_previous_kernel(PDL)
    pid = tl.program_id(0)
    n = (pid // tiles).to(tl.int64)
    position = (pid % tiles) * BM + tl.arange(0, BM)
    x += (n * L + cut) * C
    xa = load_inside(x, position, window, C, 0, CA).to(tl.float32)
    part_features += pid.to(tl.int64) * C
    store_columns(part_features, tl.sum(xa, 0) * share, C, 0, CA)
    if CB > 0:
        xb = load_inside(x, position, window, C, CA, CB).to(tl.float32)
        store_columns(part_features, tl.sum(xb, 0) * share, C, CA, CB)
    for g in tl.static_range(G):
        out = tl.sum(xa * load_columns(weight + g * C, C, 0, CA)[None, :], 1)
        if CB > 0:
            out += tl.sum(xb * load_columns(weight + g * C, C, CA, CB)[None, :], 1)
        at = logits + (n * G + g) * window + position
        tl.store(at, out + tl.load(bias + g), mask=position < window)


@triton.jit
def heads_table_kernel(
    weight, table,
    C: tl.constexpr, CP: tl.constexpr, G: tl.constexpr, K: tl.constexpr, TP: tl.constexpr,
    BLOCK: tl.constexpr, ROUND: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """table (G, TP, CP) = weight (G, C, K) as the products read it, zero where it has no value."""
    wait_for_previous_kernel(PDL)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    column = at % CP
    tap = (at // CP) % TP
    g = at // (CP * TP)
    inside = (column < C) & (tap < K) & (g < G)
    v = tl.load(weight + (g * C + column) * K + tap, mask=inside, other=0.0)
    tl.store(table + at, operand(v, table.dtype.element_ty, ROUND), mask=g < G)


@triton.jit(do_not_specialize=["L", "window", "cut", "tiles"])
def heads_products_kernel(
    x, table, z, part_features, L, window, cut, tiles, share,
    C: tl.constexpr, CA: tl.constexpr, CB: tl.constexpr, G: tl.constexpr, K: tl.constexpr,
    TP: tl.constexpr, BM: tl.constexpr, TAPS: tl.constexpr, STAGES: tl.constexpr,
    ROUND: tl.constexpr, PRECISION: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """BM positions of one example times every tap, and their part of the mean.

    x (N, L, C), table (G, TP, CA + CB) -> z (N, G, K, tiles BM), part_features (N, tiles, C); share
    is 1 / window.
    """
    wait_for_previous_kernel(PDL)
    DT: tl.constexpr = x.dtype.element_ty
    pid = tl.program_id(0)
    n = (pid // tiles).to(tl.int64)
    row = (pid % tiles) * BM + tl.arange(0, BM)
    pitch = tiles * BM
    tap = tl.arange(0, TAPS)
    x += n * L * C
    z += n * G * K * pitch
    part_features += pid.to(tl.int64) * C
    inside = ((row >= cut) & (row < cut + window))[:, None]
    xa = load_inside(x, row, L, C, 0, CA)
    if CB > 0:
        xb = load_inside(x, row, L, C, CA, CB)
    mean = tl.sum(tl.where(inside, xa.to(tl.float32), 0.0), 0) * share
    store_columns(part_features, mean, C, 0, CA)
    xa = operand(xa, DT, ROUND)
    if CB > 0:
        mean = tl.sum(tl.where(inside, xb.to(tl.float32), 0.0), 0) * share
        store_columns(part_features, mean, C, CA, CB)
        xb = operand(xb, DT, ROUND)
    for first in tl.range(0, G * TP, TAPS, num_stages=STAGES):
        wa = load_table(table, first, CA + CB, 0, TAPS, CA)
        product = tl.dot(xa, tl.trans(wa), input_precision=PRECISION)
        if CB > 0:
            wb = load_table(table, first, CA + CB, CA, TAPS, CB)
            product = tl.dot(xb, tl.trans(wb), product, input_precision=PRECISION)
        j = first % TP + tap
        at = (first // TP * K + j).to(tl.int64) * pitch
        tl.store(z + at[None, :] + row[:, None], product, mask=(j < K)[None, :])


@triton.jit(do_not_specialize=["L", "window", "cut", "tiles", "pitch", "parts"])
def heads_diagonals_kernel(
    z, bias, part_features, logits, features, L, window, cut, tiles, pitch, parts,
    C: tl.constexpr, CP: tl.constexpr, G: tl.constexpr, K: tl.constexpr, BLOCK: tl.constexpr,
    DEPTH: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One group's logits for BLOCK positions of one example; its first program adds the features.

    z (N, G, K, pitch), bias (G,), part_features (N, parts, C) -> logits (N, G, window), features
    (N, C); L of z's positions count. CP >= C.
    """
    wait_for_previous_kernel(PDL)
    pid = tl.program_id(0)
    position = (pid % tiles) * BLOCK + tl.arange(0, BLOCK)
    g = (pid // tiles) % G
    n = (pid // (tiles * G)).to(tl.int64)
    row = position + cut - K // 2
    at = z + (n * G + g) * K * pitch + row
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for _ in tl.static_range(K):
        inside = row.to(tl.uint32) < L.to(tl.uint32)  # nor below 0
        total += tl.load(at, mask=inside, other=0.0)
        row += 1
        at += pitch + 1
    at = logits + (n * G + g) * window + position
    tl.store(at, total + tl.load(bias + g), mask=position < window)
    if pid % (tiles * G) == 0:
        store_features(part_features, features, n, parts, tl.arange(0, CP), C, CP, DEPTH)


@triton.jit(do_not_specialize=["tiles"])
def heads_features_kernel(
    part_features, features, tiles,
    C: tl.constexpr, BLOCK: tl.constexpr, DEPTH: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """features (N, C) = sum of part_features (N, tiles, C) over the tiles."""
    wait_for_previous_kernel(PDL)
    SPLIT: tl.constexpr = (C + BLOCK - 1) // BLOCK
    pid = tl.program_id(0)
    n = (pid // SPLIT).to(tl.int64)
    column = (pid % SPLIT) * BLOCK + tl.arange(0, BLOCK)
    store_features(part_features, features, n, tiles, column, C, BLOCK, DEPTH)


@triton.jit(do_not_specialize=["L", "window", "cut", "tiles", "all_tiles"])
def point_heads_bwd_kernel(
    x, weight, dlogits, dfeatures, dx, parts, L, window, cut, tiles, all_tiles, share,
    C: tl.constexpr, CA: tl.constexpr, CB: tl.constexpr, G: tl.constexpr, GP: tl.constexpr,
    BM: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Gradients of one tap's heads over every `num_programs`-th tile of BM rows.

    x (N, L, C), weight (G, C), dlogits (N, G, window), dfeatures (N, C) -> dx (N, L, C) and
    parts (programs, G C + G): the program's share of dweight, then of dbias. GP >= G.
    """
    wait_for_previous_kernel(PDL)
    pid = tl.program_id(0)
    group = tl.arange(0, GP)
    dw_a = tl.zeros((GP, CA), dtype=tl.float32)
    if CB > 0:
        dw_b = tl.zeros((GP, CB), dtype=tl.float32)
    db = tl.zeros((GP,), dtype=tl.float32)
    for tile in tl.range(pid, all_tiles, tl.num_programs(0), num_stages=1, disable_licm=True):
        n = (tile // tiles).to(tl.int64)
        row = (tile % tiles) * BM + tl.arange(0, BM)
        position = row - cut
        inside = (position >= 0) & (position < window)
        x_n = x + (n * L + cut) * C
        xa = load_inside(x_n, position, window, C, 0, CA).to(tl.float32)
        mean = load_columns(dfeatures + n * C, C, 0, CA) * share
        dx_a = tl.where(inside[:, None], mean[None, :], 0.0)
        if CB > 0:
            xb = load_inside(x_n, position, window, C, CA, CB).to(tl.float32)
            mean = load_columns(dfeatures + n * C, C, CA, CB) * share
            dx_b = tl.where(inside[:, None], mean[None, :], 0.0)
        for g in tl.static_range(G):
            at = dlogits + (n * G + g) * window + position
            d = tl.load(at, mask=inside, other=0.0)
            db += tl.where(group == g, tl.sum(d), 0.0)
            d = d[:, None]
            dw_a += tl.where((group == g)[:, None], tl.sum(d * xa, 0)[None, :], 0.0)
            dx_a += d * load_columns(weight + g * C, C, 0, CA)[None, :]
            if CB > 0:
                dw_b += tl.where((group == g)[:, None], tl.sum(d * xb, 0)[None, :], 0.0)
                dx_b += d * load_columns(weight + g * C, C, CA, CB)[None, :]
        store_rows(dx + n * L * C, row, L, dx_a, C, 0, CA)
        if CB > 0:
            store_rows(dx + n * L * C, row, L, dx_b, C, CA, CB)
    parts += pid.to(tl.int64) * (G * C + G)
    store_rows(parts, group, G, dw_a, C, 0, CA)
    if CB > 0:
        store_rows(parts, group, G, dw_b, C, CA, CB)
    tl.store(parts + G * C + group, db, mask=group < G)


@triton.jit
def add_taps(
    dx_a, dx_b, dlogits, table, row, first, window, cut,
    CA: tl.constexpr, CB: tl.constexpr, K: tl.constexpr, TAPS: tl.constexpr, ROUND: tl.constexpr,
):  # fmt: skip
    """dx's columns with what these rows' logits add by TAPS taps of table (TP, CA + CB)."""
    DT: tl.constexpr = table.dtype.element_ty
    tap = first + tl.arange(0, TAPS)
    dz = load_diagonals(dlogits, row[:, None], tap[None, :], window, cut, K)
    wa = load_table(table, first, CA + CB, 0, TAPS, CA)
    if CB > 0:
        wb = load_table(table, first, CA + CB, CA, TAPS, CB)
    dz = operand(dz, DT, ROUND)
    dx_a = tl.dot(dz, wa, dx_a, input_precision="tf32")
    if CB > 0:
        dx_b = tl.dot(dz, wb, dx_b, input_precision="tf32")
    return dx_a, dx_b


@triton.jit(do_not_specialize=["L", "window", "cut", "tiles"])
def heads_bwd_x_kernel(
    table, dlogits, dfeatures, dx, L, window, cut, tiles, share,
    C: tl.constexpr, CA: tl.constexpr, CB: tl.constexpr, G: tl.constexpr, K: tl.constexpr,
    TP: tl.constexpr, BM: tl.constexpr, TAPS: tl.constexpr, LEAST: tl.constexpr,
    ROUND: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """dx of BM rows of one example, by TAPS taps at a time, then by LEAST.

    table (G, TP, CA + CB), dlogits (N, G, window), dfeatures (N, C) -> dx (N, L, C).
    """
    wait_for_previous_kernel(PDL)
    WHOLE: tl.constexpr = TP // TAPS * TAPS
    pid = tl.program_id(0)
    n = (pid // tiles).to(tl.int64)
    row = (pid % tiles) * BM + tl.arange(0, BM)
    dx_a = tl.zeros((BM, CA), dtype=tl.float32)
    dx_b = dx_a
    if CB > 0:
        dx_b = tl.zeros((BM, CB), dtype=tl.float32)
    for g in tl.static_range(G):
        d = dlogits + (n * G + g) * window
        w = table + g * TP * (CA + CB)
        for j in tl.range(0, WHOLE, TAPS, num_stages=1, disable_licm=True):
            dx_a, dx_b = add_taps(dx_a, dx_b, d, w, row, j, window, cut, CA, CB, K, TAPS, ROUND)
        for j in tl.range(WHOLE, TP, LEAST, num_stages=1, disable_licm=True):
            dx_a, dx_b = add_taps(dx_a, dx_b, d, w, row, j, window, cut, CA, CB, K, LEAST, ROUND)
    inside = ((row >= cut) & (row < cut + window))[:, None]
    mean = load_columns(dfeatures + n * C, C, 0, CA) * share
    store_rows(dx + n * L * C, row, L, dx_a + tl.where(inside, mean[None, :], 0.0), C, 0, CA)
    if CB > 0:
        mean = load_columns(dfeatures + n * C, C, CA, CB) * share
        store_rows(dx + n * L * C, row, L, dx_b + tl.where(inside, mean[None, :], 0.0), C, CA, CB)


@triton.jit(do_not_specialize=["L", "window", "cut", "tiles", "all_tiles"])
def heads_bwd_weight_kernel(
    x, dlogits, parts, L, window, cut, tiles, all_tiles,
    C: tl.constexpr, CA: tl.constexpr, CB: tl.constexpr, G: tl.constexpr, K: tl.constexpr,
    BM: tl.constexpr, TAPS: tl.constexpr, STAGES: tl.constexpr, HALF: tl.constexpr,
    ROUND: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Partial gradients of TAPS taps of one group over every so many-th tile of BM rows.

    x (N, L, C), dlogits (N, G, window) -> parts (programs / (G ceil(K / TAPS)), G K C + G): dweight
    as (G, K, C), then dbias. HALF: products in bf16, else in TF32.
    """
    wait_for_previous_kernel(PDL)
    BLOCKS: tl.constexpr = (K + TAPS - 1) // TAPS
    DT: tl.constexpr = tl.bfloat16 if HALF else tl.float32
    pid = tl.program_id(0)
    block = pid % BLOCKS
    g = (pid // BLOCKS) % G
    part = pid // (BLOCKS * G)
    tap = block * TAPS + tl.arange(0, TAPS)
    dw_a = tl.zeros((TAPS, CA), dtype=tl.float32)
    if CB > 0:
        dw_b = tl.zeros((TAPS, CB), dtype=tl.float32)
    db = tl.zeros((BM,), dtype=tl.float32)
    step = tl.num_programs(0) // (BLOCKS * G)
    for tile in tl.range(part, all_tiles, step, num_stages=STAGES, disable_licm=True):
        n = (tile // tiles).to(tl.int64)
        row = (tile % tiles) * BM + tl.arange(0, BM)
        d = dlogits + (n * G + g) * window
        x_n = x + n * L * C
        dz = load_diagonals(d, row[None, :], tap[:, None], window, cut, K)  # (TAPS, BM)
        dz = operand(dz, DT, ROUND)
        xa = operand(load_inside(x_n, row, L, C, 0, CA), DT, ROUND)
        dw_a = tl.dot(dz, xa, dw_a, input_precision="tf32")
        if CB > 0:
            xb = operand(load_inside(x_n, row, L, C, CA, CB), DT, ROUND)
            dw_b = tl.dot(dz, xb, dw_b, input_precision="tf32")
        position = row - cut
        db += tl.load(d + position, mask=(position >= 0) & (position < window), other=0.0)
    parts += part.to(tl.int64) * (G * K * C + G)
    store_rows(parts + g * K * C, tap, K, dw_a, C, 0, CA)
    if CB > 0:
        store_rows(parts + g * K * C, tap, K, dw_b, C, CA, CB)
    if block == 0:
        tl.store(parts + G * K * C + g, tl.sum(db))


@triton.jit(do_not_specialize=["rows"])
def heads_reduce_kernel(
    parts, dweight, dbias, rows,
    C: tl.constexpr, G: tl.constexpr, K: tl.constexpr,
    BLOCK: tl.constexpr, DEPTH: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """dweight (G, C, K) and dbias (G,): sums over the rows of parts (rows, G K C + G)."""
    wait_for_previous_kernel(PDL)
    SIZE: tl.constexpr = G * K * C
    let_next_kernel_start(PDL)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = sum_rows(parts, rows, SIZE + G, at, BLOCK, DEPTH)
    g = at // (K * C)
    j = (at // C) % K
    c = at % C
    tl.store(dweight + (g * C + c) * K + j, total, mask=at < SIZE)
    tl.store(dbias + at - SIZE, total, mask=(at >= SIZE) & (at < SIZE + G))
