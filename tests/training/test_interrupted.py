"""A run that was stopped anywhere goes on, and its record is true meanwhile."""

import json
import os
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest
import torch
from configs import composed
from training_runs import assert_same_run

from cherimoya.config.schema import build
from cherimoya.config.train import TrainConfig
from cherimoya.errors import CherimoyaError, Interrupted
from cherimoya.records import status
from cherimoya.records.run import read_run
from cherimoya.training import interrupt, summary
from cherimoya.training.run import RunContext, train


def configured(arguments: list[str], **trainer) -> TrainConfig:
    values = composed("train", arguments)
    values["trainer"] |= trainer
    return build(TrainConfig, values)


@pytest.fixture(scope="module")
def whole_run(train_arguments, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(configured(train_arguments), folder)
    return folder


def copied(run: Path, folder: Path, *left_out: str) -> Path:
    """The run, less what it had not come to."""
    shutil.copytree(run, folder)
    for name in left_out:
        for path in folder.glob(name):
            path.unlink()
    values = status.read_json(folder / "status.json") | {"state": "interrupted"}
    (folder / "status.json").write_text(json.dumps(values))
    return folder


def test_a_run_that_had_saved_nothing_starts_over(whole_run, train_arguments, tmp_path, capsys):
    run = copied(whole_run, tmp_path / "again", "checkpoints/*", "summary.json")
    (run / "metrics.jsonl").write_text((run / "metrics.jsonl").read_text()[:50])
    (run / "checkpoints" / f".best.pt.{socket.gethostname()}.999999999.tmp").write_text("half")
    assert read_run(run).can_resume
    train(configured(train_arguments, resume=str(run)), run)
    assert "holds no last.pt yet, so the run starts over" in capsys.readouterr().out
    assert_same_run(run, whole_run)
    assert not list(run.rglob("*.tmp"))


def test_a_state_that_is_missing_is_told_where_the_one_before_is_taken(
    whole_run, train_arguments, tmp_path, capsys
):
    run = copied(whole_run, tmp_path / "again", "checkpoints/last.pt", "summary.json")
    train(configured(train_arguments, resume=str(run)), run)
    said = capsys.readouterr().out
    assert f"{run}/checkpoints/last.pt is missing. Continuing from previous.pt, the one bef" in said
    assert_same_run(run, whole_run)


def spoil(path: Path, damage: str) -> None:
    path.unlink() if damage == "gone" else path.write_bytes(path.read_bytes()[:500])


@pytest.mark.parametrize("damage", ["gone", "torn"])
def test_a_best_model_that_the_state_still_holds_is_written_again(
    damage, whole_run, train_arguments, tmp_path, capsys
):
    run = copied(whole_run, tmp_path / "again", "summary.json")
    assert torch.load(run / "checkpoints/last.pt")["state"]["best_epoch"] == 2  # the last one
    spoil(run / "checkpoints/best.pt", damage)
    train(configured(train_arguments, resume=str(run)), run)
    assert "is written again from the state after epoch 2" in capsys.readouterr().out
    assert_same_run(run, whole_run)


@pytest.mark.parametrize("damage", ["gone", "torn"])
def test_a_best_model_that_is_lost(damage, whole_run, train_arguments, tmp_path, capsys):
    """As if an epoch before the last state had been the best, and no later one could be."""
    run = copied(whole_run, tmp_path / "again", "summary.json", "checkpoints/last.pt")
    (run / "checkpoints/previous.pt").rename(run / "checkpoints/last.pt")
    set_best(run / "checkpoints/last.pt", 0)
    spoil(run / "checkpoints/best.pt", damage)
    train(configured(train_arguments, resume=str(run)), run)
    assert "of epoch 0, is lost, and the best of the epochs from" in capsys.readouterr().out
    assert status.read_json(run / "summary.json")["best_epoch"] == 2
    assert status.read(run)["best_epoch"] == 2
    (run / "summary.json").unlink()
    set_best(run / "checkpoints/last.pt", 0)
    spoil(run / "checkpoints/best.pt", damage)
    with pytest.raises(CherimoyaError, match=r"cannot resume: .* no epoch is left .* Put the file"):
        train(configured(train_arguments, resume=str(run)), run)


def set_best(path: Path, epoch: int) -> None:
    saved = torch.load(path)
    saved["state"] |= {"best_epoch": epoch, "best_loss": 0.0}
    torch.save(saved, path)


@pytest.mark.parametrize("damage", ["shorter", "longer", "torn", "another", "gone"])
def test_rows_are_put_back_from_the_checkpoint(
    damage, whole_run, train_arguments, tmp_path, capsys
):
    run = copied(whole_run, tmp_path / "again")
    rows = run / "metrics.jsonl"
    text = rows.read_text()
    changed = {"shorter": text[:80], "longer": text + text, "torn": text + '{"st', "another": "x"}
    rows.write_text(changed.get(damage, ""))
    if damage == "gone":
        rows.unlink()
    train(configured(train_arguments, resume=str(run)), run)
    assert rows.read_text() == text
    said = "its rows are put back as they were" in capsys.readouterr().out
    assert said == (damage in ("shorter", "another", "gone"))


def test_a_signal_while_the_data_are_read_stops_at_once(
    train_arguments, tmp_path, monkeypatch, capsys
):
    def load(self, config):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        pytest.fail("it went on")

    monkeypatch.setattr(RunContext, "load", load)
    with pytest.raises(Interrupted) as stopped:
        train(configured(train_arguments), tmp_path / "run")
    monkeypatch.undo()
    assert stopped.value.exit_code == 143
    assert status.read(tmp_path / "run")["state"] == "interrupted"
    assert "stopped. Continue with: cherimoya-train trainer.resume=" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    train(configured(train_arguments, resume=str(tmp_path / "run")), tmp_path / "run")
    assert status.read(tmp_path / "run")["state"] == "done"


def test_a_signal_while_plots_are_drawn_stops_the_run(
    whole_run, train_arguments, tmp_path, monkeypatch
):
    run = copied(whole_run, tmp_path / "again", "summary.json")
    monkeypatch.setattr(summary, "_plots", lambda *_: os.kill(os.getpid(), signal.SIGUSR1))
    with pytest.raises(Interrupted):
        train(configured(train_arguments, resume=str(run), plots=True), run)
    assert status.read(run)["state"] == "interrupted"


def test_a_signal_is_noted_where_someone_saves_first():
    with interrupt.stop_request(at_once=True) as stop:
        with stop.noted():
            os.kill(os.getpid(), signal.SIGUSR1)
        assert stop.signum == signal.SIGUSR1
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)


def test_plots_that_fail_fail_no_run(whole_run, train_arguments, tmp_path, monkeypatch, capsys):
    run = copied(whole_run, tmp_path / "again", "summary.json")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(summary, "_plots", full)
    train(configured(train_arguments, resume=str(run), plots=True), run)
    assert "no plots: OSError(28" in capsys.readouterr().out
    assert status.read(run)["state"] == "done"
    assert (run / "summary.json").is_file()


def test_a_run_elsewhere_that_gives_no_sign_is_not_running(tmp_path, monkeypatch):
    known = {"state": "running", "pid": 1, "host": "elsewhere", "started": "2026-01-01T00:00:00+0"}
    path = tmp_path / "status.json"
    path.write_text(json.dumps(known))
    assert status.read(tmp_path)["state"] == "running"
    before = time.time() - status.SILENT_SECONDS - 1
    os.utime(path, (before, before))
    assert status.read(tmp_path)["state"] == "interrupted"
    monkeypatch.setattr(status, "BEAT_SECONDS", 0.01)
    alive = status.Heartbeat(tmp_path)
    while path.stat().st_mtime < before + 1:
        time.sleep(0.01)
    assert status.read(tmp_path)["state"] == "running"
    alive.stop()
