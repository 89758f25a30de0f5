"""The fused operations on a GPU: accuracy, equal bits, captured graphs and compiled calls."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest
import torch
from kernel_cases import (
    LENGTHS,
    Case,
    batch_differences,
    composed,
    exact,
    fused,
    inputs,
    output_gradient,
    results,
)
from kernels import (
    DEVICE,
    LAYOUTS,
    Mode,
    Recorder,
    assert_within,
    captured_graph,
    different,
    errors,
    in_modes,
    launched_with,
    limits,
    names_of,
    replayed,
    rms_error,
)

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("nothing_is_tuned")]


WIDTH = {"conv_norm": 100, "cheri_block": 96}  # few, since every other one is compiled anew
OPS = tuple(WIDTH)
PARTS = {
    "conv_norm": ["conv_norm", "conv_norm_backward"],
    "cheri_block": ["cheri_block", "cheri_block_backward_products", "cheri_block_backward_conv"],
}


def assert_accurate(case: Case, mode: Mode) -> None:
    """Output and gradients agree with float64, and a second call repeats them to the bit."""
    case = replace(case, dtype=mode.dtype)
    values, dout = inputs(case, DEVICE), output_gradient(case, DEVICE)
    expected = exact(case, values, dout)
    formula = errors(results(partial(composed, case), values, dout), expected)
    call = partial(results, partial(fused, case), values, dout)
    assert_within(limits(mode, formula, far=case.mean != 0), call, expected, case)


def slow(*widths: tuple[str, int]) -> list[object]:
    return [pytest.param(*width, marks=pytest.mark.slow) for width in widths]


@pytest.mark.parametrize(
    ("mode", "channels"),
    [
        *(("bf16", c) for c in (24, 96, 100, 128)),
        *((mode, 96) for mode in ("fp16", "tf32")),
        ("fp32", 100),
        *slow(*(("bf16", c) for c in (8, 40, 64, 192, 256))),
        *slow(*((mode, c) for mode in ("fp16", "tf32") for c in (24, 100, 128, 256))),
        *slow(*(("fp32", c) for c in (8, 24, 96, 256))),
    ],
    indirect=["mode"],
)
def test_a_block_of_any_width(mode, channels):
    for trim in (0, 23):
        assert_accurate(Case("cheri_block", 3, 301, channels, 16, trim=trim), mode)


@pytest.mark.parametrize(
    ("mode", "channels"),
    [("tf32", 96), *slow(("bf16", 96), ("bf16", 128), ("fp16", 96), ("tf32", 128))],
    indirect=["mode"],
)
@pytest.mark.parametrize("kernels", ["portable"], indirect=True)
def test_a_block_by_the_portable_kernels(mode, channels, kernels):
    for trim in (0, 23):
        assert_accurate(Case("cheri_block", 3, 301, channels, 16, trim=trim), mode)


@pytest.mark.parametrize(
    ("mode", "channels"),
    [
        ("fp16", 24),
        *slow(*((mode, c) for mode in ("fp32", "bf16") for c in (8, 24, 40, 96, 100, 256))),
    ],
    indirect=["mode"],
)
def test_conv_norm_of_any_width(mode, channels):
    assert_accurate(Case("conv_norm", 3, 301, channels, 16), mode)


@pytest.mark.slow
@pytest.mark.parametrize("choice", range(1, 10))
@pytest.mark.parametrize("kernels", ["triton", "portable"], indirect=True)
@in_modes("bf16", "tf32")
def test_other_launch_options_are_as_accurate(mode, choice, kernels):
    out_of_resources = pytest.importorskip("triton.runtime.errors").OutOfResources
    for op in OPS:
        try:
            with launched_with(choice):
                assert_accurate(Case(op, 3, 301, 96, 16), mode)
        except out_of_resources as error:  # the tuner passes such a choice over
            pytest.skip(f"{op} on this GPU: {error}")


@pytest.mark.parametrize(
    ("op", "mode", "channels", "kernels"),
    [
        ("conv_norm", "fp32", 24, "triton"),
        ("conv_norm", "bf16", 100, "triton"),
        ("cheri_block", "bf16", 96, "triton"),
        ("cheri_block", "bf16", 96, "portable"),
        ("cheri_block", "tf32", 96, "triton"),
        pytest.param("cheri_block", "bf16", 128, "triton", marks=pytest.mark.slow),
        pytest.param("cheri_block", "fp32", 96, "triton", marks=pytest.mark.slow),
    ],
    indirect=["mode", "kernels"],
)
def test_any_length_and_dilation(op, mode, channels, kernels):
    for n, length, dilation in LENGTHS:
        assert_accurate(Case(op, n, length, channels, dilation), mode)


@pytest.mark.parametrize("op", OPS)
@in_modes("bf16")
def test_more_examples_than_a_grid_has_rows(op, mode):
    # A narrower block's dconv_weight is a handful of numbers, sums of random signs whose relative
    # error is mostly that of the draw: with 8 channels 1e-3 to 1e-2, PyTorch's as much.
    assert_accurate(Case(op, 65537, 2, 24, 256), mode)


@pytest.mark.parametrize(
    ("mode", "channels"), [(mode, c) for mode in ("bf16", "fp16", "tf32") for c in (64, 96, 128)],
    indirect=["mode"],
)  # fmt: skip
@pytest.mark.parametrize("kernels", ["triton", "portable"], indirect=True)
def test_many_tiles_a_program_repeat_every_bit(mode, channels, kernels):
    case = Case("cheri_block", 128, 2114, channels, 16, dtype=mode.dtype)
    values = [v.detach() for v in inputs(case, DEVICE)]
    with torch.no_grad():
        first = fused(case, *values)
        for _ in range(20):
            assert torch.equal(first, fused(case, *values))


@pytest.mark.parametrize(("channels", "expansion"), [(24, 3), (64, 3), (96, 1), (96, 3)])
@in_modes("bf16", "tf32")
def test_other_numbers_of_hidden_units(mode, channels, expansion):
    assert_accurate(Case("cheri_block", 3, 301, channels, 16, trim=5, expansion=expansion), mode)


def assert_every_example_is_accurate(case: Case, mode: Mode, dout: torch.Tensor) -> None:
    """As `assert_accurate`, of this gradient; dx by examples, however small one's gradient is."""
    values = inputs(case, DEVICE)
    expected = exact(case, values, dout)
    call = partial(results, partial(fused, case), values, dout)
    assert_within(dict.fromkeys(expected, mode.limit), call, expected, case)
    for found, wanted in zip(call()["dx"], expected["dx"], strict=True):
        assert rms_error(found, wanted) <= mode.limit


