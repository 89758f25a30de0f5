"""The fused operations on a CPU: by the reference, and by the kernels in Triton's interpreter."""

import subprocess
import sys
from functools import partial
from typing import Any

import pytest
import torch
from kernel_cases import (
    CHECKS,
    NAMES,
    RESIDUAL_SCALE,
    Case,
    composed,
    exact,
    fused,
    inputs,
    output_gradient,
    results,
)
from kernels import (
    FORMULA_FACTOR,
    LAYOUTS,
    OPCHECKS,
    different,
    errors,
    interpreting,
    rms_error,
    serve,
)

from cherimoya.cheri import CheriBlock
from cherimoya.errors import ConfigError
from cherimoya.ops import reference

# Relative RMS errors, by the dtype of the tensor; where |mean| >> std, as many times the error of
# the formula in that dtype as FORMULA_FACTOR.
TOLERANCE = {"float32": 1e-5, "bfloat16": 4e-3, "float16": 5e-4}

OPS = ("conv_norm", "cheri_block")


def assert_accurate(found: dict[str, Any], by_formula: bool = False) -> None:
    """Every error is below the tolerance of its dtype, and a second call repeats the first."""
    for name, error in found["errors"].items():
        limit = TOLERANCE[found["dtypes"][name]]
        if by_formula:
            limit = max(limit, FORMULA_FACTOR * found["formula"][name])
        assert error < limit, f"{name}: {error:.2g}, of the formula {found['formula'][name]:.2g}"
    assert found["unrepeated"] == []


def slow(*cases: Case) -> list[Any]:
    return [pytest.param(case, marks=pytest.mark.slow) for case in cases]


# op, N, L, C, dilation
SHAPES = [
    Case("conv_norm", 3, 2, 24, 1),
    Case("conv_norm", 1, 13, 100, 8),  # L < 2 d
    Case("cheri_block", 1, 13, 24, 16),
    Case("cheri_block", 1, 70, 8, 64, trim=30),
    *slow(
        Case("conv_norm", 1, 1, 8, 1),
        Case("conv_norm", 2, 13, 40, 16),  # L < d
        Case("conv_norm", 1, 13, 96, 2**31 - 1),
        Case("cheri_block", 1, 1, 8, 1),
        Case("cheri_block", 3, 13, 8, 8, expansion=3),
        Case("conv_norm", 2, 71, 96, 4),
        Case("conv_norm", 1, 331, 8, 1),  # several tiles an example
        Case("cheri_block", 3, 2, 8, 1),
        Case("cheri_block", 1, 331, 8, 3, trim=1),
        Case("cheri_block", 3, 131, 24, 32, trim=40),
        Case("cheri_block", 2, 71, 40, 8, expansion=3),
        Case("cheri_block", 2, 13, 96, 4, trim=3),
        Case("cheri_block", 1, 70, 100, 64),
    ),
]


@pytest.mark.parametrize("case", SHAPES, ids=str)
def test_outputs_and_gradients_agree_with_float64_whatever_was_in_memory(case, interpreter):
    assert_accurate(interpreter("accuracy", case, twice=True))


@pytest.mark.parametrize("channels", [96, 100])
def test_a_wide_block_agrees_with_float64(channels, interpreter):
    case = Case("cheri_block", 2, 13, channels, 4, trim=1)
    assert interpreter("output_error", case) < TOLERANCE["float32"]


@pytest.mark.parametrize(
    "case",
    [
        *(Case("conv_norm", 2, 5, 8, 2, layout=layout) for layout in LAYOUTS),
        *(Case("cheri_block", 2, 5, 8, 2, layout=layout) for layout in ("columns", "expanded")),
        *slow(
            *(Case("cheri_block", 2, 5, 8, 2, layout=layout) for layout in ("transposed", "offset"))
        ),
    ],
    ids=str,
)
def test_inputs_and_gradients_may_have_any_layout(case, interpreter):
    assert_accurate(interpreter("accuracy", case, twice=False))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_conv_norm_of_half_inputs(dtype, interpreter):
    case = Case("conv_norm", 2, 13, 24, 4, dtype=dtype)
    found = interpreter("accuracy", case, twice=False)
    assert found["dtypes"] == {"out": dtype, "dx": dtype, "dconv_weight": "float32"}
    assert_accurate(found)


@pytest.mark.parametrize("op", OPS)
def test_a_mean_a_thousand_times_the_std(op, interpreter):
    found = interpreter("accuracy", Case(op, 2, 61, 8, 4, mean=1e3), twice=False)
    assert_accurate(found, by_formula=True)


