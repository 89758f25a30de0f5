"""The engine on a GPU: trains, repeats itself, resumes to the bit and agrees with the CPU."""

import json
import re
import signal
import subprocess
import time
import warnings

import numpy as np
import pytest
import torch
from command_lines import TRAIN, clean_environment, wait_until
from configs import composed
from training_runs import assert_same_run

import cherimoya
from cherimoya import Cherimoya
from cherimoya.config.schema import build
from cherimoya.config.train import TrainConfig
from cherimoya.data.batches import Batch
from cherimoya.distributed.processes import Processes
from cherimoya.genome.sequence import one_hot
from cherimoya.training.capture import Runner
from cherimoya.training.step import TrainingStep

pytestmark = pytest.mark.gpu

# Validation metrics of two precisions on the embedded data differ as those of two seeds do.
NOISE = {"profile_pearson": 0.02, "count_pearson": 0.05}
LOSS_NOISE = 0.02  # of an epoch's mean training loss


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


@pytest.fixture(autouse=True)
def nothing_is_tuned(monkeypatch, tmp_path):
    """The default launch options."""
    monkeypatch.setenv("CHERIMOYA_AUTOTUNE", "0")
    monkeypatch.setenv("CHERIMOYA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def runs(cherimoya_train, train_arguments, tmp_path):
    """Runs with the given overrides, by name; their folders."""

    def make(**overrides):
        for name, arguments in overrides.items():
            done = cherimoya_train(
                *train_arguments, "trainer=gpu", f"hydra.run.dir={name}", *arguments
            )
            assert done.returncode == 0, done.stderr
            (tmp_path / name / "printed").write_text(done.stdout)
        return [tmp_path / name for name in overrides]

    return make


@pytest.mark.parametrize("precision", ["bf16", "fp16", "tf32", "fp32"])
def test_captured_eager_streamed_and_repeated_runs_are_equal_to_the_bit(runs, precision):
    same = f"trainer.precision={precision}"
    first, *others = runs(
        captured=[same], again=[same], eager=[same, "trainer.cuda_graph=false"],
        streamed=[same, "data.placement=stream"],
    )  # fmt: skip
    assert "one CUDA graph a step" in (first / "printed").read_text()
    for other in others:
        assert_same_run(first, other)


def test_the_recommended_recipe_is_captured_also_when_one_loss_weight_is_frozen(runs):
    same = ["optim=recommended", "model.count_bias=mean", "loss.freeze_share=0.8"]
    first, second = runs(captured=same, eager=[*same, "trainer.cuda_graph=false"])
    assert "one CUDA graph a step" in (first / "printed").read_text()
    assert rows(first)[0]["loss/frozen"] == 1  # lw1, while lw0 is trained
    assert_same_run(first, second)


@pytest.mark.parametrize(
    "how",
    [[], ["trainer.cuda_graph=false"], ["trainer.accumulate=2"],
     ["-m", "seed=0,1", "hydra/launcher=packed"]],
    ids=" ".join,
)  # fmt: skip
def test_no_warning_of_torchs_own_reaches_the_user(how, cherimoya_train, train_arguments, tmp_path):
    cold = {"TRITON_CACHE_DIR": str(tmp_path / "triton"), "PYTHONWARNINGS": "default"}
    done = cherimoya_train(*train_arguments, "trainer=gpu", *how, **cold)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stdout + done.stderr


@pytest.fixture
def one_of_two(tmp_path):
    """A process that takes itself for one of two that share a model."""
    where = f"file://{tmp_path / 'rendezvous'}"
    torch.distributed.init_process_group("nccl", init_method=where, rank=0, world_size=1)
    yield Processes(rank=0, world=2)
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("graph", [True, False])
def test_gradients_are_shared_on_the_stream_that_made_them(graph, one_of_two):
    config = build(TrainConfig, composed("train", ["model=tiny"]))
    torch.manual_seed(0)
    model = Cherimoya(8, 2, signal_groups=[1], trimming=20).cuda()
    step = TrainingStep(model, config.loss, config.optim, 10, 9, "bf16", processes=one_of_two)
    X = torch.nn.functional.one_hot(torch.randint(4, (4, 200)), 4).mT.float().cuda()
    batch = Batch(X, torch.ones(4, 1, 160).cuda(), None)
    said = []
    runner = Runner(step, lambda: [batch], graph, said.append)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(4):
            runner()
        torch.cuda.synchronize()
    assert [str(w.message) for w in seen] == []
    assert said == []
    assert int(step.count) == 4


def test_muons_step_beside_the_stems_backward_changes_what_it_changes_alone():
    config = build(TrainConfig, composed("train", ["optim=muon_adamw_sgd"]))
    X = torch.nn.functional.one_hot(torch.randint(4, (64, 2114)), 4).mT.float().cuda()
    batch = Batch(X, torch.poisson(torch.ones(64, 1, 1000)).cuda(), None)

    def trained(graph: bool, early: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = Cherimoya().cuda()
        step = TrainingStep(model, config.loss, config.optim, 10, 9, "bf16")
        assert model.multiprocessors_taken == 18
        if not early:
            step._early = None
        run = Runner(step, lambda: [batch], graph, pytest.fail)
        for _ in range(10):
            run()
            if not graph:
                torch.cuda.synchronize()
        assert int(step.count) == 10
        return [p.detach().clone() for p in model.parameters()] + step.ema.average

    expected = trained(graph=False, early=False)
    for graph in (True, False):
        found = trained(graph, early=True)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_packed_runs_are_those_alone_to_the_bit(cherimoya_train, train_arguments, tmp_path):
    grid = ["-m", *train_arguments, "trainer=gpu", "model.n_filters=8,32", "seed=0,1"]
    for name, launcher in (("alone", "basic"), ("packed", "packed")):
        done = cherimoya_train(*grid, f"hydra/launcher={launcher}", f"hydra.sweep.dir={name}")
        assert done.returncode == 0, done.stderr
    for run in (tmp_path / "alone").glob("*/"):
        assert_same_run(run, tmp_path / "packed" / run.name)


def test_the_time_a_step_takes_is_told_before_the_end(cherimoya_train, tmp_path):
    done = cherimoya_train(
        "trainer=gpu", "model.n_filters=96", "model.n_layers=9", "logger=none",
        "trainer.plots=false", "hydra.run.dir=run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # A tiny model's steps take no longer than to ask for them, which the estimate leaves out.
    told = float(re.search(r"([\d.]+) ms a step: about", done.stdout)[1])
    assert told == pytest.approx(summary(tmp_path / "run")["speed"]["ms_per_step"], rel=0.5)


def test_pieces_of_a_batch_train_like_the_whole(runs):
    whole, pieces = runs(
        whole=["trainer.precision=fp32"],
        pieces=["trainer.precision=fp32", "trainer.accumulate=2"],
    )
    for a, b in zip(rows(whole), rows(pieces), strict=True):
        assert a["train/loss"] == pytest.approx(b["train/loss"], rel=1e-3)


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_and_resumed_run_equals_an_undisturbed_one(
    kill, runs, cherimoya_train, train_arguments, tmp_path
):
    many = ["trainer.max_epochs=40"]
    (whole,) = runs(whole=many)
    run = tmp_path / "killed"
    command = [
        *TRAIN, *train_arguments, "trainer=gpu", *many, f"hydra.run.dir={run}",
        "trainer.checkpoint_minutes=1e-5",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=tmp_path, env=clean_environment(), stdout=subprocess.PIPE, text=True
    )
    found = run / "metrics.jsonl"
    wait_until(lambda: found.exists() and found.stat().st_size > 0)
    time.sleep(0.05)
    process.send_signal(kill)
    process.communicate(timeout=60)
    assert not (run / "summary.json").exists(), "killed too late to test anything"
    resumed = cherimoya_train(f"trainer.resume={run}", "trainer.checkpoint_minutes=5")
    assert resumed.returncode == 0, resumed.stderr
    assert_same_run(whole, run)


def test_a_loss_that_is_not_finite_stops_the_run_and_spoils_nothing(
    cherimoya_train, train_arguments, tmp_path
):
    # The rate is small in the first epoch, which ends in a checkpoint.
    done = cherimoya_train(
        *train_arguments, "trainer=gpu", "optim.adamw.lr=1e30", "optim.warmup_start=1e-33",
        "optim.warmup_epochs=2", "trainer.checkpoint_minutes=1e-6", "hydra.run.dir=run",
    )  # fmt: skip
    assert done.returncode == 1
    assert "the loss is not finite at step" in done.stderr
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    if last.exists():
        for name, value in torch.load(last, weights_only=True)["step"]["model"].items():
            assert value.isfinite().all(), name


def test_a_profile_of_some_steps(runs):
    (run,) = runs(run=["trainer.profile=true", "trainer.max_epochs=8"])
    assert "Self CUDA" in (run / "profile" / "table.txt").read_text()
    assert (run / "profile" / "trace.json").stat().st_size > 1000
    speed = summary(run)["speed"]
    assert speed["ms_per_step"] > 0
    assert speed["peak_memory_mb"] > 0


@pytest.mark.slow
def test_every_precision_and_path_learns_the_same_on_the_embedded_data(cherimoya_train, tmp_path):
    path = {"reference": {"CHERIMOYA_KERNELS": "reference"}}
    found = {}
    for name in ("fp32", "reference", "tf32", "bf16", "fp16"):
        precision = "fp32" if name == "reference" else name
        done = cherimoya_train(
            "logger=none", "trainer=gpu", "trainer.batch_size=8", "trainer.max_epochs=8",
            f"trainer.precision={precision}", f"hydra.run.dir={name}", timeout=300,
            **path.get(name, {}),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found[name] = tmp_path / name
    for name, run in found.items():
        for row, expected in zip(rows(run), rows(found["fp32"]), strict=True):
            assert row["train/loss"] == pytest.approx(expected["train/loss"], rel=LOSS_NOISE), name
        for metric, noise in NOISE.items():
            score, expected = summary(run)["test"][metric], summary(found["fp32"])["test"][metric]
            assert score == pytest.approx(expected, abs=noise), (name, metric)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="torch sees one GPU")
@pytest.mark.parametrize("graph", ["true", "false"])
def test_two_gpus_train_like_one(runs, graph):
    same = ["trainer.precision=fp32", f"trainer.cuda_graph={graph}"]
    one, two, again = runs(
        one=same, two=[*same, "trainer.devices=2"], again=[*same, "trainer.devices=2"]
    )
    assert_same_run(two, again)
    for a, b in zip(rows(one), rows(two), strict=True):
        assert a["train/loss"] == pytest.approx(b["train/loss"], rel=1e-3)
        assert a["valid/profile_pearson"] == pytest.approx(b["valid/profile_pearson"], abs=1e-2)


def test_a_run_on_the_gpu_learns_what_the_cpu_learns(cherimoya_train, train_arguments, tmp_path):
    for device in ("gpu", "cpu"):
        done = cherimoya_train(
            *train_arguments, f"trainer={device}", "trainer.precision=fp32",
            f"hydra.run.dir={device}",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    first, second = rows(tmp_path / "gpu")[0], rows(tmp_path / "cpu")[0]
    assert first["train/loss"] == pytest.approx(second["train/loss"], rel=1e-3)


def test_predictions_agree_with_the_cpu():
    torch.manual_seed(0)
    model = Cherimoya(n_filters=32, n_layers=5, signal_groups=[2], profile_kernel_size=9)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    codes = torch.randint(0, 4, (3, 400))
    X = torch.nn.functional.one_hot(codes, 4).mT.float()
    with torch.no_grad():
        expected = model(X)
        found = model.cuda()(X.cuda())
    for a, b in zip(found, expected, strict=True):
        assert (a.cpu() - b).norm() < 1e-4 * b.norm()


BIAS = [
    "model.bias=train", "bias_model.n_filters=64", "bias_model.max_epochs=2",
    "bias_model.background_below=[1000]", "bias_model.gpu_min_steps=null",
]  # fmt: skip


def test_a_bias_model_is_captured_with_the_step_and_kept_to_the_bit(runs):
    first, again, eager = runs(captured=BIAS, again=BIAS, eager=[*BIAS, "trainer.cuda_graph=false"])
    assert "one CUDA graph a step" in (first / "printed").read_text()
    assert_same_run(first, again)
    assert_same_run(first, eager)
    bias = torch.load(first / "bias/background_below=1000/checkpoints/best.pt", weights_only=True)
    for name in ("best.pt", "final.pt"):
        own = torch.load(first / "checkpoints" / name, weights_only=True)["state_dict"]
        for key, value in bias["state_dict"].items():
            if key != "linear.bias":
                assert torch.equal(own[f"bias_model.{key}"], value), key


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="torch sees one GPU")
def test_two_gpus_share_one_bias_model(runs):
    same, two = [*BIAS, "trainer.precision=fp32"], "trainer.devices=2"
    one, first, again = runs(one=same, first=[*same, two], again=[*same, two])
    assert_same_run(first, again)
    assert_same_run(one / "bias/background_below=1000", first / "bias/background_below=1000")
    for a, b in zip(rows(one), rows(first), strict=True):
        assert a["train/loss"] == pytest.approx(b["train/loss"], rel=1e-3)


@pytest.mark.parametrize("bias", [True, False])
def test_with_a_bias_model_a_gpu_answers_as_the_cpu_does(bias):
    torch.manual_seed(0)
    model = Cherimoya(96, 9, bias_model=Cherimoya(64, 4))
    for p in model.parameters():
        p.data += 0.02 * torch.randn_like(p)
    model.with_bias = bias
    codes = np.random.default_rng(0).integers(0, 4, (8, 2114)).astype(np.uint8)
    here = cherimoya.predict(model, one_hot(codes))
    there = cherimoya.predict(model, one_hot(codes), device="cuda")
    assert (here.logits - there.logits).abs().max() < 1e-4
    assert (here.log_counts - there.log_counts).abs().max() < 1e-4
