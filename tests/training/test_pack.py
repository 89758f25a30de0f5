"""Runs that share a process: each as it would be alone, whatever happens to the others."""

import json
import signal
import subprocess

import pytest
from command_lines import TRAIN, clean_environment, wait_until
from training_runs import assert_same_run

from cherimoya.report.pages import write_report

PACKED = ["hydra/launcher=packed"]
NAMES = [f"n_filters={f},seed={s}" for f in (4, 8) for s in (0, 1)]


@pytest.fixture
def grid(train_arguments):
    return ["-m", *train_arguments, "model.n_filters=4,8", "seed=0,1"]


@pytest.fixture
def alone(cherimoya_train, grid, tmp_path):
    done = cherimoya_train(*grid, "hydra.sweep.dir=alone")
    assert done.returncode == 0, done.stderr
    return tmp_path / "alone"


@pytest.mark.slow
def test_packed_members_are_as_they_are_alone(alone, cherimoya_train, grid, tmp_path):
    done = cherimoya_train(*grid, *PACKED, "hydra.launcher.members=3", "hydra.sweep.dir=packed")
    assert done.returncode == 0, done.stderr
    for name in NAMES:
        assert_same_run(alone / name, tmp_path / "packed" / name)
    assert f"=== 3 at once: {', '.join(NAMES[:3])}" in done.stdout
    assert f"=== 1 at once: {NAMES[3]}" in done.stdout
    for name in NAMES[:3]:  # they take turns
        assert done.stdout.index(f"[{name}] epoch 0") < done.stdout.index(f"[{NAMES[0]}] epoch 1")


@pytest.mark.slow
def test_a_sweep_says_that_its_runs_shared_a_device(cherimoya_train, grid, tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    done = cherimoya_train(*grid, *PACKED, "hydra.launcher.members=3", "hydra.sweep.dir=packed")
    assert done.returncode == 0, done.stderr
    summaries = [json.loads((tmp_path / "packed" / n / "summary.json").read_text()) for n in NAMES]
    assert [s["provenance"]["runs_at_once"] for s in summaries] == [3, 3, 3, 1]
    page = write_report(tmp_path / "packed").read_text()
    assert "Up to 3 runs at once shared a device: training times are longer than alone" in page


@pytest.mark.slow
def test_a_packed_member_that_fails_leaves_the_others_alone(
    cherimoya_train, train_arguments, tmp_path
):
    done = cherimoya_train(
        "-m", *train_arguments, "trainer.max_epochs=1", "optim.adamw.lr=0.004,1e30,0.001",
        *PACKED, "hydra.sweep.dir=sweep",
    )  # fmt: skip
    assert done.returncode == 1
    states = {p.parent.name: json.loads(p.read_text()) for p in tmp_path.glob("*/*/status.json")}
    assert {name: s["state"] for name, s in states.items()} == {
        "lr=0.004": "done", "lr=1e+30": "failed", "lr=0.001": "done"
    }  # fmt: skip
    assert "the loss is not finite" in states["lr=1e+30"]["traceback"]
    assert "FAILED  lr=1e+30: the loss is not finite" in done.stdout


@pytest.mark.slow
def test_packed_members_that_were_stopped_go_on_to_the_bit(alone, cherimoya_train, grid, tmp_path):
    packed = [*grid, *PACKED, "hydra.sweep.dir=packed"]
    process = subprocess.Popen(
        [*TRAIN, *packed], cwd=tmp_path, env=clean_environment(), stdout=subprocess.PIPE, text=True
    )
    wait_until(lambda: all((tmp_path / "packed" / n / "metrics.jsonl").exists() for n in NAMES))
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert "The same command goes on with what is not done." in printed
    states = [
        json.loads((tmp_path / "packed" / n / "status.json").read_text())["state"] for n in NAMES
    ]
    assert states == ["interrupted"] * 4
    done = cherimoya_train(*packed)
    assert done.returncode == 0, done.stderr
    for name in NAMES:
        assert_same_run(alone / name, tmp_path / "packed" / name)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["seed=0,1", "trainer.devices=2"], "trainer.devices is 2, but members"),
        (["trainer.precision=fp32,auto"], "trainer.precision is auto or fp32, but members"),
    ],
)
def test_what_cannot_be_packed_is_refused(arguments, words, cherimoya_train, train_arguments):
    done = cherimoya_train("-m", *arguments, *train_arguments, *PACKED)
    assert done.returncode == 1
    assert words in done.stderr
    assert "epoch 0" not in done.stdout
