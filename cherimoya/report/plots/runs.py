"""The charts of a run, each drawn on axes that it is given; a few of them together as images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullFormatter

from cherimoya.records.metrics import METRIC_INFO, metric_info
from cherimoya.records.per_locus import Examples
from cherimoya.report.plots.theme import (
    BACKGROUND,
    CHOSEN,
    DASHES,
    INK,
    MUTED,
    OBSERVED,
    PEAK,
    PREDICTED,
    SERIES,
    figure,
    legend,
    save_png,
)

CURVES = ("train/loss", "valid/profile_mnll", "valid/profile_pearson", "valid/count_pearson")
LOG_COUNTS = "log(1 + counts)"
SHARP_POINTS = 1500  # more of them are drawn as an image inside the SVG
CALIBRATION_BINS = 10
LEAST_IN_BIN = 8


def curve(axis: Axes, rows: Sequence[Mapping[str, Any]], name: str, best: int | None) -> None:
    """One column of metrics.jsonl by epoch, the best epoch marked."""
    epochs = np.array([row["epoch"] for row in rows])
    values = np.array([row.get(name) for row in rows], dtype=float)
    axis.plot(epochs, values, color=PREDICTED, marker="o" if len(rows) < 40 else None)
    for at in np.flatnonzero(epochs == best):
        axis.plot(
            epochs[at], values[at], "D", color=CHOSEN, markersize=7, fillstyle="none",
            markeredgewidth=1.6, label=f"best epoch, {best}",
        )  # fmt: skip
        legend(axis)
    split, metric = name.split("/")
    info = metric_info(metric)
    axis.set_ylabel(f"{'training' if split == 'train' else 'validation'} {info.axis}")
    _epochs(axis)


def rates(axis: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """The learning rate of each optimizer at the end of each epoch."""
    _lines(axis, rows, [name for name in rows[0] if name.startswith("lr/")])
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0e}")
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set_ylabel("learning rate (a step)")


def loss_weights(axis: Axes, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """The learned weights of the loss at the end of each epoch, by their columns."""
    _lines(axis, rows, names)
    frozen = [row["epoch"] for row in rows if row.get("loss/frozen", 0) >= len(names)]
    if frozen:
        axis.axvspan(frozen[0], rows[-1]["epoch"], color=MUTED, alpha=0.15, label="all frozen")
        legend(axis)
    axis.set_ylabel("lw of the loss, whose weight is 1 / (2 lw^2)")


def _lines(axis: Axes, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Columns by epoch, each named by what stands behind its slash."""
    for i, name in enumerate(names):
        axis.plot(
            [row["epoch"] for row in rows],
            np.array([row.get(name) for row in rows], dtype=float),
            color=SERIES[i % len(SERIES)], linestyle=DASHES[i % len(DASHES)],
            marker="o" if len(rows) == 1 else None, label=name.partition("/")[2],
        )  # fmt: skip
    legend(axis)
    _epochs(axis)


def _epochs(axis: Axes) -> None:
    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))


def counts(axis: Axes, observed: np.ndarray, predicted: np.ndarray, label: np.ndarray) -> None:
    """Predicted against observed log counts of each locus, (n,) each."""
    many = len(label) > SHARP_POINTS
    for value, name, colour, marker in (
        (0, "background", BACKGROUND, "^"), (1, "peaks", PEAK, "o"),
    ):  # fmt: skip
        chosen = label == value
        if chosen.any():
            axis.scatter(
                observed[chosen], predicted[chosen], s=6 if many else 14, color=colour,
                alpha=0.25 if many else 0.6, linewidths=0, marker=marker, rasterized=many,
                label=f"{name} ({chosen.sum():,})",
            )  # fmt: skip
    _diagonal(axis, observed)
    axis.set_xlabel(f"observed {LOG_COUNTS}")
    axis.set_ylabel(f"predicted {LOG_COUNTS}")
    legend(axis)


