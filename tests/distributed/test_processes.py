"""Several processes train one model: as one would, whoever starts them, whatever interrupts."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from command_lines import TRAIN, clean_environment, wait_until
from loci_files import loci
from training_runs import assert_same_run

from cherimoya import Cherimoya
from cherimoya.data.feed import Resident
from cherimoya.distributed import launch
from cherimoya.distributed.processes import Processes
from cherimoya.errors import ConfigError
from cherimoya.evaluation.scores import evaluate
from cherimoya.inference.cuda_graph import CUDAGraphModel

TWO = ["trainer.device=cpu", "trainer.devices=2"]


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_alike(a: Path, b: Path) -> None:
    """The same numbers up to the order of sums."""
    assert len(rows(a)) == len(rows(b)) > 0
    for first, second in zip(rows(a), rows(b), strict=True):
        assert first.keys() == second.keys()
        for key in ("train/loss", "valid/profile_mnll", "valid/count_mse"):
            assert first[key] == pytest.approx(second[key], rel=1e-3), key


@pytest.fixture
def one(cherimoya_train, train_arguments, tmp_path):
    done = cherimoya_train(*train_arguments, "hydra.run.dir=one")
    assert done.returncode == 0, done.stderr
    return tmp_path / "one"


@pytest.mark.slow
def test_two_processes_train_like_one_and_one_of_them_speaks(
    one, cherimoya_train, train_arguments, tmp_path
):
    done = cherimoya_train(*train_arguments, *TWO, "hydra.run.dir=two")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert_alike(one, tmp_path / "two")
    assert done.stdout.count("Cherimoya 0") == done.stdout.count("epoch 0 ") == 1
    assert "2 x CPU" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "two"]
    status = json.loads((tmp_path / "two" / "status.json").read_text())
    assert status["state"] == "done"


THREADS = """
import pathlib, sys, torch
from cherimoya.distributed.processes import joined

def gloo():
    names = [path.read_text() for path in pathlib.Path("/proc/self/task").glob("*/comm")]
    return sum("gloo" in name for name in names)

with joined(torch.device("cpu")) as processes:
    processes.gathered([1])
    before = gloo()
sys.stdout.write(f"{before > 0} {gloo()}\\n")  # in one piece, beside the other process
sys.stdout.flush()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the names of threads in /proc")
@pytest.mark.slow
def test_no_thread_of_a_left_group_meets_the_end_of_python(tmp_path):
    script = tmp_path / "threads.py"
    script.write_text(THREADS)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         script], env=clean_environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["True 0"] * 2, done.stderr


