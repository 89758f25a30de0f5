"""Sweeps: named folders, members that are done once, and a table that tells the truth."""

import json
import math
import signal
import subprocess

import pytest
from conftest import clean_environment
from omegaconf import OmegaConf
from test_training import TRAIN, wait_until, weights

from cherimoya import cli_sweep, sweeps
from cherimoya.cli import conf_dir
from cherimoya.errors import ConfigError
from cherimoya.sweeps import Member

GRID = ["-m", "model.n_filters=4,8", "seed=0,1"]


def last_table(printed: str) -> str:
    return printed[printed.rindex("=== sweep") :]


def without_times(table: str) -> list[list[str]]:
    """Cells of the rows but the last column, which is minutes."""
    return [line.split("  ")[:-1] for line in table.splitlines()[3:]]


@pytest.fixture
def grid(train_arguments):
    return [*GRID, *train_arguments, "trainer.max_epochs=2", "hydra.sweep.dir=grid"]


def test_a_sweep_ends_in_a_table_and_is_not_done_twice(cherimoya_train, grid, tmp_path):
    first = cherimoya_train(*grid)
    assert first.returncode == 0, first.stderr
    names = sorted(p.name for p in (tmp_path / "grid").iterdir() if p.is_dir())
    assert names == [f"n_filters={f},seed={s}" for f in (4, 8) for s in (0, 1)]
    config = OmegaConf.load(tmp_path / "grid" / names[0] / "config.yaml")
    assert config.logger.group.startswith("n_filters_seed_")  # one group of runs at W&B
    table = last_table(first.stdout)
    assert table.count("2 of 2 done") == 2
    assert (tmp_path / "grid" / "report.html").read_text().count("2 of 2 done") == 2
    assert table.count("+-") == 2 * len(sweeps.METRICS)
    again = cherimoya_train(*grid)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("done already") == 4
    assert last_table(again.stdout) == table


@pytest.mark.slow
def test_a_killed_sweep_ends_like_an_undisturbed_one(cherimoya_train, grid, tmp_path):
    whole = cherimoya_train(*grid[:-1], "hydra.sweep.dir=whole")
    assert whole.returncode == 0, whole.stderr
    environment = clean_environment()
    starts: dict[str, set[str]] = {}
    for killed in range(3):
        process = subprocess.Popen(
            [*TRAIN, *grid], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        rows = tmp_path / "grid" / f"n_filters={4 if killed < 2 else 8},seed={killed % 2}"
        wait_until(lambda rows=rows: (rows / "metrics.jsonl").exists())
        process.send_signal(signal.SIGKILL if killed else signal.SIGTERM)
        process.wait()
        for status in (tmp_path / "grid").glob("*/status.json"):
            content = json.loads(status.read_text())
            if content["state"] == "done":
                starts.setdefault(status.parent.name, set()).add(content["started"])
    last = cherimoya_train(*grid)
    assert last.returncode == 0, last.stderr
    assert without_times(last_table(last.stdout)) == without_times(last_table(whole.stdout))
    assert all(len(times) == 1 for times in starts.values())  # a done one was left alone
    for run in (tmp_path / "whole").glob("*/"):
        if run.is_dir():
            a, b = weights(run, "final.pt"), weights(tmp_path / "grid" / run.name, "final.pt")
            assert all((a[key] == b[key]).all() for key in a)


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


def test_a_folder_of_another_configuration_is_refused(cherimoya_train, train_arguments):
    arguments = ["-m", *train_arguments, "trainer.max_epochs=1", "optim.warmup_epochs=0"]
    first = cherimoya_train(*arguments, "seed=0", "hydra.sweep.dir=sweep")
    assert first.returncode == 0, first.stderr
    other = cherimoya_train(*arguments, "seed=0", "model.n_filters=16", "hydra.sweep.dir=sweep")
    assert other.returncode == 1
    assert "model.n_filters was 8, now 16" in other.stderr


def test_several_values_need_m(cherimoya_train, train_arguments):
    done = cherimoya_train(*train_arguments, "model.n_filters=8,16")
    assert done.returncode == 1
    assert "Add -m for a run each" in done.stderr


def test_a_sweep_file_is_a_sweep():
    sweep = cli_sweep.plan(["sweep=depth_width"], conf_dir())
    assert sweep.name == "depth_width"
    assert len(sweep.members) == 9
    found = [sweep.overrides_of(member) for member in sweep.members]
    assert {"model.n_layers": "9", "model.n_filters": "128"} in found
    more = cli_sweep.plan(["seed=0,1,2", "sweep=depth_width"], conf_dir())
    assert more.name.startswith("depth_width_")
    assert len(more.members) == 27
    assert cli_sweep.plan(["model.n_filters=8"], conf_dir()) is None
    with pytest.raises(ConfigError, match="Add -m"):
        cli_sweep.plan(["seed=0,1"], conf_dir())


def test_the_same_words_are_the_same_folder():
    def name(*arguments):
        return cli_sweep.plan(["-m", *arguments], conf_dir()).name

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
    assert "1 of 2 done" in rows[0]
    assert "4.000 +- 1.414" in rows[1]
    assert "waiting" in rows[2]
