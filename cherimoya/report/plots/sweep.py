"""The charts of a sweep, each drawn on axes that it is given."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from cherimoya.report.plots.theme import (
    CHOSEN,
    HEAT,
    INK,
    MUTED,
    OBSERVED,
    PREDICTED,
    SERIES,
    legend,
)
from cherimoya.report.selection import Level, number

UNITS = {
    "n_layers": "blocks",
    "n_filters": "channels",
    "lr": "a step",
    "batch_size": "examples",
    "max_epochs": "epochs",
    "warmup_epochs": "epochs",
    "profile_kernel_size": "bp",
    "in_window": "bp",
    "out_window": "bp",
    "max_jitter": "bp",
}
FRAME = "#000000"  # around the best cell, which is bright on any page
LIGHT_BACKGROUND = 0.45  # luminance of a cell from which on its number is black
LETTER, LINE = 0.022, 0.09  # of a point's name, as shares of a chart's width and height
MOST_LEVELS = 9  # values of a key that are set side by side
WIDE_RANGE = 30  # largest over smallest value from which on an axis is logarithmic
LONG_LABEL = 8  # letters from which on several names are set aslant


def key_label(key: str) -> str:
    """A swept key with its unit."""
    unit = UNITS.get(key.split(".")[-1])
    return f"{key} ({unit})" if unit else key


@dataclass(frozen=True)
class Grid:
    """A measure by two keys: values (len(y), len(x)), NaN where none is known, and why not."""

    x_key: str
    y_key: str
    x: Sequence[str]
    y: Sequence[str]
    values: np.ndarray
    missing: Mapping[tuple[int, int], str]  # (row, column): what became of it

    @property
    def is_grid(self) -> bool:
        """Whether most pairs were asked for, as in a sweep, unlike in a search."""
        known = np.isfinite(self.values).sum() + len(self.missing)
        return bool(2 * known >= self.values.size)


def heat_map(axis: Axes, grid: Grid, title: str, higher: bool) -> None:
    """A cell for each pair of values with its number in it; brighter is better, the best framed."""
    known = grid.values[np.isfinite(grid.values)]
    scale = Normalize(known.min(), known.max() if np.ptp(known) else known.min() + 1)
    colours = matplotlib.colormaps[HEAT if higher else f"{HEAT}_r"]
    best = (np.nanargmax if higher else np.nanargmin)(grid.values)
    size = float(np.clip(70 / max(len(grid.x), len(grid.y) / 1.4), 4, 9))
    for row, column in np.ndindex(grid.values.shape):
        value, corner = float(grid.values[row, column]), (column - 0.5, row - 0.5)
        if np.isfinite(value):
            fill = colours(scale(value))
            light = np.dot(fill[:3], (0.2126, 0.7152, 0.0722)) > LIGHT_BACKGROUND
            axis.add_patch(Rectangle(corner, 1, 1, facecolor=fill, linewidth=0))
            text, colour = cell_number(value), "#000000" if light else "#ffffff"
        else:
            text, colour = grid.missing.get((row, column), "-"), MUTED
        axis.text(column, row, text, color=colour, ha="center", va="center", fontsize=size)
    corner = (best % len(grid.x) - 0.5, best // len(grid.x) - 0.5)
    axis.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=FRAME, linewidth=2.4, zorder=3))
    axis.set(xlim=(-0.5, len(grid.x) - 0.5), ylim=(-0.5, len(grid.y) - 0.5), title=title)
    axis.set_xticks(range(len(grid.x)), grid.x)
    axis.set_yticks(range(len(grid.y)), grid.y)
    axis.set_xlabel(key_label(grid.x_key))
    axis.set_ylabel(key_label(grid.y_key))
    axis.grid(False)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


def cell_number(value: float) -> str:
    """A number of a cell: five digits that count, or three decimals."""
    size = abs(value)
    return f"{value:.{1 if size >= 1000 else 2 if size >= 10 else 3}f}"


@dataclass(frozen=True)
class Point:
    """A configuration in a trade-off: cost and score with their spreads over seeds, or 0."""

    name: str
    cost: float
    score: float
    cost_spread: float
    score_spread: float


def trade_off(
    axis: Axes,
    points: Sequence[Point],
    front: Sequence[int],
    chosen: int | None,
    x_label: str,
    y_label: str,
    higher: bool,
) -> None:
    """Score against cost of each configuration, with the Pareto front as a line."""
    x, y = np.array([p.cost for p in points]), np.array([p.score for p in points])
    axis.errorbar(
        x, y, xerr=[p.cost_spread for p in points], yerr=[p.score_spread for p in points],
        fmt="none", ecolor=OBSERVED, elinewidth=1, zorder=1,
    )  # fmt: skip
    axis.plot(x, y, "o", color=PREDICTED, fillstyle="none", label="configuration", zorder=2)
    on = list(front)
    axis.plot(x[on], y[on], "o--", color=PREDICTED, linewidth=1.1, label="Pareto front", zorder=3)
    if chosen is not None:
        axis.plot(
            x[chosen], y[chosen], "*", color=CHOSEN, markersize=13, markeredgewidth=0,
            label="recommended", zorder=4,
        )  # fmt: skip
    if x.min() > 0 and x.max() > 4 * x.min():
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5), numticks=6))
        axis.xaxis.set_minor_formatter(NullFormatter())
    else:
        axis.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axis.xaxis.set_major_formatter(lambda value, _: short_number(value))
    axis.margins(x=0.16, y=0.18)
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    legend(axis)
    first = [i for i in (chosen,) if i in on] + [on[0], on[-1]]
    for i, place in _apart(axis, points, list(dict.fromkeys([*first, *on]))).items():
        # On the side of the front where no point lies, unless that is outside of the axes.
        inside = place[0] > LETTER * len(points[i].name)
        axis.annotate(
            points[i].name, (x[i], y[i]), textcoords="offset points", fontsize=7.5, color=INK,
            xytext=(-5 if inside else 5, 5 if higher == inside else -5),
            ha="right" if inside else "left", va="bottom" if higher == inside else "top",
        )  # fmt: skip


def _apart(
    axis: Axes, points: Sequence[Point], wanted: Sequence[int]
) -> dict[int, tuple[float, float]]:
    """Those of `wanted`, by precedence, whose names do not run into each other, and where."""
    axis.autoscale_view()
    corners = axis.transAxes.inverted().transform(
        axis.transData.transform([(points[i].cost, points[i].score) for i in wanted])
    )
    kept: dict[int, tuple[float, float]] = {}
    for i, (x, y) in zip(wanted, corners, strict=True):
        width = LETTER * len(points[i].name)
        if all(abs(x - a) > width or abs(y - b) > LINE for a, b in kept.values()):
            kept[i] = (x, y)
    return kept


def short_number(value: float) -> str:
    """A number for an axis: 0.5, 20, 3.4k, 1.2M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def effect(axis: Axes, key: str, levels: Sequence[Level], y_label: str) -> None:
    """What configurations reached by value of one key: each one's mean, and their mean and SD.

    Many numbers, as a search tries them, are drawn where they are instead of side by side.
    """
    axis.set_xlabel(key_label(key))
    axis.set_ylabel(y_label)
    axis.margins(y=0.2)
    if len(levels) > MOST_LEVELS and not any(math.isnan(number(v.value)) for v in levels):
        _by_number(axis, levels)
    else:
        _side_by_side(axis, levels)
    legend(axis)


