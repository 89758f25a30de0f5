"""Sweeps: named folders, members that are done once, and a table that tells the truth."""

import json
import math
import os
import random
import re
import subprocess
import time
from pathlib import Path

import pytest
from command_lines import TRAIN, clean_environment, command, wait_until
from omegaconf import OmegaConf
from training_runs import last_table, states, weights, without_times

from cherimoya.config.command_line import today
from cherimoya.errors import ConfigError, InUse, OtherRun
from cherimoya.records import sweep as sweeps
from cherimoya.records.sweep import Member
from cherimoya.sweeps import members
from cherimoya.sweeps import plan as cli_sweep
from cherimoya.util.files import lock_folder

GRID = ["-m", "model.n_filters=4,8", "seed=0,1"]


@pytest.fixture
def grid(train_arguments):
    return [*GRID, *train_arguments, "trainer.max_epochs=2", "hydra.sweep.dir=grid"]


@pytest.mark.slow
def test_a_sweep_ends_in_a_table_and_is_not_done_twice(cherimoya_train, grid, tmp_path):
    grid = ["logger=wandb" if word == "logger=none" else word for word in grid]
    first = cherimoya_train(*grid, WANDB_MODE="disabled")
    assert first.returncode == 0, first.stderr
    names = sorted(p.name for p in (tmp_path / "grid").iterdir() if p.is_dir())
    assert names == [f"n_filters={f},seed={s}" for f in (4, 8) for s in (0, 1)]
    config = OmegaConf.load(tmp_path / "grid" / names[0] / "config.yaml")
    assert config.logger.wandb.group.startswith("n_filters_seed_")  # one group of runs at W&B
    how = states(tmp_path / "grid")[names[0]]
    assert (how["epoch"], how["epochs"]) == (2, 2)
    assert how["ms_per_step"] > 0
    table = last_table(first.stdout)
    assert table.count("2 of 2 done") == 2
    assert (tmp_path / "grid" / "report.html").read_text().count("2 of 2 done") == 2
    assert table.count("+-") == 2 * len(sweeps.METRICS)
    again = cherimoya_train(*grid, WANDB_MODE="disabled")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("done already") == 4
    assert last_table(again.stdout) == table


@pytest.mark.slow
def test_a_killed_sweep_ends_like_an_undisturbed_one(cherimoya_train, train_arguments, tmp_path):
    arguments = [
        "-m", "model.n_layers=2,3,4", "model.n_filters=4,6,8", *train_arguments,
        "trainer.max_epochs=2", "trainer.checkpoint_minutes=1e-4",
    ]  # fmt: skip
    fails = "n_filters=6,n_layers=3"
    for sweep in ("whole", "grid"):  # a file where that member's checkpoints are to be
        (tmp_path / sweep / fails).mkdir(parents=True)
        (tmp_path / sweep / fails / "checkpoints").touch()
    whole = cherimoya_train(*arguments, "hydra.sweep.dir=whole")
    assert whole.returncode == 1
    assert whole.stdout.count("FAILED") == whole.stdout.count(f"FAILED  {fails}: ") == 1
    table = last_table(whole.stdout)
    assert len(re.findall("  done  ", table)) == 8
    failed = states(tmp_path / "whole")[fails]
    assert re.search(r"checkpoints(/\S+)?: Not a directory. A part of", failed["error"])
    assert "NotADirectoryError" in failed["traceback"]

    command = [*TRAIN, *arguments, "hydra.sweep.dir=grid"]
    starts = kill_and_kill_again(command, tmp_path, kills=6)
    last = cherimoya_train(*arguments, "hydra.sweep.dir=grid")
    assert last.returncode == 1
    assert without_times(last_table(last.stdout)) == without_times(table)
    (tmp_path / "grid" / fails / "checkpoints").unlink()
    mended = cherimoya_train(*arguments, "hydra.sweep.dir=grid")
    assert mended.returncode == 0, mended.stdout
    assert mended.stdout.count("done already") == 8
    for name, now in states(tmp_path / "grid").items():
        assert starts.get(name, now["started"]) == now["started"]  # done ones were left alone
        if name != fails:
            a, b = (weights(tmp_path / s / name, "final.pt") for s in ("whole", "grid"))
            assert all((a[key] == b[key]).all() for key in a)