@pytest.mark.parametrize("op", OPS)
def test_a_variance_below_epsilon(op, interpreter):
    assert_accurate(interpreter("accuracy", Case(op, 2, 13, 8, 4, std=1e-3), twice=False))


@pytest.mark.parametrize("op", OPS)
def test_partial_sums_of_many_tiles(op, interpreter):
    case = Case(op, 1, 131, 8, 100, mean=10.0)  # the tiles differ in mean
    assert_accurate(interpreter("in_many_tiles", case), by_formula=True)


@pytest.mark.slow
@pytest.mark.parametrize("choice", range(1, 10))
@pytest.mark.parametrize(
    "case", [Case("conv_norm", 1, 43, 64, 2), Case("cheri_block", 2, 43, 32, 2)], ids=str
)
def test_other_launch_options_are_as_accurate(case, choice, interpreter):
    assert_accurate(interpreter("by_launch_options", case, choice=choice))


@pytest.mark.slow
@pytest.mark.parametrize("choice", range(8))
def test_products_in_half_precision_are_as_good_as_tf32_whatever_the_scale(choice, interpreter):
    found = interpreter("half_products", Case("cheri_block", 2, 150, 8, 2), choice=choice)
    assert max(found.values()) < 1e-3, found


FULL_FP32 = [
    Case("cheri_block", 2, 70, 24, 8, trim=5),
    Case("cheri_block", 1, 1, 8, 1),
    Case("cheri_block", 1, 13, 40, 16, expansion=3),
    Case("cheri_block", 2, 13, 8, 4, layout="columns"),
    Case("cheri_block", 2, 13, 8, 4, std=1e-3),
    Case("cheri_block", 0, 13, 24, 4),
    Case("cheri_block", 2, 14, 8, 4, trim=7),
    *slow(Case("cheri_block", 1, 331, 96, 3), Case("cheri_block", 1, 70, 256, 64)),
]


@pytest.mark.parametrize("case", FULL_FP32, ids=str)
def test_a_block_in_full_fp32_from_products_of_halves(case, interpreter):
    found = interpreter("full_fp32", case)
    # Where the normalised input is all small, its low halves are among fp16's least numbers.
    limit = 1e-6 if case.std < 1e-2 else 5e-7
    for name, error in found["errors"].items():
        assert error <= max(limit, FORMULA_FACTOR * found["formula"][name]), name
    assert found["unrepeated"] == []
    assert all(found["alone"])


@pytest.mark.slow
def test_full_fp32_with_any_launch_options(interpreter):
    from cherimoya.ops.block.fp32_launch import FORWARD

    case = Case("cheri_block", 2, 150, 32, 2)
    for choice in range(len(FORWARD)):
        assert max(interpreter("full_fp32", case, choice=choice)["errors"].values()) < 5e-7


def test_full_fp32_where_the_mean_is_a_thousand_times_the_std(interpreter):
    found = interpreter("full_fp32", Case("cheri_block", 2, 61, 8, 4, mean=1e3))
    for name, error in found["errors"].items():
        assert error <= max(1e-6, FORMULA_FACTOR * found["formula"][name]), name


@pytest.mark.parametrize("gain", [1e-2, 1e3])
def test_full_fp32_of_small_and_large_activations(gain, interpreter):
    found = interpreter("full_fp32", Case("cheri_block", 2, 61, 24, 4), gain=gain)
    # Their low halves are among fp16's least numbers.
    assert max(found["errors"].values()) < 3e-6, found["errors"]


def test_torch_approves_of_the_block_in_full_fp32(interpreter):
    found = interpreter("full_fp32_opcheck", Case("cheri_block", 2, 13, 8, 4, trim=2))
    assert set(found.values()) == {"SUCCESS"}


# Nothing to compute: no examples, or a trim that takes every position.
EMPTY = [*(Case(op, 0, 13, 24, 4) for op in OPS), Case("cheri_block", 2, 14, 8, 4, trim=7)]


@pytest.mark.parametrize("case", EMPTY, ids=str)
def test_nothing_to_compute_gives_zero_gradients(case, interpreter):
    found = interpreter("accuracy", case, twice=True)
    assert set(found["errors"].values()) == {0.0}
    assert found["unrepeated"] == []


@pytest.mark.parametrize("op", OPS)
def test_an_example_does_not_depend_on_its_batch(op, interpreter):
    assert interpreter("batch", Case(op, 3, 13, 8, 4)) == []


