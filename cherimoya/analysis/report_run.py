"""The page of one run: what its files say, in words, numbers and charts."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from cherimoya import sweeps
from cherimoya.analysis import plots
from cherimoya.analysis.plots_theme import chart
from cherimoya.analysis.report_words import Chart, frame
from cherimoya.analysis.run_folder import RunFolder, read_run
from cherimoya.changes import at
from cherimoya.logged import METRICS
from cherimoya.metric_names import IN_WORDS, higher_is_better

KEY_SCORES = ("profile_pearson", "profile_jsd", "count_pearson", "auroc")
CURVES = (
    "train/loss", "valid/loss", "valid/profile_mnll", "valid/profile_pearson",
    "valid/profile_jsd", "valid/count_pearson",
)  # fmt: skip
BESIDE = {"average_profile": "average profile", "ceiling": "ceiling"}


@dataclass(frozen=True)
class Card:
    """A key score beside its baseline and ceiling, each None where unknown."""

    label: str
    unit: str
    value: float
    baseline: float | None
    ceiling: float | None
    higher: bool

    @property
    def reached(self) -> float | None:
        """The way from the baseline to the ceiling that was gone, in percent, within 0 to 100."""
        if self.baseline is None or self.ceiling is None or self.baseline == self.ceiling:
            return None
        share = (self.value - self.baseline) / (self.ceiling - self.baseline)
        return 100 * min(max(share, 0.0), 1.0)

    @property
    def below_baseline(self) -> bool:
        """Whether the baseline does better."""
        if self.baseline is None:
            return False
        return self.value < self.baseline if self.higher else self.value > self.baseline


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
        "count_charts": list(_count_charts(run)),
        "profile_charts": list(_profile_charts(run)),
        "example_charts": list(_example_charts(run)),
        "strands": plots.strands(run.examples) if run.examples else "",
        "speed": _speed(run),
        "origin": _origin(run),
        "kernel_options": json.dumps(at(run.summary, "provenance.kernel_options") or {}, indent=1),
    }  # fmt: skip


def _subtitle(run: RunFolder) -> list[str]:
    """The run in a few words: its network, what it read, when and how long."""
    model, window = run.config.get("model", {}), run.summary.get("window", {})
    parts = []
    if model:
        parts.append(f"{model.get('n_filters')} filters x {model.get('n_layers')} blocks")
    if "parameters" in run.summary:
        parts.append(f"{run.summary['parameters']:,} parameters")
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
    for name in KEY_SCORES:
        if scores.get(name) is None:
            continue
        words = IN_WORDS[name]
        baseline, ceiling = (run.summary.get(column, {}).get(name) for column in BESIDE)
        yield Card(
            words.label, words.unit, scores[name], baseline, ceiling, higher_is_better(name)
        )  # fmt: skip


def _changed(run: RunFolder) -> list[tuple[str, Any, Any]]:
    """Key, value and default of what is not as by default."""
    return [(key, at(run.config, key), default) for key, default in (run.defaults or {}).items()]


def _curves(run: RunFolder) -> Iterator[Chart]:
    best = (run.best_row or {}).get("epoch")
    for name in CURVES:
        if any(row.get(name) is not None for row in run.rows):
            split, metric = name.split("/")
            words = IN_WORDS[metric]
            said = words.label if split == "valid" else "training loss, mean of an epoch"
            caption = f"{said} by epoch" + (f": {words.meaning}" if split == "valid" else "")
            yield Chart(
                chart(plots.curve, run.rows, name, best if split == "valid" else None), caption
            )
    if run.rows and any(name.startswith("lr/") for name in run.rows[0]):
        yield Chart(chart(plots.rates, run.rows), "learning rate of each optimizer by epoch")


@dataclass(frozen=True)
class MetricRow:
    """A metric on the scored peaks, of the baselines beside them, and on validation peaks."""

    label: str
    unit: str
    meaning: str
    higher: bool
    scored: list[float | None]  # the model, the average profile, and the ceiling if there is one
    share: float | None  # of the ceiling, in percent
    valid: float | None  # of the best epoch


def _metrics(run: RunFolder) -> Iterator[MetricRow]:
    if not run.rows and not run.summary:
        return
    names = (run.summary.get("scored_split", "test"), *BESIDE)
    columns = [run.summary[name] for name in names if name in run.summary]
    for name in METRICS:
        words, higher = IN_WORDS[name], higher_is_better(name)
        scored = [column.get(name) for column in columns]
        ceiling = run.summary.get("ceiling", {}).get(name)
        share = 100 * scored[0] / ceiling if higher and ceiling and scored[0] is not None else None
        valid = (run.best_row or {}).get(f"valid/{name}")
        yield MetricRow(words.label, words.unit, words.meaning, higher, scored, share, valid)


def _count_charts(run: RunFolder) -> Iterator[Chart]:
    if run.loci is None:
        return
    peak, n_groups = run.loci.label == 1, run.loci.observed_log_counts.shape[1]
    for g in range(n_groups):
        seen, guess = run.loci.observed_log_counts[:, g], run.loci.predicted_log_counts[:, g]
        group = f", signal group {g}" if n_groups > 1 else ""
        yield Chart(
            chart(plots.counts, seen, guess, run.loci.label),
            f"predicted against observed counts of each locus{group}",
        )
        if peak.any():
            yield Chart(
                chart(plots.calibration, seen[peak], guess[peak]),
                f"calibration of the counts{group}: observed counts of peaks that were predicted "
                "alike",
            )


def _profile_charts(run: RunFolder) -> Iterator[Chart]:
    if run.loci is None:
        return
    peak = run.loci.label == 1
    for name in ("profile_pearson", "profile_jsd"):
        values: np.ndarray = getattr(run.loci, name)[peak]
        for g in range(values.shape[1]):
            if not np.isfinite(values[:, g]).any():
                continue
            one = values.shape[1] == 1
            marks: Mapping[str, float | None] = {"mean": float(np.nanmean(values[:, g]))} | {
                label: run.summary.get(column, {}).get(name) if one else None
                for column, label in BESIDE.items()
            }
            group = "" if one else f", signal group {g}"
            yield Chart(
                chart(plots.distribution, values[:, g], name, marks),
                f"{IN_WORDS[name].label} of each peak{group}",
            )


def _example_charts(run: RunFolder) -> Iterator[Chart]:
    if run.examples is None:
        return
    for i in range(len(run.examples.start)):
        totals = [values[i].sum() for values in (run.examples.observed, run.examples.expected)]
        caption = f"{totals[0]:,.0f} counts observed, {totals[1]:,.0f} predicted"
        yield Chart(chart(plots.example, run.examples, i, width=5.6, height=2.7), caption)


def _speed(run: RunFolder) -> dict[str, str]:
    summary, speed = run.summary, run.summary.get("speed") or {}
    found = {}
    if "train_seconds" in summary:
        found["training"] = f"{summary['train_seconds'] / 60:,.1f} min"
        found["steps"] = f"{summary['steps']:,} in {summary['epochs']:,} epochs"
    if speed:
        found["a step"] = f"{speed['ms_per_step']:,.2f} ms"
        found["throughput"] = f"{speed['sequences_per_second']:,.0f} sequences a second"
        found["waiting for data"] = f"{speed['waiting_for_data']:.1%} of the time"
        if speed.get("peak_memory_mb") is not None:
            found["peak device memory"] = f"{speed['peak_memory_mb']:,.0f} MiB"
    return found


def _origin(run: RunFolder) -> dict[str, str]:
    """What the numbers depend on besides the configuration."""
    noted, status = run.summary.get("provenance", {}), run.status
    processes = at(run.config, "trainer.devices") or 1
    found = {
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
        found[f"{split} loci"] = f"{n['peaks']:,} peaks, {n['background']:,} background"
    return {name: str(value) for name, value in found.items() if value is not None}
