"""What the files of runs, sweeps and evaluations hold, as far as their readers count on it."""

from operator import not_
from pathlib import Path
from typing import Any

from cherimoya.config.diff import read_changes
from cherimoya.records import metrics
from cherimoya.util.shapes import FIX, Table, read_yaml

CONFIG = "config.yaml"  # of a run
SCORED_LOCI = f"{metrics.LOCI}.tsv"
EXAMPLES = "examples.npz"
BIAS_QUALITY = "bias_quality.json"
PAGE = "report.html"  # of a run, sweep or evaluation
SIZES = dict.fromkeys(("n_layers", "n_filters"), (int, str, None))
DATA = dict.fromkeys(("in_window", "out_window"), (int, None)) | {"path": (str, None)}
VALUES = Table(
    known={"model": Table(known=SIZES), "data": Table(known=DATA), "metrics": (Table(), None)}
)

STATES = ("waiting", "running", "done", "pruned", "interrupted", "failed")
PROCESS = {"pid": int, "host": str, "started": str}
STATUS = Table(
    {"state": STATES},
    {
        **PROCESS,
        "first_started": (str, None),
        **dict.fromkeys(("seconds", "seconds_before", "train_seconds"), float),
        **dict.fromkeys(("epoch", "epochs", "best_epoch"), int),
        **dict.fromkeys(("error", "traceback"), str),
        "ms_per_step": (float, None),
    },
)
ROW = Table({"epoch": int}, {"step": int}, (float, None))

TRIAL_NOTE = Table({"study": str, "trial": int, "search": Table()})
JOURNAL_LINE = Table({"op_code": int, "worker_id": str})
OVERRIDES = Table(others=str)
PLAN = Table(
    {
        "name": str,
        "command": [str],
        "swept": [str],
        "members": [Table({"overrides": OVERRIDES})],
    }
)
SCORES = Table(others=(float, None))  # by metric
LOCI = Table({"peaks": int, "background": int})
CANDIDATE = Table({"name": str}, others=(float, str, None))
CHOICE = Table({"chosen": str, "rule": str, "candidates": [CANDIDATE]})  # of bias models
PROVENANCE = Table(
    known={
        "bias": Table(known={"choice": CHOICE}),
        **dict.fromkeys(("gpu", "cpu", "git_commit", "data_fingerprint", "precision"), (str, None)),
        "command": str,
        "versions": Table(others=str),
        "runs_at_once": int,
    }
)
SPEED = Table(
    dict.fromkeys(("ms_per_step", "sequences_per_second", "waiting_for_data"), float),
    {"peak_memory_mb": (float, None)},
)
SUMMARY = Table(
    known={
        **dict.fromkeys(("best_epoch", "epochs", "steps", "parameters"), int),
        "train_seconds": float,
        "best_valid_loss": (float, None),
        **dict.fromkeys(("test", "validation", "average_profile", "ceiling", "replicate"), SCORES),
        "scored_split": ("test", "validation"),
        "window": Table({"in": int, "out": int, "receptive_field": int}),
        "speed": (SPEED, not_),
        "loci": Table(others=LOCI),
        "groups": [Table(known={"tracks": [str], "name": str})],
        "provenance": PROVENANCE,
    }
)

COLUMNS = dict.fromkeys(("average_profile", "ceiling", "replicate"), SCORES)
COLUMNS |= {"intervals": Table(others=([(float, None), (float, None)], None))}
PART = Table({"model": SCORES, "loci": LOCI}, COLUMNS)
NUMBER = (float, None)
DIFFERENCE = Table({"name": str, "depth": NUMBER, "pearson": NUMBER, "rmse": NUMBER},
                   {"observed_sd": NUMBER})  # fmt: skip
EVALUATION = Table(
    {
        "model": SCORES,
        "loci": LOCI,
        "checkpoints": [Table({"path": str, "sha256": str})],
        "bootstrap": Table({"confidence": float, "n": int}),
        "window": Table({"in": int, "out": int}),
        "reverse_complement": bool,
        "split": str,
        "provenance": PROVENANCE,
    },
    {
        **COLUMNS,
        "seen_in_training": (int, None),
        "groups": [Table({**PART.needed, "tracks": [str]}, {**COLUMNS, "name": str})],
        "bias": (bool, None),
        "fold_changes": Table({"depth_of": str, "groups": [DIFFERENCE]}),
        "chromosomes": Table(others=PART),
        **dict.fromkeys(("data", "replicate_file"), (str, None)),
    },
)


def read_config(folder: Path, fix: str = FIX) -> dict[str, Any]:
    """config.yaml of the run in `folder`; empty where there is none. Raises DataError."""
    return read_yaml(folder / CONFIG, VALUES, fix)


def as_asked(folder: Path) -> dict[str, Any]:
    """config.yaml of the run in `folder`, with the defaults that it changed to fit its length.

    Empty where there is none. Raises DataError.
    """
    values, made = read_config(folder), read_changes(folder)
    for key, default in (made.adapts if values and made else {}).items():
        *groups, leaf = key.split(".")
        node = values
        for group in groups:
            node = node.setdefault(group, {})
        node[leaf] = default
    return values