@pytest.mark.parametrize("op", OPS)
def test_each_gradient_can_be_had_alone(op, interpreter):
    assert interpreter("partial_gradients", Case(op, 2, 5, 8, 2)) == []


def test_keeping_the_normalised_convolution_changes_no_bit(interpreter):
    assert interpreter("keeping", Case("cheri_block", 2, 13, 8, 4, trim=3)) == []


@pytest.mark.parametrize("op", OPS)
def test_a_second_backward_repeats_every_bit(op, interpreter):
    assert interpreter("second_backward", Case(op, 2, 13, 8, 4)) == []


def test_the_autograd_function_is_the_operation(interpreter):
    assert interpreter("as_function", Case("conv_norm", 1, 5, 8, 2)) == []


@pytest.mark.parametrize(
    "tests",
    [OPCHECKS, pytest.param(["test_aot_dispatch_dynamic"], marks=pytest.mark.slow)],
    ids=lambda tests: tests[-1],
)
@pytest.mark.parametrize("op", OPS)
def test_torch_approves_of_the_operations(op, tests, interpreter):
    found = interpreter("opchecks", Case(op, 1, 3, 8, 1), tests=tests)
    backward = {"conv_norm": [""], "cheri_block": ["_products", "_conv"]}[op]
    names = [f"cherimoya::{op}", *(f"cherimoya::{op}_backward{part}" for part in backward)]
    assert list(found) == names
    for checks in found.values():
        assert checks == dict.fromkeys(tests, "SUCCESS")


