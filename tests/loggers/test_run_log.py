"""What a run records, on disk and at W&B."""

import errno
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from command_lines import clean_environment, command, fails
from wandb_files import read_wandb
from wandb_server import wandb_server

from cherimoya.config.schema import Choice, choose
from cherimoya.errors import CherimoyaError, Interrupted
from cherimoya.loggers import wandb as wandb_run
from cherimoya.loggers.run_log import RunLog
from cherimoya.loggers.wandb import FLUSH_SECONDS, read_table, run_name
from cherimoya.loggers.wandb_files import numbers_on_disk
from cherimoya.records import status as run_status
from cherimoya.records import sweep as sweeps
from cherimoya.records.status import total_seconds
from cherimoya.records.sweep import sync_command


def logger(**values) -> dict[str, Choice]:
    """W&B where a name or a mode is given, else none."""
    defaults = {"project": "test", "mode": "offline", "run_name": None, "group": "g"}
    defaults |= {"name": "wandb", "tags": ["t"], "log_model": "none"}
    return {"wandb": choose("logger", defaults | values, "logger.wandb")} if values else {}


def status(folder) -> dict:
    return json.loads((folder / "status.json").read_text())


def test_rows_are_on_disk_at_once_and_nan_is_null(tmp_path):
    with RunLog(tmp_path, logger()) as log:
        log.row({"step": 1, "value": float("nan")})
        assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "value": null}\n'
        assert status(tmp_path)["state"] == "running"
    assert status(tmp_path)["state"] == "done"


def test_a_rewound_log_forgets_rows_and_half_rows(tmp_path):
    with RunLog(tmp_path, logger()) as log:
        log.row({"step": 1})
        kept = log.rows()
        log.row({"step": 2})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 3, "val')
    with RunLog(tmp_path, logger()) as log:
        log.rewind(kept)
        log.row({"step": 2})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'