@pytest.mark.parametrize("channels", [64, 96, 128])
@in_modes("tf32")
def test_gradients_that_differ_by_many_powers_of_ten(mode, channels):
    case = Case("cheri_block", 5, 301, channels, 16)
    generator = torch.Generator().manual_seed(2)
    power = torch.empty(5, 7, 1).uniform_(-6, 6, generator=generator).repeat_interleave(43, 1)
    dout = output_gradient(case, DEVICE) * 10 ** power.to(DEVICE)
    dout[1, 64:192] = 0  # tiles of zeros, and an example of them
    dout[3] = 0
    assert_every_example_is_accurate(case, mode, dout)


@pytest.mark.parametrize("largest", [0, 4])
@in_modes("tf32")
def test_a_program_adds_up_tiles_of_very_different_gradients(mode, largest, monkeypatch):
    launch = pytest.importorskip("cherimoya.ops.block.hopper_launch")
    monkeypatch.setattr(launch, "multiprocessors", lambda _: 1)
    case = Case("cheri_block", 5, 2114, 96, 16)  # 170 tiles, read 128 at a time
    dout = output_gradient(case, DEVICE)
    dout[largest] *= 1e5
    assert_every_example_is_accurate(case, mode, dout)


@in_modes("bf16", "tf32")
def test_a_thread_may_begin_with_a_backward(mode):
    case = Case("cheri_block", 3, 301, 96, 16, dtype=mode.dtype)
    with Recorder() as recorder:
        results(partial(fused, case), inputs(case, DEVICE), output_gradient(case, DEVICE))
    (products,) = [c for c in recorder.calls if "backward_products" in str(c[0])]
    op, arguments = products
    expected = op(*arguments)  # and what it allocates comes from torch's cache from now on
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(op, *arguments).result()
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("op", OPS)
@in_modes("fp32", "bf16")
def test_a_mean_a_thousand_times_the_std(op, mode):
    assert_accurate(Case(op, 2, 301, 100, 16, mean=1e3), mode)


