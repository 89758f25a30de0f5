"""Calls of the fused block and of its convolution, and what is checked of them on the CPU."""

import contextlib
from dataclasses import asdict, dataclass, replace
from functools import partial
from unittest import mock

import kernels
import torch
from kernels import (
    Results,
    different,
    doubles,
    errors,
    laid_out,
    launched_with,
    poisoned_allocations,
    rms_error,
)
from torch import Tensor

from cherimoya.ops import reference
from cherimoya.ops.block.op import cheri_block, fused_block_full_fp32
from cherimoya.ops.conv_norm.op import FusedDilatedConvNormFunc, fused_dilated_conv_norm
from cherimoya.ops.reference import EPS

RESIDUAL_SCALE = 0.7
NAMES = ("out", "dx", "dconv_weight", "dlinear1_weight", "dlinear2_weight")
# N, L, d: one and two positions, L < d, L < 2 d, L no multiple of any tile
LENGTHS = [
    (16, 1, 1),
    (16, 2, 256),
    (2, 77, 256),
    (2, 77, 4),
    (3, 300, 16),
    (2, 301, 256),
    (1, 1024, 64),
    (2, 2114, 1),
    (2, 2114, 256),
]
ROWS = NAMES[:2]  # those with a row for each example

results = partial(kernels.results, NAMES)  # an operation without linear weights has three


@dataclass(frozen=True)
class Case:
    """One call of an operation, "conv_norm" or "cheri_block"."""

    op: str
    n: int
    length: int
    channels: int
    dilation: int
    trim: int = 0
    expansion: int = 2
    dtype: str = "float32"  # of x; the weights are fp32
    layout: str = "contiguous"  # see `kernels.laid_out`
    mean: float = 0.0
    std: float = 1.0

    def __str__(self) -> str:
        first, *rest = asdict(self).items()
        default = Case("", 0, 0, 0, 0)
        given = [f"{k}={v}" for k, v in rest if v != getattr(default, k) or k == "n"]
        return " ".join([first[1], *given])


def inputs(case: Case, device: str = "cpu") -> list[Tensor]:
    """x and the weights, all with gradients, far from their near-identity start."""
    generator = torch.Generator().manual_seed(case.length)
    c, hidden = case.channels, case.expansion * case.channels
    shapes = [(case.n, case.length, c), (3, c), (hidden, c), (c, hidden)]
    scales = [case.std, 1.0, c**-0.5, 2 * hidden**-0.5]
    values = [
        s * torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape, s in zip(shapes, scales, strict=True)
    ]
    x, *weights = values if case.op == "cheri_block" else values[:2]
    x = laid_out((x + case.mean).to(device, getattr(torch, case.dtype)), case.layout, 0)
    inner = "contiguous" if case.layout == "expanded" else case.layout
    weights = [laid_out(w.to(device, torch.float32), inner) for w in weights]
    return [v.requires_grad_() for v in (x, *weights)]


def output_gradient(case: Case, device: str = "cpu") -> Tensor:
    """A gradient of the output."""
    generator = torch.Generator().manual_seed(1)
    shape = (case.n, case.length - 2 * case.trim, case.channels)
    dout = torch.randn(shape, generator=generator, dtype=torch.float64)
    return laid_out(dout.to(device, getattr(torch, case.dtype)), case.layout, 2)


def fused(case: Case, *values: Tensor) -> Tensor:
    """The operation as a user calls it."""
    if case.op == "conv_norm":
        return fused_dilated_conv_norm(*values, case.dilation)
    return cheri_block(*values, case.dilation, RESIDUAL_SCALE, trim=case.trim)


def composed(case: Case, *values: Tensor) -> Tensor:
    """The operation's formula in PyTorch, in the dtype of x."""
    if case.op == "conv_norm":
        return reference.dilated_conv_norm(*values, case.dilation)
    return reference.cheri_block_composed(*values, case.dilation, RESIDUAL_SCALE, trim=case.trim)


def exact(case: Case, values: list[Tensor], dout: Tensor) -> Results:
    """`results` of the formula in float64, for the very same numbers."""
    return results(partial(composed, case), doubles(values), dout.double())


