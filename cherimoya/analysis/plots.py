"""The plots of a run: learning curves, counts, and a few loci."""

import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cherimoya.analysis.per_locus import Examples

OBSERVED, PREDICTED, PEAK, BACKGROUND = "0.55", "#0072B2", "#0072B2", "#E69F00"
CURVES = (
    ("train/loss", "training loss (nats)"),
    ("valid/profile_mnll", "validation profile MNLL (nats)"),
    ("valid/profile_pearson", "validation profile Pearson r"),
    ("valid/count_pearson", "validation count Pearson r"),
)


def learning_curves(metrics_file: Path, path: Path) -> Path:
    """Training loss and validation metrics by epoch, from metrics.jsonl."""
    rows = [json.loads(line) for line in metrics_file.read_text().splitlines()]
    epochs = [row["epoch"] for row in rows]
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True)
    for axis, (name, label) in zip(axes.flat, CURVES, strict=True):
        values = [np.nan if row[name] is None else row[name] for row in rows]
        axis.plot(epochs, values, color=PREDICTED, marker="." if len(rows) < 40 else None)
        axis.set_ylabel(label)
    for axis in axes[1]:
        axis.set_xlabel("epoch")
    return _save(figure, path)


def count_scatter(
    predicted: np.ndarray, observed: np.ndarray, label: np.ndarray, path: Path
) -> Path:
    """Predicted against observed log counts of each locus and group, (n, n_groups)."""
    n_groups = predicted.shape[1]
    figure = Figure(figsize=(4.5 * n_groups, 4.2), layout="constrained")
    axes = figure.subplots(1, n_groups, squeeze=False)
    for g, axis in enumerate(axes[0]):
        for value, name, colour in ((0, "background", BACKGROUND), (1, "peaks", PEAK)):
            chosen = label == value
            if chosen.any():
                axis.scatter(
                    observed[chosen, g], predicted[chosen, g], s=8, alpha=0.6, color=colour,
                    linewidths=0, label=f"{name} ({chosen.sum():,})",
                )  # fmt: skip
        ends = [observed[:, g].min(), observed[:, g].max()]
        axis.plot(ends, ends, color="0.4", linewidth=0.8, linestyle="--")
        axis.set_xlabel("observed log(1 + counts)")
        axis.set_ylabel("predicted log(1 + counts)")
        axis.set_title(f"signal group {g}" if n_groups > 1 else "test loci")
        axis.legend(frameon=False)
    return _save(figure, path)


def example_profiles(examples: Examples, path: Path) -> Path:
    """Observed and predicted counts of a few loci; the second of a stranded pair points down."""
    n, _, length = examples.observed.shape
    figure = Figure(figsize=(10, 2.2 * n), layout="constrained")
    axes = figure.subplots(n, 1, squeeze=False)
    for i, axis in enumerate(axes[:, 0]):
        known = examples.start[i] >= 0
        x = max(examples.start[i], 0) + np.arange(length)
        for track, sign in enumerate(examples.sign):
            axis.vlines(x, 0, sign * examples.observed[i, track], color=OBSERVED, linewidth=1.2)
            axis.plot(x, sign * examples.expected[i, track], color=PREDICTED, linewidth=0.8)
        axis.axhline(0, color="0.3", linewidth=0.5)
        where = f"{examples.chrom[i]}:{examples.start[i]:,}" if known else f"locus {i}"
        axis.set_title(where, fontsize=9, loc="left")
        axis.set_ylabel("counts a base")
        axis.margins(x=0)
        axis.ticklabel_format(axis="x", style="plain", useOffset=False)
        axis.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    axes[-1, 0].set_xlabel("position (bp)")
    handles = [
        Line2D([], [], color=OBSERVED, linewidth=2, label="observed"),
        Line2D([], [], color=PREDICTED, label="predicted"),
    ]
    names = list(examples.track_names)
    title = " up, ".join(names) + " down" if -1 in examples.sign else ", ".join(names)
    figure.legend(handles=handles, frameon=False, loc="outside upper right", ncols=2, title=title)
    return _save(figure, path)


def _save(figure: Figure, path: Path) -> Path:
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return path