@pytest.mark.parametrize("op", OPS)
@in_modes("bf16")
def test_inputs_and_gradients_may_have_any_layout(op, mode):
    for layout in LAYOUTS:
        assert_accurate(Case(op, 3, 301, WIDTH[op], 16, layout=layout), mode)


@pytest.mark.parametrize(
    "case",
    [*(Case(op, 0, 301, 96, 16) for op in OPS), Case("cheri_block", 2, 46, 96, 16, trim=23)],
    ids=str,
)
@in_modes("bf16")
def test_nothing_to_compute_gives_zero_gradients(case, mode):
    assert_accurate(case, mode)


@pytest.mark.parametrize(
    ("op", "mode", "channels", "kernels"),
    [
        ("conv_norm", "fp32", 100, "triton"),
        ("cheri_block", "bf16", 96, "triton"),
        ("cheri_block", "bf16", 96, "portable"),
        ("cheri_block", "tf32", 96, "triton"),
    ],
    indirect=["mode", "kernels"],
)
def test_an_example_does_not_depend_on_its_batch(op, mode, channels, kernels):
    case = Case(op, 5, 301, channels, 16, dtype=mode.dtype)
    values, dout = inputs(case, DEVICE), output_gradient(case, DEVICE)
    for one in (0, 3):
        assert batch_differences(case, values, dout, one) == []


@pytest.mark.parametrize("op", OPS)
@in_modes("bf16")
def test_a_gpu_computes_by_the_kernels_unless_told_otherwise(op, mode, monkeypatch):
    case = Case(op, 3, 301, WIDTH[op], 16, dtype=mode.dtype)
    values, dout = inputs(case, DEVICE), output_gradient(case, DEVICE)
    assert names_of(partial(results, partial(fused, case), values, dout)) == PARTS[op]
    monkeypatch.setenv("CHERIMOYA_KERNELS", "reference")
    found, formula = (results(partial(f, case), values, dout) for f in (fused, composed))
    assert different(found, formula) == []


@pytest.mark.parametrize("op", OPS)
@in_modes("bf16", "tf32")
def test_a_captured_graph_replays_the_same_bits(op, mode):
    case = Case(op, 3, 301, WIDTH[op], 16, dtype=mode.dtype)
    values, dout = inputs(case, DEVICE), output_gradient(case, DEVICE)
    step = partial(results, partial(fused, case), values, dout)
    graph, captured = captured_graph(step)
    before = replayed(graph, captured)
    assert different(before, step()) == []
    with torch.no_grad():
        for weight in values[1:]:
            weight.mul_(-1.1)
    after = replayed(graph, captured)
    assert different(after, step()) == []
    assert different(after, before) == list(before)


@pytest.mark.parametrize("op", OPS)
@in_modes("bf16")
def test_a_compiled_function_has_the_same_numbers(op, mode):
    case = Case(op, 3, 301, WIDTH[op], 16, dtype=mode.dtype)
    values, dout = inputs(case, DEVICE), output_gradient(case, DEVICE)

    def function(x: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        return torch.sin(fused(case, 2 * x, *weights)) + x  # something to fuse on both sides

    eager = results(function, values, dout)
    compiled = results(torch.compile(function, fullgraph=True), values, dout)
    assert max(errors(compiled, eager).values()) < mode.limit


@pytest.mark.parametrize("op", OPS)
def test_autocast_casts_the_input_first(op):
    case = Case(op, 3, 301, WIDTH[op], 16)
    values, dout = inputs(case, DEVICE), output_gradient(case, DEVICE).bfloat16()
    with torch.autocast(DEVICE, torch.bfloat16):
        found = results(partial(fused, case), values, dout)
    x, *weights = values
    cast = results(lambda x, *w: fused(case, x.bfloat16(), *w), [x, *weights], dout)
    assert found["out"].dtype == torch.bfloat16
    assert found["dx"].dtype == torch.float32
    assert different(found, cast) == []
