"""Charts of the quality control of a bias model: footprints of motifs, and what it reads."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from cherimoya.data.motif_grammar import ENZYME
from cherimoya.genome.cut_sites import FIRST, known_frequencies
from cherimoya.report.plots.interpret import stacked_logo
from cherimoya.report.plots.theme import CHOSEN, INK, MUTED, OBSERVED, PREDICTED, legend

LINES = {  # by kind of prediction
    "with_bias": ("with bias model", OBSERVED),
    "bias_model": ("bias model alone", CHOSEN),
    "corrected": ("corrected", PREDICTED),
}
MOST_LOGOS = 4  # signal groups
SHOWN = 14  # bases on each side of a cut


def footprint(axis: Axes, profiles: Mapping[str, np.ndarray], limit: float) -> None:
    """Mean profiles (strands, L) by kind of prediction, in thousandths; the second strand points
    down."""
    length = next(iter(profiles.values())).shape[1]
    x = np.arange(length) - length // 2
    for kind, (name, colour) in LINES.items():
        for strand, values in enumerate(profiles[kind]):
            sign = -1 if strand else 1
            axis.plot(
                x, sign * values, color=colour, label=None if strand else name,
                linewidth=2.6 if kind == "with_bias" else 1.2,
            )  # fmt: skip
    for strand in range(len(profiles["corrected"])):
        axis.axhline(
            -limit if strand else limit, color=MUTED, linewidth=0.9, linestyle="--",
            label=None if strand else "limit",
        )  # fmt: skip
    if len(profiles["corrected"]) > 1:
        axis.axhline(0, color=INK, linewidth=0.6)
    else:
        axis.set_ylim(bottom=0)
    axis.margins(x=0)
    axis.set_xlabel("bases from the middle of the motif")
    axis.set_ylabel("share of the profile (1/1,000)")
    axis.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    legend(axis)


def motif(axis: Axes, frequencies: np.ndarray, first: int = -SHOWN) -> None:
    """Bases (W, 4) around cuts, the first of them at `first`."""
    stacked_logo(axis, frequencies, first)
    axis.set_xlim(-SHOWN - 0.5, SHOWN + 0.5)
    axis.set_xlabel("bases from where a cut is counted")
    axis.set_ylabel("bits")


def known(enzyme: str) -> list[tuple[int, np.ndarray]]:
    """The first position and the bases (W, 4) around an enzyme's plus and minus cuts."""
    if enzyme != "simulated":
        return [(FIRST, one) for one in known_frequencies(enzyme)]
    plus = np.exp(ENZYME) / np.exp(ENZYME).sum(axis=1, keepdims=True)
    before = len(ENZYME) // 2
    return [(-before, plus), (before + 1 - len(ENZYME), plus[::-1, ::-1])]
