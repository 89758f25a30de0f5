"""Triton kernels of what a training step does after its gradients."""

# Triton's language, not Python's.

import triton
import triton.language as tl

from cherimoya.ops.block.kernels import load_rows, store_rows
from cherimoya.ops.conv_norm.kernels import let_next_kernel_start, wait_for_previous_kernel
from cherimoya.ops.update import quintic

A, B, C, EPS = map(tl.constexpr, (quintic.A, quintic.B, quintic.C, quintic.EPS))


@triton.jit
def settle_kernel(
    losses, rates, now, count, failed, found_inf, sums, K: tl.constexpr, KP: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """See `op.settle`: losses (3,), rates (steps, K), now (K,), sums (3,) fp64, the rest ()."""
    wait_for_previous_kernel(PDL)
    step = tl.load(count)
    i = tl.arange(0, KP)
    tl.store(now + i, tl.load(rates + step * K + i, mask=i < K), mask=i < K)
    j = tl.arange(0, 4)
    loss = tl.load(losses + j, mask=j < 3, other=0.0)
    total = tl.sum(loss)
    bad = tl.where(total - total == 0.0, tl.load(failed), 1.0)
    tl.store(failed, bad)
    tl.store(found_inf, bad)
    changes = bad == 0.0
    before = tl.load(sums + j, mask=j < 3, other=0.0)
    tl.store(sums + j, before + tl.where(changes, loss, 0.0).to(tl.float64), mask=j < 3)
    tl.store(count, step + changes.to(tl.int64))


@triton.jit
def average_kernel(pieces, decay, found_inf, BLOCK: tl.constexpr, PDL: tl.constexpr):
    """Move each piece of the average towards its source: 1 - decay of the way.

    pieces (programs, 3) int64: the addresses of both, fp32, and how many elements.
    """
    wait_for_previous_kernel(PDL)
    if tl.load(found_inf) == 0.0:
        row = pieces + tl.program_id(0) * 3
        source = tl.load(row).to(tl.pointer_type(tl.float32))
        average = tl.load(row + 1).to(tl.pointer_type(tl.float32))
        i = tl.arange(0, BLOCK)
        inside = i < tl.load(row + 2)
        here = tl.load(average + i, mask=inside)
        distance = tl.load(source + i, mask=inside) - here
        tl.store(average + i, here + distance * (1.0 - tl.load(decay)), mask=inside)


@triton.jit
def load_columns(
    p, tall, ROWS: tl.constexpr, COLS: tl.constexpr, RP: tl.constexpr, FIRST: tl.constexpr,
    WIDTH: tl.constexpr,
):  # fmt: skip
    """Columns FIRST .. FIRST + WIDTH of p (ROWS, COLS), or of p (COLS, ROWS) transposed if tall."""
    if tall:
        v = tl.trans(load_rows(p, FIRST + tl.arange(0, WIDTH), COLS, ROWS, 0, RP))
    else:
        v = load_rows(p, tl.arange(0, RP), ROWS, COLS, FIRST, WIDTH)
    return v


@triton.jit
def with_momentum(
    gradient, momentum, tall, beta, ROWS: tl.constexpr, COLS: tl.constexpr, RP: tl.constexpr,
    FIRST: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Those columns of Nesterov's update in fp32, and their momentum moved on."""
    g = load_columns(gradient, tall, ROWS, COLS, RP, FIRST, WIDTH)
    row = tl.arange(0, RP)
    m = load_rows(momentum, row, ROWS, COLS, FIRST, WIDTH)
    m += (g - m) * (1.0 - beta)
    store_rows(momentum, row, ROWS, m, COLS, FIRST, WIDTH)
    return m - (m - g) * (1.0 - beta)


@triton.jit
def apply_update(
    p, update, tall, keep, ROWS: tl.constexpr, COLS: tl.constexpr, RP: tl.constexpr,
    FIRST: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """p = keep * p - update, of those columns; p as of `load_columns`."""
    if tall:
        column = FIRST + tl.arange(0, WIDTH)
        kept = load_rows(p, column, COLS, ROWS, 0, RP) * keep
        store_rows(p, column, COLS, kept - tl.trans(update), ROWS, 0, RP)
    else:
        row = tl.arange(0, RP)
        new = load_rows(p, row, ROWS, COLS, FIRST, WIDTH) * keep - update
        store_rows(p, row, ROWS, new, COLS, FIRST, WIDTH)


@triton.jit
def muon_kernel(
    parameters, gradients, momentum, lr, found_inf, n_tall, beta, weight_decay, tall_scale,
    ROWS: tl.constexpr, COLS: tl.constexpr, RP: tl.constexpr, CA: tl.constexpr, CB: tl.constexpr,
    STEPS: tl.constexpr, DT: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Muon's step of one matrix, (ROWS, COLS) or, for the first `n_tall` programs, (COLS, ROWS).

    parameters (n,) addresses, gradients (n, ROWS * COLS) each in its parameter's layout, momentum
    (n, ROWS, COLS), all fp32; lr and found_inf (). Rounded to DT where torch.optim.Muon rounds.
    The stem's backward may run beside it, on the multiprocessors that this leaves.
    """
    wait_for_previous_kernel(PDL)
    let_next_kernel_start(PDL)
    if tl.load(found_inf) == 0.0:
        pid = tl.program_id(0)
        tall = pid < n_tall
        gradient = gradients + pid * (ROWS * COLS)
        momentum += pid * (ROWS * COLS)
        xa = with_momentum(gradient, momentum, tall, beta, ROWS, COLS, RP, 0, CA).to(DT)
        square = tl.sum(xa.to(tl.float32) * xa.to(tl.float32))
        if CB > 0:
            xb = with_momentum(gradient, momentum, tall, beta, ROWS, COLS, RP, CA, CB).to(DT)
            square += tl.sum(xb.to(tl.float32) * xb.to(tl.float32))
        norm = tl.maximum(tl.sqrt(square).to(DT).to(tl.float32), EPS)
        xa = (xa.to(tl.float32) / norm).to(DT)
        if CB > 0:
            xb = (xb.to(tl.float32) / norm).to(DT)
        for _ in tl.range(STEPS, num_stages=1):
            gram = tl.dot(xa, tl.trans(xa), input_precision="ieee")
            if CB > 0:
                gram = tl.dot(xb, tl.trans(xb), gram, input_precision="ieee")
            gram = gram.to(DT)
            square_of_gram = tl.dot(gram, gram, input_precision="ieee")
            poly = (gram.to(tl.float32) * B + square_of_gram * C).to(DT)
            xa = (xa.to(tl.float32) * A + tl.dot(poly, xa, input_precision="ieee")).to(DT)
            if CB > 0:
                xb = (xb.to(tl.float32) * A + tl.dot(poly, xb, input_precision="ieee")).to(DT)
        rate = tl.load(lr)
        scale = rate * tl.where(tall, tall_scale, 1.0)
        keep = 1.0 - rate * weight_decay
        p = tl.load(parameters + pid).to(tl.pointer_type(tl.float32))
        apply_update(p, xa.to(tl.float32) * scale, tall, keep, ROWS, COLS, RP, 0, CA)
        if CB > 0:
            apply_update(p, xb.to(tl.float32) * scale, tall, keep, ROWS, COLS, RP, CA, CB)
