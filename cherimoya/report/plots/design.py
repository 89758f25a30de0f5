"""Designed sequences: targets before and after, edits a locus, and predicted profiles."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from cherimoya.report.plots.theme import INK, MUTED, OBSERVED, SERIES, legend

MOST_LINES = 60  # loci that are lines; more are points
MARK = 0.05  # of the height, of an edit below the profile


def changes(axis: Axes, before: np.ndarray, after: np.ndarray, goal: np.ndarray) -> None:
    """Targets (n,) of loci before and after, ordered by the first, and their goals."""
    order = np.argsort(before, kind="stable")
    at = 1 + np.arange(len(order))
    before, after, goal = before[order], after[order], goal[order]
    if len(at) <= MOST_LINES:
        axis.vlines(at, before, after, color=OBSERVED, linewidth=1)
    axis.plot(at, goal, linestyle="", marker="_", color=MUTED, markersize=9, label="goal")
    for values, colour, name in ((before, INK, "before"), (after, SERIES[1], "after")):
        axis.plot(at, values, linestyle="", marker="o", color=colour, markersize=4, label=name)
    axis.set(xlabel="loci, by what is predicted before", ylabel="target (natural log counts)")
    axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    legend(axis)


def edits(axis: Axes, many: np.ndarray) -> None:
    """How many loci have how many edits (n,)."""
    most = int(many.max(initial=0))
    step = max(1, -(-(most + 1) // 40))
    axis.hist(many, bins=(np.arange(0, most + 2 * step, step) - 0.5).tolist(), color=SERIES[0])
    axis.set(xlabel="edits", ylabel="loci")
    for one in (axis.xaxis, axis.yaxis):
        one.set_major_locator(MaxNLocator(nbins=6, integer=True))


def profiles(
    axis: Axes, before: np.ndarray, after: np.ndarray, edited: np.ndarray, start: int
) -> None:
    """Expected counts (tracks, W) before and after; later tracks point down.

    edited: columns (edits,) of the edits, which may lie outside; start: position of column 0
    """
    x = np.arange(before.shape[1]) + start
    for name, values, colour in (("before", before, INK), ("after", after, SERIES[1])):
        for track, counts in enumerate(values):
            shown = -counts if track else counts
            axis.plot(x, shown, color=colour, linewidth=1, label=None if track else name)
    low, high = axis.get_ylim()
    foot = low - MARK * (high - low)
    marks = {"linestyle": "", "marker": "|", "color": SERIES[2], "markersize": 9}
    axis.plot(edited + start, np.full(len(edited), foot), label="edits", **marks)  # type: ignore[arg-type]
    axis.set(xlabel="position", ylabel="counts a base")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axis.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    legend(axis)
