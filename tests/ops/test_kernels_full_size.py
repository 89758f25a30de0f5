"""The fused operations on a GPU at the size that users run: accurate in every row, equal bits.

A program of the kernels owns many tiles here, and its rings of buffers are filled again and again:
a race stays hidden where each program has one tile.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from kernel_cases import NAMES, ROWS, Case, exact, fused, inputs, results
from kernels import (
    DEVICE,
    MODES,
    Mode,
    Results,
    different,
    errors,
    launched_with,
    poison_cached_memory,
)
from torch import Tensor

from cherimoya import Cherimoya
from cherimoya.ops.complete import straight_backward

pytestmark = [pytest.mark.gpu, pytest.mark.slow, pytest.mark.usefixtures("nothing_is_tuned")]


LENGTH, DILATION = 2114, 16
EXAMPLES = (64, 512)
CHANNELS = (32, 64, 96, 128, 192, 256)
HOPPER_CHANNELS = (32, 64, 96, 128)  # that have kernels of one generation of GPUs alone
CALLS = 100
TILE = 64
CHUNK = 32  # examples in float64 at once
WORST_ROW = 10  # times the limit of the whole tensor's error: a wrong row is off by 100 times that
LAUNCH_OPTIONS = range(1, 8)  # the first is the default; no kernel has more than eight


@pytest.fixture(autouse=True)
def memory_goes_back():
    yield
    torch.cuda.empty_cache()


# Kernels, mode and channels of every block that differs from the others.
BLOCKS = [
    *(("triton", mode, c) for mode in MODES for c in CHANNELS),
    *(("portable", mode, c) for mode in ("bf16", "fp16", "tf32") for c in HOPPER_CHANNELS),
]
CONVOLUTIONS = [("triton", mode, c) for mode in ("fp32", "bf16", "fp16") for c in CHANNELS]
CASES = [
    *(("cheri_block", *block) for block in BLOCKS),
    *(("conv_norm", *convolution) for convolution in CONVOLUTIONS),
]


def full_size(case: Case) -> tuple[list[Tensor], Tensor]:
    """Inputs with gradients, and a gradient of the output, made on the GPU."""
    generator = torch.Generator(DEVICE).manual_seed(case.channels)
    dtype = getattr(torch, case.dtype)
    size = (case.n, case.length, case.channels)
    x, dout = (torch.randn(size, generator=generator, device=DEVICE).to(dtype) for _ in range(2))
    return [x.requires_grad_(), *inputs(replace(case, n=1), DEVICE)[1:]], dout


def exact_in_chunks(case: Case, values: list[Tensor], dout: Tensor) -> Results:
    """`exact`, CHUNK examples at a time; of examples in fp32."""
    x, *weights = values
    parts = [
        exact(case, [x[i : i + CHUNK], *weights], dout[i : i + CHUNK])
        for i in range(0, case.n, CHUNK)
    ]
    rows = {name: torch.cat([part[name].float() for part in parts]) for name in ROWS}
    sums = {name: sum(part[name] for part in parts) for name in parts[0] if name not in rows}
    return {**rows, **sums}


def worst_rows(actual: Tensor, expected: Tensor) -> Tensor:
    """Largest error of a row (C,) at each position of a tile, over the RMS of all rows: (TILE,)."""
    off = torch.stack([
        (a.float() - e.float()).square().sum(1) for a, e in zip(actual, expected, strict=True)
    ])  # fmt: skip
    mean = expected.double().square().sum() / (expected.shape[0] * expected.shape[1])
    off = torch.nn.functional.pad(off, (0, -off.shape[1] % TILE)).view(-1, TILE)
    return (off.amax(0).double() / mean).sqrt()


def assert_exact_in_every_row(case: Case, mode: Mode, found: Results, expected: Results) -> None:
    """The whole tensors within the mode's limit, and no row far beyond it."""
    off = errors(found, {name: expected[name] for name in found})
    assert all(off[name] <= mode.limit for name in off), f"{case}: {off}"
    for name in set(found) & set(ROWS):
        rows = worst_rows(found[name], expected[name])
        bad = (~(rows <= WORST_ROW * mode.limit)).nonzero().flatten().tolist()
        assert bad == [], f"{case}: {name} is wrong in rows {bad} of a tile, by {rows.max():.2g}"


