"""Both heads' first halves: by PyTorch, by the kernels in Triton's interpreter, and on a GPU."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial

import kernels
import pytest
import torch
from command_lines import clean_environment
from kernels import (
    DEVICE,
    MODES,
    Results,
    assert_within,
    captured_graph,
    different,
    doubles,
    errors,
    in_modes,
    laid_out,
    limits,
    names_of,
    opchecks,
    poisoned_allocations,
    replayed,
    serve,
)
from torch import Tensor

from cherimoya.ops import reference
from cherimoya.ops.heads.op import heads, heads_composed

NAMES = ("logits", "features", "dx", "dweight", "dbias")
ROWS = NAMES[:3]  # those with a row for each example
TOLERANCE = 1e-5  # relative RMS error of fp32
results = partial(kernels.results, NAMES)

Heads = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Case:
    """One call of `heads`."""

    n: int
    length: int
    channels: int
    groups: int
    taps: int
    cut: int
    dtype: str = "float32"  # of x; the weights are fp32
    layout: str = "contiguous"  # see `kernels.laid_out`

    def __str__(self) -> str:
        return " ".join(f"{k}={v}" for k, v in asdict(self).items() if k != "dtype")


def inputs(case: Case, device: str = "cpu") -> list[Tensor]:
    """x, weight and bias, all with gradients."""
    generator = torch.Generator().manual_seed(case.length)
    x = torch.randn(case.n, case.length, case.channels, generator=generator)
    weight = torch.randn(case.groups, case.channels, case.taps, generator=generator)
    weight *= (case.channels * case.taps) ** -0.5
    bias = torch.randn(case.groups, generator=generator)
    x = laid_out(x.to(device, getattr(torch, case.dtype)), case.layout)
    weight = laid_out(weight.to(device), "contiguous" if case.layout == "expanded" else case.layout)
    return [v.requires_grad_() for v in (x, weight, bias.to(device))]


def output_gradients(case: Case, device: str = "cpu") -> list[Tensor]:
    """Gradients of the logits and of the features."""
    generator = torch.Generator().manual_seed(1)
    shape = (case.n, case.groups, case.length - 2 * case.cut)
    dlogits = laid_out(torch.randn(shape, generator=generator).to(device), case.layout, 2)
    dfeatures = shape[2] * torch.randn(case.n, case.channels, generator=generator)
    return [dlogits, laid_out(dfeatures.to(device), case.layout, 1)]


def fused(case: Case) -> Heads:
    return partial(heads, cut=case.cut)


def composed(case: Case) -> Heads:
    """PyTorch's own, in the dtype of x."""
    return lambda x, w, b: heads_composed(x, w.to(x.dtype), b.to(x.dtype), case.cut)


