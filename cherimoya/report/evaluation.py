"""The page of an evaluation: scores with intervals, by signal group and chromosome, and loci."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cherimoya.records.evaluation import read_evaluation
from cherimoya.records.metrics import METRIC_INFO, METRICS, metric_info
from cherimoya.report.format import Chart, frame
from cherimoya.report.plots import runs as plots
from cherimoya.report.plots.theme import chart
from cherimoya.report.scores import (
    KEY_SCORES,
    MARKS,
    cards,
    scored_charts,
)
from cherimoya.util.console import counted

CHART_METRICS = ("profile_pearson", "profile_jsd", "count_pearson", "auroc")


def contents(folder: Path) -> dict[str, Any]:
    """What the template of an evaluation's page is filled with."""
    evaluation = read_evaluation(folder)
    summary = evaluation.summary
    beside = {name: label for name, label in MARKS.items() if name in summary}
    chromosomes: Mapping[str, Any] = summary.get("chromosomes", {})
    groups = {g.get("name") or ", ".join(g["tracks"]): g for g in summary.get("groups", [])}
    return {
        **frame(f"evaluation {folder.resolve().name}"),
        "summary": summary,
        "subtitle": list(_subtitle(summary)),
        "cards": list(cards(summary["model"], summary)),
        "beside": list(beside.values()),
        "confidence": f"{100 * summary['bootstrap']['confidence']:g} %",
        "metrics": [
            _row(name, summary, beside) for name in dict.fromkeys([*METRICS, *summary["model"]])
        ],
        "key_metrics": [METRIC_INFO[name].label for name in KEY_SCORES],
        "parts": [
            ("signal groups", [_part(name, values) for name, values in groups.items()]),
            ("chromosomes", [_part(name, values) for name, values in chromosomes.items()]),
        ],
        "chromosome_charts": list(_chromosome_charts(chromosomes, summary)),
        **scored_charts(evaluation),
        "origin": _origin(summary),
        "problems": evaluation.problems,
    }


def _subtitle(summary: Mapping[str, Any]) -> Iterator[str]:
    n, loci = len(summary["checkpoints"]), summary["loci"]
    yield f"{n} models, probabilities and log counts averaged" if n > 1 else "one model"
    if summary["reverse_complement"]:
        yield "both strands averaged"
    if (bias := summary.get("bias")) is not None:
        yield "with the bias model" if bias else "corrected, without the bias model"
    background = counted(loci["background"], "background locus", "background loci")
    yield f"{counted(loci['peaks'], 'peak')}, {background}: {summary['split']}"
    if summary.get("seen_in_training"):
        yield f"{summary['seen_in_training']:,} of them on chromosomes seen in training"
    yield f"{summary['window']['in']:,} bp in, {summary['window']['out']:,} bp out"


def _row(name: str, summary: Mapping[str, Any], beside: Mapping[str, str]) -> dict[str, Any]:
    """A metric: the model's value and interval, then what stands beside it."""
    value, low, high = _scored(summary, name)
    others = [summary[column].get(name) for column in beside]
    return {"info": metric_info(name), "value": value, "low": low, "high": high, "beside": others}


def _part(name: str, part: Mapping[str, Any]) -> dict[str, Any]:
    """The scores of some of the loci or tracks: how many loci, and the cells of the key scores."""
    return {"name": name, **part["loci"], "cells": [_scored(part, m) for m in KEY_SCORES]}


def _scored(part: Mapping[str, Any], name: str) -> tuple[float | None, float | None, float | None]:
    """The model's value of a metric, and the ends of its interval, if there is one."""
    return part["model"].get(name), *((part.get("intervals") or {}).get(name) or (None, None))


def _chromosome_charts(
    chromosomes: Mapping[str, Any], summary: Mapping[str, Any]
) -> Iterator[Chart]:
    confidence = f"{100 * summary['bootstrap']['confidence']:g} %"
    for name in CHART_METRICS:
        scored = {chrom: _scored(part, name) for chrom, part in chromosomes.items()}
        known = {chrom: cell for chrom, cell in scored.items() if cell[0] is not None}
        if len(known) < 2:
            continue
        bars = f"; bars: {confidence} intervals" if summary["bootstrap"]["n"] else ""
        yield chart(
            f"{METRIC_INFO[name].label} by chromosome{bars}; dashed: all of them",
            plots.by_part, known, METRIC_INFO[name].axis, summary["model"].get(name),
            height=max(2.2, 0.9 + 0.2 * len(known)),
        )  # fmt: skip


def _origin(summary: Mapping[str, Any]) -> dict[str, str]:
    """What the numbers depend on."""
    noted = summary["provenance"]
    facts = {
        "data": summary.get("data"),
        "data fingerprint": noted.get("data_fingerprint"),
        "replicate": summary.get("replicate_file"),
        "GPU": noted.get("gpu"),
        "processor": noted.get("cpu"),
        "precision": noted.get("precision"),
        "commit": noted.get("git_commit"),
        **noted.get("versions", {}),
    }
    return {name: str(value) for name, value in facts.items() if value is not None}
