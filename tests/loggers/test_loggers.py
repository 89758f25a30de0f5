"""Loggers that ship beside W&B's, and several at once."""

import csv
import json
import math
import sys
from collections.abc import Mapping
from contextlib import contextmanager

import numpy as np
import pytest

from cherimoya.config.schema import choose
from cherimoya.errors import CherimoyaError, PackageError
from cherimoya.loggers.base import Logger
from cherimoya.loggers.csv import CSVLogger
from cherimoya.loggers.run_log import RunLog
from cherimoya.loggers.tensorboard import TensorBoardLogger


@contextmanager
def logged(folder, *names: str, ids: Mapping = {}, kept: str | None = None):
    """The log of a run with loggers of these names, which may go on from rows that were kept."""
    chosen = {n.rpartition(":")[2]: choose("logger", {"name": n}, "logger") for n in names}
    with RunLog(folder, chosen) as log:
        log.check_loggers()
        if kept is not None:
            log.rewind(kept)
        log.start_loggers({"seed": 0}, ids)
        yield log


def table(folder) -> list[dict[str, str]]:
    """metrics.csv."""
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


# ------------------------------------------------------------------------------------------- csv


def test_a_line_an_epoch_and_a_column_a_metric(tmp_path):
    with logged(tmp_path, "csv") as log:
        assert log.where == "metrics.csv"
        log.row({"step": 4, "epoch": 0, "train/loss": 1 / 3})
        assert (tmp_path / "metrics.csv").read_text() == (
            "step,epoch,train/loss\n4,0,0.3333333333333333\n"
        )
        log.row({"step": 8, "epoch": 1, "train/loss": math.nan, "valid/loss": 2.5})
        log.row({"step": 12, "epoch": 2, "valid/loss": 2.0, "lr/muon": 1e-05})
    assert (tmp_path / "metrics.csv").read_text() == (
        "step,epoch,train/loss,valid/loss,lr/muon\n"
        "4,0,0.3333333333333333,,\n"
        "8,1,,2.5,\n"
        "12,2,,2.0,1e-05\n"
    )


def test_the_table_has_the_numbers_of_the_rows_to_the_last_digit(tmp_path):
    values = np.random.default_rng(0).standard_normal((5, 2))
    with logged(tmp_path, "csv") as log:
        for i, (a, b) in enumerate(values):
            log.row({"step": i, "a": float(a), "b, quoted": float(np.float32(b))})
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [{k: float(v) for k, v in row.items()} for row in table(tmp_path)] == rows


def test_a_run_that_goes_on_has_the_lines_of_before(tmp_path):
    with logged(tmp_path, "csv") as log:
        log.row({"step": 1, "loss": 3.0})
        kept = log.rows()
        log.row({"step": 2, "loss": 2.0, "late": 1.0})
        ids = log.ids
    assert len(table(tmp_path)) == 2
    with logged(tmp_path, "csv", ids=ids, kept=kept) as log:
        assert table(tmp_path) == [{"step": "1", "loss": "3.0"}]
        log.row({"step": 2, "loss": 1.5})
    assert table(tmp_path) == [{"step": "1", "loss": "3.0"}, {"step": "2", "loss": "1.5"}]


def test_a_logger_that_a_run_goes_on_with_has_its_rows_too(tmp_path):
    with logged(tmp_path) as log:
        log.row({"step": 1, "loss": 3.0})
        kept = log.rows()
    with logged(tmp_path, "csv", kept=kept):
        pass
    assert table(tmp_path) == [{"step": "1", "loss": "3.0"}]


# ----------------------------------------------------------------------------------- tensorboard


