"""Each member of a sweep is its own W&B run, and what is on disk tells how it went."""

import json
import signal
import subprocess
import time

import pytest
from command_lines import TRAIN, clean_environment, wait_until
from wandb_files import read_wandb

from cherimoya.loggers.wandb import FLUSH_SECONDS

EPOCHS = 60


@pytest.mark.slow
def test_runs_that_are_done_failed_and_killed(cherimoya_train, train_arguments, tmp_path):
    arguments = [
        "-m", *(a for a in train_arguments if a != "logger=none"), "hydra.sweep.dir=sweep",
        "optim.adamw.lr=0.004,1e30", f"trainer.max_epochs={EPOCHS}",
    ]  # fmt: skip
    good, bad = (tmp_path / "sweep" / name for name in ("lr=0.004", "lr=1e+30"))
    process = subprocess.Popen(
        [*TRAIN, *arguments], cwd=tmp_path, env=clean_environment(), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_until(lambda: (good / "metrics.jsonl").exists() and rows(good))
    time.sleep(FLUSH_SECONDS + 0.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (killed,) = parts_of(good)
    assert 0 < len(killed["history"]) < EPOCHS
    assert killed["history"] == rows(good)[: len(killed["history"])]
    assert killed["exit_code"] is None
    assert killed["summary"]["status"] == "running"
    best = min(killed["history"], key=lambda row: row["valid/loss"])
    assert killed["summary"]["best/epoch"] == best["epoch"]

    done = cherimoya_train(*arguments)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.count("wandb sync ") == 1
    assert "wandb sync sweep/*/wandb\n" in done.stdout
    _, resumed = parts_of(good)
    assert resumed["run"] == killed["run"]
    assert (resumed["run"]["name"], resumed["run"]["job_type"]) == ("lr=0.004", "sweep")
    assert resumed["run"]["group"].startswith("lr_")
    first = len(killed["history"])
    numbers = range(first, first + len(resumed["numbers"]))
    assert resumed["numbers"] == list(numbers)  # the plots and tables of the end follow the rows
    epochs = [row for row in resumed["history"] if "epoch" in row]
    assert killed["history"] + epochs == rows(good)
    assert len(rows(good)) == EPOCHS
    assert (resumed["exit_code"], resumed["summary"]["status"]) == (0, "done")
    summary = json.loads((good / "summary.json").read_text())
    assert resumed["summary"]["best/epoch"] == summary["best_epoch"]
    assert resumed["summary"]["best/loss"] == summary["best_valid_loss"]
    assert resumed["summary"]["test"]["profile_mnll"] == summary["test"]["profile_mnll"]
    (failed,) = parts_of(bad)
    assert (failed["exit_code"], failed["summary"]["status"]) == (1, "failed")
    assert failed["run"]["group"] == resumed["run"]["group"]
    assert failed["run"]["id"] != resumed["run"]["id"]


def rows(folder) -> list[dict]:
    """The rows of metrics.jsonl, without what is not a number."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if v is not None} for line in lines]


def parts_of(folder) -> list[dict]:
    return [read_wandb(path) for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"))]