@pytest.mark.parametrize(
    ("case", "fast"),
    [
        (Case("conv_norm", 1, 3, 2, 1), True),
        pytest.param(
            Case("cheri_block", 1, 4, 2, 1, trim=1, expansion=1), True, marks=pytest.mark.slow
        ),
        pytest.param(Case("conv_norm", 2, 3, 2, 1), False, marks=pytest.mark.slow),
        pytest.param(Case("cheri_block", 1, 3, 2, 2, expansion=1), False, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_gradients_are_those_of_finite_differences(case, fast, interpreter):
    assert interpreter("gradcheck", case, fast=fast)


@pytest.mark.parametrize("op", OPS)
def test_an_output_without_gradient_gives_none(op, interpreter):
    assert all(interpreter("without_gradient", Case(op, 1, 3, 8, 1)))


@pytest.mark.slow
@pytest.mark.parametrize("op", OPS)
def test_a_compiled_call_has_the_same_numbers(op, interpreter):
    case = Case(op, 2, 5, 8, 2)
    found = interpreter("compiled", case, backends=["eager", "aot_eager"])
    assert found == {"eager": [], "aot_eager": []}


def test_conv_norm_under_autocast_is_in_bfloat16(interpreter):
    found = interpreter("autocast", Case("conv_norm", 2, 13, 24, 4))
    assert found["dtypes"] == {"out": "bfloat16", "dx": "float32", "dconv_weight": "float32"}
    assert found["error"] < 2 * TOLERANCE["bfloat16"]  # x and the output are both rounded


@pytest.mark.parametrize("op", OPS)
def test_weights_changed_in_place_are_seen(op, interpreter):
    found = interpreter("after_a_change", Case(op, 2, 13, 8, 2))
    assert len(found) == {"conv_norm": 1, "cheri_block": 3}[op]
    assert max(found.values()) < TOLERANCE["float32"], found


@pytest.mark.parametrize("choice", [None, "reference"])
@pytest.mark.parametrize("op", OPS)
def test_a_cpu_computes_by_the_reference(op, choice, plain_cpu):
    if choice:
        plain_cpu.setenv("CHERIMOYA_KERNELS", choice)
    case = Case(op, 2, 13, 24, 4)
    values, dout = inputs(case), output_gradient(case)
    by_reference = {
        "conv_norm": lambda *v: reference.dilated_conv_norm(*v, case.dilation),
        "cheri_block": lambda *v: reference.cheri_block(*v, 4, RESIDUAL_SCALE),
    }[op]
    found = results(partial(fused, case), values, dout)
    assert different(found, results(by_reference, values, dout)) == []


@pytest.mark.parametrize("choice", ["triton", "portable"])
@pytest.mark.parametrize("op", OPS)
def test_kernels_asked_for_where_they_cannot_run_are_refused(op, choice, plain_cpu):
    plain_cpu.setenv("CHERIMOYA_KERNELS", choice)
    case = Case(op, 2, 5, 8, 2)
    with pytest.raises(ConfigError, match=f"CHERIMOYA_KERNELS={choice}.*Unset it"):
        fused(case, *inputs(case))


@pytest.mark.parametrize("op", OPS)
def test_an_unknown_choice_is_answered_with_the_known_ones(op, plain_cpu):
    plain_cpu.setenv("CHERIMOYA_KERNELS", "nonsense")
    case = Case(op, 2, 5, 8, 2)
    with pytest.raises(
        ConfigError, match=r"CHERIMOYA_KERNELS=nonsense.*reference.*triton.*portable"
    ):
        fused(case, *inputs(case))


WRONG = {  # by input: the shape it gets, and what the message says of it
    0: ((5, 8), r"\(5, 8\).*\(N, L, C\)"),
    1: ((3, 9), r"\(3, 9\).*\(3, 8\)"),
    2: ((16, 9), r"\(16, 9\)"),
    3: ((8, 15), r"\(8, 15\)"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_shapes_that_do_not_fit_are_named(wrong, plain_cpu):
    shape, message = WRONG[wrong]
    for op in OPS[wrong > 1 :]:  # conv_norm has no linear weights
        case = Case(op, 2, 5, 8, 2)
        values = [v.detach() for v in inputs(case)]
        values[wrong] = torch.zeros(shape)
        with pytest.raises(ValueError, match=message):
            fused(case, *values)


@pytest.mark.parametrize(
    "case",
    [
        *(Case(op, 2, 5, 8, dilation) for op in OPS for dilation in (0, -1)),
        *(Case("cheri_block", 2, 5, 8, 2, trim=trim) for trim in (-1, 3)),
    ],
    ids=str,
)
def test_a_dilation_or_trim_out_of_range_is_refused(case, plain_cpu):
    name = f"trim={case.trim}" if case.trim else f"dilation={case.dilation}"
    with pytest.raises(ValueError, match=name):
        fused(case, *inputs(case))


@pytest.mark.parametrize("op", OPS)
def test_bfloat16_inputs_go_with_float32_weights_on_a_cpu(op, plain_cpu):
    case = Case(op, 2, 13, 24, 4, dtype="bfloat16")
    values, dout = inputs(case), output_gradient(case)
    found = results(partial(fused, case), values, dout)
    assert [found[name].dtype for name in NAMES[: len(found)]] == [
        torch.bfloat16, torch.bfloat16, *[torch.float32] * (len(values) - 1)
    ]  # fmt: skip
    # The products themselves are in bf16, so the gradients are worse than one rounding.
    assert max(errors(found, exact(case, values, dout)).values()) < 1e-2


@pytest.mark.parametrize("op", OPS)
def test_autocast_on_a_cpu_gives_bfloat16(op, plain_cpu):
    case = Case(op, 2, 13, 24, 4)
    values = inputs(case)
    with torch.autocast("cpu", torch.bfloat16):
        out = fused(case, *values)
    assert out.dtype == torch.bfloat16
    assert rms_error(out, composed(case, *values)) < 1e-2


def test_the_block_is_its_function(plain_cpu):
    torch.manual_seed(0)
    block = CheriBlock(24, dilation=4, residual_scale=RESIDUAL_SCALE)
    case = Case("cheri_block", 2, 13, 24, 4, trim=2)
    x = inputs(case)[0]
    assert torch.equal(block(x, trim=2), fused(case, x, *block.parameters()))


DISTRIBUTED = """
import sys
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel
from cherimoya.cheri import CheriBlock


def gradients(block, x):
    block(x).square().mean().backward()
    return [weight.grad for weight in block.parameters()]


def work(rank, store):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.manual_seed(0)
    block, x = CheriBlock(8, dilation=2), torch.randn(4, 9, 8)
    for weight in block.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    whole = [g.clone() for g in gradients(block, x)]
    block.zero_grad()
    shared = DistributedDataParallel(block)
    for a, b in zip(gradients(shared, x[2 * rank : 2 * rank + 2]), whole):
        assert (a - b.view_as(a)).norm() < 1e-5 * b.norm()
    dist.barrier()  # whose tensors are not Python's: no thread may hold one when Python ends
    del shared
    dist.destroy_process_group()


if __name__ == "__main__":
    mp.spawn(work, (sys.argv[1],), 2)
"""


@pytest.mark.slow
def test_two_processes_average_the_gradients_of_the_kernels(tmp_path):
    script = tmp_path / "distributed.py"
    script.write_text(DISTRIBUTED)
    done = subprocess.run(
        [sys.executable, script, tmp_path / "store"],
        env=interpreting(), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


if __name__ == "__main__":
    serve(CHECKS, Case)
