"""Full fp32 on a GPU, without TF32's rounding: blocks; stem and heads without gradients."""

from dataclasses import replace
from functools import partial

import pytest
import test_heads
import test_stem
import torch
from kernel_cases import LENGTHS, Case, composed, exact, fused, inputs, output_gradient, results
from kernels import (
    DEVICE,
    LAYOUTS,
    assert_within,
    captured_graph,
    errors,
    launched_with,
    names_of,
    poison_cached_memory,
    replayed,
    rms_error,
)
from torch import Tensor

from cherimoya.network import Cherimoya
from cherimoya.ops.block import fp32_launch as block_launch_full_fp32
from cherimoya.ops.heads.op import heads, heads_composed
from cherimoya.ops.stem.op import stem

LIMIT = 1e-6  # relative RMS error; that of TF32 is 3e-4
FORMULA_FACTOR = 2.0  # where more, as many times that of PyTorch in fp32


pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def full_fp32(monkeypatch, nothing_is_tuned):
    """No TF32, no gradients, nothing tuned."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    with torch.no_grad():
        yield


def assert_accurate(case: Case) -> None:
    """The output agrees with float64 as PyTorch's in fp32 does, and a second call repeats it."""
    values = [v.detach() for v in inputs(case, DEVICE)]
    expected = composed(case, *(v.double() for v in values))
    formula = rms_error(composed(case, *values), expected)
    limit = {"out": max(LIMIT, FORMULA_FACTOR * formula)}
    assert_within(limit, lambda: {"out": fused(case, *values)}, {"out": expected}, case)


@pytest.mark.parametrize("channels", [8, 24, 32, 64, 96, 100, 128, 192, 256])
def test_a_block_of_any_width(channels):
    for trim in (0, 23):
        assert_accurate(Case("cheri_block", 3, 301, channels, 16, trim=trim))


def test_a_block_of_any_length_and_layout():
    for n, length, dilation in LENGTHS:
        assert_accurate(Case("cheri_block", n, length, 96, dilation))
    for layout in LAYOUTS:
        assert_accurate(Case("cheri_block", 3, 301, 96, 16, layout=layout))
    assert_accurate(Case("cheri_block", 65537, 2, 24, 256))
    assert_accurate(Case("cheri_block", 3, 301, 24, 16, trim=5, expansion=3))
    assert_accurate(Case("cheri_block", 2, 301, 100, 16, mean=1e3))


@pytest.mark.parametrize("choice", range(len(block_launch_full_fp32.FORWARD)))
@pytest.mark.parametrize("channels", [32, 96, 128])
def test_every_launch_option_is_as_accurate(channels, choice):
    with launched_with(choice):
        assert_accurate(Case("cheri_block", 3, 301, channels, 16))


def test_a_block_is_one_operation_and_its_backward_two():
    case = Case("cheri_block", 3, 301, 96, 16)
    values, dout = inputs(case, DEVICE), output_gradient(case, DEVICE)
    assert names_of(partial(fused, case, *values)) == ["cheri_block_full_fp32"]
    with torch.enable_grad():
        assert names_of(partial(results, partial(fused, case), values, dout)) == [
            "cheri_block_full_fp32", "cheri_block_backward_products", "cheri_block_backward_conv",
        ]  # fmt: skip


def assert_gradients(case: Case, scale: float = 1.0) -> None:
    """Output and gradients agree with float64 as PyTorch's in fp32 do, and a second call's too."""
    values, dout = inputs(case, DEVICE), scale * output_gradient(case, DEVICE)
    few = torch.arange(dout.shape[1], device=DEVICE)[:, None] < case.length // 3
    dout = torch.where(few, 1e-4 * dout, dout)  # as of positions of few counts
    with torch.enable_grad():
        expected = exact(case, values, dout)
        formula = errors(results(partial(composed, case), values, dout), expected)
        limit = {name: max(LIMIT, FORMULA_FACTOR * error) for name, error in formula.items()}
        assert_within(limit, partial(results, partial(fused, case), values, dout), expected, case)


@pytest.mark.parametrize("channels", [8, 24, 32, 64, 96, 100, 128, 192])
def test_gradients_of_a_block_of_any_width(channels):
    for trim in (0, 23):
        assert_gradients(Case("cheri_block", 3, 301, channels, 16, trim=trim))


def test_gradients_of_a_block_of_any_length_layout_and_scale():
    for n, length, dilation in LENGTHS:
        assert_gradients(Case("cheri_block", n, length, 96, dilation))
    for layout in LAYOUTS:
        assert_gradients(Case("cheri_block", 3, 301, 96, 16, layout=layout))
    for scale in (1e-12, 1e6):
        assert_gradients(Case("cheri_block", 3, 301, 96, 16), scale)
    assert_gradients(Case("cheri_block", 3, 301, 24, 16, trim=5, expansion=3))


@pytest.mark.parametrize(("channels", "dilation"), [(96, 1), (96, 256), (128, 16)])
def test_gradients_at_the_size_of_a_training(channels, dilation):
    assert_gradients(Case("cheri_block", 64, 2114, channels, dilation))


