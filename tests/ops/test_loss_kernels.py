"""The training loss by kernels against its composition: in Triton's interpreter and on a GPU."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from command_lines import clean_environment
from kernels import (
    OPCHECKS,
    Results,
    captured_graph,
    different,
    doubles,
    replayed,
    rms_error,
    serve,
)
from torch import Tensor

from cherimoya.losses import FixedLoss, KendallLoss, profile_and_count_losses
from cherimoya.metrics import multinomial_nll
from cherimoya.ops.loss import op as loss

# Relative RMS errors by dtype: either below this, or at most so many times the formula's in fp32.
# The interpreter truncates to bf16.
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 4e-3, torch.float16: 5e-4}
GPU_TOLERANCE = TOLERANCE | {torch.float32: 3e-6}  # its exponential is good to 2^-22
FORMULA_FACTOR = 2.0
FIXED_WEIGHTS = (1.5, 0.25)
UPSTREAM = 0.75  # gradient of the total
NAMES = ("total", "profile", "count", "dlogits", "dlog_counts", "dw0", "dw1")

Function = Callable[..., tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True)
class Case:
    """One call of `training_loss`."""

    groups: tuple[int, ...] = (1, 2)
    length: int = 7
    n: int = 3
    counts: str = "few"  # or zero, many (5e4 a position, close to the prediction), fractional
    weights: str = "penalised"  # or learned, fixed
    layout: str = "contiguous"  # or sliced
    dtype: str = "float32"  # of logits and log_counts
    signal: str = "float32"

    def __str__(self) -> str:
        given = [f"{k}={v}" for k, v in asdict(self).items() if v != getattr(Case(), k)]
        return " ".join(given) or "default"


def inputs(case: Case, device: str = "cpu") -> list[Tensor]:
    """logits, log_counts, signal, w0 and w1; no gradients of the signal and of fixed weights."""
    generator = torch.Generator().manual_seed(case.length)
    n_groups, dtype = len(case.groups), getattr(torch, case.dtype)
    shape = (case.n, sum(case.groups), case.length)
    logits = 3 + 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    mean = {"zero": 0.0, "few": 0.6, "many": 5e4, "fractional": 2.0}[case.counts]
    expected = mean * logits.exp() / logits.exp().mean()
    signal = torch.poisson(expected, generator=generator)
    if case.counts == "fractional":
        signal += torch.rand(shape, generator=generator, dtype=torch.float64)
    log_counts = torch.randn(case.n, n_groups, generator=generator, dtype=torch.float64)
    w0, w1 = 0.5 + torch.rand(2, n_groups, generator=generator, dtype=torch.float64)
    if case.weights == "fixed":
        w0, w1 = (torch.full_like(w0, weight) for weight in FIXED_WEIGHTS)
    if case.layout == "sliced":
        logits = torch.nn.functional.pad(logits, (2, 3))
        signal = torch.nn.functional.pad(signal, (1, 0))
    logits, log_counts = (x.to(device, dtype) for x in (logits, log_counts))
    signal = signal.to(device, getattr(torch, case.signal))
    if case.layout == "sliced":
        logits, signal = logits[..., 2:-3], signal[..., 1:]
    w0, w1 = (x.to(device, torch.float32) for x in (w0, w1))
    learned = case.weights != "fixed"
    return [
        logits.requires_grad_(),
        log_counts.requires_grad_(),
        signal,
        w0.requires_grad_(learned),
        w1.requires_grad_(learned),
    ]


def fused(case: Case, *values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    learned, penalty = case.weights != "fixed", case.weights == "penalised"
    return loss.training_loss(*values, list(case.groups), learned, penalty)


def composed(case: Case, *values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same by PyTorch, in the dtype of the inputs."""
    *predictions, w0, w1 = values
    profile, count = profile_and_count_losses(*predictions, case.groups)
    objective = KendallLoss(freeze_below=0.0)
    objective.frozen = case.weights != "penalised"
    if case.weights == "fixed":
        objective = FixedLoss(*FIXED_WEIGHTS)
    model = SimpleNamespace(lw0=w0, lw1=w1)
    return objective.objective(model, profile, count), profile, count


def results(function: Function, values: list[Tensor]) -> Results:
    """What the function returns and every gradient of its total."""
    total, profile, count = function(*values)
    wanted = [v for v in values if v.requires_grad]
    gradients = torch.autograd.grad(total, wanted, torch.full_like(total, UPSTREAM))
    found = (total.detach(), profile.detach(), count.detach(), *gradients)
    return dict(zip(NAMES, found, strict=False))