def test_the_time_of_a_run_is_that_of_all_its_processes(tmp_path):
    with RunLog(tmp_path, logger()) as log:
        log.row({"step": 1})
        kept = log.rows()
    first = status(tmp_path)
    (tmp_path / "status.json").write_text(json.dumps(first | {"seconds": 500.0}))
    with RunLog(tmp_path, logger()) as log:
        log.rewind(kept, trained=400.0)
    assert status(tmp_path)["seconds_before"] == 500
    with RunLog(tmp_path, logger()) as log:  # the last sign of life was before the checkpoint
        log.rewind(kept, trained=900.04)
    assert 900 <= total_seconds(status(tmp_path)) < 910
    assert status(tmp_path)["first_started"] == first["started"]
    with RunLog(tmp_path, logger()):  # a new run
        pass
    assert total_seconds(status(tmp_path)) < 10


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (ValueError("broken"), "failed"),
        (Interrupted(15), "interrupted"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_the_status_tells_how_it_ended(tmp_path, error, state):
    with pytest.raises(type(error)), RunLog(tmp_path, logger()):
        raise error
    assert status(tmp_path)["state"] == state
    assert type(error).__name__ in status(tmp_path)["traceback"]


@pytest.mark.parametrize("state", ["failed", "interrupted", "done"])
def test_a_full_disk_leaves_no_run_that_seems_to_go_on(state, tmp_path, monkeypatch):
    facts = {"epoch": 1, "epochs": 9}
    run_status.write(tmp_path, "running", time.time(), **facts)

    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(run_status, "atomic_write", full)
    long = OSError("x" * 900)
    with pytest.raises(OSError, match="No space left"):
        run_status.write(tmp_path, state, time.time(), None if state == "done" else long, **facts)
    assert (
        run_status.read(tmp_path)["state"] == sweeps.read_member(tmp_path).status["state"] == state
    )
    assert run_status.read(tmp_path)["epochs"] == 9
    with pytest.raises(OSError, match="No space left"):
        run_status.write(tmp_path, "failed", time.time(), ValueError("why"))
    assert run_status.read(tmp_path)["error"] == "why"


def test_no_logger_never_imports_wandb(tmp_path):
    code = (
        "import sys\n"
        "from cherimoya.config.schema import choose\n"
        "from cherimoya.loggers.run_log import RunLog\n"
        "from pathlib import Path\n"
        "import cherimoya.training.run\n"
        "config = {}\n"
        f"with RunLog(Path({str(tmp_path)!r}), config) as log:\n"
        "    log.check_loggers()\n"
        "    log.start_loggers({}, {})\n"
        "    log.row({'step': 1})\n"
        "assert 'wandb' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("mode", ["disabled", " Disabled "])
def test_w_and_b_is_as_no_logger_where_it_is_disabled(tmp_path, mode):
    code = (
        "import sys\n"
        "from cherimoya.config.schema import choose\n"
        "from cherimoya.loggers.run_log import RunLog\n"
        "from pathlib import Path\n"
        "values = {'name': 'wandb', 'project': 'p', 'mode': 'auto', 'run_name': None}\n"
        "values |= {'group': None, 'tags': [], 'log_model': 'none'}\n"
        "config = {'wandb': choose('logger', values, 'logger.wandb')}\n"
        "with RunLog(Path('.'), config) as log:\n"
        "    log.check_loggers()\n"
        "    log.start_loggers({}, {})\n"
        "    log.row({'step': 1})\n"
        "    assert log.where == 'the run folder only (W&B is disabled)', log.where\n"
        "    assert log.sync_command is None\n"
        "assert 'wandb' not in sys.modules\n"
    )
    given = clean_environment() | {"WANDB_MODE": mode, "WANDB_API_KEY": "0" * 40}
    subprocess.run([sys.executable, "-c", code], check=True, env=given, cwd=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", "status.json"]


@pytest.mark.parametrize("mode", ["nonsense", "Offline", " "])
def test_a_mode_that_w_and_b_has_not_is_refused(tmp_path, mode):
    words = ("model=tiny", "trainer.max_epochs=1", "hydra.run.dir=run")
    done = command("train", *words, folder=tmp_path, WANDB_MODE=mode)
    fails(done, f"WANDB_MODE={mode}: must be one of online, offline, disabled, shared")
    assert not (tmp_path / "run").exists()


def test_what_wandb_disabled_leaves_in_the_folder_counts(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "settings").write_text("[default]\nmode = disabled\n")
    code = "from cherimoya.loggers.wandb_server import switched; print(switched(True))"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, env=clean_environment(), cwd=tmp_path,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.split() == ["disabled"]


SETTINGS = {
    "seed": 7,
    "gpu": None,
    "data": {"path": "/x/atac.h5", "source": "hdf5"},
    "model": {"n_layers": 9, "n_filters": 96},
}


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


@contextmanager
def online_or_not(folder, wandb_id=None, **values):
    """A log in `folder` with a W&B run, online if there is an API key."""
    folder.mkdir(exist_ok=True)
    with RunLog(folder, logger(**{"name": "wandb", "mode": "auto"} | values)) as log:
        log.check_loggers()
        log.start_loggers(SETTINGS, {"wandb": wandb_id})
        yield log


offline = partial(online_or_not, mode="offline")


def row(epoch: int, loss: float, r: float) -> dict:
    scores = {"valid/loss": loss, "valid/profile_pearson": r}
    return {"step": 10 * epoch + 10, "epoch": epoch, "train/loss": 5.0 - epoch, **scores}


def test_wandb_gets_config_rows_summary_and_the_end(tmp_path, capfd):
    with suppress(ValueError), offline(tmp_path) as log:
        log.row({"step": 5, "valid/loss": 1.5, "valid/auroc": float("nan")})
        log.summary({"best_epoch": 3, "test": {"profile_mnll": 2.5}})
        assert log.sync_command == f"wandb sync {tmp_path}/wandb"
        raise ValueError("broken")
    assert capfd.readouterr() == ("", "")
    (records,) = parts_of(tmp_path)
    assert records["run"]["id"] == log.ids["wandb"]
    assert records["config"]["seed"] == 7
    assert records["history"] == [{"step": 5, "valid/loss": 1.5}]
    assert records["summary"]["best_epoch"] == 3
    assert records["summary"]["test"] == {"profile_mnll": 2.5}
    assert records["summary"]["status"] == "failed"
    assert records["exit_code"] == 1
    assert "memory_percent" in records["system"]


def test_the_summary_has_the_best_values_and_those_of_the_best_epoch(tmp_path):
    with offline(tmp_path) as log:
        for epoch, (loss, r) in enumerate([(3.0, 0.1), (1.0, 0.3), (2.0, 0.5)]):
            log.row(row(epoch, loss, r))
    (records,) = parts_of(tmp_path)
    assert records["summary"]["valid/loss"] == {"min": 1.0}
    assert records["summary"]["valid/profile_pearson"] == {"max": 0.5}
    assert records["summary"]["best/loss"] == 1.0
    assert records["summary"]["best/profile_pearson"] == 0.3
    assert records["summary"]["best/epoch"] == 1
    assert records["summary"]["train/loss"] == 3.0  # the last one
    assert records["summary"]["status"] == "done"
    assert records["exit_code"] == 0


def test_several_runs_at_once_do_not_close_each_other(tmp_path):
    with offline(tmp_path / "a", run_name="a") as first:
        with suppress(ValueError), offline(tmp_path / "b", run_name="b") as second:
            first.row({"step": 1})
            second.row({"step": 2})
            raise ValueError("broken")
        first.row({"step": 3})
    (a,), (b,) = parts_of(tmp_path / "a"), parts_of(tmp_path / "b")
    assert (a["run"]["name"], b["run"]["name"]) == ("a", "b")
    assert a["history"] == [{"step": 1}, {"step": 3}]
    assert b["history"] == [{"step": 2}]
    assert (a["exit_code"], b["exit_code"]) == (0, 1)
    assert (a["summary"]["status"], b["summary"]["status"]) == ("done", "failed")


KILLED = """
import os, sys, time
from pathlib import Path
from cherimoya.loggers import wandb as wandb_run
from test_run_log import offline, row
wandb_run.FLUSH_SECONDS = float(sys.argv[3])
with offline(Path(sys.argv[1])) as log:
    for epoch, (loss, r) in enumerate([(3.0, 0.1), (1.0, 0.3)]):
        log.row(row(epoch, loss, r))
    print(log.ids["wandb"], flush=True)
    while not any(f.stat().st_size for f in Path(sys.argv[1]).glob("wandb/*/*.wandb")):
        time.sleep(0.1)
    time.sleep(float(sys.argv[2]))
    os.kill(os.getpid(), 9)
"""


def killed(folder, seconds: float, flush: float = FLUSH_SECONDS) -> str:
    """Log two rows, which W&B writes after `flush` seconds, and be killed after `seconds`; returns
    the id of the W&B run."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), str(seconds), str(flush)],
        cwd=Path(__file__).parent, capture_output=True, text=True, env=clean_environment(),
    )  # fmt: skip
    assert done.returncode == -9, done.stderr
    return done.stdout.split()[-1]


@pytest.mark.slow
def test_a_killed_run_has_its_rows_and_goes_on_as_the_same_run(tmp_path):
    wandb_id = killed(tmp_path, seconds=FLUSH_SECONDS + 0.7)
    (records,) = parts_of(tmp_path, ended=False)
    assert [r["valid/loss"] for r in records["history"]] == [3.0, 1.0]
    assert records["summary"]["best/loss"] == 1.0
    assert records["summary"]["status"] == "running"
    assert records["exit_code"] is None
    assert status(tmp_path)["state"] == "running"
    with offline(tmp_path, wandb_id) as log:
        log.row(row(2, 2.0, 0.2))
    _, records = parts_of(tmp_path)
    assert records["run"]["id"] == wandb_id
    assert records["numbers"] == [2]  # W&B's own count goes on
    assert records["summary"]["valid/loss"] == {"min": 1.0}
    assert records["summary"]["valid/profile_pearson"] == {"max": 0.3}
    assert records["summary"]["best/epoch"] == 1
    assert records["summary"]["status"] == "done"
    assert records["exit_code"] == 0


@pytest.mark.slow
def test_a_damaged_file_of_wandb_is_as_good_as_none_on_resuming(tmp_path):
    wandb_id = killed(tmp_path, seconds=FLUSH_SECONDS + 0.7)
    (written,) = tmp_path.glob(f"wandb/*run-*/run-{wandb_id}.wandb")
    content = bytearray(written.read_bytes())
    content[20::37] = bytes(byte ^ 0x5A for byte in content[20::37])
    written.write_bytes(content)
    assert numbers_on_disk(tmp_path, wandb_id) <= {0, 1}
    with offline(tmp_path, wandb_id) as log:
        log.row(row(2, 2.0, 0.2))
    deadline = time.monotonic() + 20  # W&B's own process may still be writing
    while 2 not in numbers_on_disk(tmp_path, wandb_id):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_an_id_of_wandb_that_names_another_folder_is_refused(tmp_path):
    (tmp_path / "run" / "wandb" / "offline-run-1" / "run-").mkdir(parents=True)
    (tmp_path / "victim.wandb").write_bytes(b"W&B")
    with pytest.raises(CherimoyaError, match="cannot be one"):
        offline(tmp_path / "run", "/../../../../victim").__enter__()
    assert (tmp_path / "victim.wandb").exists()


@pytest.mark.slow
def test_rows_that_wandb_did_not_write_are_sent_on_resuming_and_no_row_twice(tmp_path):
    wandb_id = killed(tmp_path, seconds=FLUSH_SECONDS + 0.7)
    with open(tmp_path / "metrics.jsonl") as file:
        first = json.loads(file.readline())
    (tmp_path / "metrics.jsonl").write_text(json.dumps(first) + "\n")  # as rewound
    with offline(tmp_path, wandb_id) as log:
        log.row(row(1, 1.0, 0.3))
        log.row(row(2, 2.0, 0.2))
    assert [part["numbers"] for part in parts_of(tmp_path)] == [[0, 1], [2]]
    assert numbers_on_disk(tmp_path, wandb_id) == {0, 1, 2}
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write(json.dumps(row(3, 3.0, 0.2)) + "\n")
    with offline(tmp_path, wandb_id):
        pass
    *_, last = parts_of(tmp_path)
    assert last["numbers"] == [3]
    assert last["summary"]["valid/loss"] == {"min": 1.0}
    assert last["summary"]["epoch"] == 3


@pytest.mark.slow
def test_what_was_killed_at_once_is_in_nobodys_way(tmp_path):
    wandb_id = killed(tmp_path, seconds=0, flush=3600)  # on a busy machine 0 s may be over 1 s
    assert [f.stat().st_size for f in tmp_path.glob("wandb/offline-run-*/*.wandb")] == [7]
    with offline(tmp_path, wandb_id) as log:
        log.row(row(2, 2.0, 0.2))
    (records,) = parts_of(tmp_path)
    assert records["run"]["id"] == wandb_id


def test_rows_from_before_wandb_was_asked_for_are_sent_too(tmp_path):
    with RunLog(tmp_path, logger()) as log:
        log.row(row(0, 3.0, 0.1))
    with offline(tmp_path) as log:
        log.row(row(1, 4.0, 0.2))
    (records,) = parts_of(tmp_path)
    assert [r["epoch"] for r in records["history"]] == [0, 1]
    assert records["summary"]["best/epoch"] == 0


def test_a_wandb_that_fails_does_not_stop_the_run(tmp_path, monkeypatch, capsys):
    with offline(tmp_path) as log:
        run = log._loggers["wandb"]._run
        monkeypatch.setattr(run, "log", lambda *a, **k: 1 / 0)
        log.row({"step": 1})
        log.row({"step": 2})
        log.summary({"best_epoch": 0})
    run.finish()
    assert capsys.readouterr().out.count("W&B failed (ZeroDivisionError") == 1
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 2
    assert status(tmp_path)["state"] == "done"


def test_tables_images_and_models(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(wandb_run, "MAX_TABLE_ROWS", 3)
    table, image, model = (tmp_path / name for name in ("t.tsv", "i.png", "checkpoints/best.pt"))
    table.write_text("chrom\tlabel\tr\n" + "".join(f"chr{i}\t1\t0.{i}\n" for i in range(1, 6)))
    matplotlib = pytest.importorskip("matplotlib.image")
    matplotlib.imsave(image, [[0.0, 1.0]])
    model.parent.mkdir()
    model.write_bytes(b"weights")
    with offline(tmp_path, log_model="best") as log:
        log.table("loci", table, step=7)
        log.table("absent", tmp_path / "absent.tsv", step=7)
        log.image("plots/i", image, step=7)
        log.model({"fingerprint": "abc", "score": float("nan")})
    assert f"W&B gets 3 of the 5 rows of {table}" in capsys.readouterr().out
    (records,) = parts_of(tmp_path)
    assert records["summary"]["loci"]["_type"] == "table-file"
    assert records["summary"]["plots/i"]["_type"] == "image-file"
    (stored,) = tmp_path.glob("wandb/offline-run-*/files/media/table/loci*.json")
    rows = [["chr1", 1, 0.1], ["chr3", 1, 0.3], ["chr5", 1, 0.5]]
    stored = json.loads(stored.read_text())
    assert (stored["columns"], stored["data"]) == (["chrom", "label", "r"], rows)
    (artifact,) = [a for a in records["artifacts"] if a.type == "model"]
    assert set(artifact.aliases) == {"best", "latest"}
    assert json.loads(artifact.metadata) == {"fingerprint": "abc", "score": None}
    assert [entry.path for entry in artifact.manifest.contents] == ["best.pt"]


def test_no_model_unless_asked(tmp_path):
    with offline(tmp_path) as log:
        log.model({})
    (records,) = parts_of(tmp_path)
    assert records["artifacts"] == []


def test_columns_of_a_table(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("a\tb\tc\n1\t0.5\tx\n\tnan\t2\n")
    assert read_table(path) == (["a", "b", "c"], [[1, 0.5, "x"], [None, None, "2"]])


def test_names_job_types_and_tags(tmp_path):
    alone, asked, member = (tmp_path / n for n in ("10-11-12_0a1b2c", "mine", "n_layers=5"))
    assert run_name(alone, SETTINGS) == "atac-9x96-0a1b2c"
    assert run_name(asked, SETTINGS) == "mine"
    sweeps.note_member(member, {"model.n_layers": "5"})
    for folder, name, job_type in ((asked, "mine", "train"), (member, "n_layers=5", "sweep")):
        with offline(folder):
            pass
        (records,) = parts_of(folder)
        expected = {"name": name, "group": "g", "job_type": job_type, "tags": ["t", "atac", "cpu"]}
        assert {k: sorted(v) if k == "tags" else v for k, v in records["run"].items()} == (
            expected | {"id": records["run"]["id"], "tags": sorted(expected["tags"])}
        )


ONLINE = """
import sys
from contextlib import suppress
from pathlib import Path
from test_run_log import online_or_not, row
rows = [row(0, 3.0, 0.1), row(1, 1.0, 0.3)]
with suppress(ValueError), online_or_not(Path(sys.argv[1]), None) as log:
    for values in rows:
        log.row(values)
    raise ValueError("broken")
with online_or_not(Path(sys.argv[1]), log.ids["wandb"]) as again:
    again.row(row(2, 2.0, 0.2))
print(again.ids["wandb"], again.where, again.sync_command)
"""


@pytest.mark.slow
def test_an_online_run_goes_on_where_it_was(tmp_path):
    with wandb_server() as (address, runs):
        done = subprocess.run(
            [sys.executable, "-c", ONLINE, str(tmp_path)], cwd=Path(__file__).parent,
            capture_output=True, text=True, timeout=300,
            env=clean_environment() | {"WANDB_BASE_URL": address, "WANDB_API_KEY": "x" * 40},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ((wandb_id, run),) = runs.items()
    assert done.stdout.split() == [wandb_id, "W&B,", f"{address}/me/test/runs/{wandb_id}", "None"]
    assert [r["epoch"] for r in run["history"].values()] == [0, 1, 2]
    assert [r["_step"] for r in run["history"].values()] == [0, 1, 2]
    assert run["summary"][0]["valid/loss"] == {"min": 1.0}
    assert (run["summary"][0]["status"], run["exit_code"]) == ("done", 0)


@pytest.mark.slow
def test_one_command_sends_a_sweep_and_a_resumed_run_as_one(tmp_path):
    sweep = tmp_path / "my sweep"
    whole, broken, empty = (sweep / f"n_filters={n}" for n in (4, 8, 9))
    for folder in (whole, broken, empty):
        sweeps.note_member(folder, {"model.n_filters": folder.name[-1]})
    wandb_id = killed(whole, seconds=FLUSH_SECONDS + 0.7)
    with offline(empty, killed(empty, seconds=0)):
        pass
    with offline(whole, wandb_id) as log:
        log.row(row(2, 2.0, 0.2))
    with suppress(ValueError), offline(broken) as failed:
        failed.row(row(0, 4.0, 0.0))
        raise ValueError("broken")
    command = sync_command(sweep, members=True)
    assert command == f"wandb sync '{sweep}'/*/wandb"
    with wandb_server() as (address, runs):
        environment = clean_environment() | {"WANDB_BASE_URL": address, "WANDB_API_KEY": "x" * 40}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, capture_output=True, text=True, env=environment,
            timeout=300,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    resumed = runs[wandb_id]
    rows = [resumed["history"][number] for number in sorted(resumed["history"])]
    assert [r["epoch"] for r in rows] == [r["_step"] for r in rows] == [0, 1, 2]
    summary = resumed["summary"][0]
    assert summary["valid/loss"] == {"min": 1.0}
    assert (summary["best/epoch"], summary["status"], resumed["exit_code"]) == (1, "done", 0)
    assert (resumed["displayName"], resumed["groupName"]) == ("n_filters=4", "g")
    assert len(runs) == 3
    assert runs[failed.ids["wandb"]]["exit_code"] == 1
    assert runs[failed.ids["wandb"]]["summary"][0]["status"] == "failed"
    assert sync_command(sweep, members=True) is None


def parts_of(folder, ended: bool = True) -> list[dict]:
    """What the W&B runs in a run's folder have on disk, in order, once the last has `ended`."""
    deadline = time.monotonic() + 20  # W&B's own process may still be writing
    while True:
        files = sorted(folder.glob("wandb/offline-run-*/*.wandb"))
        found = [read_wandb(file) for file in files]
        if not ended or found[-1]["exit_code"] is not None:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
