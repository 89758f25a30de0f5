"""How the fused operations are tested: against float64, to the bit, interpreted and on a GPU.

A module that ends in `serve(CHECKS, Case)` is, as a script, the other end of an `Interpreter`.
"""

import contextlib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import EllipsisType
from typing import Any
from unittest import mock

import pytest
import torch
from command_lines import clean_environment
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Results = dict[str, Tensor]  # outputs and gradients by name
Function = Callable[..., Tensor | tuple[Tensor, ...]]
Checks = dict[str, Callable[..., object]]

DEVICE = "cuda"
CACHED_BYTES = [2**19] * 64 + [2**24] * 8 + [2**28]
OPCHECKS = ["test_schema", "test_autograd_registration", "test_faketensor"]
LAYOUTS = ("transposed", "columns", "offset", "expanded")


@dataclass(frozen=True)
class Mode:
    """A dtype of x, what torch may do with fp32, and the limit of the relative RMS errors."""

    dtype: str
    limit: float
    tf32: bool = False

    @property
    def half(self) -> bool:
        return self.dtype != "float32"


MODES = {
    "fp32": Mode("float32", 1e-5),
    "tf32": Mode("float32", 1e-3, tf32=True),
    "bf16": Mode("bfloat16", 1e-2),
    "fp16": Mode("float16", 1e-2),
}
# Half dtypes are never worse than PyTorch's own products in that dtype, but for so much; nor is
# anything where |mean| >> std.
FORMULA_FACTOR, FORMULA_MARGIN = 1.5, 1e-5


def in_modes(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("mode", names, indirect=True)


def laid_out(x: Tensor, layout: str, dim: int = 0) -> Tensor:
    """x in another layout; "expanded" repeats the first of `dim` with a stride of 0."""
    if layout == "transposed":
        return x.mT.contiguous().mT
    if layout == "columns":  # of a wider tensor, from its second column on
        return torch.nn.functional.pad(x, (1, 2))[..., 1:-2]
    if layout == "offset":  # dense, but no multiple of 16 bytes from the start
        return torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)
    if layout == "expanded":
        return x.narrow(dim, 0, 1).expand_as(x)
    return x.contiguous()


def results(
    names: Sequence[str],
    function: Function,
    values: Sequence[Tensor],
    gradients: Tensor | Sequence[Tensor],
) -> Results:
    """The function's outputs and the gradient of every value that has one, by `names`.

    `gradients` are those of the outputs. An operation with fewer values has the first names.
    """
    outputs = function(*values)
    if isinstance(outputs, Tensor):
        outputs, gradients = (outputs,), (gradients,)
    given = [g.to(out.dtype) for g, out in zip(gradients, outputs, strict=True)]
    found = torch.autograd.grad(outputs, [v for v in values if v.requires_grad], given)
    return dict(zip(names, (*(out.detach() for out in outputs), *found), strict=False))


def doubles(values: Sequence[Tensor]) -> list[Tensor]:
    """The very same numbers in float64."""
    return [v.detach().double().requires_grad_(v.requires_grad) for v in values]


def rms_error(actual: Tensor, expected: Tensor, least: float = 1e-30) -> float:
    """RMS error relative to the expected norm or `least`; infinite where the shapes differ."""
    if actual.shape != expected.shape:
        return torch.inf
    actual, expected = actual.double(), expected.double()
    return ((actual - expected).norm() / expected.norm().clamp(min=least)).item()


def errors(actual: Results, expected: Results) -> dict[str, float]:
    return {name: rms_error(actual[name], expected[name]) for name in expected}


def limits(mode: Mode, formula: dict[str, float], far: bool = False) -> dict[str, float]:
    """What each error may be; `far`: the mean of x is far from zero."""
    margin = {name: FORMULA_FACTOR * error + FORMULA_MARGIN for name, error in formula.items()}
    if far:
        return margin if mode.half else {k: max(mode.limit, v) for k, v in margin.items()}
    return {name: min(mode.limit, v) if mode.half else mode.limit for name, v in margin.items()}