def too_far(case: Case, device: str = "cpu") -> dict[str, str]:
    """Results too far from float64, of another dtype, or that a second call changes."""
    tolerance = TOLERANCE if device == "cpu" else GPU_TOLERANCE
    values = inputs(case, device)
    exact = results(partial(composed, case), doubles(values))
    formula = results(partial(composed, case), values)
    ours, again = (results(partial(fused, case), values) for _ in range(2))
    bad = {}
    for name, expected in exact.items():
        error, theirs = (rms_error(found[name], expected, 1e-2) for found in (ours, formula))
        if not error <= max(tolerance[formula[name].dtype], FORMULA_FACTOR * theirs):
            bad[name] = f"{error:.2g}, of the formula {theirs:.2g}"
        if ours[name].dtype != formula[name].dtype:
            bad[name] = f"is {ours[name].dtype}"
    return bad | dict.fromkeys(different(ours, again), "another call differs")


def too_far_in_small_tiles(case: Case) -> dict[str, str]:
    """`too_far` where the reduction reads a few examples at once."""
    with mock.patch.object(loss, "TILE", 4):
        return too_far(case)


def likelihood_errors() -> float:
    """The largest error of a likelihood, of max(1, |likelihood|), for counts of 0 to 10^6."""
    few = torch.linspace(0, 10, 81)
    k = torch.cat([few, torch.logspace(1, 6, 20)])
    signal = torch.stack([k, torch.full_like(k, 6.5)], dim=1)[:, None]  # (N, 1, 2)
    zero, one = torch.zeros(len(k), 1), torch.ones(1)
    call = (torch.zeros_like(signal), zero, signal, one, one, [1], False, False)
    rows = loss.loss_and_statistics(*call)[3]
    counts = signal.flatten(1).double()
    expected = multinomial_nll(torch.zeros_like(counts), counts)
    error = (rows[:, 0, 0].double() - expected).abs() / expected.abs().clamp(min=1)
    return error.max().item()


def spread_of_nan(case: Case) -> list[str]:
    """What a NaN in one example does beyond making the total NaN."""
    bad = []
    for which in range(3):  # logits, log_counts, signal
        values = inputs(case)
        clean = results(partial(fused, case), values)
        with torch.no_grad():
            values[which][1].view(-1)[0] = torch.nan
        found = results(partial(fused, case), values)
        if not found["total"].isnan():
            bad.append(f"{which}: total {found['total']}")
        bad += [
            f"{which}: {name} of another example"
            for name in ("dlogits", "dlog_counts")
            if not torch.equal(found[name][[0, 2]], clean[name][[0, 2]])
        ]
    return bad


def without_weight_gradients(case: Case) -> list[str]:
    """What changes if only logits and log_counts, or only one weight, have a gradient."""
    values = inputs(case)
    whole = results(partial(fused, case), values)
    bad = []
    for kept in ((0, 1), (0, 1, 4), (3,)):
        alone = [v.detach().requires_grad_(i in kept) for i, v in enumerate(values)]
        total, profile, count = fused(case, *alone)
        if profile.requires_grad or count.requires_grad:
            bad.append("the parts have gradients")
        (total * UPSTREAM).backward()
        for i, name in {0: "dlogits", 1: "dlog_counts", 3: "dw0", 4: "dw1"}.items():
            gradient = alone[i].grad
            if (gradient is None) == (i in kept):
                bad.append(f"{kept}: {name} is {gradient}")
            elif gradient is not None and not torch.equal(gradient, whole[name]):
                bad.append(f"{kept}: {name} differs")
    return bad


def of_no_examples(case: Case) -> list[float]:
    total, *_ = fused(case, *inputs(replace(case, n=0)))
    total.backward()
    return [total.item()]


def opchecks(case: Case) -> list[str]:
    """Those of OPCHECKS that fail on the operation and on its backward."""
    values = inputs(case)
    flags = (list(case.groups), True, True)
    outputs = [v.detach() for v in loss.loss_and_statistics(*values, *flags)]
    plain = [v.detach() for v in values]
    calls = [
        (loss.loss_and_statistics, (*values, *flags)),
        (loss.loss_backward, (outputs[0], *plain, *outputs[3:], list(case.groups), True)),
        (loss.loss_backward, (outputs[0], *plain, *outputs[3:], list(case.groups), False)),
    ]
    found = [torch.library.opcheck(op, call, test_utils=OPCHECKS) for op, call in calls]
    return [name for checks in found for name, verdict in checks.items() if verdict != "SUCCESS"]


