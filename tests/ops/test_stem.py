"""The stem by the reference, by the kernels in Triton's interpreter, and on a GPU."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import kernels
import pytest
import torch
import torch.nn.functional as F
from kernels import (
    DEVICE,
    LAYOUTS,
    MODES,
    OPCHECKS,
    Results,
    assert_within,
    captured_graph,
    different,
    doubles,
    errors,
    laid_out,
    limits,
    names_of,
    poisoned_allocations,
    replayed,
    serve,
)
from torch import Tensor

from cherimoya.ops import reference
from cherimoya.ops.stem.op import stem

NAMES = ("out", "dweight", "dbias")
results = partial(kernels.results, NAMES)
TOLERANCE = 1e-5  # relative RMS error of fp32 in the interpreter


@dataclass(frozen=True)
class Case:
    """One call: X (n, 4, length), weight (channels, 4, taps)."""

    n: int
    length: int
    channels: int
    taps: int = 21
    dtype: str = "float32"  # of X; weight and bias are fp32
    layout: str = "contiguous"  # of X and the output's gradient, see `kernels.laid_out`

    def __str__(self) -> str:
        return f"{self.n}-{self.length}-{self.channels}-{self.taps}-{self.layout}"


def inputs(case: Case, device: str = "cpu") -> list[Tensor]:
    """X without a gradient, weight and bias with one."""
    generator = torch.Generator().manual_seed(case.length)
    shapes = [(case.n, 4, case.length), (case.channels, 4, case.taps), (case.channels,)]
    x, weight, bias = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    x = laid_out(x.to(device, getattr(torch, case.dtype)), case.layout, 0)
    parameters = (weight * (4 * case.taps) ** -0.5, bias)
    return [x, *(p.to(device, torch.float32).requires_grad_() for p in parameters)]


def output_gradient(case: Case, device: str = "cpu") -> Tensor:
    generator = torch.Generator().manual_seed(1)
    dout = torch.randn(case.n, case.length, case.channels, generator=generator)
    return laid_out(dout.to(device, getattr(torch, case.dtype)), case.layout, 2)


def composed(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The formula, in the dtype of x."""
    weight, bias = weight.to(x.dtype), bias.to(x.dtype)
    h = F.conv1d(x, weight, bias, padding=weight.shape[2] // 2)
    return F.gelu(h, approximate="tanh").transpose(1, 2)


def exact(values: list[Tensor], dout: Tensor) -> Results:
    """`results` of the formula in float64, for the very same numbers."""
    return results(composed, doubles(values), dout.double())


def accuracy(case: Case, scale: float = 1.0) -> dict[str, Any]:
    """Errors, and what a second call changes; uninitialised memory holds NaN in the second."""
    values, dout = inputs(case), output_gradient(case) * scale
    first = results(stem, values, dout)
    with poisoned_allocations():
        second = results(stem, values, dout)
    return {
        "errors": errors(first, exact(values, dout)),
        "unrepeated": different(first, second),
        "contiguous": first["out"].is_contiguous(),
    }


def batch(case: Case) -> list[int]:
    """Examples whose output is another when they are alone."""
    x, *parameters = (v.detach() for v in inputs(case))
    together = stem(x, *parameters)
    alone = [stem(x[i : i + 1], *parameters)[0] for i in range(case.n)]
    return [i for i in range(case.n) if not torch.equal(alone[i], together[i])]


def calls(case: Case, x_gradient: bool) -> list[str]:
    """The fused operations that a forward and a backward call."""
    values = inputs(case)
    values[0].requires_grad_(x_gradient)
    return names_of(partial(results, stem, values, output_gradient(case)))


def opchecks(case: Case, tests: list[str]) -> dict[str, dict[str, str]]:
    values, dout = inputs(case), output_gradient(case)
    return kernels.opchecks(lambda: results(stem, values, dout), values, tests)


CHECKS = {check.__name__: check for check in (accuracy, batch, calls, opchecks)}


SHAPES = [
    Case(1, 1, 8),
    Case(2, 13, 24),  # L < K
    Case(3, 37, 24, taps=3),
    Case(1, 9, 8, taps=1),
    Case(2, 150, 8),  # several tiles an example
    Case(1, 71, 96),
    Case(1, 35, 100),
    Case(1, 5, 136),  # two launches
    Case(2, 35, 24, layout="transposed"),
    Case(2, 35, 24, layout="columns"),
    Case(2, 35, 24, layout="offset"),
    Case(2, 35, 24, layout="expanded"),
]
QUICK = (
    Case(2, 13, 24), Case(2, 150, 8), Case(1, 35, 100), Case(2, 35, 24, layout="columns"),
    Case(2, 35, 24, layout="transposed"),
)  # fmt: skip


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=[] if c in QUICK else pytest.mark.slow) for c in SHAPES],
    ids=str,
)
def test_the_kernels_agree_with_float64_whatever_was_in_memory(case, interpreter):
    result = interpreter("accuracy", case)
    assert max(result["errors"].values()) < TOLERANCE, result["errors"]
    assert result["unrepeated"] == []
    assert result["contiguous"]