@pytest.mark.slow
def test_torchrun_starts_the_same_run(one, cherimoya_train, train_arguments, tmp_path):
    torchrun = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
        "-m", "cherimoya.cli",
    ]  # fmt: skip
    for arguments in ([*train_arguments, "trainer.device=cpu"], ["trainer.resume={}"]):
        run = next(tmp_path.glob("outputs/*/*/"), None)  # the second time it has nothing left to do
        done = subprocess.run(
            [*torchrun, *(a.format(run) for a in arguments)], cwd=tmp_path,
            env=clean_environment(), capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (run,) = tmp_path.glob("outputs/*/*/")
        assert_alike(one, run)
        assert done.stdout.count("best epoch") == 1


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_of_two_goes_on_with_one_or_two(
    kill, one, cherimoya_train, train_arguments, tmp_path
):
    whole = cherimoya_train(*train_arguments, *TWO, "hydra.run.dir=whole")
    assert whole.returncode == 0, whole.stderr
    run = tmp_path / "stopped"
    process = subprocess.Popen(
        [*TRAIN, *train_arguments, *TWO, f"hydra.run.dir={run}"], cwd=tmp_path,
        env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    found = run / "metrics.jsonl"
    wait_until(lambda: found.exists() and found.stat().st_size > 0)
    time.sleep(0.05)
    process.send_signal(kill)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + kill, errors
    assert "Traceback" not in errors
    assert f"trainer.resume={run.name}" in output
    assert json.loads((run / "status.json").read_text())["state"] == "interrupted"
    resumed = cherimoya_train(f"trainer.resume={run}")
    assert resumed.returncode == 0, resumed.stderr
    assert_same_run(tmp_path / "whole", run)


@pytest.mark.slow
def test_frozen_loss_weights_survive_a_resume_of_two(cherimoya_train, train_arguments, tmp_path):
    frozen = [*train_arguments, *TWO, "loss.freeze_below=1e9", "trainer.max_epochs=4"]
    whole = cherimoya_train(*frozen, "hydra.run.dir=whole")
    assert whole.returncode == 0, whole.stderr
    assert "epoch 0: the loss weights have settled" in whole.stdout
    process = subprocess.Popen(
        [*TRAIN, *frozen, "hydra.run.dir=run"], cwd=tmp_path, env=clean_environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    found = tmp_path / "run" / "metrics.jsonl"
    wait_until(lambda: found.exists() and len(found.read_text().splitlines()) > 1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    resumed = cherimoya_train("trainer.resume=run")
    assert resumed.returncode == 0, resumed.stderr
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.slow
def test_a_failed_job_of_two_processes_leaves_the_others_their_turn(
    cherimoya_train, train_arguments
):
    done = cherimoya_train("-m", *train_arguments, *TWO, "optim.adamw.lr=1e30,0.001")
    assert done.returncode == 1
    assert done.stdout.count("FAILED") == 1
    assert "2 runs" in done.stdout
    assert "best epoch" in done.stdout


def test_a_launcher_and_a_sweep_do_not_mix(cherimoya_train, train_arguments):
    done = cherimoya_train("-m", *train_arguments, "seed=0,1", WORLD_SIZE="2", RANK="0")
    assert done.returncode == 1
    assert "Leave the launcher out" in done.stderr


def test_a_process_without_loci_to_validate_adds_none():
    class Second(Processes):
        def gathered(self, values):
            return [values, {name: v[:0] for name, v in values.items()}]

    torch.manual_seed(0)
    model, source = (
        Cherimoya(8, 2, signal_groups=[1, 2], n_control_tracks=2, trimming=2),
        Resident(loci(), torch.device("cpu")),
    )
    rows, label = np.arange(1), np.ones(6)
    for rank, n in ((0, 1), (1, 0)):
        scores = evaluate(CUDAGraphModel(model), source, rows, label, 4, "fp32", Second(rank, 2))
        assert len(scores.log_counts) == n


@pytest.mark.slow
def test_a_failure_in_every_process_is_one_message(cherimoya_train, train_arguments):
    done = cherimoya_train(*train_arguments, *TWO, "optim.adamw.lr=1e30")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.count("the loss is not finite") == 1


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run(cherimoya_train, train_arguments, tmp_path):
    run = tmp_path / "run"
    process = subprocess.Popen(
        [*TRAIN, *train_arguments, *TWO, "trainer.max_epochs=500", f"hydra.run.dir={run}"],
        cwd=tmp_path, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    found = run / "metrics.jsonl"
    wait_until(lambda: found.exists() and found.stat().st_size > 0)
    workers = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True
    ).stdout.split()
    os.kill(int(workers[-1]), signal.SIGKILL)
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 1, errors
    assert "was killed" in errors
    assert f"trainer.resume={run.name}" in errors


def test_what_srun_says_is_understood():
    environment = {
        "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "1",
        "SLURM_STEP_TASKS_PER_NODE": "4(x2)", "SLURM_STEP_NODELIST": "gpu[07-08]",
        "SLURM_JOB_ID": "123456",
    }  # fmt: skip
    launch.read_slurm(environment)
    assert environment["RANK"] == "5"
    assert environment["WORLD_SIZE"] == "8"
    assert environment["LOCAL_RANK"] == "1"
    assert environment["LOCAL_WORLD_SIZE"] == "4"
    assert environment["MASTER_ADDR"] == "gpu07"
    assert environment["MASTER_PORT"] == "23456"


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("a", "a"), ("a,b", "a"), ("n[1,3-4],m", "n1"), ("x,n[1-2]", "x"), ("gpu[007-012]", "gpu007")],
)
def test_the_first_host_of_a_list(nodes, first):
    assert launch._first_host(nodes) == first


@pytest.mark.parametrize(
    "environment",
    [
        {},  # no SLURM
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"},  # a batch script, not a step
        {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
        {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0", "WORLD_SIZE": "4"},  # torchrun in it
    ],
)
def test_srun_is_not_seen_where_it_is_not(environment):
    before = dict(environment)
    launch.read_slurm(environment)
    assert environment == before


def test_trainer_devices_follows_the_launcher(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    asked = {"devices": 1}
    launch.count_devices(asked)
    assert asked == {"devices": 4}
    with pytest.raises(ConfigError, match="a launcher started 4 processes"):
        launch.count_devices({"devices": 2})


def test_more_gpus_than_there_are(cherimoya_train, train_arguments):
    done = cherimoya_train(*train_arguments, "trainer.devices=2")
    assert done.returncode == 1
    assert "torch sees no GPU" in done.stderr


@pytest.mark.slow
def test_two_processes_train_one_bias_model_and_share_it(
    cherimoya_train, train_arguments, tmp_path
):
    words = [
        "model.bias=train", "bias_model.n_filters=4", "bias_model.n_layers=2",
        "bias_model.background_below=[1000]", "bias_model.max_epochs=1",
    ]  # fmt: skip
    for name, more in {"one": [], "two": TWO}.items():
        done = cherimoya_train(*train_arguments, *words, *more, f"hydra.run.dir={name}")
        assert (done.returncode, done.stderr) == (0, ""), name
    assert_alike(tmp_path / "one", tmp_path / "two")
    assert done.stdout.count("[background_below=1000] epoch 0 ") == 1
    saved = [tmp_path / name / "bias/background_below=1000" for name in ("one", "two")]
    assert_same_run(*saved)