CHECKS = {
    f.__name__: f
    for f in (
        too_far,
        too_far_in_small_tiles,
        likelihood_errors,
        spread_of_nan,
        without_weight_gradients,
        of_no_examples,
        opchecks,
    )
}


@pytest.mark.parametrize("groups", [(1,), (2,), (1, 2)], ids=str)
@pytest.mark.parametrize("length", [1, 7, pytest.param(1000, marks=pytest.mark.slow), 1025])
@pytest.mark.parametrize("counts", ["zero", "few", "many", "fractional"])
def test_values_and_gradients_agree_with_float64(groups, length, counts, interpreter):
    assert interpreter("too_far", Case(groups, length, counts=counts)) == {}


@pytest.mark.parametrize(
    "case",
    [
        *(Case(weights=weights) for weights in ("learned", "fixed")),
        *(Case(groups, weights="fixed") for groups in ((1,), (2,))),
        *(Case(dtype=dtype) for dtype in ("bfloat16", "float16")),
        *(Case(signal=signal) for signal in ("int64", "int16", "float16")),
        Case(layout="sliced"),
        Case(layout="sliced", dtype="bfloat16", length=1025),
        Case((3, 1, 1), 5),
        Case(n=1),
    ],
    ids=str,
)
def test_weights_dtypes_and_layouts(case, interpreter):
    assert interpreter("too_far", case) == {}


def test_more_examples_than_the_reduction_reads_at_once(interpreter):
    assert interpreter("too_far_in_small_tiles", Case(length=2, n=7)) == {}


def test_likelihoods_of_any_count(interpreter):
    assert interpreter("likelihood_errors") < 1e-6


def test_a_nan_reaches_the_total_and_no_other_example(interpreter):
    assert interpreter("spread_of_nan", Case()) == []


def test_gradients_that_nobody_wants_are_left_out(interpreter):
    assert interpreter("without_weight_gradients", Case()) == []


def test_the_mean_over_no_examples_is_nan(interpreter):
    (total,) = interpreter("of_no_examples", Case())
    assert total != total


def test_torch_approves_of_the_operations(interpreter):
    assert interpreter("opchecks", Case(length=3)) == []


@pytest.mark.parametrize(
    ("which", "message"),
    [
        (0, r"must be \(N, 3, L\)"),
        (1, r"log_counts has shape .* must be \(3, 2\)"),
        (2, r"signal has shape .* must be \(3, 3, 7\)"),
        (4, r"w1 has shape .* must be \(2,\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(which, message):
    values = inputs(Case())
    values[which] = values[which].detach()[..., :1] if which else values[which][:, :2]
    with pytest.raises(ValueError, match=message):
        fused(Case(), *values)


def test_a_penalty_on_fixed_weights_is_refused():
    with pytest.raises(ValueError, match="penalty"):
        loss.training_loss(*inputs(Case()), [1, 2], learned=False, penalty=True)


def test_importing_the_loss_imports_no_triton():
    code = "import sys, cherimoya.ops.loss.op; assert 'triton' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=clean_environment())


def gpu(*cases: Case) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "case", [pytest.param(c, marks=pytest.mark.gpu) for c in cases], ids=str
    )


@gpu(
    *(
        Case(groups, length, n=64, counts=counts, dtype=dtype)
        for groups, length in (((2,), 1000), ((1, 2), 1025))
        for counts in ("zero", "few", "many", "fractional")
        for dtype in ("float32", "bfloat16")
    ),
    Case((1,), 1000, n=64, weights="fixed"),
    Case((1,), 1000, n=64, dtype="float16", signal="int32", layout="sliced"),
    Case((1,), 3, n=65537),
)
def test_a_gpu_agrees_with_float64(case):
    assert too_far(case, "cuda") == {}


@gpu(
    *(Case((1, 2), 1000, n=64, dtype=dtype) for dtype in ("float32", "bfloat16")),
    Case((2,), 1000, n=64, weights="fixed", dtype="bfloat16"),
)
def test_a_captured_graph_replays_the_same_bits(case):
    values = inputs(case, "cuda")
    step = partial(results, partial(fused, case), values)
    graph, captured = captured_graph(step)
    for _ in range(2):
        assert different(replayed(graph, captured), step()) == []
        with torch.no_grad():
            values[0].mul_(-0.5)
            values[2].add_(1)


if __name__ == "__main__":
    serve(CHECKS, Case)
