"""Effects of variants: all of them as points, and the strongest as predicted tracks."""

import numpy as np
from matplotlib.axes import Axes

from cherimoya.report.plots.theme import INK, MUTED, OBSERVED, SERIES, legend

MOST_POINTS = 2000  # that are drawn as shapes; more are an image
AROUND = 150  # bases on each side of a variant
SIGNIFICANT = 0.05  # q-value


def volcano(axis: Axes, fold: np.ndarray, p: np.ndarray, q: np.ndarray) -> None:
    """log2 fold changes (n,) and -log10 of their p-values; those with a small q stand out."""
    image = len(fold) > MOST_POINTS
    found = q < SIGNIFICANT
    for chosen, colour, name in ((~found, OBSERVED, "others"), (found, SERIES[1], "q < 0.05")):
        axis.scatter(
            fold[chosen], -np.log10(p[chosen]), s=7, color=colour, linewidths=0,
            label=f"{name}: {int(chosen.sum()):,}", rasterized=image,
        )  # fmt: skip
    axis.axvline(0, color=MUTED, linewidth=0.6)
    axis.set(xlabel="log2 fold change of counts, ALT against REF", ylabel="-log10 p")
    legend(axis)


def distances(axis: Axes, fold: np.ndarray, jsd: np.ndarray) -> None:
    """log2 fold changes (n,) and Jensen-Shannon distances of the profiles."""
    axis.scatter(fold, jsd, s=7, color=SERIES[0], linewidths=0, rasterized=len(fold) > MOST_POINTS)
    axis.axvline(0, color=MUTED, linewidth=0.6)
    axis.set(xlabel="log2 fold change of counts, ALT against REF", ylabel="JSD of profiles")
    axis.set_ylim(bottom=0)


def tracks(axis: Axes, ref: np.ndarray, alt: np.ndarray, at: int) -> None:
    """Expected counts (tracks, W) with either allele, which begins at column `at`; later tracks
    point down."""
    part = slice(max(at - AROUND, 0), at + AROUND + 1)
    x = np.arange(ref.shape[1])[part] - at
    for name, values, colour in (("REF", ref, INK), ("ALT", alt, SERIES[1])):
        for track, counts in enumerate(values):
            shown = -counts[part] if track else counts[part]
            axis.plot(x, shown, color=colour, linewidth=1, label=None if track else name)
    axis.axvline(0, color=MUTED, linewidth=0.6, linestyle=":")
    axis.set(xlabel="bases from the variant", ylabel="counts a base")
    axis.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    legend(axis)