def _by_number(axis: Axes, levels: Sequence[Level]) -> None:
    points = [(number(level.value), mean) for level in levels for mean in level.each]
    x, y = zip(*points, strict=True)
    axis.plot(x, y, "o", color=PREDICTED, fillstyle="none", label="configuration")
    if min(x) > 0 and max(x) > WIDE_RANGE * min(x):
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())


def _side_by_side(axis: Axes, levels: Sequence[Level]) -> None:
    for i, level in enumerate(levels):
        beside = i + 0.12 + 0.22 * np.arange(len(level.each)) / max(len(level.each) - 1, 1)
        axis.plot(
            beside, level.each, ".", color=OBSERVED, markersize=5,
            label="configuration" if i == 0 else None,
        )  # fmt: skip
    axis.errorbar(
        range(len(levels)), [v.mean for v in levels], yerr=[v.spread for v in levels], fmt="D-",
        color=SERIES[0], ecolor=SERIES[0], elinewidth=1.6, capsize=3, linewidth=0.9,
        label="mean and SD",
    )  # fmt: skip
    labels = [v.value if len(v.value) <= 24 else f"{v.value[:23]}…" for v in levels]
    aslant = len(labels) > 4 and max(map(len, labels)) > LONG_LABEL
    aslant = aslant or sum(map(len, labels)) > 48
    axis.set_xticks(range(len(levels)), labels, rotation=30 if aslant else 0,
                    ha="right" if aslant else "center")  # fmt: skip
    axis.set_xlim(-0.5, len(levels) - 0.5)
    axis.grid(False, axis="x")


def receptive_fields(
    axis: Axes, depths: Sequence[int], fields: Sequence[int], window: Mapping[str, int]
) -> None:
    """The receptive field by number of blocks (bp), beside the input and output window."""
    axis.plot(depths, fields, "o-", color=PREDICTED, label="receptive field")
    for (name, length), dash, colour in zip(
        window.items(), ("--", ":"), (CHOSEN, INK), strict=False
    ):
        axis.axhline(length, linestyle=dash, color=colour, label=f"{name}, {length:,} bp")
    for depth, field in zip(depths, fields, strict=True):
        axis.annotate(
            f"{field:,}", (depth, field), xytext=(0, 6), textcoords="offset points", ha="center",
            fontsize=7.5, color=INK,
        )  # fmt: skip
    axis.set_yscale("log", base=2)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axis.set_xticks(depths)
    axis.margins(x=0.12, y=0.18)
    axis.set_xlabel(key_label("n_layers"))
    axis.set_ylabel("receptive field (bp)")
    legend(axis)
