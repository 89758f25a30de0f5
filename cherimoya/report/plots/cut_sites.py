"""Which bases lie around the cuts of a prepared file, beside the motif of the enzyme."""

from pathlib import Path
from typing import Any

import numpy as np

from cherimoya.data import hdf5
from cherimoya.genome.cut_sites import FIRST, STRANDS, known_frequencies
from cherimoya.report.plots.interpret import stacked_logo
from cherimoya.report.plots.theme import figure, save_png

WIDTH, HEIGHT = 4.3, 1.5  # inches of a logo


def plot_cut_sites(path: Path) -> Path | None:
    """Draw logos of the cuts of the prepared file at `path` beside it, as .cuts.png; None where
    shift=auto saw none."""
    known = hdf5.read_header(path).provenance.get("cut_sites", [])
    found = [one for one in known if "frequencies" in one]
    if not found:
        return None
    enzymes = dict.fromkeys(one["enzyme"] for one in found)
    rows = [(_titles(one), np.array(one["frequencies"])) for one in found]
    shown = rows[0][1].shape[1] // 2
    for enzyme in enzymes:
        titles = [f"{enzyme} as it is known, {strand} ends" for strand in STRANDS]
        rows.append((titles, known_frequencies(enzyme)))
    with figure(len(rows), 2, WIDTH, HEIGHT) as (made, axes):
        for row, (titles, frequencies) in zip(axes, rows, strict=True):
            first = FIRST if frequencies.shape[1] < 2 * shown else -shown
            for axis, title, one in zip(row, titles, frequencies, strict=False):
                stacked_logo(axis, one, first)
                axis.set_title(title)
                axis.set_xlim(-shown - 0.5, shown + 0.5)
            for axis in row[len(frequencies) :]:
                axis.set_axis_off()
        for axis in axes[-1]:
            axis.set_xlabel("bases from where a cut is counted")
        made.supylabel("bits", fontsize=9)
        return save_png(made, path.with_suffix(".cuts.png"))


def _titles(found: dict[str, Any]) -> list[str]:
    if len(found["frequencies"]) == 1:
        return [f"{found['file']}, both strands"]
    given = found["given"] or (0, 0)
    return [
        f"{found['file']}, {strand} ends {written + more:+d}"
        for strand, written, more in zip(STRANDS, given, found["found"], strict=True)
    ]