def calibration(axis: Axes, observed: np.ndarray, predicted: np.ndarray) -> None:
    """Observed log counts of loci predicted alike: mean and 10th to 90th percentile, (n,) each."""
    bins = int(np.clip(len(predicted) // LEAST_IN_BIN, 1, CALIBRATION_BINS))
    parts = np.array_split(np.argsort(predicted, kind="stable"), bins)
    x = np.array([predicted[part].mean() for part in parts])
    y = np.array([observed[part].mean() for part in parts])
    low, high = (np.array([np.quantile(observed[part], q) for part in parts]) for q in (0.1, 0.9))
    _diagonal(axis, np.concatenate([low, high]))
    axis.vlines(x, low, high, color=PREDICTED, alpha=0.45, linewidth=3, label="10 to 90 % of loci")
    axis.plot(x, y, color=PREDICTED, marker="o", label="mean")
    axis.set_xlabel(f"predicted {LOG_COUNTS}, mean of a bin")
    axis.set_ylabel(f"observed {LOG_COUNTS}")
    legend(axis)


def _diagonal(axis: Axes, values: np.ndarray) -> None:
    ends = [values.min(), values.max()]
    axis.plot(ends, ends, color=MUTED, linewidth=0.9, linestyle="--", label="equal")


def distribution(
    axis: Axes, values: np.ndarray, name: str, marks: Mapping[str, float | None]
) -> None:
    """How many peaks reach which score, (n,); `marks` are drawn as lines."""
    defined = values[np.isfinite(values)]
    axis.hist(defined, bins=30, color=PREDICTED, alpha=0.45)
    for (label, value), dash, colour in zip(
        marks.items(), ("-", "--", ":", "-."), (PREDICTED, INK, CHOSEN, SERIES[2]), strict=False
    ):
        if value is not None:
            axis.axvline(value, color=colour, linestyle=dash, label=f"{label} {value:.3f}")
    axis.set_xlabel(f"{METRIC_INFO[name].axis} of a peak")
    axis.set_ylabel("peaks")
    axis.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    legend(axis)


def by_part(
    axis: Axes,
    parts: Mapping[str, tuple[float, float | None, float | None]],
    label: str,
    average: float | None,
) -> None:
    """A value for each part, such as a chromosome, with the ends of its interval, if it has one."""
    y = np.arange(len(parts))
    for at, (_, low, high) in zip(y, parts.values(), strict=True):
        if low is not None and high is not None:
            axis.hlines(at, low, high, color=PREDICTED, alpha=0.45, linewidth=3)
    axis.plot([value for value, _, _ in parts.values()], y, "o", color=PREDICTED)
    if average is not None:
        axis.axvline(average, color=MUTED, linewidth=0.9, linestyle="--")
    axis.set_yticks(y, list(parts))
    axis.invert_yaxis()
    axis.set_xlabel(label)


def example(axes: Sequence[Axes], examples: Examples, i: int) -> None:
    """Counts of one locus, axes for each track: observed ones point up, predicted ones down.

    Both halves have the same scale.
    """
    known = examples.start[i] >= 0
    x = max(int(examples.start[i]), 0) + np.arange(examples.observed.shape[2])
    for track, axis in enumerate(axes):
        for values, colour in (
            (examples.observed[i, track], OBSERVED), (-examples.expected[i, track], PREDICTED),
        ):  # fmt: skip
            axis.fill_between(x, 0, values, step="mid", color=colour, linewidth=0.4)
        axis.axhline(0, color=INK, linewidth=0.6)
        axis.set_ylabel(f"{examples.track_names[track]}\n(counts a base)")
        axis.margins(x=0)
        axis.xaxis.set_major_locator(MaxNLocator(nbins=4))
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axis.yaxis.set_major_locator(MaxNLocator(nbins=5))
        axis.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
        axis.set_xlabel("position (bp)" if known else "position in the window (bp)")
    axes[0].set_title(f"{examples.chrom[i]}:{x[0]:,}-{x[-1] + 1:,}" if known else f"locus {i}")


def learning_curves(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """An image of the training loss and validation metrics by epoch."""
    with figure(2, 2) as (made, axes):
        for axis, name in zip(axes.flat, CURVES, strict=True):
            curve(axis, rows, name, best=None)
        return save_png(made, path)


def count_scatter(
    predicted: np.ndarray, observed: np.ndarray, label: np.ndarray, path: Path
) -> Path:
    """An image of the log counts of each locus and group, (n, n_groups)."""
    n_groups = predicted.shape[1]
    with figure(1, n_groups, height=4.2) as (made, axes):
        for g, axis in enumerate(axes[0]):
            axis.set_title(f"signal group {g}" if n_groups > 1 else "test loci")
            counts(axis, observed[:, g], predicted[:, g], label)
        return save_png(made, path)


def example_profiles(examples: Examples, path: Path) -> Path:
    """An image of the example loci, with a row for each of their tracks."""
    n, tracks = examples.observed.shape[:2]
    with figure(n * tracks, 1, width=10, height=1.9) as (made, axes):
        for i in range(n):
            example(axes[i * tracks : (i + 1) * tracks, 0], examples, i)
        made.legend(
            handles=[Patch(color=OBSERVED, label="observed, up"),
                     Patch(color=PREDICTED, label="predicted, down")],
            loc="outside upper right", ncols=2,
        )  # fmt: skip
        return save_png(made, path)
