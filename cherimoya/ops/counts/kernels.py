"""Triton kernels of the count head: a product of the features (N, F) with a weight (G, F), fp32.

Too small for the libraries' kernels, of which it takes six. Sums are in a fixed order, and an
example's own do not depend on N.
"""

# Triton's language, not Python's.

import triton
import triton.language as tl

from cherimoya.ops.conv_norm.kernels import wait_for_previous_kernel


@triton.jit(do_not_specialize=["N"])
def counts_fwd_kernel(
    features, weight, bias, out, N,
    F: tl.constexpr, FP: tl.constexpr, G: tl.constexpr, BN: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out (N, G) = features (N, F) @ weight (G, F) transposed + bias (G,), BN rows a program."""
    wait_for_previous_kernel(PDL)
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    f = tl.arange(0, FP)
    inside = (n < N)[:, None] & (f < F)[None, :]
    x = tl.load(features + n[:, None] * F + f[None, :], mask=inside, other=0.0)
    for g in range(G):
        w = tl.load(weight + g * F + f, mask=f < F, other=0.0)
        total = tl.sum(x * w[None, :], 1) + tl.load(bias + g)
        tl.store(out + n * G + g, total, mask=n < N)


@triton.jit(do_not_specialize=["N"])
def counts_bwd_kernel(
    dout, features, weight, dfeatures, dweight, dbias, N,
    F: tl.constexpr, G: tl.constexpr, BF: tl.constexpr, BN: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Gradients of features, of weight and, by the first program, of bias; BF columns a program."""
    wait_for_previous_kernel(PDL)
    f = tl.program_id(0) * BF + tl.arange(0, BF)
    row = tl.arange(0, BN)
    for g in range(G):
        dw = tl.zeros((BF,), dtype=tl.float32)
        db = tl.zeros((BN,), dtype=tl.float32)
        for first in range(0, N, BN):
            n = first + row
            inside = (n < N)[:, None] & (f < F)[None, :]
            d = tl.load(dout + n * G + g, mask=n < N, other=0.0)
            x = tl.load(features + n[:, None] * F + f[None, :], mask=inside, other=0.0)
            dw += tl.sum(d[:, None] * x, 0)
            db += d
        tl.store(dweight + g * F + f, dw, mask=f < F)
        if tl.program_id(0) == 0:
            tl.store(dbias + g, tl.sum(db, 0))
    for first in range(0, N, BN):
        n = first + row
        dx = tl.zeros((BN, BF), dtype=tl.float32)
        for g in range(G):
            d = tl.load(dout + n * G + g, mask=n < N, other=0.0)
            w = tl.load(weight + g * F + f, mask=f < F, other=0.0)
            dx += d[:, None] * w[None, :]
        inside = (n < N)[:, None] & (f < F)[None, :]
        tl.store(dfeatures + n[:, None] * F + f[None, :], dx, mask=inside)
