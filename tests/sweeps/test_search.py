"""Searches: what may be searched, which trials are asked for, and how they end."""

import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys

import pytest
import torch
from command_lines import TRAIN, clean_environment, wait_until
from configs import composed
from omegaconf import OmegaConf
from training_runs import weights

from cherimoya.cli.job import print_error
from cherimoya.cli.train import conf_dir
from cherimoya.config.schema import build
from cherimoya.config.train import TrainConfig
from cherimoya.errors import CherimoyaError, ConfigError
from cherimoya.records import status
from cherimoya.records import study as search
from cherimoya.records import sweep as sweeps
from cherimoya.records.provenance import provenance
from cherimoya.records.space import Choices, Numbers
from cherimoya.sweeps import search as cli_search
from cherimoya.training.run import RunContext, train
from cherimoya.training.trainer import Trainer

pytest.importorskip("optuna")

SPACE = ["optim.muon.lr=tag(log,interval(0.005,0.1))", "model.n_layers=range(3,10)"]
EPOCHS = 4


class Killed(BaseException):
    """The search ended where it was."""


class Runs:
    """In the launcher's place: runs whose loss is known, as they look on disk."""

    def __init__(self, folder, kill=lambda run, epoch: False, fail=lambda run: False):
        self.folder, self.kill, self.fail = folder, kill, fail
        self.begun, self.batches = [], []

    def launch(self, members, initial_job_idx):
        self.batches.append(len(members))
        for words in members:
            values = dict(word.split("=") for word in words)
            swept = {k: v for k, v in values.items() if k in ("optim.muon.lr", "model.n_layers")}
            self.train(self.folder / sweeps.member_name(swept), swept)

    def train(self, run, values):
        self.begun.append(run.name)
        sweeps.note_member(run, values)
        lr, layers = float(values["optim.muon.lr"]), int(values["model.n_layers"])
        loss = 1 + math.log(lr / 0.03) ** 2 + (layers - 6) ** 2
        watch, rows, why = search.watch(run), [], None
        state(run, "running")
        for epoch in range(EPOCHS):
            rows.append({"epoch": epoch, "valid/loss": loss + EPOCHS - 1 - epoch})
            if self.fail(run.name):
                return state(run, "failed")
            if self.kill(run.name, epoch):
                raise Killed
            why = watch(rows[-1]) if epoch + 1 < EPOCHS else None
            (run / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
            if why:
                break
        summary = {"best_epoch": len(rows) - 1, "best_valid_loss": rows[-1]["valid/loss"]}
        summary |= {"parameters": 1000, "train_seconds": 60.0}
        (run / "summary.json").write_text(json.dumps(summary))
        return state(run, "pruned" if why else "done")


def state(run, word):
    whose = {"pid": 1, "host": "elsewhere", "started": "2026-01-01T00:00:00+0000"}
    (run / "status.json").write_text(json.dumps({"state": word, **whose}))


def settings(**changed):
    values = OmegaConf.to_container(OmegaConf.load(conf_dir() / "hydra/sweeper/optuna.yaml"))
    return {k: v for k, v in (values | changed).items() if k != "_target_"}


def study(folder, **changed):
    """The search in this folder, to be looked at."""
    config = cli_search.settings_of(settings(**changed))
    return search.Search(folder, config, cli_search.space_of({}, SPACE)[0])


def trials(folder):
    """Of each trial its state, values and reports, in the order they were asked for."""
    return [
        (t.state.name, t.params, t.value, t.intermediate_values) for t in study(folder)._trials()
    ]


def sweep(folder, runs=None, words=SPACE, **changed):
    runs = runs or Runs(folder)
    cli_search.sweep(settings(**changed), words, runs, folder)
    return runs


def test_the_known_best_is_found_in_as_many_trials_as_were_asked_for(tmp_path):
    runs = sweep(tmp_path, n_trials=40, pruner="none")
    assert len(trials(tmp_path)) == 40
    assert len(set(runs.begun)) == len(runs.begun)  # equal trials are one run
    overrides, loss = study(tmp_path).best()
    assert overrides["model.n_layers"] == "6"
    assert abs(math.log(float(overrides["optim.muon.lr"]) / 0.03)) < 0.3
    assert loss == min(value for _, _, value, _ in trials(tmp_path))
    at_random = sweep(tmp_path / "random", n_trials=40, pruner="none", sampler="random")
    near = [sum("n_layers=6" in name for name in r.begun) for r in (runs, at_random)]
    assert near[0] > 1.5 * near[1]  # it learns where to look


def test_numbers_are_short_and_the_trained_ones_are_the_told_ones(tmp_path):
    sweep(tmp_path, n_trials=12)
    for _, params, _, _ in trials(tmp_path):
        lr = params["optim.muon.lr"]
        assert float(f"{lr:.4g}") == lr
        assert (tmp_path / f"lr={lr},n_layers={params['model.n_layers']}").is_dir()


@pytest.mark.parametrize("pruner", ["median", pytest.param("hyperband", marks=pytest.mark.slow)])
def test_a_search_killed_anywhere_ends_like_an_undisturbed_one(tmp_path, pruner, monkeypatch):
    asked = {"n_trials": 18, "pruner": pruner, "startup_trials": 6}
    whole = sweep(tmp_path / "whole" / "search", **asked)
    folder, begun, suggest = tmp_path / "killed" / "search", [], search.suggest
    for turn in range(60):

        def fatal(trial, key, part, turn=turn):
            if turn % 3 == 0 and trial.number == turn // 3 and key == "model.n_layers":
                raise Killed  # the trial exists, but half of its values
            suggest(trial, key, part)

        monkeypatch.setattr(search, "suggest", fatal)
        left = turn % EPOCHS if turn < 40 else None
        runs = Runs(folder, kill=lambda run, epoch, left=left: epoch == left)
        try:
            sweep(folder, runs, **asked)
            break
        except Killed:
            begun += runs.begun
    assert turn > 20  # as often as that
    assert trials(folder) == trials(tmp_path / "whole" / "search")
    assert set(begun + runs.begun) == set(whole.begun)
    assert {"COMPLETE", "PRUNED"} == {name for name, *_ in trials(folder)}


def test_trials_side_by_side_are_asked_for_at_once_and_equal_ones_trained_once(tmp_path):
    words = ["optim.muon.lr=0.01,0.03", "model.n_layers=5,6"]
    runs = sweep(tmp_path, words=words, n_trials=20, n_jobs=4, pruner="none", startup_trials=20)
    assert sorted(runs.begun) == [f"lr={lr},n_layers={n}" for lr in (0.01, 0.03) for n in (5, 6)]
    config = cli_search.settings_of(settings(n_trials=20, startup_trials=20))
    found = search.Search(tmp_path, config, cli_search.space_of({}, words)[0])
    assert found.counts() == {"done": 20}
    assert found.best()[0] == {"optim.muon.lr": "0.03", "model.n_layers": "6"}
    assert set(found.importances()) == {"optim.muon.lr", "model.n_layers"}
    assert sweep(tmp_path / "other", n_trials=6, n_jobs=4, sampler="random").batches == [4, 2]


def test_bad_trials_are_stopped_and_say_so(tmp_path):
    runs = sweep(tmp_path, n_trials=20, prune_after_trials=2, sampler="random")
    stopped = {run for run in runs.begun if sweeps.read_member(tmp_path / run).state == "pruned"}
    assert 3 < len(stopped) < 17
    states = [name for name, *_ in trials(tmp_path)]
    assert states.count("PRUNED") == len(stopped)
    assert states[:2] == ["COMPLETE"] * 2
    done = [value for name, _, value, _ in trials(tmp_path) if name == "COMPLETE"]
    cut = [last for name, _, last, _ in trials(tmp_path) if name == "PRUNED"]
    assert min(done) < min(cut)
    assert study(tmp_path).counts() == {"done": len(done), "pruned": len(cut)}
    table = sweeps.table(sweeps.read_sweep(tmp_path))
    assert table.count("pruned") == len(stopped)
    last = [line for line in table.splitlines() if "pruned" in line]
    assert table.splitlines()[-len(last) :] == last  # after those that came to their end
    assert search.watch(tmp_path / runs.begun[0]) is None  # nobody listens any more


def test_a_larger_number_goes_on_and_failed_trials_get_another_turn(tmp_path):
    runs = sweep(tmp_path, Runs(tmp_path, fail=lambda run: run.endswith("=6")), n_trials=12)
    failed = [run for run in runs.begun if run.endswith("=6")]
    assert study(tmp_path).counts()["failed"] == len(failed) > 0
    again = sweep(tmp_path, n_trials=15)
    assert again.begun[: len(failed)] == failed
    assert len(again.begun) == len(failed) + 3
    assert "failed" not in study(tmp_path).counts()
    assert len(trials(tmp_path)) == 15
    assert sweep(tmp_path, n_trials=15).begun == []


def test_a_run_that_may_go_on_is_not_told_as_failed(tmp_path):
    class Preempted(Runs):
        def train(self, run, values):
            self.begun.append(run.name)
            state(run, "interrupted")

    with pytest.raises(CherimoyaError, match="did not come to an end"):
        sweep(tmp_path, Preempted(tmp_path), n_trials=3)
    assert [name for name, *_ in trials(tmp_path)] == ["RUNNING"]
    assert sweep(tmp_path, n_trials=3).batches == [1, 1, 1]


def test_a_folder_of_another_search_is_refused(tmp_path):
    sweep(tmp_path, n_trials=2)
    with pytest.raises(ConfigError, match=r"hydra\.sweeper\.seed was 0, now 1"):
        sweep(tmp_path, n_trials=2, seed=1)
    with pytest.raises(ConfigError, match=r"model\.n_layers was"):
        sweep(tmp_path, words=[SPACE[0], "model.n_layers=range(3,11)"])


def test_the_storage_may_be_a_database(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    runs = sweep(tmp_path / "a" / "search", n_trials=8, storage=url)
    assert len(runs.begun) == 8
    assert sweep(tmp_path / "b" / "search", n_trials=8).begun == runs.begun
    assert sweep(tmp_path / "a" / "search", n_trials=8, storage=url).begun == []


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("optim.muon.lr=tag(log,interval(0.01,0.1))", Numbers(0.01, 0.1, log=True)),
        ("optim.adamw.weight_decay=interval(0,1)", Numbers(0, 1)),
        ("model.n_layers=interval(3,9)", Numbers(3, 9, whole=True)),
        ("model.n_layers=range(3,9)", Numbers(3, 8, whole=True)),  # as Hydra's other sweeps
        ("model.n_filters=tag(log,interval(8,128))", Numbers(8, 128, log=True, whole=True)),
        ("model.n_filters=range(32,161,32)", Numbers(32, 160, step=32, whole=True)),
        ("optim.adamw.weight_decay=range(0,0.3,0.1)", Numbers(0, 0.2, step=0.1)),
        ("model.n_filters=8,16", Choices(("8", "16"))),
        ("loss=kendall,fixed", Choices(("kendall", "fixed"))),
        ("data.test_chroms=choice([a],[b])", Choices(("[a]", "[b]"))),
    ],
)
def test_hydras_words_for_several_values(word, part):
    space, fixed = cli_search.space_of({"model.n_layers": "1,2"}, [word, "seed=3"])
    assert space[word.split("=")[0]] == part
    assert fixed == ["seed=3"]


