"""Kernels compiled side by side, in a process that takes itself for one with a GPU."""

import json
import subprocess
import sys

import pytest
import torch
from command_lines import clean_environment

from cherimoya.ops.precompile import compiled_together, is_precompiling

REHEARSE = """
import json, sys, warnings
from contextlib import nullcontext
import without_gpu
from without_gpu import NoCompiler, launched, training_step

import torch
from kernel_cases import different, poisoned_allocations
from training_runs import state_of
from triton.runtime.jit import JITFunction
from cherimoya.ops.precompile import compiled_together, is_precompiling
from cherimoya.training.capture import Runner

CPU, DO_COMPILE = torch.device("cpu"), JITFunction._do_compile


def step_and_batch(*overrides, precision="bf16"):
    # It has failed once: its optimizers have their buffers.
    step, batch = training_step(*overrides, n=2, window=331, trimming=60, precision=precision)
    step.failed.fill_(1.0)
    step._found_inf.fill_(1.0)  # as `settle` would, but no kernel runs here
    NoCompiler()
    step(batch())
    launched.clear()
    return step, batch


def rehearsed(overrides, precision):
    step, batch = step_and_batch("model.n_layers=3", *overrides, precision=precision)
    compiler = NoCompiler()
    state, generator = state_of(step), torch.get_rng_state()
    filters = list(warnings.filters)
    with poisoned_allocations(), compiled_together(CPU):
        step(batch())
    early, changed = len(launched), different(state, state_of(step))
    changed += [] if warnings.filters == filters else ["the filters of warnings"]
    changed += [] if torch.equal(generator, torch.get_rng_state()) else ["torch's generator"]
    asked = list(compiler.asked)
    step(batch())
    step.failed.fill_(0.0)
    step(batch())
    return {
        "asked": sorted(name for name, _, _ in asked),
        "twice": len(asked) - len({key for _, key, _ in asked}),
        "one after another": [name for name, _, main in asked if main],
        "early": early,
        "late": [name for name, _, _ in compiler.asked[len(asked):]],
        "unused": sorted({name for name, _, _ in asked} ^ set(launched)),
        "changed": changed,
    }


def failing(name):
    step, batch = step_and_batch("model.n_layers=1")
    compiler = NoCompiler([name])
    with compiled_together(CPU):
        step(batch())
    others = len(compiler.asked)
    try:
        step(batch())
    except RuntimeError as error:
        return {"said": str(error), "late": len(compiler.asked) - others, "others": others}


def interrupted():
    step, batch = step_and_batch("model.n_layers=1")
    compiler = NoCompiler()
    try:
        with compiled_together(CPU):
            step(batch())
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        restored = JITFunction._do_compile is DO_COMPILE and not is_precompiling()
        return {"asked": len(compiler.asked), "restored": restored}


def warmed_up():
    step, batch = step_and_batch("model.n_layers=1")
    compiler = NoCompiler()
    step.failed.fill_(0.0)
    before = state_of(step)
    Runner(step, batch, True, print)._warm_up()
    return {
        "one after another": [name for name, _, main in compiler.asked if main],
        "steps": launched.count("one_hot_kernel"),
        "changed": different(before, state_of(step)),
        "failed": float(step.failed),
    }


def in_earnest(together):
    small = ["model.n_filters=32", "model.n_layers=2"]
    step, batch = training_step(*small, n=2, window=331, trimming=60)
    with compiled_together(CPU) if together else nullcontext():
        step(batch())
    step(batch())


for name, *arguments in json.loads(sys.argv[1]):
    print(json.dumps(globals()[name](*arguments)))
"""

CASES = {
    "bf16": (["model.n_filters=32"], "bf16"),
    "tf32": (["model.n_filters=96"], "tf32"),
    "fp16": (["model.n_filters=64", "loss=fixed", "loss.profile_weight=1"], "fp16"),
    "not for Gluon": (["model.n_filters=40", "model.signal_groups=[2]"], "bf16"),
    "many taps": (["model.n_filters=32", "model.profile_kernel_size=75"], "bf16"),
    "controls": (["model.n_filters=32", "model.n_control_tracks=2"], "bf16"),
}


@pytest.fixture(scope="module")
def found() -> dict[str, dict]:
    """What the first case and each other check give, in one process for all."""
    pytest.importorskip("triton")
    checks = {"bf16": ("rehearsed", *CASES["bf16"]), "failing": ("failing", "loss_fwd_kernel")}
    checks |= {"interrupted": ("interrupted",), "warmed up": ("warmed_up",)}
    return dict(zip(checks, answers(*checks.values()), strict=True))


@pytest.fixture(scope="module")
def cases() -> dict[str, dict]:
    """What each case gives, in one process for all."""
    pytest.importorskip("triton")
    return dict(zip(CASES, answers(*(("rehearsed", *c) for c in CASES.values())), strict=True))


def answers(*checks: tuple[object, ...], **environment: str) -> list[dict]:
    """What these functions of REHEARSE return for these arguments, in one process."""
    around = {k: v for k, v in clean_environment().items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", REHEARSE, json.dumps(checks)],
        env=around | environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def compiles_nothing_after_its_rehearsal(found):
    assert len(found["asked"]) > 15
    assert found == {
        "asked": found["asked"],
        "twice": 0, "one after another": ["one_hot_kernel"], "early": 0, "late": [], "unused": [],
        "changed": [],
    }  # fmt: skip


@pytest.mark.slow
def test_a_step_after_its_rehearsal_compiles_nothing(found):
    compiles_nothing_after_its_rehearsal(found["bf16"])
    assert "conv_norm_fwd_kernel" not in found["bf16"]["asked"]  # it keeps what that recomputes


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_step_of_any_kind_compiles_nothing_after_its_rehearsal(case, cases):
    compiles_nothing_after_its_rehearsal(cases[case])


@pytest.mark.slow
def test_the_cases_ask_for_every_kind_of_kernel(cases):
    asked = {name for case in CASES for name in cases[case]["asked"]}
    for name in ("hopper_fwd_kernel", "hopper_bwd_kernel", "hopper_fwd_fp32_kernel",
                 "block_fwd_kernel", "scale_to_half_kernel", "heads_bwd_x_kernel",
                 "point_heads_bwd_kernel", "loss_bwd_kernel", "stem_bwd_kernel",
                 "values_kernel"):  # fmt: skip
        assert name in asked


def test_a_kernel_that_does_not_compile_is_left_to_its_launch(found):
    assert found["failing"]["others"] > 15  # the failing one included
    assert found["failing"]["said"] == "loss_fwd_kernel does not compile"
    assert found["failing"]["late"] == 1


def test_an_interrupted_rehearsal_compiles_nothing(found):
    assert found["interrupted"] == {"asked": 0, "restored": True}


def test_a_warm_up_begins_with_a_rehearsal_and_changes_nothing(found):
    assert found["warmed up"] == {
        "one after another": ["one_hot_kernel"],
        "steps": 3,
        "changed": [],
        "failed": 0.0,
    }


@pytest.mark.slow
def test_kernels_compiled_side_by_side_are_those_compiled_one_by_one(tmp_path):
    pytest.importorskip("triton")
    kernels = []
    for together in (False, True):
        cache = tmp_path / f"{together}"
        answers(("in_earnest", together), TRITON_CACHE_DIR=str(cache))
        kernels.append({p.relative_to(cache): p.read_bytes() for p in cache.rglob("*.cubin")})
    assert len(kernels[0]) > 15
    assert kernels[0] == kernels[1]


def test_on_a_cpu_nothing_is_left_out(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with compiled_together(torch.device("cpu")):
        assert not is_precompiling()
