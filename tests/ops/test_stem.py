"""The stem by the reference, by the kernels in Triton's interpreter, and on a GPU.

Run as a script with TRITON_INTERPRET=1 it makes one of CHECKS and prints its result as JSON.
"""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from command_lines import clean_environment
from kernel_cases import (
    Function,
    Recorder,
    Results,
    different,
    errors,
    laid_out,
    poisoned_allocations,
)
from torch import Tensor

from cherimoya.ops import reference
from cherimoya.ops.stem.op import stem

NAMES = ("out", "dweight", "dbias")
TOLERANCE = 1e-5  # relative RMS error of fp32 in the interpreter


@dataclass(frozen=True)
class Case:
    """One call: X (n, 4, length), weight (channels, 4, taps)."""

    n: int
    length: int
    channels: int
    taps: int = 21
    dtype: str = "float32"  # of X; weight and bias are fp32
    layout: str = "contiguous"  # of X and the output's gradient, see `kernel_cases.laid_out`

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


def results(function: Function, values: list[Tensor], dout: Tensor) -> Results:
    """The function's output and the gradients of weight and bias."""
    out = function(*values)
    gradients = torch.autograd.grad(out, values[1:], dout)
    return dict(zip(NAMES, (out.detach(), *gradients), strict=True))


def exact(values: list[Tensor], dout: Tensor) -> Results:
    """`results` of the formula in float64, for the very same numbers."""
    x, *parameters = (v.detach().double() for v in values)
    return results(composed, [x, *(p.requires_grad_() for p in parameters)], dout.double())


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
    with Recorder() as recorder:
        results(stem, values, output_gradient(case))
    return [op.name() for op, _ in recorder.calls]


def opchecks(case: Case, tests: list[str]) -> dict[str, dict[str, str]]:
    """What torch.library.opcheck says to the forward and the backward operation."""
    with Recorder() as recorder:
        results(stem, inputs(case), output_gradient(case))
    found = {}
    for op, args in recorder.calls:
        leaves = tuple(a.detach() if isinstance(a, Tensor) else a for a in args)
        if "backward" not in op.name():
            for parameter in leaves[1:3]:
                parameter.requires_grad_()
        checks = torch.library.opcheck(op, leaves, test_utils=tests, raise_exception=False)
        found[op.name()] = {test: str(result) for test, result in checks.items()}
    return found


CHECKS = {check.__name__: check for check in (accuracy, batch, calls, opchecks)}


def interpreted(*requests: tuple[str, Case, dict[str, Any]]) -> list[Any]:
    """Results of some of CHECKS where Triton's interpreter runs the kernels."""
    pytest.importorskip("triton")
    environment = clean_environment() | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("CHERIMOYA_KERNELS", None)
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps([(name, asdict(case), more) for name, case, more in requests]),
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


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


def test_the_kernels_agree_with_float64_whatever_was_in_memory():
    found = interpreted(*(("accuracy", case, {}) for case in SHAPES))
    for case, result in zip(SHAPES, found, strict=True):
        assert max(result["errors"].values()) < TOLERANCE, f"{case}: {result['errors']}"
        assert result["unrepeated"] == [], case
        assert result["contiguous"], case


def test_the_kernels_in_corners():
    small, empty, alone, fused, unfused = interpreted(
        ("accuracy", Case(2, 35, 24), {"scale": 1e-9}),
        ("accuracy", Case(0, 35, 24), {}),
        ("batch", Case(3, 150, 8), {}),
        ("calls", Case(1, 5, 8), {"x_gradient": False}),
        ("calls", Case(1, 5, 8), {"x_gradient": True}),
    )
    assert max(small["errors"].values()) < TOLERANCE
    assert set(empty["errors"].values()) == {0.0}
    assert alone == []
    assert fused == ["cherimoya::stem", "cherimoya::stem_backward"]
    assert unfused == []


OPCHECKS = ["test_schema", "test_autograd_registration", "test_faketensor"]


@pytest.mark.parametrize(
    "tests",
    [OPCHECKS, pytest.param(["test_aot_dispatch_dynamic"], marks=pytest.mark.slow)],
    ids=lambda tests: tests[-1],
)
def test_torch_approves_of_the_operations(tests):
    (found,) = interpreted(("opchecks", Case(1, 5, 8), {"tests": tests}))
    assert list(found) == ["cherimoya::stem", "cherimoya::stem_backward"]
    for checks in found.values():
        assert checks == dict.fromkeys(tests, "SUCCESS")


@pytest.fixture
def plain_cpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Neither the interpreter nor a choice of kernels in the environment."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.delenv("CHERIMOYA_KERNELS", raising=False)
    return monkeypatch


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


on_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]
LIMITS = {"float32": 1e-3, "bfloat16": 1e-2, "float16": 1e-2}  # fp32 with TF32
# Half dtypes are never worse than PyTorch's own products in that dtype, but for so much.
FORMULA_FACTOR, FORMULA_MARGIN = 1.5, 1e-5
DEVICE = "cuda"