def plan(*arguments):
    return cli_search.plan(["-m", "hydra/sweeper=optuna", *arguments])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.n_layers=range(0,9)"], "model.n_layers=0: must be at least 1"),
        (["model.n_layers=interval(1,30)", "seed=1,2"], "model.n_layers=30: must be at most 24"),
        (["optim.muon.lr=interval(0,0.1)"], r"optim.muon.lr=0.0: must be above 0"),
        (["trainer.max_epochs=3,9", "optim.warmup_epochs=2,5"], "longer than trainer.max_epochs=3"),
        (["model.n_layers=interval(1.5,3)"], "takes whole numbers"),
        (["model.n_layers=range(5,5)"], "holds no value"),
        (["optim.muon.lr=tag(log,interval(0,1))"], "a log scale begins above 0"),
        (["optim.muon.lr=tag(lg,interval(1,2))"], "cannot be searched. Use interval"),
        (["model.n_layers=glob(*)"], "cannot be searched. Use interval"),
        (["model.n_layers=5"], "has nothing to search"),
        (["seed=1,2", "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials=0: must be at least 1"),
        (["seed=1,2", "hydra.sweeper.sampler=tpee"], "Did you mean tpe?"),
        (["seed=1,2", "hydra.sweeper.metric=test/loss"], "metric=test/loss: must be one of valid/"),
        (
            ["seed=1,2", "hydra.sweeper.metric=valid/mine"],
            "or one of your own, with hydra.sweeper.",
        ),
        (
            ["seed=1,2", "hydra.sweeper.metric=valid/mine", "hydra.sweeper.direction=minimize"],
            "metric=valid/mine: must be one of valid/",
        ),
        (["seed=1,2", "hydra.sweeper.storage=x"], "hydra.sweeper.storage=x: "),
        (["hydra.sweeper.params={model.n_layer: '1,2'}"], "Did you mean model.n_layers?"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_begins(words, message, tmp_path):
    with pytest.raises(ConfigError) as error:
        plan(*words, f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert message in str(error.value)
    assert not (tmp_path / "sweep").exists()


def test_a_search_needs_m_and_an_interval_a_search():
    with pytest.raises(ConfigError, match="Add -m"):
        cli_search.plan(["hydra/sweeper=optuna", "seed=1,2"])
    with pytest.raises(ConfigError, match="Add hydra/sweeper=optuna"):
        cli_search.plan(["-m", "optim.muon.lr=interval(0.1,1)"])
    assert cli_search.plan(["sweep=depth_width"]) is None


def test_the_direction_follows_the_metric():
    def direction(metric, **changed):
        return cli_search.settings_of(settings(metric=metric, **changed)).direction

    assert direction("valid/loss") == direction("valid/count_mse") == "minimize"
    assert direction("valid/profile_pearson") == "maximize"
    assert direction("valid/profile_pearson", direction="minimize") == "minimize"


@pytest.mark.slow
def test_a_search_of_conf_is_planned_with_its_name_and_folder():
    found = cli_search.plan(["sweep=search", "model=tiny"])
    assert found.name.startswith("search_")
    assert str(found.folder) == f"outputs/sweeps/{found.name}"
    assert set(found.swept) >= {"optim.muon.lr", "model.n_filters", "model.n_layers"}
    assert found.fixed == ["sweep=search", "model=tiny"]
    assert found._alone({"seed": "3"}) == (  # as one run, with what the file sets
        "cherimoya-train sweep=search model=tiny hydra.mode=RUN seed=3"
    )
    fewer = cli_search.plan(["sweep=search", "model.n_layers=3"])
    assert "model.n_layers" not in fewer.swept


def test_many_corners_are_checked_one_key_at_a_time():
    parts = {f"key{i}": Numbers(0, 1) for i in range(9)}
    (alone,) = cli_search.corners(parts, ["x=1"])
    assert len(alone) == 10
    assert all(line[0] == "x=1" for line in alone)
    few, rest = cli_search.corners(dict(list(parts.items())[:3]), [])
    assert len(few) + len(rest) == 8


def test_without_optuna_one_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(CherimoyaError, match=r"pip install 'cherimoya-train\[optuna\]'"):
        plan("seed=1,2")


@pytest.fixture
def run_it(train_arguments, tmp_path):
    """Trains in one folder, or goes on there, under a watch."""

    def run_it(watch, *words):
        config = build(TrainConfig, composed("train", [*train_arguments, *words]))
        train(config, tmp_path / "run", RunContext(on_epoch=watch))
        return {
            name: json.loads((tmp_path / "run" / f"{name}.json").read_text())
            for name in ("status", "summary")
        }

    (tmp_path / "run").mkdir()
    return run_it


def enough_of(epoch):
    return lambda row: f"after {row['epoch']}" if row["epoch"] == epoch else None


def test_the_last_epoch_is_not_stopped_after(run_it):
    assert run_it(enough_of(0), "trainer.max_epochs=1")["status"]["state"] == "done"


def test_a_watch_ends_a_run_which_says_so_and_may_go_on_without_it(run_it, tmp_path, capsys):
    ended = run_it(enough_of(1))
    assert ended["status"]["state"] == "pruned"
    assert ended["summary"]["pruned"] == {"epoch": 1, "why": "after 1"}
    assert ended["summary"]["epochs"] == 2
    assert "pruned: after 1" in capsys.readouterr().out
    kept = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert kept >= {"best.pt", "final.pt", "last.pt"}
    ended = run_it(None, f"trainer.resume={tmp_path / 'run'}")
    assert ended["status"]["state"] == "done"
    assert ended["summary"]["epochs"] == 3
    assert "pruned" not in ended["summary"]


@pytest.mark.parametrize(
    "name", ["training.trainer.Trainer.save", "training.summary.write_pruned_summary"]
)
def test_a_run_killed_as_it_is_stopped_is_stopped_there(run_it, tmp_path, monkeypatch, name):
    """Before the state was saved it hears of it again; after that it knows."""

    def fatal(*arguments):
        if arguments[0].state.stopped:
            raise Killed
        save(*arguments)

    save = Trainer.save
    with monkeypatch.context() as patched:
        patched.setattr(f"cherimoya.{name}", fatal)
        with pytest.raises(Killed):
            run_it(enough_of(1))
    ended = run_it(enough_of(1), f"trainer.resume={tmp_path / 'run'}")
    assert ended["summary"]["pruned"] == {"epoch": 1, "why": "after 1"}
    assert ended["summary"]["epochs"] == 2


@pytest.mark.slow
def test_a_run_of_two_processes_is_stopped_as_one(cherimoya_train, train_arguments, tmp_path):
    class OneOnly(Runs):
        def train(self, run, values):
            super().train(run, values) if not self.begun else state(run, "interrupted")
            self.last = run

    runs = OneOnly(tmp_path)  # whose first loss no real training will reach
    with pytest.raises(CherimoyaError, match="did not come to an end"):
        sweep(tmp_path, runs, n_trials=2, prune_after_trials=1)
    folder = f"hydra.run.dir='{runs.last}'"
    done = cherimoya_train(*train_arguments, "trainer=cpu", "trainer.devices=2", folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("by the median pruner") == 1
    assert sweeps.read_member(runs.last).state == "pruned"
    assert len(trials(tmp_path)[1][3]) == 2  # reports


@pytest.mark.slow
def test_real_trainings_killed_and_gone_on_with(cherimoya_train, train_arguments, tmp_path):
    arguments = [
        "-m", "hydra/sweeper=optuna", "optim.adamw.lr=tag(log,interval(0.0001,0.02))",
        "model.n_filters=4,8", *train_arguments, "trainer.checkpoint_minutes=1e-4",
        "hydra.sweeper.n_trials=7", "hydra.sweeper.prune_after_trials=2",
    ]  # fmt: skip
    whole = cherimoya_train(*arguments, "hydra.sweep.dir=whole/search")
    assert whole.returncode == 0, whole.stderr
    folder = tmp_path / "killed" / "search"
    command = [*TRAIN, *arguments, "hydra.sweep.dir=killed/search"]
    for turn, rows in enumerate([2, 5, 9, 13]):  # of all runs, when the search is killed
        process = subprocess.Popen(
            command, cwd=tmp_path, env=clean_environment() | {"PYTHONHASHSEED": str(turn)},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_until(lambda rows=rows: lines_of(folder) >= rows)
        process.send_signal(signal.SIGTERM if turn == 1 else signal.SIGKILL)
        assert process.wait() != 0
    last = cherimoya_train(*arguments, "hydra.sweep.dir=killed/search")
    assert last.returncode == 0, last.stderr
    assert ending(last) == [line.replace("whole/", "killed/") for line in ending(whole)]
    members = {m.folder.name: m for m in sweeps.read_sweep(tmp_path / "whole" / "search")}
    assert {m.state for m in members.values()} == {"done", "pruned"}
    assert sorted(members) == [m.folder.name for m in sweeps.read_sweep(folder)]
    for name, member in members.items():
        a, b = weights(member.folder, "best.pt"), weights(folder / name, "best.pt")
        assert all((a[key] == b[key]).all() for key in a)
        assert (member.folder / "checkpoints" / "last.pt").is_file()
        if member.state == "pruned":
            epoch = member.summary["pruned"]["epoch"]
            assert f"after epoch {epoch}, by the median pruner" in member.summary["pruned"]["why"]
            assert member.summary["epochs"] == epoch + 1 < 3
    again = cherimoya_train(*arguments, "hydra.sweep.dir=killed/search")
    assert ending(again) == ending(last)
    (command,) = [line for line in ending(last) if line.startswith("train again")]
    alone = cherimoya_train(*shlex.split(command)[3:], "hydra.run.dir=alone")
    assert alone.returncode == 0, alone.stderr
    best = json.loads((tmp_path / "alone" / "summary.json").read_text())["best_valid_loss"]
    assert best == min(m.summary["best_valid_loss"] for m in members.values())


def lines_of(folder):
    return sum(len(path.read_text().splitlines()) for path in folder.glob("*/metrics.jsonl"))


def ending(done):
    """The table without its times, and what is said below it."""
    lines = done.stdout[done.stdout.rindex("=== sweep") :].splitlines()[1:]
    return [re.sub(r" +[\d.]+$", "", line) for line in lines]


def test_a_torn_line_of_the_journal_is_cut_off(tmp_path, capsys):
    journal = tmp_path / search.JOURNAL
    with pytest.raises(Killed):
        sweep(tmp_path, Runs(tmp_path, kill=lambda run, epoch: epoch == 2), n_trials=3)
    whole = journal.read_bytes()
    lines = whole.splitlines(keepends=True)
    journal.write_bytes(whole[: -len(lines[-1]) // 2])
    sweep(tmp_path, n_trials=3)
    assert "study.journal: its last line was cut short, and is left out" in capsys.readouterr().out
    assert [name for name, *_ in trials(tmp_path)] == ["COMPLETE"] * 3


PASSWORD = "s3cret"
URLS = (
    f"postgresql://me:{PASSWORD}@db.lab:5432/study",
    f"postgresql+psycopg2://:{PASSWORD}@db.lab/study",
    f"mysql://db.lab/study?user=me&password={PASSWORD}",
)


def test_a_password_of_the_storage_stands_in_no_file_of_a_search(tmp_path, monkeypatch):
    url = f"sqlite:///file:{tmp_path}/study.db?uri=true&password={PASSWORD}"
    folder = tmp_path / "sweep"
    monkeypatch.setenv("CHERIMOYA_STORAGE", "")  # which a search sets
    runs = sweep(folder, n_trials=3, storage=url, pruner="none")
    assert len(runs.begun) == 3
    plan("seed=1,2", f"hydra.sweep.dir={folder}", f"hydra.sweeper.storage='{url}'").write([url])
    status.write(folder / runs.begun[0], "failed", 0.0, ConfigError(url))
    kept = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.name == "trial.json" for path in kept)
    assert any(path.name == "sweep.json" for path in kept)
    for path in kept:
        assert PASSWORD not in path.read_text(), path


def test_a_run_elsewhere_says_how_it_gets_the_password(tmp_path, monkeypatch):
    url = f"sqlite:///file:{tmp_path}/study.db?uri=true&password={PASSWORD}"
    monkeypatch.setenv("CHERIMOYA_STORAGE", "")
    with pytest.raises(Killed):
        sweep(tmp_path / "a", Runs(tmp_path / "a", kill=lambda *_: True), n_trials=1, storage=url)
    (run,) = (path.parent for path in tmp_path.glob("a/*/trial.json"))
    assert search.watch(run) is not None  # in a process that the search has begun
    monkeypatch.delenv("CHERIMOYA_STORAGE")
    with pytest.raises(ConfigError, match="export CHERIMOYA_STORAGE="):
        search.watch(run)


@pytest.mark.parametrize("url", URLS)
def test_a_password_is_not_printed(url, tmp_path, monkeypatch, capsys):
    with pytest.raises(ConfigError) as error:
        plan("seed=1,2", f"hydra.sweep.dir={tmp_path}", f"hydra.sweeper.storage='{url}'")
    assert PASSWORD not in str(error.value)
    print_error(ValueError(f"cannot open {url} and more"))
    said = capsys.readouterr().err
    assert PASSWORD not in said
    assert "db.lab" in said
    assert said.endswith(" and more\n")
    monkeypatch.setattr("sys.argv", ["cherimoya-train", f"hydra.sweeper.storage={url}", "a=b@c"])
    made = provenance("", torch.device("cpu"), "fp32")["command"]
    assert PASSWORD not in made
    assert made.endswith(" a=b@c")


def test_a_storage_may_be_a_variable_of_the_environment(tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path}/study.db"
    monkeypatch.setenv("MY_STUDY", url)
    words = ["hydra.sweeper.storage=${oc.env:MY_STUDY}", f"hydra.sweep.dir={tmp_path}"]
    assert plan("seed=1,2", *words).config.storage == url


def test_a_password_of_the_storage_is_not_pickled(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    url = f"sqlite:///file:{tmp_path}/study.db?uri=true&password={PASSWORD}"
    monkeypatch.setenv("CHERIMOYA_STORAGE", "")
    words = ["seed=1,2", f"hydra.sweep.dir={tmp_path}", "hydra/launcher=slurm"]
    words.append("hydra.launcher.cluster=local")
    with pytest.raises(ConfigError, match=r"password=\*\*\*.*export CHERIMOYA_STORAGE=") as error:
        plan(*words, f"hydra.sweeper.storage='{url}'")
    assert PASSWORD not in str(error.value)
    monkeypatch.setenv("MY_STUDY", url)
    shown = url.replace(PASSWORD, "***")
    for typed in ("hydra.sweeper.storage=${oc.env:MY_STUDY}", f"hydra.sweeper.storage='{shown}'"):
        search_sweep = plan(*words, typed)  # the second one by what the first has exported
        assert PASSWORD not in str(search_sweep)
        assert search_sweep.config.storage == shown
        assert os.environ["CHERIMOYA_STORAGE"] == url
