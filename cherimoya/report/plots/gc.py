"""How well the background of a prepared file matches its peaks in GC."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from cherimoya.data import hdf5
from cherimoya.report.plots.theme import BACKGROUND, MUTED, PEAK, figure, legend, save_png

SHOWN = (("peaks", PEAK, "-"), ("background", BACKGROUND, "-"), ("free windows", MUTED, ":"))


def plot_gc(path: Path) -> Path | None:
    """Draw the GC of the prepared file at `path` beside it, as .gc.png; None without background."""
    histograms = hdf5.read_header(path).provenance.get("gc")
    if not histograms:
        return None
    with figure() as (made, axes):
        gc(axes[0, 0], histograms)
        return save_png(made, path.with_suffix(".gc.png"))


def gc(axis: Axes, histograms: dict[str, list[int]]) -> None:
    """Share of loci by GC: of peaks, background, and the windows it was chosen from."""
    for name, colour, style in SHOWN:
        counts = np.array(histograms[name])
        edges = np.linspace(0, 1, len(counts) + 1)
        mean = (counts * (edges[1:] + edges[:-1]) / 2).sum() / max(counts.sum(), 1)
        axis.stairs(
            counts / max(counts.sum(), 1),
            edges,
            color=colour,
            linestyle=style,
            linewidth=1.4,
            label=f"{name}, mean {mean:.2f}",
        )
    held = np.flatnonzero(np.array(histograms["peaks"]) + np.array(histograms["background"]))
    bins = len(histograms["peaks"])
    axis.set_xlim(max(held[0] - 2, 0) / bins, min(held[-1] + 3, bins) / bins)
    axis.set_xlabel("GC of the input window")
    axis.set_ylabel("share of windows")
    legend(axis)
