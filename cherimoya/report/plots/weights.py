"""Logos of a matrix of weights, as images inside a page."""

import base64
import io

import numpy as np
from matplotlib.axes import Axes

from cherimoya.report.plots.interpret import letters
from cherimoya.report.plots.theme import DPI, INK, figure


def weights_image(
    weights: np.ndarray, figsize: tuple[float, float] = (10, 3), clamp: bool = True
) -> str:
    """A logo of weights (W, 4) as a data URI of a PNG image.

    figsize: inches; clamp: the axis ends at the largest sums of a position, not at its letters
    """
    with figure(width=figsize[0], height=figsize[1]) as (made, axes):
        weights_logo(axes[0, 0], np.asarray(weights, np.float64), clamp)
        file = io.BytesIO()
        made.savefig(file, format="png", dpi=DPI)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def weights_logo(axis: Axes, weights: np.ndarray, clamp: bool) -> None:
    """Letters as tall as their weights (W, 4), the largest on top, those below zero hanging."""
    order = np.argsort(np.abs(weights), axis=1)
    sorted_weights = np.take_along_axis(weights, order, axis=1)
    starts = np.zeros_like(weights)
    for side in (np.maximum, np.minimum):  # stacked up, and hung down
        part = side(sorted_weights, 0)
        begin = part.cumsum(axis=1) - part
        starts += np.where(part != 0, begin, 0)
    below = np.zeros_like(weights)
    np.put_along_axis(below, order, starts, axis=1)
    at = np.arange(len(weights))
    for base in range(4):
        there = weights[:, base] != 0
        letters(axis, base, at[there], below[there, base], weights[there, base])
    axis.axhline(0, color=INK, linewidth=0.6)
    sums = weights.sum(axis=1) if clamp else (below + weights).ravel()
    low, high = min(sums.min(), 0), max(sums.max(), 0)
    axis.set(xlim=(-0.5, len(weights) - 0.5), ylim=(low, high if high > low else low + 1))
    axis.grid(False)