def test_the_kernels_in_corners(interpreter):
    small = interpreter("accuracy", Case(2, 35, 24), scale=1e-9)
    assert max(small["errors"].values()) < TOLERANCE
    empty = interpreter("accuracy", Case(0, 35, 24))
    assert set(empty["errors"].values()) == {0.0}
    assert interpreter("batch", Case(3, 150, 8)) == []
    assert interpreter("calls", Case(1, 5, 8), x_gradient=False) == ["stem", "stem_backward"]
    assert interpreter("calls", Case(1, 5, 8), x_gradient=True) == []


@pytest.mark.parametrize(
    "tests",
    [OPCHECKS, pytest.param(["test_aot_dispatch_dynamic"], marks=pytest.mark.slow)],
    ids=lambda tests: tests[-1],
)
def test_torch_approves_of_the_operations(tests, interpreter):
    found = interpreter("opchecks", Case(1, 5, 8), tests=tests)
    assert list(found) == ["cherimoya::stem", "cherimoya::stem_backward"]
    for checks in found.values():
        assert checks == dict.fromkeys(tests, "SUCCESS")


def test_a_cpu_computes_by_the_reference(plain_cpu):
    case = Case(2, 35, 24)
    values, dout = inputs(case), output_gradient(case)
    assert calls(case, x_gradient=False) == []
    assert different(results(stem, values, dout), results(reference.stem, values, dout)) == []


def test_autocast_on_a_cpu_is_the_references(plain_cpu):
    values = [v.detach() for v in inputs(Case(2, 35, 24))]
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = stem(*values), reference.stem(*values)
    assert ours.dtype == torch.bfloat16
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 5, 9), (8, 4, 3), (8,)), r"\(2, 5, 9\).*\(N, 4, L\)"),
        (((2, 4, 9), (8, 4, 2), (8,)), r"\(8, 4, 2\).*K odd"),
        (((2, 4, 9), (8, 3, 3), (8,)), r"\(8, 3, 3\)"),
        (((2, 4, 9), (8, 4, 3), (9,)), r"\(9,\).*\(8,\)"),
    ],
)
def test_shapes_that_do_not_fit_are_named(shapes, message, plain_cpu):
    with pytest.raises(ValueError, match=message):
        stem(*(torch.zeros(shape) for shape in shapes))


# Where torch may use TF32, by the dtype of X.
BY_DTYPE = {MODES[name].dtype: name for name in ("tf32", "bf16", "fp16")}
in_every_mode = pytest.mark.parametrize("mode", BY_DTYPE.values(), ids=BY_DTYPE, indirect=True)


