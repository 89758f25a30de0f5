"""A run from end to end: the same every time, and to the bit after any interruption."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from command_lines import TRAIN, clean_environment, command, wait_until
from configs import composed, made_of
from matplotlib import image
from training_runs import assert_same_run, weights

from cherimoya import Cherimoya
from cherimoya.config.schema import build
from cherimoya.config.train import TrainConfig
from cherimoya.errors import CherimoyaError, ConfigError
from cherimoya.records.run import LAST, PREVIOUS, begin_run
from cherimoya.training.checkpoint import Checkpoints
from cherimoya.training.run import train
from cherimoya.training.trainer import Trainer
from cherimoya.util.files import lock_folder


def run_folder(folder: Path) -> Path:
    (found,) = folder.glob("outputs/*/*/")
    return found


@pytest.fixture(scope="module")
def undisturbed(train_arguments, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    done = command("train", *train_arguments, folder=folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture
def whole_run(undisturbed, tmp_path):
    """A copy of the run that this file's tests share, and what it printed."""
    folder, printed = undisturbed
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    return run_folder(tmp_path), printed


@pytest.mark.slow
def test_a_run_leaves_what_it_promises(whole_run):
    run, printed = whole_run
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    steps_per_epoch = rows[0]["step"]
    assert [row["step"] for row in rows] == [steps_per_epoch * i for i in (1, 2, 3)]
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]
    summary = json.loads((run / "summary.json").read_text())
    best = min(rows, key=lambda row: row["valid/loss"])
    assert summary["best_epoch"] == best["epoch"]
    assert summary["test"]["profile_pearson"] > summary["average_profile"]["profile_pearson"] - 0.2
    assert summary["ceiling"]["profile_mnll"] < summary["test"]["profile_mnll"]
    assert json.loads((run / "status.json").read_text())["state"] == "done"
    origin = summary["provenance"]
    assert origin["versions"]["torch"] == torch.__version__
    assert origin["data_fingerprint"] in printed
    model = Cherimoya.load(run / "checkpoints" / "best.pt")
    assert summary["parameters"] == sum(p.numel() for p in model.parameters())
    for fact in ("no GPU found", "8 filters x 4 blocks", "receptive field", "train ", "of ceiling"):
        assert fact in printed
    assert str(run.name) in printed