def kill_and_kill_again(command: list[str], folder: Path, kills: int) -> dict[str, str]:
    """Start `command` and kill it, half of the times in the middle of writing a checkpoint.

    Returns when each run that was done by then had started.
    """
    starts: dict[str, str] = {}
    chance = random.Random(5)
    for i in range(kills):
        done = len(starts)
        process = subprocess.Popen(
            command, cwd=folder, env=clean_environment(), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_until(lambda: "running" in [s["state"] for s in states(folder / "grid").values()])
        if i % 2:
            time.sleep(chance.uniform(0, 1))
        else:
            wait_until(lambda: [*folder.glob("grid/*/checkpoints/.*.tmp")])
        process.kill()
        process.wait()
        for name, status in states(folder / "grid").items():
            if status["state"] == "done":
                assert starts.setdefault(name, status["started"]) == status["started"]
        assert done <= len(starts) < 8, "killed too late to test anything"
    return starts


@pytest.mark.slow
def test_one_that_fails_keeps_its_traceback_and_the_others_go_on(
    cherimoya_train, train_arguments, tmp_path
):
    done = cherimoya_train(
        "-m", *train_arguments, "trainer.max_epochs=1", "optim.adamw.lr=0.004,1e30,0.001",
        "hydra.sweep.dir=sweep",
    )  # fmt: skip
    assert done.returncode == 1
    states = {
        p.parent.name: json.loads(p.read_text()) for p in tmp_path.glob("sweep/*/status.json")
    }
    assert {name: s["state"] for name, s in states.items()} == {
        "lr=0.004": "done", "lr=1e+30": "failed", "lr=0.001": "done"
    }  # fmt: skip
    assert "the loss is not finite" in states["lr=1e+30"]["traceback"]
    assert "FAILED  lr=1e+30: the loss is not finite" in done.stdout
    assert [row.split()[:2] for row in last_table(done.stdout).splitlines()[5:6]] == [
        ["1e+30", "failed"]
    ]


def test_every_member_is_checked_before_the_first_begins(
    cherimoya_train, train_arguments, tmp_path
):
    done = cherimoya_train("-m", *train_arguments, "model.n_layers=2,0,-1", "hydra.sweep.dir=sweep")
    assert done.returncode == 1
    assert "2 of 3 runs cannot be, so none has begun" in done.stderr
    assert "model.n_layers=-1: model.n_layers=-1: must be at least 1" in done.stderr
    assert not (tmp_path / "sweep").exists()


@pytest.mark.slow
def test_data_are_looked_at_before_the_first_run_begins(
    cherimoya_train, train_arguments, small_data, tmp_path
):
    """Once for all that read the same, unless the runs are for another machine."""
    others = [a for a in train_arguments if not a.startswith("data.path=")]
    (tmp_path / "text.h5").write_text("no HDF5")
    paths = f"data.path={small_data},absent.h5,text.h5"
    done = cherimoya_train("-m", *others, paths, "seed=1,2", "hydra.sweep.dir=sweep")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    first, *bad = done.stderr.splitlines()
    assert first == "error: 4 of 6 runs cannot read the data, so none has begun:"
    assert len(bad) == 2
    for line, name, said in (
        (bad[0], "absent.h5", "no such file. Make one"), (bad[1], "text.h5", "not an HDF5 file")
    ):  # fmt: skip
        assert line.startswith(f"  data.path={name},seed=1 and 1 more: ")
        assert f"/{name}: {said}" in line
    assert not (tmp_path / "sweep").exists()
    searched = cherimoya_train(
        "-m", *others, "data.path=absent.h5", "hydra/sweeper=optuna", "model.n_layers=1,2"
    )
    assert "2 of 2 runs cannot read the data, so none has begun" in searched.stderr
    assert "absent.h5: no such file" in searched.stderr
    script = command("sweep", "slurm", "-m", *others, paths, "seed=1,2", folder=tmp_path)
    assert script.returncode == 0, script.stderr


def test_a_sweep_over_the_blocks_of_bias_models_has_a_member_for_each():
    sweep = cli_sweep.plan(["-m", "model.bias=train", today("bias_model.blocks=bpnet,cheri")])
    key = "model/blocks@bias_model.blocks"
    assert sweep.swept == [key]
    members = [sweep.overrides_of(member) for member in sweep.members]
    assert members == [{key: "bpnet"}, {key: "cheri"}]
    assert [sweep.folder_of(m).name for m in sweep.members] == ["blocks=bpnet", "blocks=cheri"]


@pytest.mark.slow
def test_what_is_done_needs_no_data(cherimoya_train, train_arguments, small_data, tmp_path):
    copy = tmp_path / "copy.h5"
    copy.write_bytes(small_data.read_bytes())
    words = [a for a in train_arguments if not a.startswith("data.path=")]
    words += [
        "-m",
        "data.path=copy.h5",
        "trainer.max_epochs=1",
        "seed=1,2",
        "hydra.sweep.dir=sweep",
    ]
    assert cherimoya_train(*words).returncode == 0
    copy.unlink()
    again = cherimoya_train(*words)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("done already") == 2


@pytest.mark.parametrize(
    ("words", "here"),
    [
        ([], True),
        (["hydra/launcher=processes"], True),
        (["hydra/launcher=packed"], True),
        (["hydra.job.chdir=true"], False),
        (["hydra/launcher=slurm", "hydra.launcher.cluster=local"], False),
    ],
)
def test_runs_of_this_machine_alone_read_its_files(words, here):
    if "hydra/launcher=slurm" in words:
        pytest.importorskip("submitit")
    sweep = cli_sweep.plan(["-m", "seed=1,2", *words])
    assert sweep.here == here


def test_two_runs_may_not_share_a_folder(cherimoya_train, train_arguments):
    done = cherimoya_train("-m", *train_arguments, "seed=0,0")
    assert done.returncode == 1
    assert "another run has the folder seed=0 too" in done.stderr


@pytest.mark.slow
def test_an_error_before_the_run_begins_is_on_record_too(
    cherimoya_train, train_arguments, tmp_path
):
    done = cherimoya_train(
        "-m", *train_arguments, "trainer.max_epochs=1", "trainer.device=cuda,cpu",
        "hydra.sweep.dir=sweep",
    )  # fmt: skip
    assert done.returncode == 1
    found = states(tmp_path / "sweep")
    assert {name: s["state"] for name, s in found.items()} == {
        "device=cuda": "failed", "device=cpu": "done"
    }  # fmt: skip
    assert "torch sees no GPU" in found["device=cuda"]["traceback"]
    assert re.search("FAILED  device=cuda: .*torch sees no GPU", done.stdout)


def test_a_folder_that_another_process_is_at_is_left_alone(tmp_path, monkeypatch):
    folder = tmp_path / "sweep" / "seed=0"
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("mine")
    monkeypatch.setattr(members, "PATIENCE_SECONDS", 0.2)
    with lock_folder(folder), pytest.raises(InUse, match=f"in use by process {os.getpid()}"):
        members.begin(folder, {"seed": "0"}, {})
    with pytest.raises(OtherRun, match=r"metrics\.jsonl: exists already, and no run wrote it"):
        members.begin(folder, {"seed": "0"}, {})
    assert (folder / "metrics.jsonl").read_text() == "mine"
    (folder / "metrics.jsonl").unlink()
    assert members.begin(folder, {"seed": "0"}, {}) == "new"


@pytest.mark.slow
def test_a_folder_of_another_configuration_is_refused(cherimoya_train, train_arguments, tmp_path):
    arguments = ["-m", *train_arguments, "trainer.max_epochs=1", "optim.warmup_epochs=0"]
    first = cherimoya_train(*arguments, "seed=0", "hydra.sweep.dir=sweep")
    assert first.returncode == 0, first.stderr
    other = cherimoya_train(*arguments, "seed=0", "model.n_filters=16", "hydra.sweep.dir=sweep")
    assert other.returncode == 1
    assert "none has begun" in other.stderr
    assert "model.n_filters was 8, now 16" in other.stderr
    assert states(tmp_path / "sweep")["run"]["state"] == "done"  # of the first


def test_several_values_need_m(cherimoya_train, train_arguments):
    done = cherimoya_train(*train_arguments, "model.n_filters=8,16")
    assert done.returncode == 1
    assert "Add -m for a run each" in done.stderr


def test_a_sweep_file_is_a_sweep():
    sweep = cli_sweep.plan(["sweep=depth_width"])
    assert sweep.name == "depth_width"
    assert len(sweep.members) == 90
    found = [sweep.overrides_of(member) for member in sweep.members]
    assert {"model.n_layers": "9", "model.n_filters": "128", "seed": "2"} in found
    fewer = cli_sweep.plan(["seed=0,1", "sweep=depth_width"])
    assert fewer.name.startswith("depth_width_")
    assert len(fewer.members) == 60
    assert cli_sweep.plan(["model.n_filters=8"]) is None
    with pytest.raises(ConfigError, match="Add -m"):
        cli_sweep.plan(["seed=0,1"])


def test_a_sweep_of_the_users_own(tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "mine.yaml").write_text(
        "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {seed: '3,4'}}}\n"
    )
    for words in (["--config-dir", str(tmp_path)], [f"hydra.searchpath=[{tmp_path}]"]):
        sweep = cli_sweep.plan([*words, "sweep=mine"])
        assert [sweep.overrides_of(m) for m in sweep.members] == [{"seed": "3"}, {"seed": "4"}]
        assert sweep.folder == Path("outputs/sweeps/mine")
        members.check(sweep)


def test_forced_overrides_are_named_like_others():
    sweep = cli_sweep.plan(["-m", "++seed=0,1"])
    assert [sweep.folder_of(m).name for m in sweep.members] == ["seed=0", "seed=1"]


def test_a_plan_is_read_as_it_was_written(tmp_path):
    words = ["-m", "model.n_layers=5,7", "logger=none", f"hydra.sweep.dir={tmp_path}/s"]
    cli_sweep.plan(words).write(words)
    plan = sweeps.read_plan(tmp_path / "s")
    assert plan.command == ["cherimoya-train", *words]
    assert plan.members == [{"model.n_layers": "5"}, {"model.n_layers": "7"}]
    waiting = sweeps.read_sweep(tmp_path / "s")
    assert [(m.folder.name, m.state) for m in waiting] == [
        ("n_layers=5", "waiting"), ("n_layers=7", "waiting")
    ]  # fmt: skip
    one = cli_sweep.member(["model.n_layers=7", "logger=none"], tmp_path / "s")
    assert (one.name, one.folder_of(one.members[0])) == (plan.name, tmp_path / "s" / "n_layers=7")
    with pytest.raises(ConfigError, match=r"model\.n_layers has no value here"):
        cli_sweep.member(["logger=none"], tmp_path / "s")
    with pytest.raises(ConfigError, match=r"sweep\.json is missing"):
        cli_sweep.member(["model.n_layers=7"], tmp_path)


def test_the_same_words_are_the_same_folder():
    def name(*arguments):
        return cli_sweep.plan(["-m", *arguments]).name

    assert name("seed=0,1", "model.n_filters=8,9") == name("model.n_filters=8,9", "seed=0,1")
    assert name("seed=0,1") != name("seed=0,2")
    assert name("seed=0,1") != name("seed=0,1", "model=tiny")


def test_names_of_members():
    assert sweeps.member_name({"model.n_layers": "5", "seed": "1"}) == "n_layers=5,seed=1"
    two = {"optim.muon.lr": "0.1", "optim.adamw.lr": "0.2"}
    assert sweeps.member_name(two) == "optim.adamw.lr=0.2,optim.muon.lr=0.1"
    assert sweeps.member_name({"data.test_chroms": "[a/b]"}) == "test_chroms=_a_b_"
    long = sweeps.member_name({"data.path": "x" * 300})
    assert len(long) < 140
    assert long != sweeps.member_name({"data.path": "x" * 301})
    assert sweeps.member_name({}) == "run"


def member(state="done", loss=1.0, **overrides):
    summary = {"best_valid_loss": loss, "parameters": 1000, "train_seconds": 60.0}
    summary |= {"test": {"profile_mnll": 100.0, "profile_pearson": 0.5, "count_pearson": math.nan}}
    return Member("x", overrides, state, summary=summary if state == "done" else {})


def test_the_table_folds_seeds_and_puts_the_best_first(tmp_path):
    members = [
        member(width="8", seed="0", loss=3.0),
        member(width="8", seed="1", loss=5.0),
        member(width="16", seed="0", loss=2.0),
        member("failed", width="16", seed="1"),
        member("waiting", width="32", seed="0"),
    ]
    header, _, *rows = sweeps.table(members).splitlines()
    assert header.split()[:3] == ["width", "state", "parameters"]
    assert [row.split()[0] for row in rows] == ["16", "8", "32"]
    assert "1 of 2 done, 1 failed" in rows[0]
    assert "4.000 +- 1.414" in rows[1]
    assert "waiting" in rows[2]