def exact(case: Case, values: list[Tensor], gradients: list[Tensor]) -> Results:
    """The formula in float64, for the very same numbers."""

    def formula(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        logits = torch.nn.functional.conv1d(x.mT, weight, bias, padding=case.taps // 2)
        window = slice(case.cut, case.length - case.cut)
        return logits[:, :, window], x[:, window].mean(1)

    return results(formula, doubles(values), gradients)


def batch_differences(case: Case, values: list[Tensor], gradients: list[Tensor]) -> list[str]:
    """What of example 1 changes when it is alone, and of the others when it holds NaN."""
    call = partial(results, fused(case))
    return kernels.batch_differences(call, values, gradients, 1, ROWS)[0]


def checked(case: Case) -> dict[str, object]:
    """Errors of the kernels, and what a second call changes, over uninitialised NaN."""
    values, gradients = inputs(case), output_gradients(case)
    first = results(fused(case), values, gradients)
    with poisoned_allocations():
        unrepeated = different(first, results(fused(case), values, gradients))
    found: dict[str, object] = {
        "errors": errors(first, exact(case, values, gradients)),
        "unrepeated": unrepeated,
        "batch": batch_differences(case, values, gradients) if case.n > 1 else [],
    }
    if case in OPCHECKED:
        found["opchecks"] = opchecks(partial(results, fused(case), values, gradients), values)
    if case in COMPILED:
        function = torch.compile(fused(case), backend="aot_eager", fullgraph=True)
        found["compiled"] = different(first, results(function, values, gradients))
    return found


SHAPES = [
    Case(1, 1, 8, 1, 1, 0),
    Case(2, 133, 96, 2, 1, 2),
    Case(1, 70, 100, 3, 1, 0),
    Case(2, 13, 24, 1, 1, 5),
    Case(1, 3, 8, 1, 5, 0),  # L < k
    Case(1, 131, 24, 3, 5, 0),
    Case(3, 150, 8, 1, 5, 2),
    Case(2, 21, 100, 1, 5, 7),
    Case(1, 70, 136, 1, 5, 2),  # smaller tiles
    Case(1, 173, 96, 1, 75, 37),
    Case(1, 30, 8, 2, 75, 0),  # L < k
    Case(2, 31, 24, 1, 75, 3),
    Case(1, 101, 24, 1, 75, 41),
    Case(1, 120, 8, 3, 75, 2),
    Case(1, 60, 8, 2, 201, 9),  # more taps than a program takes
]
EMPTY = [Case(0, 13, 24, 1, 1, 0), Case(0, 13, 24, 2, 5, 2)]
LAYOUTS = [
    Case(2, 11, 8, 2, taps, 2, layout=layout)
    for taps, layout in ((1, "columns"), (1, "expanded"), (5, "transposed"), (5, "offset"))
]
OPCHECKED = [Case(1, 4, 8, 2, 1, 1), Case(1, 4, 8, 1, 3, 1)]
COMPILED = [Case(2, 5, 8, 1, 3, 1)]
QUICK = [SHAPES[3], SHAPES[5], SHAPES[9], SHAPES[11], EMPTY[1], LAYOUTS[1], *OPCHECKED]
INTERPRETED = [
    pytest.param(case, marks=[] if case in QUICK else pytest.mark.slow)
    for case in (*SHAPES, *EMPTY, *LAYOUTS, *OPCHECKED, *COMPILED)
]


@pytest.mark.parametrize("case", INTERPRETED, ids=str)
def test_the_kernels_agree_with_float64_and_repeat_themselves(case, interpreter):
    found = interpreter("checked", case)
    assert max(found["errors"].values()) < TOLERANCE, found["errors"]
    assert found["unrepeated"] == []
    assert found["batch"] == []
    assert found.get("compiled", []) == []


@pytest.mark.parametrize("case", OPCHECKED, ids=str)
def test_torch_approves_of_the_operations(case, interpreter):
    found = interpreter("checked", case)["opchecks"]
    assert list(found) == ["cherimoya::heads", "cherimoya::heads_backward"]
    assert {result for checks in found.values() for result in checks.values()} == {"SUCCESS"}


@pytest.mark.parametrize("case", SHAPES, ids=str)
def test_a_cpu_computes_by_the_reference(case, plain_cpu):
    values, gradients = inputs(case), output_gradients(case)
    window = slice(case.cut, case.length - case.cut)

    def formula(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        logits = reference.profile_head(x, weight, bias)[:, :, window]
        return logits, x[:, window].mean(dim=1, dtype=torch.float32)

    found = results(fused(case), values, gradients)
    assert different(found, results(formula, values, gradients)) == []
    assert max(errors(found, exact(case, values, gradients)).values()) < TOLERANCE


def test_the_module_does_not_import_triton():
    code = "import sys, cherimoya.ops.heads.op; assert 'triton' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=clean_environment())


WRONG = {  # what is wrong: the shapes of x, weight and bias, the cut, and what the message says
    "x": ((5, 8), (1, 8, 3), (1,), 0, r"\(5, 8\).*\(N, L, C\)"),
    "channels": ((2, 5, 8), (1, 9, 3), (1,), 0, r"\(1, 9, 3\).*\(G, 8, k\)"),
    "taps": ((2, 5, 8), (1, 8, 4), (1,), 0, r"\(1, 8, 4\).*odd"),
    "bias": ((2, 5, 8), (1, 8, 3), (2,), 0, r"\(2,\).*\(1,\)"),
    "cut": ((2, 6, 8), (1, 8, 3), (1,), 3, "cut=3.*6 positions"),
    "negative": ((2, 6, 8), (1, 8, 3), (1,), -1, "cut=-1"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_shapes_that_do_not_fit_are_named(wrong, plain_cpu):
    *shapes, cut, message = WRONG[wrong]
    with pytest.raises(ValueError, match=message):
        heads(*(torch.zeros(shape) for shape in shapes), cut)


ON_GPU = [
    Case(5, 301, 96, 1, 1, 0),
    Case(3, 333, 128, 2, 1, 16),
    Case(5, 301, 96, 1, 75, 37),
    Case(3, 333, 128, 2, 75, 37),
    Case(3, 70, 24, 4, 5, 0),
    Case(2, 131, 100, 1, 75, 41),
    Case(2, 301, 256, 1, 75, 37),
    Case(2, 233, 96, 1, 201, 40),
    Case(2, 301, 256, 1, 1, 0),
    Case(0, 301, 96, 1, 75, 37),
]


in_every_mode = in_modes("bf16", "fp16", "tf32")


@pytest.mark.gpu
@pytest.mark.parametrize("case", ON_GPU, ids=str)
@in_every_mode
def test_a_gpu_agrees_with_float64_and_repeats_itself(case, mode):
    case = replace(case, dtype=mode.dtype)
    values, gradients = inputs(case, DEVICE), output_gradients(case, DEVICE)
    expected = exact(case, values, gradients)
    formula = errors(results(composed(case), values, gradients), expected)
    call = partial(results, fused(case), values, gradients)
    assert names_of(call) == ["heads", "heads_backward"]
    added = MODES["fp32"] if case.taps == 1 and not mode.half else mode  # one tap: no products
    assert_within(limits(added, formula), call, expected, case)
    if case.n > 1:
        assert batch_differences(case, values, gradients) == []


@pytest.mark.gpu
@pytest.mark.parametrize("taps", [1, 75])
@pytest.mark.parametrize("mode", ["fp16"], indirect=True)
def test_small_gradients_survive_half_precision(taps, mode):
    case = Case(3, 301, 96, 1, taps, taps // 2, dtype=mode.dtype)
    values, gradients = inputs(case, DEVICE), output_gradients(case, DEVICE)
    small = [1e-9 * g for g in gradients]  # below fp16's least number
    found = errors(results(fused(case), values, small), exact(case, values, small))
    assert max(found["dweight"], found["dbias"]) < MODES["tf32"].limit


@pytest.mark.gpu
@pytest.mark.parametrize("taps", [1, 75])
@in_every_mode
def test_a_captured_graph_replays_the_same_bits(taps, mode):
    case = Case(3, 301, 96, 2, taps, taps // 2, dtype=mode.dtype)
    values, gradients = inputs(case, DEVICE), output_gradients(case, DEVICE)
    step = partial(results, fused(case), values, gradients)
    graph, captured = captured_graph(step)
    before = replayed(graph, captured)
    assert different(before, step()) == []
    with torch.no_grad():
        values[1].mul_(-1.1)
    after = replayed(graph, captured)
    assert different(after, step()) == []
    assert "logits" in different(after, before)


if __name__ == "__main__":
    serve({"checked": checked}, Case)