@pytest.mark.slow
def test_a_run_draws_its_plots(cherimoya_train, train_arguments, tmp_path):
    done = cherimoya_train(*train_arguments, "trainer.plots=true", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    assert "plots        run/plots" in done.stdout
    assert "report       run/report.html" in done.stdout
    scores = json.loads((tmp_path / "run" / "summary.json").read_text())["test"]
    assert f"{scores['profile_pearson']:.4f}" in (tmp_path / "run" / "report.html").read_text()
    images = {p.name: image.imread(p) for p in (tmp_path / "run" / "plots").iterdir()}
    assert set(images) == {"learning_curves.png", "counts.png", "profiles.png"}
    for name, pixels in images.items():  # something is drawn in the blue of predictions
        assert (pixels[..., 2] - pixels[..., 0] > 0.2).sum() > 50, name


@pytest.mark.slow
def test_two_runs_with_one_seed_are_equal_and_another_seed_is_not(
    whole_run, cherimoya_train, train_arguments, tmp_path
):
    first, _ = whole_run
    assert cherimoya_train(*train_arguments, "hydra.run.dir=again").returncode == 0
    assert_same_run(first, tmp_path / "again")
    assert cherimoya_train(*train_arguments, "seed=1", "hydra.run.dir=other").returncode == 0
    assert not torch.equal(
        weights(first)["iconv.weight"], weights(tmp_path / "other")["iconv.weight"]
    )


@pytest.mark.parametrize(
    "kill",
    [
        pytest.param(signal.SIGKILL, marks=pytest.mark.slow),
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_killed_and_resumed_run_equals_an_undisturbed_one(
    kill, whole_run, cherimoya_train, train_arguments, tmp_path
):
    whole, _ = whole_run
    run = tmp_path / "killed"
    words = [*TRAIN, *train_arguments, f"hydra.run.dir={run}", "trainer.checkpoint_minutes=1e-4"]
    process = subprocess.Popen(
        words, cwd=tmp_path, env=clean_environment(), stdout=subprocess.PIPE, text=True
    )
    rows = run / "metrics.jsonl"
    wait_until(lambda: rows.exists() and rows.stat().st_size > 0)
    time.sleep(0.05)  # somewhere in the second epoch
    process.send_signal(kill)
    output, _ = process.communicate(timeout=60)
    assert not (run / "summary.json").exists(), "killed too late to test anything"
    if kill != signal.SIGKILL:
        assert process.returncode == 128 + kill
        assert f"trainer.resume={run.name}" in output
        assert json.loads((run / "status.json").read_text())["state"] == "interrupted"
    resumed = cherimoya_train(f"trainer.resume={run}", "trainer.checkpoint_minutes=5")
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed after" in resumed.stdout
    assert_same_run(whole, run)
    assert json.loads((run / "status.json").read_text())["state"] == "done"


def test_resuming_with_another_model_says_what_changed(whole_run, cherimoya_train):
    run, _ = whole_run
    done = cherimoya_train(f"trainer.resume={run}", "model.n_filters=16")
    assert done.returncode == 1
    assert "model.n_filters was 8, now 16" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_resuming_a_finished_run_changes_nothing(whole_run, cherimoya_train):
    run, _ = whole_run
    before = (run / "metrics.jsonl").read_text(), weights(run, "final.pt")
    assert cherimoya_train(f"trainer.resume={run}").returncode == 0
    assert (run / "metrics.jsonl").read_text() == before[0]
    for key, value in weights(run, "final.pt").items():
        assert torch.equal(value, before[1][key])


@pytest.mark.slow
def test_resuming_with_changed_data_is_refused(
    cherimoya_train, train_arguments, small_data, tmp_path
):
    copy = tmp_path / "copy.h5"
    copy.write_bytes(small_data.read_bytes())
    arguments = [a.replace(str(small_data), "copy.h5") for a in train_arguments]
    arguments.append("trainer.max_epochs=1")
    assert cherimoya_train(*arguments, "hydra.run.dir=run").returncode == 0
    assert f"path: {copy}" in (tmp_path / "run" / "config.yaml").read_text()
    with open(copy, "ab") as file:
        file.write(b"more")
    done = cherimoya_train("trainer.resume=run")
    assert done.returncode == 1
    assert "has changed since the run began" in done.stderr


@pytest.mark.slow
def test_a_run_goes_on_where_its_data_are_now(
    whole_run, cherimoya_train, train_arguments, small_data, tmp_path
):
    whole, _ = whole_run
    (tmp_path / "before.h5").write_bytes(small_data.read_bytes())
    arguments = [a.replace(str(small_data), "before.h5") for a in train_arguments]
    run = interrupted(tmp_path / "run", arguments, tmp_path)
    (tmp_path / "before.h5").rename(tmp_path / "after.h5")
    lost = cherimoya_train("trainer.resume=run")
    assert lost.returncode == 1
    assert "before.h5, which the run began with, is not there" in lost.stderr
    assert "trainer.resume=run data.path=..." in lost.stderr
    resumed = cherimoya_train("trainer.resume=run", "data.path=after.h5")
    assert resumed.returncode == 0, resumed.stderr
    assert_same_run(whole, run)
    assert f"path: {tmp_path / 'after.h5'}" in (run / "config.yaml").read_text()
    (tmp_path / "other.h5").write_bytes(small_data.read_bytes() + b"more")
    other = cherimoya_train("trainer.resume=run", "data.path=other.h5")
    assert other.returncode == 1
    assert "has changed since the run began" in other.stderr
    assert f"path: {tmp_path / 'after.h5'}" in (run / "config.yaml").read_text()


def interrupted(run: Path, arguments: list[str], folder: Path) -> Path:
    """A run that was killed in its second epoch."""
    words = [*TRAIN, *arguments, f"hydra.run.dir={run}", "trainer.checkpoint_minutes=1e-4"]
    process = subprocess.Popen(
        words, cwd=folder, env=clean_environment(), stdout=subprocess.PIPE, text=True
    )
    rows = run / "metrics.jsonl"
    wait_until(lambda: rows.exists() and rows.stat().st_size > 0)
    time.sleep(0.05)
    process.kill()
    process.communicate(timeout=60)
    assert not (run / "summary.json").exists(), "killed too late to test anything"
    return run


@pytest.mark.slow
def test_a_state_goes_on_under_its_own_configuration_alone(
    cherimoya_train, train_arguments, tmp_path
):
    run = interrupted(tmp_path / "run", train_arguments, tmp_path)
    config = run / "config.yaml"
    before = config.read_text()
    config.write_text(before.replace("seed: 0", "seed: 1"))
    done = cherimoya_train("trainer.resume=run")
    assert done.returncode == 1
    assert "seed was 0, now 1" in done.stderr
    for damaged in (before[:300], "", "\0\1", "[1]"):
        config.write_text(damaged)
        done = cherimoya_train("trainer.resume=run")
        assert done.returncode == 1
        assert f"{config} is damaged" in done.stderr.replace(" run/", f" {run}/")
        assert "Traceback" not in done.stderr
    config.write_text(before)
    assert cherimoya_train("trainer.resume=run").returncode == 0


@pytest.mark.slow
def test_a_folder_that_a_run_is_going_on_in_is_left_as_it_is(
    cherimoya_train, train_arguments, tmp_path
):
    process = subprocess.Popen(
        [*TRAIN, *train_arguments, "trainer.max_epochs=500", "hydra.run.dir=run"], cwd=tmp_path,
        env=clean_environment(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    files = [tmp_path / "run" / name for name in ("config.yaml", "changed.json")]
    wait_until(lambda: (tmp_path / "run" / "checkpoints" / "last.pt").exists())
    before = [file.read_bytes() for file in files]
    done = cherimoya_train(*train_arguments, "seed=1", "model.n_filters=16", "hydra.run.dir=run")
    process.kill()
    process.communicate()
    assert done.returncode == 1
    assert f"in use by process {process.pid}" in done.stderr
    assert [file.read_bytes() for file in files] == before


def test_a_folder_that_holds_another_run_is_refused(whole_run, cherimoya_train, train_arguments):
    run, _ = whole_run
    files = [p for p in run.rglob("*") if p.is_file() and p.name != ".lock"]
    before = {path: path.read_bytes() for path in files}
    done = cherimoya_train(*train_arguments, "seed=1", f"hydra.run.dir={run}")
    assert done.returncode == 1
    assert f"{run.name} holds another run" in done.stderr
    assert "hydra.run.dir" in done.stderr
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow
def test_what_a_run_left_before_it_saved_anything_is_replaced(
    cherimoya_train, train_arguments, tmp_path
):
    failed = cherimoya_train(*train_arguments, "trainer.batch_size=5000", "hydra.run.dir=run")
    assert failed.returncode == 1
    assert cherimoya_train(*train_arguments, "seed=1", "hydra.run.dir=run").returncode == 0
    assert "seed: 1" in (tmp_path / "run" / "config.yaml").read_text()
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3


def test_what_a_killed_process_was_about_to_save_is_no_other_run(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".last.pt.new.1395.tmp").touch()
    begin_run(tmp_path, made_of([]).config, None)
    assert (tmp_path / "config.yaml").is_file()
    (tmp_path / "checkpoints" / "last.pt.new").touch()
    with pytest.raises(ConfigError, match="holds another run"):
        begin_run(tmp_path, made_of([]).config, None)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(
    cherimoya_train, train_arguments, tmp_path
):
    done = cherimoya_train(*train_arguments, "optim.adamw.lr=1e30", "hydra.run.dir=run")
    assert done.returncode == 1
    assert "the loss is" in done.stderr
    assert "Lower optim.muon.lr" in done.stderr
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "failed"


def test_nothing_is_saved_between_the_last_step_of_an_epoch_and_its_end(
    train_arguments, tmp_path, monkeypatch
):
    saved = []

    def note(trainer: Trainer) -> None:
        saved.append((trainer.state.batch, trainer.steps_per_epoch))

    monkeypatch.setattr(Trainer, "save", note)
    config = build(
        TrainConfig, composed("train", [*train_arguments, "trainer.checkpoint_minutes=1e-9"])
    )
    threads = torch.get_num_threads()
    train(config, tmp_path)
    torch.set_num_threads(threads)
    batches, (steps, *_) = zip(*saved, strict=True)
    assert set(batches) == set(range(steps))  # the loss weights would not be frozen after a resume


@pytest.mark.slow
def test_early_stopping(cherimoya_train, train_arguments):
    # Rates this large make the validation loss worse sooner or later.
    done = cherimoya_train(
        *train_arguments, "trainer.early_stopping=1", "trainer.max_epochs=30",
        "optim.adamw.lr=0.5", "optim.muon.lr=0.5", "optim.ema_decay=0",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "stopping early" in done.stdout
    assert "epoch 29" not in done.stdout


def test_a_damaged_last_checkpoint_falls_back_to_the_one_before(tmp_path):
    checkpoints, said = Checkpoints(tmp_path), []
    checkpoints.save_last({"epoch": 1})
    checkpoints.save_last({"epoch": 2})
    assert checkpoints.load_last(said.append) == {"epoch": 2}
    assert said == []
    (tmp_path / LAST).write_bytes((tmp_path / LAST).read_bytes()[:100])
    assert checkpoints.load_last(said.append) == {"epoch": 1}
    assert "damaged" in said[0]
    Cherimoya(n_filters=8, n_layers=1).save(tmp_path / LAST)
    assert checkpoints.load_last(said.append) == {"epoch": 1}
    assert "is a model, not the state of a run" in said[1]
    (tmp_path / PREVIOUS).write_bytes(b"")
    with pytest.raises(CherimoyaError, match="cannot resume"):
        checkpoints.load_last(said.append)


def test_a_checkpoint_that_was_written_but_not_put_in_place_counts(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_last({"epoch": 1})
    monkeypatch.setattr(Checkpoints, "_put_in_place", lambda self: None)  # killed before that
    checkpoints.save_last({"epoch": 2})
    monkeypatch.undo()
    assert checkpoints.load_last(print) == {"epoch": 2}
    assert torch.load(tmp_path / LAST) == {"epoch": 2}
    assert torch.load(tmp_path / PREVIOUS) == {"epoch": 1}


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_last({"epoch": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save_last({"epoch": 2})
    assert checkpoints.load_last(print) == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == [LAST]


def test_two_runs_cannot_own_one_folder(tmp_path):
    message = f"in use by process {os.getpid()}"
    with lock_folder(tmp_path), pytest.raises(CherimoyaError, match=message), lock_folder(tmp_path):
        pass
    with lock_folder(tmp_path):  # free again
        pass