def batch_differences(case: Case, values: list[Tensor], dout: Tensor, one: int) -> list[str]:
    """What of example `one` changes when it is alone, and of the others when it holds NaN."""

    def call(values: list[Tensor], gradients: list[Tensor]) -> Results:
        return results(partial(fused, case), values, *gradients)

    at = (case.length // 2, 0)
    found, beside = kernels.batch_differences(call, values, [dout], one, ROWS, at)
    return found + ([] if beside["out"][one].isnan().all() else ["NaN is lost"])


def accuracy(case: Case, twice: bool) -> dict[str, object]:
    """Errors of the kernels and of the formula in that dtype, and what a second call changes.

    Uninitialised memory holds NaN in the second call.
    """
    values, dout = inputs(case), output_gradient(case)
    call = partial(fused, case)
    first = results(call, values, dout)
    expected = exact(case, values, dout)
    unrepeated = []
    if twice:
        with poisoned_allocations():
            unrepeated = different(first, results(call, values, dout))
    return {
        "errors": errors(first, expected),
        "formula": errors(results(partial(composed, case), values, dout), expected),
        "dtypes": {name: str(v.dtype).removeprefix("torch.") for name, v in first.items()},
        "unrepeated": unrepeated,
    }


def in_many_tiles(case: Case) -> dict[str, object]:
    """`accuracy` where an example's partial sums are added up before they are read."""
    from cherimoya.ops.conv_norm import launch as conv_norm_launch

    with mock.patch.object(conv_norm_launch, "MANY_TILES", 1):
        return accuracy(case, twice=False)


def by_launch_options(case: Case, choice: int) -> dict[str, object]:
    """`accuracy` with other launch options than the default."""
    with launched_with(choice):
        return accuracy(case, twice=False)


def half_products(case: Case, choice: int) -> dict[str, float]:
    """Errors of fp32 multiplied in fp16, as on a GPU, of gradients that grow along the sequence."""
    values, dout = inputs(case), output_gradient(case)
    dout = dout * torch.logspace(-8, -3, dout.shape[1])[:, None]
    places = (f"cherimoya.ops.block.{room}.operand_dtype" for room in ("op", "weights"))
    with contextlib.ExitStack() as stack:
        for place in places:
            stack.enter_context(mock.patch(place, return_value=torch.float16))
        stack.enter_context(launched_with(choice))
        return errors(results(partial(fused, case), values, dout), exact(case, values, dout))


def output_error(case: Case) -> float:
    """Error of an output without gradients."""
    values = [v.detach() for v in inputs(case)]
    return rms_error(fused(case, *values), composed(case, *(v.double() for v in values)))


def full_fp32(case: Case, choice: int = 0, gain: float = 1.0) -> dict[str, object]:
    """The block in full fp32, which the interpreter's own route does not take.

    `gain` multiplies linear1's weights and divides linear2's. Errors of the kernels and of the
    formula in fp32, with gradients, and what changes in a second call, in which uninitialised
    memory holds NaN, and in the outputs of examples that are alone.
    """
    values, dout = [v.detach() for v in inputs(case)], output_gradient(case)
    dout[..., : case.length // 3, :] *= 1e-3  # as of positions of few counts
    values = [values[0], values[1], gain * values[2], values[3] / gain]
    values = [v.requires_grad_() for v in values]
    with launched_with(choice):
        found = results(partial(full_fp32_block, case), values, dout)
        with poisoned_allocations():
            again = results(partial(full_fp32_block, case), values, dout)
        x, *weights = (v.detach() for v in values)
        alone = [full_fp32_block(case, x[i : i + 1], *weights)[0] for i in range(case.n)]
    expected = exact(case, values, dout)
    return {
        "errors": errors(found, expected),
        "formula": errors(results(partial(composed, case), values, dout), expected),
        "unrepeated": different(found, again),
        "alone": [torch.equal(found["out"][i], one) for i, one in enumerate(alone)],
    }


def full_fp32_block(case: Case, *values: Tensor) -> Tensor:
    """The operation's output."""
    return fused_block_full_fp32(*values, case.dilation, RESIDUAL_SCALE, EPS, case.trim)[0]


def full_fp32_opcheck(case: Case) -> dict[str, str]:
    """What torch.library.opcheck says to it."""
    values = [v.detach() for v in inputs(case)]
    arguments = (*values, case.dilation, RESIDUAL_SCALE, EPS, case.trim)
    tests = ("test_schema", "test_faketensor")
    return torch.library.opcheck(fused_block_full_fp32, arguments, test_utils=tests)


def batch(case: Case) -> list[str]:
    return batch_differences(case, inputs(case), output_gradient(case), one=1)


def partial_gradients(case: Case) -> list[str]:
    """Which gradients change when those of x, or those of the weights, are not asked for."""
    values, dout = inputs(case), output_gradient(case)
    together = results(partial(fused, case), values, dout)
    found = []
    for asked in (slice(0, 1), slice(1, None)):
        leaves = [v.detach() for v in values]
        wanted = [v.requires_grad_() for v in leaves[asked]]
        gradients = torch.autograd.grad(fused(case, *leaves), wanted, dout)
        names = NAMES[1:][asked]
        found += different(dict(zip(names, gradients, strict=False)), together)
    return found


def keeping(case: Case) -> list[str]:
    """What changes when the normalised convolution is kept for the backward."""
    call, values, dout = partial(fused, case), inputs(case), output_gradient(case)
    again = results(call, values, dout)
    with mock.patch("cherimoya.ops.block.op.total_memory", return_value=2**40):
        return different(again, results(call, values, dout))


def second_backward(case: Case) -> list[str]:
    """What a second backward of one forward changes, with what is kept dropped in the first."""
    values, dout = inputs(case), output_gradient(case)
    with mock.patch("cherimoya.ops.block.op.total_memory", return_value=2**40):
        out = fused(case, *values)
        once, twice = (torch.autograd.grad(out, values, dout, retain_graph=True) for _ in "12")
    return different(
        dict(zip(NAMES[1:], once, strict=False)), dict(zip(NAMES[1:], twice, strict=False))
    )


def as_function(case: Case) -> list[str]:
    """What `FusedDilatedConvNormFunc` computes otherwise than `fused_dilated_conv_norm`."""
    values, dout = inputs(case), output_gradient(case)
    ours = results(partial(fused, case), values, dout)
    function = results(lambda *v: FusedDilatedConvNormFunc.apply(*v, case.dilation), values, dout)
    return different(ours, function)


def opchecks(case: Case, tests: list[str]) -> dict[str, dict[str, str]]:
    """What torch.library.opcheck says to the forward and the backward operation."""
    values, dout = inputs(case), output_gradient(case)
    return kernels.opchecks(lambda: results(partial(fused, case), values, dout), values, tests)


def gradcheck(case: Case, fast: bool) -> bool:
    """torch's comparison with differences, in fp32."""
    return torch.autograd.gradcheck(
        partial(fused, case), inputs(case), eps=5e-3, atol=2e-3, rtol=1e-2, fast_mode=fast,
        check_undefined_grad=False,
    )  # fmt: skip


def without_gradient(case: Case) -> list[bool]:
    """Whether each input's gradient is missing or zero where the output has none."""

    class Stop(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, y: Tensor) -> Tensor:
            return y.clone()

        @staticmethod
        def backward(ctx: object, dy: Tensor) -> None:
            return None

    values = inputs(case)
    y = Stop.apply(fused(case, *values))
    gradients = torch.autograd.grad(y, values, torch.ones_like(y), allow_unused=True)
    return [g is None or not g.any().item() for g in gradients]


def compiled(case: Case, backends: list[str]) -> dict[str, list[str]]:
    """What torch.compile changes, at one shape and at two others, for which it takes any."""
    call, found = partial(fused, case), {}
    other = replace(case, n=case.n + 1, length=case.length + 2)
    shapes = (case, other, replace(other, channels=case.channels + 8))
    joint = ((64, 65, 192), (96, 65, 192))  # as on a Hopper GPU
    with mock.patch("cherimoya.ops.block.launch.joint_sizes", return_value=joint):
        for backend in backends:
            torch.compiler.reset()
            function = torch.compile(call, backend=backend, fullgraph=True)
            found[backend] = []
            for shape in shapes:
                values, dout = inputs(shape), output_gradient(shape)
                eager = results(call, values, dout)
                found[backend] += different(eager, results(function, values, dout))
    return found


def autocast(case: Case) -> dict[str, object]:
    """The dtypes of the output and of every gradient, and the output's error."""
    values = inputs(case)
    with torch.autocast("cpu", torch.bfloat16):
        found = results(partial(fused, case), values, output_gradient(case).bfloat16())
    dtypes = {name: str(v.dtype).removeprefix("torch.") for name, v in found.items()}
    return {"dtypes": dtypes, "error": rms_error(found["out"], composed(case, *values))}


def after_a_change(case: Case) -> dict[str, float]:
    """Error of the output once each weight in turn was changed in place."""
    x, *weights = (v.detach() for v in inputs(case))
    before, found = fused(case, x, *weights), {}
    for name, weight in zip(NAMES[2:], weights, strict=False):
        weight.mul_(-1.5)
        after = fused(case, x, *weights)
        assert not torch.equal(before, after), name
        before = after
        found[name] = rms_error(after, composed(case, *(v.double() for v in (x, *weights))))
    return found


CHECKS = {
    check.__name__: check
    for check in (
        accuracy, in_many_tiles, by_launch_options, half_products, output_error, full_fp32,
        full_fp32_opcheck, batch,
        partial_gradients, keeping, second_backward, as_function, opchecks, gradcheck,
        without_gradient, compiled, autocast, after_a_change,
    )
}  # fmt: skip