def different(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> list[str]:
    """Names of those that are not equal to the bit."""
    return [name for name in a if not torch.equal(a[name], b[name])]


def assert_within(
    limit: Mapping[str, float], call: Callable[[], Results], expected: Results, what: object
) -> None:
    """A call's errors on a GPU are at most `limit`, and a second call repeats every bit."""
    found = []
    for _ in range(2):
        poison_cached_memory()
        found.append(call())
    ours = errors(found[0], expected)
    report = "\n".join(f"{k}: {ours[k]:.2g}, limit {limit[k]:.2g}" for k in ours)
    assert all(ours[name] <= limit[name] for name in ours), f"{what}\n{report}"
    assert different(*found) == [], f"{what}: a second call differs"


def batch_differences(
    call: Callable[[list[Tensor], list[Tensor]], Results],
    values: list[Tensor],
    gradients: list[Tensor],
    one: int,
    names: Sequence[str],
    at: tuple[int, int] | EllipsisType = ...,
) -> tuple[list[str], Results]:
    """What of example `one` changes when it is alone, and of the others when it holds NaN `at`.

    `names` are of results with a row for each example. Also the results beside NaN.
    """
    x, *weights = values
    together = call(values, gradients)
    alone = [x.detach()[one : one + 1].requires_grad_(), *weights]
    separate = call(alone, [g[one : one + 1] for g in gradients])
    broken = x.detach().clone()
    broken[one][at] = torch.nan
    beside = call([broken.requires_grad_(), *weights], gradients)
    others = [i for i in range(len(x)) if i != one]
    found = [f"{k} alone" for k in names if not torch.equal(separate[k][0], together[k][one])]
    found += [
        f"{k} beside NaN" for k in names if not torch.equal(beside[k][others], together[k][others])
    ]
    return found, beside


@contextlib.contextmanager
def poisoned_allocations() -> Iterator[None]:
    """Memory that torch hands to Python uninitialised holds NaN."""

    def poisoned(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def allocate_nan(*args: object, **kwargs: object) -> Tensor:
            new = allocate(*args, **kwargs)
            return new.fill_(torch.nan) if new.is_floating_point() else new

        return allocate_nan

    with contextlib.ExitStack() as stack:
        for place, name in ((torch, "empty"), (torch, "empty_like"), (Tensor, "new_empty")):
            stack.enter_context(mock.patch.object(place, name, poisoned(getattr(place, name))))
        yield


def poison_cached_memory() -> None:
    """The caching allocator's free blocks hold NaN."""
    blocks = [torch.full((size // 4,), torch.nan, device=DEVICE) for size in CACHED_BYTES]
    del blocks


@contextlib.contextmanager
def launched_with(choice: int) -> Iterator[None]:
    """Every kernel gets the launch options at this place of its list, counted in a circle."""

    def best(kernel: str, key: object, candidates: Sequence[object], *_: object) -> object:
        return candidates[choice % len(candidates)]

    with mock.patch("cherimoya.ops.autotune.best", best):
        yield


class Recorder(TorchDispatchMode):
    """Keeps the calls of cherimoya's operations."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable[..., object], tuple[object, ...]]] = []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if op.namespace == "cherimoya":
            self.calls.append((op, args))
        return op(*args, **kwargs or {})


def names_of(call: Callable[[], object]) -> list[str]:
    """The fused operations that a call makes."""
    with Recorder() as recorder:
        call()
    return [op.name().removeprefix("cherimoya::") for op, _ in recorder.calls]


def opchecks(
    call: Callable[[], object], values: Sequence[Tensor], tests: Sequence[str] = OPCHECKS
) -> dict[str, dict[str, str]]:
    """What torch.library.opcheck says to each fused operation that a call on `values` makes.

    Gradients are asked of a forward operation, for those of `values` that have one.
    """
    with Recorder() as recorder:
        call()
    found = {}
    for op, args in recorder.calls:
        forward = "backward" not in op.name()
        leaves = tuple(
            a.detach().requires_grad_(forward and any(a is v and v.requires_grad for v in values))
            if isinstance(a, Tensor)
            else a
            for a in args
        )
        checks = torch.library.opcheck(op, leaves, test_utils=tests, raise_exception=False)
        found[op.name()] = {test: str(result) for test, result in checks.items()}
    return found


def captured_graph(step: Callable[[], Results]) -> tuple[torch.cuda.CUDAGraph, Results]:
    """A CUDA graph of `step`, and what its replays write into."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    return graph, captured


def replayed(graph: torch.cuda.CUDAGraph, captured: Results) -> Results:
    """Copies of what a replay computes, over NaN."""
    for v in captured.values():
        v.fill_(torch.nan)
    graph.replay()
    return {name: v.clone() for name, v in captured.items()}


def interpreting() -> dict[str, str]:
    """The environment in which Triton's interpreter runs the kernels, on the CPU."""
    environment = clean_environment() | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("CHERIMOYA_KERNELS", None)
    return environment


def printed_by_the_interpreter(script: str, *arguments: str) -> str:
    """What a script prints whose kernels run in Triton's interpreter."""
    done = subprocess.run(
        [sys.executable, script, *arguments], env=interpreting(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Interpreter:
    """Another process in which Triton interprets, that makes the CHECKS of a script."""

    def __init__(self, script: str, log: Path) -> None:
        self.log = log
        with log.open("w") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, script], env=interpreting(),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True,
            )  # fmt: skip

    def __call__(self, name: str, case: Any = None, **more: object) -> Any:
        """The result of a check; fails the test if it raised."""
        request = {"check": name, "case": case and asdict(case), **more}
        print(json.dumps(request), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        assert line, f"the interpreter's process ended: {self.log.read_text()[-2000:]}"
        reply = json.loads(line)
        assert "failure" not in reply, reply["failure"]
        return reply["result"]

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=60)


def serve(checks: Checks, case: type) -> None:
    """Answer each request on stdin, a line of JSON, with its result or how it failed."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no reply
    torch.set_num_threads(1)
    for line in sys.stdin:
        request = json.loads(line)
        check, given = checks[request.pop("check")], request.pop("case")
        try:
            reply = {"result": check(*([case(**given)] if given else []), **request)}
        except Exception:
            reply = {"failure": traceback.format_exc()}
        print(json.dumps(reply), file=replies, flush=True)
