"""Triton kernels of the training loss, forward and backward.

logits and signal are (N, T, L), contiguous; signal group g is GROUPS[g] consecutive channels, which
with their positions are one row of K numbers. All arithmetic is fp32.

The multinomial negative log-likelihood of a row of counts k with sum n, peak and spread the largest
logit x and the sum of exp(x - peak), is

    sum_k f(k, spread / n, x - peak) - f(n, 1 / n, 0)
    f(k, r, d) = lgamma(k + 1) + k (1 + log r - d)

where n log n cancels by itself: the terms are as small as the deviance, so fp32 keeps its digits
for 10^7 counts. No atomics: sums have a fixed order, so two runs are equal to the bit.

What passes from one kernel to the next is `rows` (N, G, 4): the likelihood, the total count, peak
and n / spread of each row.
"""

import triton
import triton.language as tl

from cherimoya.ops.conv_norm.kernels import wait_for_previous_kernel


@triton.jit
def group_channels(g, GROUPS: tl.constexpr, G: tl.constexpr):
    """First channel of signal group g, and how many it has."""
    first = g * 0
    channels = g * 0
    for i in tl.static_range(G):
        first += tl.where(i < g, GROUPS[i], 0)
        channels += tl.where(i == g, GROUPS[i], 0)
    return first, channels


@triton.jit
def centred_log_factorial(k, rate, log_rate, d):
    """lgamma(k + 1) + k (1 + log_rate - d) for k >= 0, with log_rate = log(rate).

    Stirling's series at k from 4 on, where k (log k + log_rate - d) is left of the large terms; at
    k + 4 below, less log((k + 1) (k + 2) (k + 3)). lgamma(1) = lgamma(2) = 0 exactly.
    """
    few = k < 4.0
    y = tl.where(few, k + 4.0, k)
    log_y = tl.log(y)
    inverse = 1.0 / y
    square = inverse * inverse
    series = 1 / 1260 - square * (1 / 1680)
    series = inverse * (1 / 12 - square * (1 / 360 - square * series)) + 0.9189385332046727
    other_log = tl.log(tl.where(few, (k + 1.0) * (k + 2.0) * (k + 3.0), k * rate))
    log_gamma = (y - 0.5) * (log_y - 1.0) - 0.5 - other_log + series
    log_gamma = tl.where((k == 0.0) | (k == 1.0), 0.0, log_gamma)
    of_few = log_gamma + k * (1.0 + log_rate - d)
    return tl.where(few, of_few, 0.5 * log_y + series + k * (other_log - d))


@triton.jit
def log_total(n):
    """What the predicted log counts are compared with."""
    return tl.log(1.0 + n)


