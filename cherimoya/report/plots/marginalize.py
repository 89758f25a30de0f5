"""Charts of marginalised motifs: effects with their spread, and profiles with and without."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from cherimoya.records.marginals import Marginals
from cherimoya.report.plots.theme import MUTED, PREDICTED, SERIES, figure, legend, save_png

MOST_BARS = 40
AROUND = 200  # bases of a profile on each side of the motif


def effects_page(
    marginals: Marginals, before: np.ndarray, after: dict[str, np.ndarray], path: Path
) -> Path:
    """An image: effects on counts by signal group, then profiles (tracks, out) of some motifs."""
    groups = marginals.values["jsd"].shape[1]
    rows = min(len(marginals.motifs), MOST_BARS)
    with figure(groups + len(after), 1, 7.5, max(1.6, 0.9 + 0.16 * rows)) as (made, axes):
        for g in range(groups):
            effects(axes[g, 0], marginals, g)
        for axis, (name, profile) in zip(axes[groups:, 0], after.items(), strict=True):
            profiles(axis, before, profile, name)
        return save_png(made, path)


def effects(axis: Axes, marginals: Marginals, group: int) -> None:
    """Mean log2 fold change of each motif, and the standard deviation over backgrounds."""
    mean, spread = (
        marginals.values[k][:, group] for k in ("log2_fold_change", "log2_fold_change_sd")
    )
    chosen = np.argsort(-np.abs(mean), kind="stable")[:MOST_BARS]
    chosen = chosen[np.argsort(mean[chosen], kind="stable")]
    at = np.arange(len(chosen))
    axis.barh(at, mean[chosen], xerr=spread[chosen], color=PREDICTED, ecolor=MUTED, height=0.7)
    axis.set_yticks(at, [marginals.motifs[i].name for i in chosen])
    axis.set_xlabel(f"log2 fold change of counts, signal group {group} (mean, SD)")


def profiles(axis: Axes, before: np.ndarray, after: np.ndarray, name: str) -> None:
    """Expected counts (tracks, out) without and with the motif; later tracks point down."""
    length = before.shape[1]
    part = slice(max(length // 2 - AROUND, 0), length // 2 + AROUND)
    x = np.arange(length)[part] - length // 2
    for track in range(len(before)):
        sign = -1 if track else 1
        first = track == 0
        axis.plot(x, sign * before[track, part], color=MUTED, label="without" if first else None)
        axis.plot(x, sign * after[track, part], color=SERIES[1], label="with" if first else None)
    axis.set_ylabel("counts a base")
    axis.set_xlabel(f"bases from the middle of {name}")
    axis.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    legend(axis)
