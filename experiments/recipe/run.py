"""What a recipe gains by one change at a time, chosen on validation loci: one sweep a data set.

    python experiments/recipe/run.py stripeseq.h5 outputs/recipe/stripeseq --minutes 9
    python experiments/recipe/run.py stripeseq.h5 outputs/recipe/both --changes kernel_21-width_64
    python experiments/recipe/run.py stripeseq.h5 outputs/recipe/small --recipe yeast_stripeseq

Each change is an option of the group `experiment`, written beside the sweep: `recommended` with
the study's first values and length, or another recipe as it is, and the change. The most promising
come first, so that the sweep may be broken off at any time; the same command goes on. The folder
gets the sweep, changes.csv (a row a run, with the validation scores of its best epoch) and
ranking.md (a row a change).
"""

import argparse
import csv
import json
import shutil
import signal
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "experiments"))
from record import row_of  # noqa: E402

STEPS = 4000
STUDY = {
    "model.n_filters": 96, "model.n_layers": 9, "model.blocks.residual_scale": 0.15,
    "optim.muon.weight_decay": 0.01, "data.negative_ratio": 0.25,
    "data.max_jitter": 128, "data.validation_chroms": ["chrXVI"],
    "data.test_chroms": ["chrIV", "chrXI"], "trainer.max_epochs": 1, "trainer.min_steps": STEPS,
    "trainer.gpu_min_steps": None, "trainer.max_steps": STEPS, "trainer.validate_steps": 400,
    "trainer.plots": False, "trainer.autotune": False, "trainer.checkpoint_minutes": 60,
}  # fmt: skip


RECIPES: dict[str, Mapping[str, Any]] = {
    "recommended": STUDY,
    "yeast_stripeseq": {"trainer.plots": False, "trainer.autotune": False},
    "yeast_atac": {"trainer.plots": False, "trainer.autotune": False},
    "embedded": {"trainer.plots": False, "trainer.autotune": False},  # the defaults
}