@triton.jit
def loss_fwd_kernel(
    logits, signal, rows, T, L,
    GROUPS: tl.constexpr, G: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """`rows` of logits and signal (N, T, L); grid (N, G)."""
    wait_for_previous_kernel(PDL)
    n = tl.program_id(0).to(tl.int64)
    g = tl.program_id(1)
    first, channels = group_channels(g, GROUPS, G)
    start = (n * T + first) * L
    K = channels * L
    i = tl.arange(0, BLOCK)
    peak = float("-inf")
    spread = 0.0
    counts = tl.zeros((BLOCK,), dtype=tl.float32)
    for at in range(0, K, BLOCK):
        inside = at + i < K
        x = tl.load(logits + start + at + i, mask=inside, other=float("-inf")).to(tl.float32)
        higher = tl.maximum(peak, tl.max(x, 0))
        spread = spread * tl.exp(peak - higher) + tl.sum(tl.exp(x - higher), 0)
        peak = higher
        counts += tl.load(signal + start + at + i, mask=inside, other=0).to(tl.float32)
    total = tl.sum(counts, 0)
    positive_total = tl.where(total == 0.0, 1.0, total)
    rate = spread / positive_total
    log_rate = tl.log(rate)
    terms = tl.zeros((BLOCK,), dtype=tl.float32)
    for at in range(0, K, BLOCK):
        inside = at + i < K
        x = tl.load(logits + start + at + i, mask=inside, other=0.0).to(tl.float32)
        k = tl.load(signal + start + at + i, mask=inside, other=0).to(tl.float32)
        terms += tl.where(inside, centred_log_factorial(k, rate, log_rate, x - peak), 0.0)
    inverse = 1.0 / positive_total
    whole = centred_log_factorial(total, inverse, tl.log(inverse), 0.0)
    rows += (n * G + g) * 4
    tl.store(rows, tl.sum(terms, 0) - whole)
    tl.store(rows + 1, total)
    tl.store(rows + 2, peak)
    tl.store(rows + 3, total / spread)


@triton.jit
def weighted(term, weight, LEARNED: tl.constexpr, PENALTY: tl.constexpr):
    """The weight of a term, their product, and its slope in the learned weight."""
    if LEARNED:
        factor = 0.5 / (weight * weight)
        slope = -2.0 * factor * term / weight
        product = factor * term
        if PENALTY:
            slope += 2.0 * tl.log(weight) / weight
            product += tl.log(weight) * tl.log(weight)
    else:
        factor = weight
        slope = tl.zeros_like(weight)
        product = factor * term
    return factor, product, slope


@triton.jit(do_not_specialize=["N"])
def loss_reduce_kernel(
    rows, log_counts, w0, w1, total, profile, count, coefficients, N,
    G: tl.constexpr, GP: tl.constexpr, ROWS: tl.constexpr, LEARNED: tl.constexpr,
    PENALTY: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """total (), profile and count (G,) from `rows` and log_counts (N, G); one program.

    coefficients (4, G): what backward multiplies the examples' gradients with, for the profile and
    for the counts; then d total / d w0 and d total / d w1, if LEARNED.
    """
    wait_for_previous_kernel(PDL)
    g = tl.arange(0, GP)
    in_groups = g < G
    row = tl.arange(0, ROWS)
    likelihoods = tl.zeros((ROWS, GP), dtype=tl.float32)
    squares = tl.zeros((ROWS, GP), dtype=tl.float32)
    for at in range(0, N, ROWS):
        inside = (at + row < N)[:, None] & in_groups[None, :]
        offset = (at + row)[:, None] * G + g[None, :]
        likelihoods += tl.load(rows + offset * 4, mask=inside, other=0.0)
        observed = log_total(tl.load(rows + offset * 4 + 1, mask=inside, other=0.0))
        d = tl.load(log_counts + offset, mask=inside, other=0.0).to(tl.float32) - observed
        squares += d * d
    examples = tl.full((GP,), 0.0, dtype=tl.float32) + N
    p = tl.sum(likelihoods, 0) / examples
    c = tl.sum(squares, 0) / examples
    weight0 = tl.load(w0 + g, mask=in_groups, other=1.0).to(tl.float32)
    weight1 = tl.load(w1 + g, mask=in_groups, other=1.0).to(tl.float32)
    factor0, product0, slope0 = weighted(p, weight0, LEARNED, PENALTY)
    factor1, product1, slope1 = weighted(c, weight1, LEARNED, PENALTY)
    tl.store(total, tl.sum(product0 + product1, 0))
    tl.store(profile + g, p, mask=in_groups)
    tl.store(count + g, c, mask=in_groups)
    tl.store(coefficients + g, factor0 / examples, mask=in_groups)
    tl.store(coefficients + G + g, factor1 / examples, mask=in_groups)
    if LEARNED:
        tl.store(coefficients + 2 * G + g, slope0, mask=in_groups)
        tl.store(coefficients + 3 * G + g, slope1, mask=in_groups)


@triton.jit
def loss_bwd_kernel(
    dtotal, logits, log_counts, signal, rows, coefficients,
    dlogits, dlog_counts, dw0, dw1, T, L,
    GROUPS: tl.constexpr, G: tl.constexpr, WEIGHTS: tl.constexpr, BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """dtotal () times the gradient of every input; grid (N, G, blocks of a row).

    Those of w0 and w1 (G,) only if WEIGHTS.
    """
    wait_for_previous_kernel(PDL)
    n = tl.program_id(0).to(tl.int64)
    g = tl.program_id(1)
    block = tl.program_id(2)
    first, channels = group_channels(g, GROUPS, G)
    i = block * BLOCK + tl.arange(0, BLOCK)
    inside = i < channels * L
    at = (n * T + first) * L + i
    upstream = tl.load(dtotal).to(tl.float32)
    rows += (n * G + g) * 4
    x = tl.load(logits + at, mask=inside, other=0.0).to(tl.float32)
    k = tl.load(signal + at, mask=inside, other=0).to(tl.float32)
    expected = tl.load(rows + 3) * tl.exp(x - tl.load(rows + 2))
    dx = upstream * tl.load(coefficients + g) * (expected - k)
    tl.store(dlogits + at, dx.to(dlogits.dtype.element_ty), mask=inside)
    if block == 0:
        d = tl.load(log_counts + n * G + g).to(tl.float32) - log_total(tl.load(rows + 1))
        d = upstream * tl.load(coefficients + G + g) * 2.0 * d
        tl.store(dlog_counts + n * G + g, d.to(dlog_counts.dtype.element_ty))
    if WEIGHTS:
        once = (n == 0) & (block == 0)
        d0 = upstream * tl.load(coefficients + 2 * G + g, mask=once, other=0.0)
        d1 = upstream * tl.load(coefficients + 3 * G + g, mask=once, other=0.0)
        tl.store(dw0 + g, d0.to(dw0.dtype.element_ty), mask=once)
        tl.store(dw1 + g, d1.to(dw1.dtype.element_ty), mask=once)