@pytest.fixture
def tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHERIMOYA_KERNELS", raising=False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)


def gpu(test: Any) -> Any:
    """A test of the kernels on a GPU, where torch may use TF32."""
    for mark in on_gpu:
        test = mark(test)
    return pytest.mark.usefixtures("tf32")(test)


def assert_accurate_on_gpu(case: Case, scale: float = 1.0) -> None:
    """Output and gradients agree with float64, and a second call repeats them to the bit."""
    values, dout = inputs(case, DEVICE), output_gradient(case, DEVICE) * scale
    expected = exact(values, dout)
    found = []
    for _ in range(2):
        poison = [torch.full((2**22,), torch.nan, device=DEVICE) for _ in range(8)]
        del poison
        found.append(results(stem, values, dout))
    ours, limit = errors(found[0], expected), dict.fromkeys(NAMES, LIMITS[case.dtype])
    if case.dtype != "float32":
        formula = errors(results(composed, values, dout), expected)
        limit = {k: min(v, FORMULA_FACTOR * formula[k] + FORMULA_MARGIN) for k, v in limit.items()}
    assert all(ours[k] <= limit[k] for k in NAMES), f"{case}: {ours}, limits {limit}"
    assert different(*found) == [], f"{case}: a second call differs"


@gpu
@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("channels", [8, 24, 96, 100, 128, 256])
def test_any_width_and_dtype(channels, dtype):
    assert_accurate_on_gpu(Case(3, 301, channels, dtype=dtype))


@gpu
@pytest.mark.parametrize("dtype", LIMITS)
def test_any_length_and_layout(dtype):
    for n, length in [(16, 1), (5, 2), (3, 13), (2, 128), (2, 129), (3, 2114), (40000, 5), (0, 9)]:
        assert_accurate_on_gpu(Case(n, length, 96, dtype=dtype))
    for taps in (1, 3, 15):
        assert_accurate_on_gpu(Case(3, 301, 24, taps=taps, dtype=dtype))
    for layout in ("transposed", "columns", "offset", "expanded"):
        assert_accurate_on_gpu(Case(3, 301, 24, dtype=dtype, layout=layout))


@gpu
def test_gradients_below_the_range_of_half_precision():
    assert_accurate_on_gpu(Case(3, 301, 96), scale=1e-10)


@gpu
@pytest.mark.parametrize("dtype", LIMITS)
def test_an_example_does_not_depend_on_its_batch(dtype):
    case = Case(5, 301, 96, dtype=dtype)
    x, *parameters = (v.detach() for v in inputs(case, DEVICE))
    together = stem(x, *parameters)
    for i in range(case.n):
        assert torch.equal(stem(x[i : i + 1], *parameters)[0], together[i])


@gpu
@pytest.mark.parametrize("x_dtype", ["float32", "bfloat16"])
def test_autocast_sets_the_outputs_dtype(x_dtype):
    case = Case(3, 301, 96, dtype=x_dtype)
    values = inputs(case, DEVICE)
    dout = output_gradient(case, DEVICE).bfloat16()
    with torch.autocast(DEVICE, torch.bfloat16), Recorder() as recorder:
        found = results(stem, values, dout)
    assert [op.name() for op, _ in recorder.calls] == [
        "cherimoya::stem",
        "cherimoya::stem_backward",
    ]
    assert [found[name].dtype for name in NAMES] == [torch.bfloat16, torch.float32, torch.float32]
    cast = results(stem, [values[0].bfloat16(), *values[1:]], dout)
    assert different(found, cast) == []


@gpu
@pytest.mark.parametrize("dtype", LIMITS)
def test_a_captured_graph_replays_the_same_bits(dtype):
    case = Case(3, 301, 96, dtype=dtype)
    values, dout = inputs(case, DEVICE), output_gradient(case, DEVICE)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            results(stem, values, dout)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = results(stem, values, dout)
    for factor in (1.0, -1.1):
        with torch.no_grad():
            for parameter in values[1:]:
                parameter.mul_(factor)
        for v in captured.values():
            v.fill_(torch.nan)
        graph.replay()
        replayed = {name: v.clone() for name, v in captured.items()}
        assert different(replayed, results(stem, values, dout)) == []


@gpu
def test_a_compiled_function_has_the_same_numbers():
    case = replace(Case(3, 301, 96), dtype="bfloat16")
    values, dout = inputs(case, DEVICE), output_gradient(case, DEVICE)

    def function(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.sin(stem(2 * x, *parameters))

    eager = results(function, values, dout)
    compiled = results(torch.compile(function, fullgraph=True), values, dout)
    assert max(errors(compiled, eager).values()) < LIMITS["bfloat16"]


def main() -> None:
    torch.set_num_threads(1)
    requests = json.load(sys.stdin)
    print(json.dumps([CHECKS[name](Case(**case), **more) for name, case, more in requests]))


if __name__ == "__main__":
    main()