def steps(n: int) -> dict[str, Any]:
    return {
        "trainer.min_steps": n, "trainer.max_steps": n, "trainer.validate_steps": max(n // 20, 200),
    }  # fmt: skip


CHANGES: dict[str, Mapping[str, Any]] = {
    "base": {},
    "negatives_0": {"data.negative_ratio": 0.0},
    "negatives_1": {"data.negative_ratio": 1.0},
    "steps_10000": steps(10000),
    "kernel_21": {"model.profile_kernel_size": 21},
    "jitter_500": {"data.max_jitter": 500},
    "width_128": {"model.n_filters": 128},
    "width_64": {"model.n_filters": 64},
    "kernel_75": {"model.profile_kernel_size": 75},
    "steps_2000": steps(2000),
    "never_frozen": {"loss.freeze_below": 0.0},
    "freeze_share_0.05": {"loss.freeze_share": 0.05},
    "scale_1": {"model.blocks.residual_scale": 1.0},
    "depth_8": {"model.n_layers": 8},
    "muon_0.05": {"optim.muon.lr": 0.05},
    "muon_0.01": {"optim.muon.lr": 0.01},
    "adamw_0.001": {"optim.adamw.lr": 0.001},
    "adamw_0.01": {"optim.adamw.lr": 0.01},
    "negatives_0.25": {"data.negative_ratio": 0.25},
    "negatives_0.1": {"data.negative_ratio": 0.1},
    "muon_decay_0.1": {"optim.muon.weight_decay": 0.1},
    "muon_decay_0.3": {"optim.muon.weight_decay": 0.3},
    "muon_decay_1": {"optim.muon.weight_decay": 1.0},
    "adamw_decay_1": {"optim.adamw.weight_decay": 1.0},
    "depth_11": {"model.n_layers": 11},
    "width_160": {"model.n_filters": 160},
    "adamw_decay_0": {"optim.adamw.weight_decay": 0.0},
    "sgd_0.003": {"optim.sgd.lr": 0.003},
    "sgd_0.0003": {"optim.sgd.lr": 0.0003},
    "ema_0.99": {"optim.ema_decay": 0.99},
    "ema_0.9995": {"optim.ema_decay": 0.9995},
    "batch_32": {"trainer.batch_size": 32},
    "batch_128": {"trainer.batch_size": 128},
    "warmup_1": {"optim.warmup_epochs": 1},
    "steps_20000": steps(20000),
    "steps_1000": steps(1000),
    "depth_10": {"model.n_layers": 10},
    "no_sgd": {"optim": "muon_adamw", "optim.adamw.decay_1d": False},
    "decay_1d": {"optim.adamw.decay_1d": True},
    "bias_zero": {"model.count_bias": "zero"},
    "chosen": {
        "model.n_filters": 128, "model.n_layers": 10, "model.blocks.residual_scale": 1.0,
        "optim.muon.weight_decay": 0.3, "data.negative_ratio": 0.0, "data.max_jitter": 500,
        "trainer.validate_steps": 200,
    },
    "muon_decay_0.01": {"optim.muon.weight_decay": 0.01},
    "width_96": {"model.n_filters": 96},
    "negatives_0.02": {"data.negative_ratio": 0.02},
    "negatives_0.05": {"data.negative_ratio": 0.05},
    "muon_decay_0.5": {"optim.muon.weight_decay": 0.5},
    "steps_8000": steps(8000),
    "expansion_4": {"model.blocks.expansion": 4},
    "ema_0.995": {"optim.ema_decay": 0.995},
    "sgd": {"optim": "muon_adamw_sgd"},
    "bias_mean": {"model.count_bias": "mean"},
    "start_right": {"optim": "recommended", "model.count_bias": "mean"},
    "epochs_7": {"trainer.max_epochs": 7},
    "epochs_12": {"trainer.max_epochs": 12},
    "width_40": {"model.n_filters": 40},
    "jitter_128": {"data.max_jitter": 128},
    "jitter_256": {"data.max_jitter": 256},
    "steps_6000": steps(6000),
}  # fmt: skip
SCORES = ("valid/profile_pearson", "valid/count_pearson", "valid/count_mse", "valid/loss")


def write_option(folder: Path, name: str, recipe: str, keys: Mapping[str, Any]) -> None:
    """The option `name` of the group `experiment`: the recipe, the study's keys and `keys`."""
    chosen = [{f"override /{key}": value} for key, value in keys.items() if "." not in key]
    begun = [] if recipe == "embedded" else [recipe]
    content: dict[str, Any] = {"defaults": [*begun, *chosen, "_self_"]}
    for key, value in (dict(RECIPES[recipe]) | dict(keys)).items():
        if "." not in key:
            continue
        *groups, last = key.split(".")
        place = content
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = value
    path = folder / "experiment" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("# @package _global_\n" + yaml.safe_dump(content, sort_keys=False))


def command(arguments: argparse.Namespace, names: Sequence[str]) -> list[str]:
    """The sweep over the options `names`, each with every seed."""
    launcher = ["hydra/launcher=packed", f"hydra.launcher.members={arguments.at_once}"]
    if not arguments.packed:
        launcher = ["hydra/launcher=processes", f"hydra.launcher.processes={arguments.at_once}"]
    return [
        sys.executable, "-m", "cherimoya.cli", f"--config-dir={arguments.folder / 'conf'}", "-m",
        f"experiment={','.join(names)}", f"seed={arguments.seeds}",
        *([] if arguments.recipe == "embedded" else [f"data.path={arguments.data}"]),
        f"hydra.sweep.dir={arguments.folder / 'sweep'}", "logger=none", *launcher,
        *arguments.words,
    ]  # fmt: skip


def run_for(words: Sequence[str], seconds: float) -> None:
    """Run a sweep, which is asked to save and stop when its time is up."""
    sweep = subprocess.Popen(words, start_new_session=True)
    try:
        sweep.wait(seconds)
    except subprocess.TimeoutExpired:
        print("time is up: the same command goes on")
        sweep.send_signal(signal.SIGINT)
        sweep.wait()


def scores_of(run: Path) -> dict[str, Any]:
    """The row of experiments/record.py, and the validation scores of the best epoch."""
    swept = dict(part.split("=") for part in run.name.split(",") if "=" in part)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    best = json.loads((run / "summary.json").read_text())["best_epoch"]
    (row,) = [row for row in rows if row["epoch"] == best]
    found = row_of(run, swept.get("experiment", "alone"))
    return found | {"best_step": row["step"], **{score: row[score] for score in SCORES}}


def ranking(rows: Sequence[Mapping[str, Any]]) -> str:
    """Changes by their mean validation scores, the lowest loss first, as a Markdown table."""
    lines = ["| change | runs | best step | profile r | count r | count MSE | loss | seconds |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    by_change: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_change.setdefault(str(row["run"]), []).append(row)

    def mean(members: Sequence[Mapping[str, Any]], key: str) -> float:
        return statistics.mean(float(row[key]) for row in members)

    for name, members in sorted(by_change.items(), key=lambda item: mean(item[1], "valid/loss")):
        cells = [f"{mean(members, score):.3f}" for score in SCORES]
        ends = f"{mean(members, 'best_step'):.0f}", f"{mean(members, 'train_seconds'):.0f}"
        lines.append(f"| {name} | {len(members)} | {ends[0]} | {' | '.join(cells)} | {ends[1]} |")
    return "\n".join(lines)


def collect(folder: Path) -> None:
    """Write the tables of what is done so far."""
    done = sorted(path.parent for path in (folder / "sweep").glob("*/summary.json"))
    rows = [scores_of(run) for run in done]
    fields = list(dict.fromkeys(key for row in rows for key in row))
    with (folder / "changes.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        writer.writerows(rows)
    table = ranking(rows)
    (folder / "ranking.md").write_text(f"{table}\n")
    print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="by cherimoya-prepare with max_jitter=500, or -")
    parser.add_argument("folder", type=Path, help="for the sweep and its tables")
    parser.add_argument("--recipe", choices=RECIPES, default="recommended")
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--changes", help="a,b,a-b: these alone, in this order; a-b is both")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--at-once", type=int, default=6)
    parser.add_argument("--packed", action="store_true", help="in one process")
    parser.add_argument("--to", type=Path, help="copy the tables and the page there too")
    parser.add_argument("words", nargs="*", help="key=value for every run")
    arguments = parser.parse_intermixed_args()
    arguments.folder, arguments.data = arguments.folder.resolve(), arguments.data.resolve()
    names = arguments.changes.split(",") if arguments.changes else list(CHANGES)
    for name in names:
        merged: dict[str, Any] = {}
        for change in name.split("-"):
            merged |= CHANGES[change]
        write_option(arguments.folder / "conf", name, arguments.recipe, merged)
    run_for(command(arguments, names), 60 * arguments.minutes)
    collect(arguments.folder)
    if arguments.to:
        for name in ("changes.csv", "ranking.md", "sweep/report.html"):
            if (arguments.folder / name).exists():
                shutil.copy(arguments.folder / name, arguments.to)


if __name__ == "__main__":
    main()
