"""Scores on a page: the key ones on cards, and charts of single loci."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cherimoya.records.evaluation import Evaluation
from cherimoya.records.metrics import METRIC_INFO, MetricInfo
from cherimoya.records.run import RunFolder
from cherimoya.report.format import Chart
from cherimoya.report.plots import runs as plots
from cherimoya.report.plots.theme import chart
from cherimoya.util.console import counted

KEY_SCORES = ("profile_pearson", "profile_jsd", "count_pearson", "auroc")
BESIDE = {"average_profile": "average profile", "ceiling": "ceiling"}
MARKS = BESIDE | {"replicate": "replicate"}

Scored = RunFolder | Evaluation  # what has scores


@dataclass(frozen=True)
class Card:
    """A key score beside its baseline, ceiling and a replicate's, each None where unknown."""

    info: MetricInfo
    value: float
    baseline: float | None
    ceiling: float | None
    replicate: float | None

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
        return (
            self.value < self.baseline if self.info.higher_is_better else self.value > self.baseline
        )


def cards(scores: Mapping[str, float | None], summary: Mapping[str, Any]) -> Iterator[Card]:
    """The key ones of `scores`, with what `summary` has beside them."""
    for name in KEY_SCORES:
        value = scores.get(name)
        if value is None:
            continue
        beside = (summary.get(column, {}).get(name) for column in MARKS)
        yield Card(METRIC_INFO[name], value, *beside)


def scored_charts(run: Scored) -> dict[str, list[Chart]]:
    """The charts of single loci, by what they are of, for the template of a page."""
    return {
        "count_charts": list(_count_charts(run)),
        "profile_charts": list(_profile_charts(run)),
        "example_charts": list(_example_charts(run)),
    }


def _count_charts(run: Scored) -> Iterator[Chart]:
    """Predicted against observed counts, and their calibration."""
    if run.loci is None:
        return
    peak, n_groups = run.loci.label == 1, run.loci.observed_log_counts.shape[1]
    for g in range(n_groups):
        seen, guess = run.loci.observed_log_counts[:, g], run.loci.predicted_log_counts[:, g]
        group = _of_group(run, g, n_groups)
        caption = f"predicted against observed counts of each locus{group}"
        yield chart(caption, plots.counts, seen, guess, run.loci.label)
        if peak.any():
            caption = f"calibration of the counts{group}"
            caption += ": observed counts of peaks that were predicted alike"
            yield chart(caption, plots.calibration, seen[peak], guess[peak])


def _profile_charts(run: Scored) -> Iterator[Chart]:
    """How many peaks have which profile score."""
    if run.loci is None:
        return
    peak = run.loci.label == 1
    for name in ("profile_pearson", "profile_jsd"):
        values: np.ndarray = getattr(run.loci, name)[peak]
        for g in range(values.shape[1]):
            if not np.isfinite(values[:, g]).any():
                continue
            n_groups = values.shape[1]
            held = run.summary if n_groups == 1 else _group(run, g)
            marks: Mapping[str, float | None] = {"mean": float(np.nanmean(values[:, g]))} | {
                label: held.get(column, {}).get(name) for column, label in MARKS.items()
            }
            caption = f"{METRIC_INFO[name].label} of each peak{_of_group(run, g, n_groups)}"
            yield chart(caption, plots.distribution, values[:, g], name, marks)


def _group(run: Scored, g: int) -> Mapping[str, Any]:
    """What is known of a signal group alone."""
    groups = run.summary.get("groups", [])
    return groups[g] if g < len(groups) else {}


def _of_group(run: Scored, g: int, n_groups: int) -> str:
    """The end of a caption: which of several signal groups a chart is of."""
    if n_groups == 1:
        return ""
    group = _group(run, g)
    name = group.get("name") or ", ".join(group.get("tracks", []))
    return f", {name}" if name else f", signal group {g}"


def _example_charts(run: Scored) -> Iterator[Chart]:
    """Observed and predicted profiles of a few loci."""
    if run.examples is None:
        return
    for i in range(len(run.examples.start)):
        totals = [values[i].sum() for values in (run.examples.observed, run.examples.expected)]
        caption = (
            f"{counted(round(float(totals[0])), 'count')} observed, {totals[1]:,.0f} predicted"
        )
        tracks = run.examples.observed.shape[1]
        height = 2.7 if tracks == 1 else 1.9
        yield chart(caption, plots.example, run.examples, i, width=5.6, height=height, rows=tracks)
