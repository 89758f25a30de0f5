"""Logos of contributions, letters as tall as what their bases contribute; effects of motifs."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextPath
from matplotlib.ticker import MaxNLocator

from cherimoya.genome.sequence import BASES
from cherimoya.records.attributions import Attributions
from cherimoya.records.marginals import Marginals
from cherimoya.report.plots.theme import INK, MUTED, PREDICTED, SERIES, figure, legend, save_png

COLOURS = (SERIES[2], SERIES[0], SERIES[4], SERIES[1])  # A green, C blue, G yellow, T red
UNITS = {"counts": "log(1 + counts)", "profile": "nats"}
SHOWN = 120  # bases of a logo
PER_LETTER, HEIGHT = 0.1, 1.3  # inches
MOST_BARS = 40
AROUND = 200  # bases of a profile on each side of the motif


def logo_pages(
    attributions: Attributions, loci: int, output: Path, names: Sequence[str] = ()
) -> list[Path]:
    """An image for each target, beside `output`: logos of the loci with the strongest bases.

    names: of the signal groups, where known
    """
    pages = []
    for name, values in attributions.contributions.items():
        strongest = np.argsort(-np.abs(values).max(axis=1), kind="stable")[:loci]
        shown = min(SHOWN, values.shape[1])
        with figure(len(strongest), 1, PER_LETTER * shown, HEIGHT) as (made, axes):
            for row, axis in zip(strongest, axes[:, 0], strict=True):
                first = busiest(values[row], shown)
                part = slice(first, first + shown)
                logo(axis, attributions.sequence[row, part], values[row, part])
                start = attributions.start[row]
                label(axis, str(attributions.chrom[row]), int(start), first, shown, f"locus {row}")
            axes[-1, 0].set_xlabel("position (bp)")
            output_name, _, group = name.partition("_")
            groups = " less ".join(group_title(int(g), names) for g in group.split("-"))
            made.suptitle(f"contributions to {output_name} of {groups}", fontsize=9)
            made.supylabel(UNITS[output_name], fontsize=9)
            pages.append(save_png(made, output.with_name(f"{output.stem}.{name}.png")))
    return pages


def group_title(number: int, names: Sequence[str]) -> str:
    """What a signal group is called: by its name, where it is one of several that have names."""
    return names[number] if 1 < len(names) > number else f"signal group {number}"


def busiest(values: np.ndarray, width: int) -> int:
    """Where the `width` bases begin whose contributions (W,) are largest in sum."""
    totals = np.concatenate([[0], np.abs(values).cumsum()])
    return int(np.argmax(totals[width:] - totals[:-width]))


def logo(axis: Axes, codes: np.ndarray, values: np.ndarray) -> None:
    """Bases `codes` (W,) as letters of the heights `values` (W,), upside down below zero."""
    at = np.arange(len(codes))
    for base in range(4):
        there = (codes == base) & (values != 0)
        letters(axis, base, at[there], np.zeros(there.sum()), values[there])
    axis.axhline(0, color=INK, linewidth=0.6)
    low, high = min(values.min(), 0), max(values.max(), 0)
    room = 0.05 * (high - low) or 1
    axis.set(xlim=(-0.5, len(codes) - 0.5), ylim=(low - room, high + room))
    axis.grid(False)


def stacked_logo(axis: Axes, frequencies: np.ndarray, first: int) -> None:
    """Frequencies (W, 4) of bases as letters one on the other, as tall together as their
    information in bits beside that of their mean; the first lies at `first`."""
    information = (frequencies * np.log2(frequencies / frequencies.mean(axis=0))).sum(axis=1)
    heights = frequencies * information[:, None]
    order = np.argsort(heights, axis=1)
    tops = np.take_along_axis(heights, order, axis=1).cumsum(axis=1)
    below = np.zeros_like(heights)
    np.put_along_axis(below, order[:, 1:], tops[:, :-1], axis=1)
    for base in range(4):
        letters(axis, base, first + np.arange(len(heights)), below[:, base], heights[:, base])
    axis.axhline(0, color=INK, linewidth=0.6)
    axis.set(xlim=(first - 0.5, first + len(heights) - 0.5), ylim=(0, 1.05 * tops.max()))
    axis.grid(False)


def letters(axis: Axes, base: int, at: np.ndarray, below: np.ndarray, heights: np.ndarray) -> None:
    """One base at positions `at` (n,), from `below` (n,) on."""
    letter = _letter(BASES[base])
    outlines = [
        Outline(np.asarray(letter.vertices) * (0.9, height) + (x - 0.45, y), letter.codes)
        for x, y, height in zip(at.tolist(), below.tolist(), heights.tolist(), strict=True)
    ]
    axis.add_collection(PathCollection(outlines, facecolor=COLOURS[base], linewidth=0))


def label(axis: Axes, chrom: str, start: int, first: int, shown: int, otherwise: str) -> None:
    """Name the bases of a logo."""
    known = start >= 0
    begin = first + max(start, 0)
    axis.set_title(f"{chrom}:{begin:,}-{begin + shown:,}" if known else otherwise)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value + begin:,.0f}")
    axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axis.yaxis.set_major_locator(MaxNLocator(nbins=4))


@cache
def _letter(letter: str) -> Outline:
    """The outline of a letter that fills the unit square."""
    drawn = TextPath(
        (0, 0), letter, size=1, prop=FontProperties(family="DejaVu Sans", weight="bold")
    )
    box = drawn.get_extents()
    return Outline((drawn.vertices - (box.x0, box.y0)) / (box.width, box.height), drawn.codes)


def effects_page(
    marginals: Marginals,
    before: np.ndarray,
    after: dict[str, np.ndarray],
    path: Path,
    names: Sequence[str] = (),
) -> Path:
    """An image: effects on counts by signal group, then profiles (tracks, out) of some motifs."""
    groups = marginals.values["jsd"].shape[1]
    bars = [_of_group(marginals, g, group_title(g, names)) for g in range(groups)]
    if marginals.contrast:
        spread = marginals.contrast["contrast_sd"]
        bars.append((marginals.contrast["contrast"], spread, "difference of the two groups"))
    rows = min(len(marginals.motifs), MOST_BARS)
    with figure(len(bars) + len(after), 1, 7.5, max(1.6, 0.9 + 0.16 * rows)) as (made, axes):
        for axis, (mean, spread, what) in zip(axes[:, 0], bars, strict=False):
            effects(axis, marginals, mean, spread, what)
        for axis, (name, profile) in zip(axes[len(bars) :, 0], after.items(), strict=True):
            profiles(axis, before, profile, name)
        return save_png(made, path)


def _of_group(marginals: Marginals, group: int, title: str) -> tuple[np.ndarray, np.ndarray, str]:
    names = ("log2_fold_change", "log2_fold_change_sd")
    mean, spread = (marginals.values[name][:, group] for name in names)
    return mean, spread, title


def effects(
    axis: Axes, marginals: Marginals, mean: np.ndarray, spread: np.ndarray, what: str
) -> None:
    """Mean log2 fold change (m,) of each motif, and the standard deviation over backgrounds."""
    chosen = np.argsort(-np.abs(mean), kind="stable")[:MOST_BARS]
    chosen = chosen[np.argsort(mean[chosen], kind="stable")]
    at = np.arange(len(chosen))
    axis.barh(at, mean[chosen], xerr=spread[chosen], color=PREDICTED, ecolor=MUTED, height=0.7)
    axis.set_yticks(at, [marginals.motifs[i].name for i in chosen])
    axis.set_xlabel(f"log2 fold change of counts, {what} (mean, SD)")


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
