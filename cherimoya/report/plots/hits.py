"""Charts of motif instances: how many, their looks and places, and which go together."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from cherimoya.report.plots.interpret import letters, logo
from cherimoya.report.plots.theme import INK, MUTED, PREDICTED, SERIES, legend

COLOURS = "RdBu_r"
SMOOTH = 0.1  # three standard deviations, of half a locus
MOST_FOLD = 3.0  # log2, where the colours of the matrix end
LINE, BAND = 0.09, 0.16  # of an overlay, parts of the logo's height


def counts(axis: Axes, names: Sequence[str], totals: np.ndarray) -> None:
    """Instances of each motif, the most frequent above."""
    at = np.arange(len(names))
    axis.barh(at, totals, color=PREDICTED, height=0.7)
    axis.set_yticks(at, names)
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set_xlabel("instances")


def matrix_logo(axis: Axes, weights: np.ndarray, unit: str) -> None:
    """Contributions (4, w) of the bases of a motif as letters: above zero, and below."""
    at = np.arange(weights.shape[1])
    for sign in (1, -1):
        heights = np.maximum(sign * weights, 0).T
        order = np.argsort(heights, axis=1)
        tops = np.take_along_axis(heights, order, axis=1).cumsum(axis=1)
        below = np.zeros_like(heights)
        np.put_along_axis(below, order[:, 1:], tops[:, :-1], axis=1)
        for base in range(4):
            letters(axis, base, at, sign * below[:, base], sign * heights[:, base])
    axis.axhline(0, color=INK, linewidth=0.6)
    low, high = (np.minimum(weights, 0).sum(0).min(), np.maximum(weights, 0).sum(0).max())
    room = 0.05 * (high - low) or 1
    axis.set(xlim=(-0.5, len(at) - 0.5), ylim=(low - room, high + room))
    axis.grid(False)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axis.set_ylabel(unit)


def distances(
    axis: Axes, names: Sequence[str], distance: Sequence[np.ndarray], half: float
) -> None:
    """Of the instances of each motif, the middle's distance from the middle of the locus."""
    edges = np.arange(-half, half + 1)
    kernel = np.exp(-0.5 * np.square(np.linspace(-3, 3, 2 * int(SMOOTH * half) + 1)))
    kernel /= kernel.sum()
    for i, (name, values) in enumerate(zip(names, distance, strict=True)):
        share = 100 * np.histogram(values, edges)[0] / max(len(values), 1)
        smooth = np.convolve(share, kernel, "same")
        axis.plot(edges[:-1] + 0.5, smooth, color=SERIES[i % len(SERIES)], label=name)
    axis.set_xlabel("bases from the middle of the locus")
    axis.set_ylabel("% of instances, a base")
    axis.margins(x=0)
    axis.set_ylim(bottom=0)
    legend(axis)


def together(axis: Axes, names: Sequence[str], fold: np.ndarray, observed: np.ndarray) -> None:
    """log2 of how often two motifs share a locus against chance (m, m), and in how many loci."""
    shown = np.ma.masked_invalid(fold)
    image = axis.imshow(shown, cmap=COLOURS, vmin=-MOST_FOLD, vmax=MOST_FOLD)
    for row, column in np.ndindex(*observed.shape):
        if row != column:
            strong = abs(np.nan_to_num(fold[row, column])) > 0.6 * MOST_FOLD
            axis.text(column, row, f"{observed[row, column]:,}", ha="center", va="center",
                      fontsize=6.5, color="white" if strong else INK)  # fmt: skip
    at = np.arange(len(names))
    axis.set_xticks(at, names, rotation=60, ha="right", rotation_mode="anchor")
    axis.set_yticks(at, names)
    axis.grid(False)
    bar = axis.figure.colorbar(image, ax=axis, shrink=0.7)
    bar.set_label("log2 observed / expected", fontsize=8)


def explained(axis: Axes, share: np.ndarray) -> None:
    """Share of each locus's contributions, as sums of squares, that lies in instances (n,)."""
    axis.hist(100 * share, bins=np.linspace(0, 100, 26).tolist(), color=PREDICTED)
    axis.axvline(100 * float(np.median(share)), color=INK, linestyle="--", label="median")
    axis.set_xlabel("in instances (% of squared contributions)")
    axis.set_ylabel("loci")
    axis.set_xlim(0, 100)
    legend(axis)


def example(
    axis: Axes,
    codes: np.ndarray,
    values: np.ndarray,
    spans: Sequence[tuple[int, int, str]],
    start: int,
) -> None:
    """A logo of contributions, with the instances that lie there: first, last, and a name."""
    logo(axis, codes, values)
    low, high = axis.get_ylim()
    height = high - low
    ends: list[int] = []  # of each line of names
    for first, last, name in sorted(spans):
        line = next((i for i, end in enumerate(ends) if end <= first), len(ends))
        reach = max(last, first + len(name))  # about a letter a base
        ends[line : line + 1] = [reach]
        axis.axvspan(
            first - 0.5, last - 0.5, color=SERIES[line % len(SERIES)], alpha=BAND, zorder=0
        )
        axis.text(first - 0.4, high + LINE * height * line, name, fontsize=6.5, va="bottom")
    axis.set_ylim(low, high + LINE * height * (len(ends) + 0.5))
    if start >= 0:
        axis.xaxis.set_major_formatter(lambda value, _: f"{value + start:,.0f}")
    axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axis.tick_params(colors=MUTED)