def events(folder):
    """What TensorBoard reads of a run."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0})
    return found.Reload()


def scalars(folder) -> dict[str, list[tuple[int, float]]]:
    """Step and value of every scalar, by its tag."""
    found = events(folder)
    return {t: [(e.step, e.value) for e in found.Scalars(t)] for t in found.Tags()["scalars"]}


def test_tensorboard_has_a_scalar_a_metric_by_step(tmp_path):
    pytest.importorskip("tensorboard")
    with logged(tmp_path, "tensorboard") as log:
        assert log.where == f"tensorboard --logdir {tmp_path / 'tensorboard'}"
        log.row({"step": 4, "epoch": 0, "train/loss": 3.5, "lr/muon": 0.25, "valid/loss": math.nan})
        assert scalars(tmp_path) == {"train/loss": [(4, 3.5)], "lr/muon": [(4, 0.25)]}
        log.row({"step": 8, "epoch": 1, "train/loss": 2, "lr/muon": 0.125, "valid/loss": 7.0})
    assert scalars(tmp_path) == {
        "train/loss": [(4, 3.5), (8, 2.0)],
        "lr/muon": [(4, 0.25), (8, 0.125)],
        "valid/loss": [(8, 7.0)],
    }


def test_tensorboard_has_the_plots(tmp_path):
    pytest.importorskip("tensorboard")
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    image.fromarray(pixels).save(tmp_path / "plot.png")
    with logged(tmp_path, "tensorboard") as log:
        log.image("plots/loss", tmp_path / "plot.png", 8)
    (event,) = events(tmp_path).Images("plots/loss")
    assert (event.step, event.height, event.width) == (8, 5, 7)
    (tmp_path / "seen.png").write_bytes(event.encoded_image_string)
    assert np.array_equal(np.asarray(image.open(tmp_path / "seen.png")), pixels[..., :3])


def test_tensorboard_shows_nothing_that_a_run_went_back_before(tmp_path):
    pytest.importorskip("tensorboard")
    with logged(tmp_path, "tensorboard") as log:
        log.row({"step": 1, "epoch": 0, "loss": 3.0})
        kept = log.rows()
        log.row({"step": 2, "epoch": 1, "loss": 2.0})
        log.row({"step": 3, "epoch": 2, "loss": 1.0})
        ids = log.ids
    with logged(tmp_path, "tensorboard", ids=ids, kept=kept) as log:
        log.row({"step": 2, "epoch": 1, "loss": 2.5})
    assert scalars(tmp_path) == {"loss": [(1, 3.0), (2, 2.5)]}


def test_tensorboard_where_it_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(PackageError, match=r"pip install 'cherimoya-train\[tensorboard\]'"):
        TensorBoardLogger(tmp_path).check()


# --------------------------------------------------------------------------------------- several

TOLD: list[tuple] = []


class Told(Logger):
    """Remembers what it is told."""

    def start(self, settings, earlier_id, rows):
        self.id = "told 7"
        TOLD.append(("start", dict(settings), earlier_id, list(rows)))

    def row(self, values):
        TOLD.append(("row", dict(values)))

    def summary(self, values):
        TOLD.append(("summary", dict(values)))

    def finish(self, state, exit_code):
        TOLD.append(("finish", state, exit_code))


class Full(CSVLogger):
    """Fails at its second row, as on a disk that is full."""

    def row(self, values):
        if values["step"] > 1:
            raise OSError("no space left")
        super().row(values)

    def finish(self, state, exit_code):
        raise AssertionError("told after it had failed")


def test_two_loggers_are_told_the_same(tmp_path):
    TOLD.clear()
    rows = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}]
    with logged(tmp_path, "csv", f"{__name__}:Told") as log:
        assert log.where == "metrics.csv; Told"
        for row in rows:
            log.row(row)
        log.summary({"best": 2.0})
        kept, ids = log.rows(), log.ids
    assert ids == {"csv": None, "Told": "told 7"}
    assert table(tmp_path) == [{k: str(v) for k, v in row.items()} for row in rows]
    with (
        pytest.raises(ValueError, match="broken"),
        logged(tmp_path, "csv", f"{__name__}:Told", ids=ids, kept=kept),
    ):
        raise ValueError("broken")
    expected = [
        ("start", {"seed": 0}, None, []),
        *(("row", row) for row in rows),
        ("summary", {"best": 2.0}),
        ("finish", "done", 0),
        ("start", {"seed": 0}, "told 7", rows),
        ("finish", "failed", 1),
    ]
    assert expected == TOLD


def test_a_logger_that_fails_is_left_out_and_the_run_goes_on(tmp_path, capsys):
    TOLD.clear()
    with logged(tmp_path, f"{__name__}:Full", f"{__name__}:Told") as log:
        for step in (1, 2, 3):
            log.row({"step": step})
        log.summary({"best": 1})
        assert log.where == "Told"
        assert list(log.ids) == ["Told"]
    printed = capsys.readouterr().out
    assert printed.count("logger Full failed (OSError: no space left)") == 1
    assert printed.count("failed") == 1
    assert [told[1] for told in TOLD if told[0] == "row"] == [{"step": s} for s in (1, 2, 3)]
    assert TOLD[-1] == ("finish", "done", 0)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3
    assert len(table(tmp_path)) == 1
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "done"


class WhereIsAMethod(Logger):
    def where(self):
        return "here"


class WhereIsANumber(Logger):
    where = 3


class NoTextAsId(Logger):
    id = object()


def test_a_where_or_an_id_that_is_none_leaves_a_logger_out(tmp_path, capsys):
    names = [one.__name__ for one in (WhereIsAMethod, WhereIsANumber, NoTextAsId)]
    with logged(tmp_path, *(f"{__name__}:{name}" for name in names)) as log:
        assert log.where == "3"
        assert log.ids == {"WhereIsANumber": None}
    printed = capsys.readouterr().out
    assert "logger WhereIsAMethod failed (TypeError: its where is a method: write @prop" in printed
    assert "logger NoTextAsId failed (TypeError: its id is object: expected text)" in printed


@pytest.mark.slow
def test_a_run_goes_on_with_the_loggers_chosen_then(cherimoya_train, train_arguments, tmp_path):
    pytest.importorskip("tensorboard")
    arguments = [a for a in train_arguments if not a.startswith("logger=")]

    def metrics_of(*words: str) -> str:
        """Where that run says its metrics go."""
        done = cherimoya_train(*words)
        assert done.returncode == 0, done.stderr
        (line,) = (s for s in done.stdout.splitlines() if s.split()[:1] == ["metrics"])
        return line.split(maxsplit=1)[1].strip()

    run = tmp_path / "run"
    first = metrics_of(*arguments, "logger=[csv,tensorboard]", "hydra.run.dir=run")
    assert first == "metrics.csv; tensorboard --logdir run/tensorboard"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [int(row["step"]) for row in table(run)] == [row["step"] for row in rows]
    shown = scalars(run)["train/loss"]
    assert shown == [(r["step"], pytest.approx(r["train/loss"], rel=1e-6)) for r in rows]

    assert metrics_of("trainer.resume=run", "logger=none") == "the run folder only"
    metrics_of(*arguments, "logger=none", "hydra.run.dir=other", "trainer.max_epochs=1")
    assert metrics_of("trainer.resume=other", "logger=csv") == "metrics.csv"  # which it had not
    assert len(table(tmp_path / "other")) == 1


def test_where_one_does_not_begin_those_before_it_are_ended(tmp_path, monkeypatch):
    ended = []
    monkeypatch.setattr(CSVLogger, "finish", lambda self, state, code: ended.append(state))
    monkeypatch.setattr(TensorBoardLogger, "start", lambda *_: 1 / 0)
    names = ("csv", "tensorboard")
    chosen = {name: choose("logger", {"name": name}, f"logger.{name}") for name in names}
    with (
        pytest.raises(CherimoyaError, match="logger tensorboard did not begin"),
        RunLog(tmp_path, chosen) as log,
    ):
        log.start_loggers({}, {})
    assert ended == ["failed"]