def assert_repeats(call: Callable[[], Results], what: str) -> Results:
    """The result of CALLS calls that agree to the bit, uninitialised memory or not."""
    poison_cached_memory()
    first = call()
    changed = [i for i in range(1, CALLS) if different(first, call())]
    assert changed == [], f"{what}: {len(changed)} of {CALLS} calls give other bits"
    return first


def assert_right_and_repeatable(case: Case, mode: Mode) -> None:
    """Training and inference."""
    case = replace(case, dtype=mode.dtype)
    values, dout = full_size(case)
    expected = exact_in_chunks(case, values, dout)
    found = assert_repeats(partial(results, partial(fused, case), values, dout), f"{case}")
    assert_exact_in_every_row(case, mode, found, expected)
    with torch.no_grad():
        found = assert_repeats(lambda: {NAMES[0]: fused(case, *values)}, f"{case} inference")
    assert_exact_in_every_row(case, mode, found, expected)


@pytest.mark.parametrize("n", EXAMPLES)
@pytest.mark.parametrize(("op", "kernels", "mode", "channels"), CASES, indirect=["kernels", "mode"])
def test_every_row_is_right_and_every_call_the_same(op, kernels, mode, channels, n):
    assert_right_and_repeatable(Case(op, n, LENGTH, channels, DILATION), mode)


@pytest.mark.parametrize("choice", LAUNCH_OPTIONS)
@pytest.mark.parametrize(("op", "kernels", "mode", "channels"), CASES, indirect=["kernels", "mode"])
def test_so_with_every_launch_option(op, kernels, mode, channels, choice):
    out_of_resources = pytest.importorskip("triton.runtime.errors").OutOfResources
    for n in EXAMPLES:
        try:
            with launched_with(choice):
                assert_right_and_repeatable(Case(op, n, LENGTH, channels, DILATION), mode)
        except out_of_resources as error:  # the tuner passes such a choice over
            pytest.skip(f"no launch option of this GPU: {error}")


@pytest.mark.parametrize("taps", [1, 75])
@pytest.mark.parametrize("n", EXAMPLES)
@pytest.mark.parametrize("mode", MODES, indirect=True)
@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
def test_a_whole_network_repeats_every_bit(training, mode, n, taps):
    """Stem, nine blocks and heads; training with the gradients, inference without."""
    torch.manual_seed(0)
    model = Cherimoya(signal_groups=[1, 2], profile_kernel_size=taps).to(DEVICE).train(training)
    X = torch.nn.functional.one_hot(torch.randint(4, (n, LENGTH), device=DEVICE), 4).mT.float()
    parameters = dict(model.named_parameters())
    trained = [p for name, p in parameters.items() if not name.startswith("lw")]

    def call() -> Results:
        with (
            torch.set_grad_enabled(training),
            torch.autocast(DEVICE, getattr(torch, mode.dtype), enabled=mode.half),
        ):
            logits, counts = model(X)
            outputs = {"logits": logits.detach(), "counts": counts.detach()}
            if not training:
                return outputs
            loss = logits.float().square().mean() + counts.float().square().mean()
        found = torch.autograd.grad(loss, trained)
        return outputs | {f"d{i}": g for i, g in enumerate(found)}

    assert_repeats(call, f"{n} sequences, {taps} taps")


@pytest.mark.parametrize("filters", [32, 96, 128])
@pytest.mark.parametrize("mode", MODES, indirect=True)
def test_kernels_that_start_before_the_one_before_has_ended_find_what_waiting_ones_find(
    mode, filters
):
    torch.manual_seed(0)
    model = Cherimoya(filters).to(DEVICE)
    X = torch.nn.functional.one_hot(torch.randint(4, (64, LENGTH), device=DEVICE), 4).mT.float()
    trained = [p for name, p in model.named_parameters() if not name.startswith("lw")]

    def gradients() -> Results:
        with torch.autocast(DEVICE, getattr(torch, mode.dtype), enabled=mode.half):
            logits, counts = model(X)
        loss = logits.float().square().mean() + counts.float().square().mean()
        with straight_backward():
            return {f"d{i}": g for i, g in enumerate(torch.autograd.grad(loss, trained))}

    def wait(block: torch.nn.Module, x: tuple[Tensor], out: Tensor) -> None:
        for made in (*x, out):
            made.register_hook(lambda gradient: torch.cuda.synchronize())

    found = [gradients() for _ in range(10)]
    for layer in model.blocks:
        layer.register_forward_hook(wait)
    expected = gradients()
    assert [different(f, expected) for f in found] == [[]] * len(found)