def assert_accurate_on_gpu(case: Case, scale: float = 1.0) -> None:
    """Output and gradients agree with float64, and a second call repeats them to the bit."""
    values, dout = inputs(case, DEVICE), output_gradient(case, DEVICE) * scale
    expected = exact(values, dout)
    formula = errors(results(composed, values, dout), expected)
    limit = limits(MODES[BY_DTYPE[case.dtype]], formula)
    assert_within(limit, partial(results, stem, values, dout), expected, case)


@pytest.mark.gpu
@in_every_mode
@pytest.mark.parametrize("channels", [8, 24, 96, 100, 128, 256])
def test_any_width_and_dtype(channels, mode):
    assert_accurate_on_gpu(Case(3, 301, channels, dtype=mode.dtype))


@pytest.mark.gpu
@in_every_mode
def test_any_length_and_layout(mode):
    for n, length in [(16, 1), (5, 2), (3, 13), (2, 128), (2, 129), (3, 2114), (40000, 5), (0, 9)]:
        assert_accurate_on_gpu(Case(n, length, 96, dtype=mode.dtype))
    for taps in (1, 3, 15):
        assert_accurate_on_gpu(Case(3, 301, 24, taps=taps, dtype=mode.dtype))
    for layout in LAYOUTS:
        assert_accurate_on_gpu(Case(3, 301, 24, dtype=mode.dtype, layout=layout))
    for layout in ("contiguous", "transposed"):
        assert_accurate_on_gpu(Case(64, 2114, 96, dtype=mode.dtype, layout=layout))


@pytest.mark.gpu
@pytest.mark.usefixtures("tf32")
def test_gradients_below_the_range_of_half_precision():
    assert_accurate_on_gpu(Case(3, 301, 96), scale=1e-10)


@pytest.mark.gpu
@in_every_mode
def test_an_example_does_not_depend_on_its_batch(mode):
    case = Case(5, 301, 96, dtype=mode.dtype)
    x, *parameters = (v.detach() for v in inputs(case, DEVICE))
    together = stem(x, *parameters)
    for i in range(case.n):
        assert torch.equal(stem(x[i : i + 1], *parameters)[0], together[i])


@pytest.mark.gpu
@pytest.mark.parametrize("x_dtype", ["float32", "bfloat16"])
@pytest.mark.usefixtures("tf32")
def test_autocast_sets_the_outputs_dtype(x_dtype):
    case = Case(3, 301, 96, dtype=x_dtype)
    values = inputs(case, DEVICE)
    dout = output_gradient(case, DEVICE).bfloat16()
    with torch.autocast(DEVICE, torch.bfloat16):
        assert names_of(partial(results, stem, values, dout)) == ["stem", "stem_backward"]
        found = results(stem, values, dout)
    assert [found[name].dtype for name in NAMES] == [torch.bfloat16, torch.float32, torch.float32]
    cast = results(stem, [values[0].bfloat16(), *values[1:]], dout)
    assert different(found, cast) == []


@pytest.mark.gpu
@in_every_mode
def test_a_captured_graph_replays_the_same_bits(mode):
    case = Case(3, 301, 96, dtype=mode.dtype)
    values, dout = inputs(case, DEVICE), output_gradient(case, DEVICE)
    step = partial(results, stem, values, dout)
    graph, captured = captured_graph(step)
    for factor in (1.0, -1.1):
        with torch.no_grad():
            for parameter in values[1:]:
                parameter.mul_(factor)
        assert different(replayed(graph, captured), step()) == []


@pytest.mark.gpu
@pytest.mark.usefixtures("tf32")
def test_a_compiled_function_has_the_same_numbers():
    case = replace(Case(3, 301, 96), dtype="bfloat16")
    values, dout = inputs(case, DEVICE), output_gradient(case, DEVICE)

    def function(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.sin(stem(2 * x, *parameters))

    eager = results(function, values, dout)
    compiled = results(torch.compile(function, fullgraph=True), values, dout)
    assert max(errors(compiled, eager).values()) < MODES["bf16"].limit


if __name__ == "__main__":
    serve(CHECKS, Case)
