"""The page of one run: what its files say, in words, numbers and charts."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from cherimoya.config.diff import at
from cherimoya.records import sweep as sweeps
from cherimoya.records.metrics import METRICS, metric_info, share_of_ceiling
from cherimoya.records.run import RunFolder, read_run
from cherimoya.report.bias_quality import shown_quality
from cherimoya.report.format import Chart, frame
from cherimoya.report.plots import runs as plots
from cherimoya.report.plots.theme import chart
from cherimoya.report.scores import (
    BESIDE,
    KEY_SCORES,
    Card,
    cards,
    scored_charts,
)
from cherimoya.util.console import counted

CURVES = (
    "train/loss", "valid/loss", "valid/profile_mnll", "valid/profile_pearson",
    "valid/profile_jsd", "valid/count_pearson",
)  # fmt: skip

LOSS_WEIGHT = re.compile(r"loss/lw[01](_\d+)?")


def contents(folder: Path) -> dict[str, Any]:
    """What the template of a run's page is filled with."""
    run = read_run(folder)
    best, split = run.best_row, run.summary.get("scored_split", "test")
    return {
        **frame(f"run {folder.resolve().name}"),
        "run": run,
        "split": split,
        "sweep": folder.resolve().parent.name if (folder / sweeps.MEMBER).is_file() else None,
        "subtitle": _subtitle(run),
        "cards": list(_cards(run)),
        "scored_on": f"{split} peaks" if run.summary else f"validation, epoch {best['epoch']}"
        if best else "",
        "changed": _changed(run),
        "config": yaml.safe_dump(run.config, sort_keys=False) if run.config else "",
        "curves": list(_curves(run)),
        "metrics": list(_metrics(run)),
        **scored_charts(run),
        "quality": shown_quality(run.bias_quality, at(run.summary, "provenance.bias.choice")),
        "speed": _speed(run),
        "origin": _origin(run),
        "problems": run.problems,
        "kernel_options": json.dumps(at(run.summary, "provenance.kernel_options") or {}, indent=1),
    }  # fmt: skip


def _subtitle(run: RunFolder) -> list[str]:
    """The run in a few words: its network, what it read, when and how long."""
    model, window = run.config.get("model", {}), run.summary.get("window", {})
    parts = []
    if model:
        parts.append(f"{model.get('n_filters')} filters x {model.get('n_layers')} blocks")
    if "parameters" in run.summary:
        parts.append(f"{counted(run.summary['parameters'], 'parameter')}")
    if window:
        parts.append(
            f"{window['in']:,} bp in, {window['out']:,} bp out, receptive field "
            f"{window['receptive_field']:,} bp"
        )
    if "seed" in run.config:
        parts.append(f"seed {run.config['seed']}")
    return parts


def _cards(run: RunFolder) -> Iterator[Card]:
    """The key scores: of the scored split, else of the best epoch's validation so far."""
    scores = run.summary.get(run.summary.get("scored_split", ""), {})
    if not scores and run.best_row:
        scores = {name: run.best_row.get(f"valid/{name}") for name in KEY_SCORES}
    return cards(scores, run.summary)


def _changed(run: RunFolder) -> list[tuple[str, Any, Any]]:
    """Key, value and default of what is not as by default: options of groups, then their keys."""
    if run.changes is None:
        return []
    keys = [(key, at(run.config, key), default) for key, default in run.changes.keys.items()]
    adapted = [(key, at(run.config, key), was) for key, was in run.changes.adapts.items()]
    keys += [row for row in adapted if row[1] != row[2]]
    groups = [(group, *pair) for group, pair in run.changes.groups.items()]
    return [*groups, *((k, v, "to be set" if d == "???" else d) for k, v, d in keys)]


def _curves(run: RunFolder) -> Iterator[Chart]:
    best = (run.best_row or {}).get("epoch")
    for name in (*CURVES, *(f"valid/{name}" for name in _own_metrics(run))):
        if any(row.get(name) is not None for row in run.rows):
            split, _, metric = name.partition("/")
            info = metric_info(metric)
            said = info.label if split == "valid" else "training loss, mean of an epoch"
            caption = f"{said} by epoch" + (f": {info.meaning}" if split == "valid" else "")
            marked = best if split == "valid" else None
            yield chart(caption, plots.curve, run.rows, name, marked)
    if run.rows and any(name.startswith("lr/") for name in run.rows[0]):
        yield chart("learning rate of each optimizer by epoch", plots.rates, run.rows)
    weights = [name for name in (run.rows or [{}])[-1] if LOSS_WEIGHT.fullmatch(name)]
    if weights:
        said = "weights of the profile (lw0) and count loss (lw1) by epoch"
        yield chart(said, plots.loss_weights, run.rows, weights)


def _own_metrics(run: RunFolder) -> list[str]:
    """The metrics of the user's own that the run was scored by."""
    return list(run.config.get("metrics") or {})


def _metrics(run: RunFolder) -> Iterator[dict[str, Any]]:
    """Each metric on the scored peaks, with the baselines beside the model, and how much of the way
    from chance to the ceiling was gone, in percent; and on the validation peaks of the best epoch.
    """
    if not run.rows and not run.summary:
        return
    names = (run.summary.get("scored_split", "test"), *BESIDE)
    columns = [run.summary[name] for name in names if name in run.summary]
    for name in (*METRICS, *_own_metrics(run)):
        scored = [column.get(name) for column in columns]
        beside = (
            run.summary.get(column, {}).get(name) for column in ("ceiling", "average_profile")
        )
        share = share_of_ceiling(name, scored[0] if scored else None, *beside)
        valid = (run.best_row or {}).get(f"valid/{name}")
        yield {"info": metric_info(name), "scored": scored, "share": share, "valid": valid}


def _speed(run: RunFolder) -> dict[str, str]:
    summary, speed = run.summary, run.summary.get("speed") or {}
    facts = {}
    if "train_seconds" in summary:
        facts["training"] = f"{summary['train_seconds'] / 60:,.1f} min"
    if {"steps", "epochs"} <= summary.keys():
        facts["steps"] = f"{summary['steps']:,} in {counted(summary['epochs'], 'epoch')}"
    if speed:
        facts["a step"] = f"{speed['ms_per_step']:,.2f} ms"
        facts["throughput"] = f"{speed['sequences_per_second']:,.0f} sequences a second"
        facts["waiting for data"] = f"{speed['waiting_for_data']:.1%} of the time"
        if speed.get("peak_memory_mb") is not None:
            facts["peak device memory"] = f"{speed['peak_memory_mb']:,.0f} MiB"
    return facts


def _origin(run: RunFolder) -> dict[str, str]:
    """What the numbers depend on besides the configuration."""
    noted, status = run.summary.get("provenance", {}), run.status
    processes = at(run.config, "trainer.devices") or 1
    facts = {
        "GPU": f"{processes} x {noted['gpu']}" if noted.get("gpu") else None,
        "processor": noted.get("cpu"),
        "host": status.get("host"),
        "precision": noted.get("precision"),
        "commit": noted.get("git_commit"),
        "data": at(run.config, "data.path") or at(run.config, "data.source"),
        "data fingerprint": noted.get("data_fingerprint"),
        **noted.get("versions", {}),
    }
    for split, n in run.summary.get("loci", {}).items():
        facts[f"{split} loci"] = f"{counted(n['peaks'], 'peak')}, {n['background']:,} background"
    return {name: str(value) for name, value in facts.items() if value is not None}
