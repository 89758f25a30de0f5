"""Where sweeps run: several processes that share the machine, SLURM's nodes, a script of tasks."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_lines import TRAIN, clean_environment, wait_until
from training_runs import last_table, states, without_times

from cherimoya.errors import ConfigError
from cherimoya.sweeps import plan as cli_sweep
from cherimoya.sweeps.launchers import Slot, slots

SWEEP = [sys.executable, "-m", "cherimoya.cli.sweep"]
EPOCHS = 12
LONG = [f"trainer.max_epochs={EPOCHS}", "trainer.checkpoint_minutes=1e-4"]  # that take their time
FOUR = ["-m", "model.n_filters=4,8", "seed=0,1"]


def pid(member: Path) -> int:
    return json.loads((member / "status.json").read_text())["pid"]


def rows(member: Path) -> int:
    path = member / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def test_slots_share_gpus_and_cores():
    four = [0, 1, 2, 3]
    assert slots(None, [], four, 1, members=9) == [Slot((), (c,), True) for c in four]
    assert slots(None, [], four, 1, members=2) == [Slot((), (0, 1), True), Slot((), (2, 3), True)]
    assert [s.cores for s in slots(3, [], [0, 1], 1, members=9)] == [(0,), (0,), (1,)]
    gpus = slots(None, ["4", "6"], four, 1, members=9)
    assert [s.environment["CUDA_VISIBLE_DEVICES"] for s in gpus] == ["4", "6"]
    assert [s.environment["OMP_NUM_THREADS"] for s in gpus] == ["2", "2"]
    assert [s.gpus for s in slots(3, ["0", "1"], four, 1, members=9)] == [("0",), ("1",), ("0",)]
    pairs = slots(None, ["0", "1", "2", "3", "4"], four, 2, members=9)
    assert [s.gpus for s in pairs] == [("0", "1"), ("2", "3")]
    assert len(slots(None, ["0"], four, 2, members=9)) == 1  # which says what is wrong
    assert "CUDA_VISIBLE_DEVICES" not in slots(None, [], four, 1, members=0)[0].environment


@pytest.mark.parametrize("name", ["slurm", "submitit_local", "joblib"])
def test_a_launcher_that_is_not_installed_says_how_to_get_it(name, monkeypatch):
    monkeypatch.setattr(cli_sweep.importlib.util, "find_spec", lambda module: None)
    needed = {
        "slurm": "submitit. .*install 'cherimoya-train.slurm.'",
        "submitit_local": "hydra_submitit_launcher. .*install hydra-submitit-launcher",
        "joblib": "hydra_joblib_launcher. .*install hydra-joblib-launcher",
    }
    with pytest.raises(ConfigError, match=f"launcher={name} needs {needed[name]}"):
        cli_sweep.plan(["-m", "seed=0,1", f"hydra/launcher={name}"])


@pytest.mark.slow
def test_processes_that_are_killed_or_stopped_end_like_one_process(
    cherimoya_train, train_arguments, tmp_path
):
    arguments = [*FOUR, *train_arguments, *LONG]
    whole = cherimoya_train(*arguments, "hydra.sweep.dir=whole")
    assert whole.returncode == 0, whole.stderr
    grid = tmp_path / "grid"
    first, second = (grid / f"n_filters=4,seed={s}" for s in (0, 1))
    sweep = [*arguments, "hydra/launcher=processes", "hydra.launcher.processes=2"]
    sweep.append("hydra.sweep.dir=grid")

    def started():
        return subprocess.Popen(
            [*TRAIN, *sweep], cwd=tmp_path, env=clean_environment(), stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    process = started()  # one member killed, and then Ctrl-C
    wait_until(lambda: rows(first) and rows(second))
    members = [pid(first), pid(second)]
    if hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) > 1:
        a, b = (os.sched_getaffinity(each) for each in members)
        assert a
        assert b
        assert not a & b
    os.kill(members[0], signal.SIGKILL)
    wait_until(lambda: not is_there(members[0]))
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "interrupted n_filters=4,seed=0: killed by SIGKILL" in output
    assert "INTERRUPTED  n_filters=4,seed=0: its process was killed" in output
    assert json.loads((second / "status.json").read_text())["state"] == "interrupted"  # it saved
    assert not any(is_there(each) for each in members)

    process = started()  # the one that started them is killed: they save, and end
    before = rows(first)
    wait_until(lambda: rows(first) > before and states(grid)[first.name]["state"] == "running")
    members = [pid(first), pid(second)]
    process.kill()
    process.communicate()
    last = cherimoya_train(*sweep, timeout=200)
    assert last.returncode == 0, last.stdout
    assert not any(is_there(each) for each in members)
    assert without_times(last_table(last.stdout)) == without_times(last_table(whole.stdout))
    assert "resumed after" in (first / "output.log").read_text()


@pytest.mark.slow
def test_a_job_that_slurm_is_about_to_stop_is_queued_again_and_goes_on(
    cherimoya_train, train_arguments, tmp_path
):
    pytest.importorskip("submitit")
    sweep = [
        "-m", "hydra/launcher=slurm", "hydra.launcher.cluster=local",
        "hydra.launcher.gpus_per_node=0", "seed=0,1", *train_arguments, *LONG,
        "hydra.sweep.dir=grid",
    ]  # fmt: skip
    process = subprocess.Popen(
        [*TRAIN, *sweep], cwd=tmp_path, env=clean_environment(), stdout=subprocess.PIPE, text=True
    )
    warned, other = (tmp_path / "grid" / f"seed={s}" for s in (0, 1))
    wait_until(lambda: rows(warned))
    os.kill(pid(warned), signal.SIGUSR2)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert last_table(output).count("seed=0,1 (mean +- SD)  2 of 2 done") == 1
    logs = "".join(p.read_text() for p in tmp_path.glob("grid/.submitit/*/*_log.*"))
    assert (tmp_path / "grid" / ".submitit").stat().st_mode & 0o077 == 0  # pickles are in it
    assert logs.count("resumed after") == 1
    assert logs.count("Starting with JobEnvironment") == 3  # of two jobs
    assert rows(warned) == rows(other) == EPOCHS
    again = cherimoya_train(*sweep)
    assert again.stdout.count("done already") == 2
    assert "submitted" not in again.stdout


@pytest.mark.slow
def test_a_task_of_the_script_saves_when_it_is_told_to_stop_and_goes_on(
    cherimoya_train, train_arguments, tmp_path
):
    environment = clean_environment()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "scontrol").write_text(f'#!/bin/bash\necho "$@" >> {tmp_path}/queued\n')
    (tmp_path / "bin" / "scontrol").chmod(0o755)
    environment["PATH"] = f"{tmp_path / 'bin'}:{environment['PATH']}"
    sweep = ["-m", "seed=0,1", *train_arguments, *LONG, "hydra.sweep.dir=grid"]

    def script() -> str:
        return subprocess.run(
            [*SWEEP, "slurm", "--partition", "gpu", "--parallel=1", *sweep], cwd=tmp_path,
            env=environment, check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip

    text = script()
    assert "#SBATCH --array=0-1%1\n" in text
    assert "#SBATCH --partition=gpu\n" in text
    (tmp_path / "grid.sbatch").write_text(text)

    def task(number: int) -> subprocess.Popen:
        ids = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": str(number)}
        return subprocess.Popen(
            ["bash", "grid.sbatch"], cwd=tmp_path, env=environment | ids, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    member = tmp_path / "grid" / "seed=0"
    for signum, code in ((signal.SIGUSR1, 138), (signal.SIGTERM, 143)):
        process, before = task(0), rows(member)
        wait_until(lambda before=before: rows(member) > before)
        process.send_signal(signum)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == code, output
        assert "stopped. Continue" in output
        assert states(tmp_path / "grid")["seed=0"]["state"] == "interrupted"
    assert (tmp_path / "queued").read_text() == "requeue 7_0\n"  # SLURM does it after SIGTERM
    output, _ = task(0).communicate(timeout=60)
    assert "resumed after" in output
    assert "#SBATCH --array=1%1\n" in script()  # what is done is left out
    wrong = task(5)
    assert "no run has number 5" in wrong.communicate()[0]
    assert wrong.returncode == 1
    last = cherimoya_train(*sweep)
    assert last.returncode == 0, last.stderr
    assert last.stdout.count("done already") == 1
    assert rows(member) == rows(tmp_path / "grid" / "seed=1") == EPOCHS


@pytest.mark.slow
def test_the_script_is_sound(tmp_path):
    checker = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if checker is None:
        pytest.skip("shellcheck is not installed")
    (tmp_path / "a b").mkdir()
    made = subprocess.run(
        [*SWEEP, "slurm", "--setup", "module load cuda", "--gpus", "0", "--sbatch=--nice",
         "sweep=depth_width", "logger.tags=[\"it's\"]", "hydra.sweep.dir=c d"],
        cwd=tmp_path / "a b", env=clean_environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    done = subprocess.run([checker, "-"], input=made.stdout, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    for line in ("module load cuda\n", "#SBATCH --nice\n", "#SBATCH --array=0-89\n"):
        assert line in made.stdout
    assert "--gpus" not in made.stdout


@pytest.mark.slow
@pytest.mark.parametrize("more", [
    ["-m", "hydra/launcher=processes", "seed=0,1", "hydra.sweep.dir=runs"],
    ["trainer.devices=2", "trainer.device=cpu", "hydra.run.dir=run"],
], ids=["members", "devices"])  # fmt: skip
def test_processes_read_no_file_of_the_working_folder_as_ours(more, train_arguments, tmp_path):
    (tmp_path / "cherimoya.py").write_text("raise RuntimeError\n")
    alone = [TRAIN[0], "-P", *TRAIN[1:]]  # as the installed command begins
    done = subprocess.run(
        [*alone, *train_arguments, "trainer.max_epochs=1", *more], cwd=tmp_path, text=True,
        env=clean_environment(), capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