@pytest.mark.parametrize("choice", range(3))
@pytest.mark.parametrize("channels", [32, 96, 128])
def test_gradients_with_every_launch_option(channels, choice):
    with launched_with(choice):
        assert_gradients(Case("cheri_block", 3, 301, channels, 16))


@pytest.mark.parametrize("channels", [512, 1024])
def test_a_block_too_wide_for_the_kernels_is_composed(channels):
    case = Case("cheri_block", 2, 77, channels, 4)
    values = inputs(case, DEVICE)
    assert names_of(partial(fused, case, *values)) == ["conv_norm"]
    assert_accurate(case)


def test_an_example_does_not_depend_on_its_batch():
    case = Case("cheri_block", 5, 301, 96, 16)
    x, *weights = (v.detach() for v in inputs(case, DEVICE))
    together = fused(case, x, *weights)
    for i in range(case.n):
        assert torch.equal(fused(case, x[i : i + 1], *weights)[0], together[i])


def test_a_captured_graph_reads_the_weights_where_they_are():
    case = Case("cheri_block", 3, 301, 96, 16)
    values = [v.detach() for v in inputs(case, DEVICE)]
    graph, captured = captured_graph(lambda: {"out": fused(case, *values)})
    for weight in values[1:]:
        before = replayed(graph, captured)["out"]
        weight.mul_(-1.1)
        after = replayed(graph, captured)["out"]
        assert torch.equal(after, fused(case, *values))
        assert not torch.equal(after, before)


def test_a_compiled_function_has_the_same_numbers():
    case = Case("cheri_block", 3, 301, 96, 16)
    values = [v.detach() for v in inputs(case, DEVICE)]

    def function(x: Tensor, *weights: Tensor) -> Tensor:
        return torch.sin(fused(case, 2 * x, *weights)) + x

    eager = function(*values)
    assert rms_error(torch.compile(function, fullgraph=True)(*values), eager) < LIMIT


@pytest.mark.parametrize("channels", [8, 96, 128, 256])
def test_the_stem(channels):
    case = test_stem.Case(3, 301, channels)
    values = [v.detach() for v in test_stem.inputs(case, DEVICE)]
    expected = test_stem.composed(*(v.double() for v in values))
    assert names_of(partial(stem, *values)) == ["stem"]
    assert rms_error(stem(*values), expected) < LIMIT
    assert torch.equal(stem(*values), stem(*values))
    with torch.enable_grad():
        assert names_of(partial(stem, *test_stem.inputs(case, DEVICE))) == []


@pytest.mark.parametrize("case", test_heads.ON_GPU, ids=str)
def test_the_heads(case):
    case = replace(case, dtype="float32")
    x, weight, bias = (v.detach() for v in test_heads.inputs(case, DEVICE))
    expected = heads_composed(x.double(), weight.double(), bias.double(), case.cut)
    poison_cached_memory()
    found = heads(x, weight, bias, case.cut)
    assert names_of(partial(heads, x, weight, bias, case.cut)) == ["heads"]
    assert max(map(rms_error, found, expected)) < LIMIT
    again = heads(x, weight, bias, case.cut)
    assert all(map(torch.equal, found, again))
    with torch.enable_grad():
        assert names_of(partial(heads, *test_heads.inputs(case, DEVICE), case.cut)) == []


def test_the_whole_network_is_as_exact_as_on_the_cpu():
    torch.manual_seed(0)
    model = Cherimoya(n_filters=96, n_layers=9, profile_kernel_size=75, trimming=100).eval()
    X = torch.nn.functional.one_hot(torch.randint(4, (4, 1200)), 4).mT.float()
    on_cpu = model(X)
    expected = model.double()(X.double())
    model.float().to(DEVICE)
    found = model(X.to(DEVICE))
    assert set(names_of(partial(model, X.to(DEVICE)))) == {
        "stem",
        "cheri_block_full_fp32",
        "heads",
        "counts",
    }
    for gpu, cpu, truth in zip(found, on_cpu, expected, strict=True):
        assert rms_error(gpu.cpu(), truth) <= max(LIMIT, 3 * rms_error(cpu, truth))


@pytest.fixture
def network():
    """A network, and a sequence."""
    torch.manual_seed(0)
    model = Cherimoya(n_filters=32, n_layers=5, trimming=20).to(DEVICE).eval()
    X = torch.nn.functional.one_hot(torch.randint(4, (3, 300)), 4).mT.float()
    return model, X.to(DEVICE)


def test_gradients_are_as_exact(network):
    model, X = network
    found = []
    for dtype in (torch.float32, torch.float64):
        model.to(dtype).zero_grad()
        with torch.enable_grad():
            x = X.to(dtype, copy=True).requires_grad_()
            logits, counts = model(x)
            (logits.square().mean() + counts.sum()).backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        found.append([x.grad, *(g.clone() for g in gradients)])
    assert len(found[0]) > 2 * len(model.blocks)
    assert max(map(rms_error, *found)) < 1e-5


def test_derivatives_in_forward_mode_are_not_lost(network):
    model, X = network
    direction = torch.randn(X.shape, device=DEVICE)
    (_, found), (_, expected) = (
        torch.func.jvp(model.to(dtype), (X.to(dtype),), (direction.to(dtype),))
        for dtype in (torch.float32, torch.float64)
    )
    assert max(map(rms_error, found, expected)) < 1e-5
