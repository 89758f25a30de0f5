"""The quality control of a bias model, for the page of its run."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cherimoya.genome.cut_sites import STRANDS
from cherimoya.records.bias_quality import KINDS
from cherimoya.report.format import Chart
from cherimoya.report.plots import bias_quality as plots
from cherimoya.report.plots.theme import chart

CHECKS = {
    "footprints": "Residual effect of the enzyme",
    "profiles": "Profiles of background",
    "counts": "Counts of peaks",
    "motif": "Motif of the enzyme",
}
CANDIDATE = ("background/profile_mnll", "background/profile_pearson", "peaks/count_pearson")
SCORES = ("profile_pearson", "profile_mnll", "flat", "count_pearson")
HEIGHT = 1.9  # inches of a logo


def shown_quality(
    quality: Mapping[str, Any], choice: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What the template shows of `RunFolder.bias_quality`, and of how the bias model was chosen
    among several; empty where there is neither."""
    chosen = {"choice": choice, "candidates": list(_candidates(choice))} if choice else {}
    if not quality:
        return chosen
    return chosen | {
        "checks": [
            one | {"label": CHECKS.get(one["name"], one["name"])} for one in _sorted(quality)
        ],
        "several": len(quality["groups"]) > 1,
        "backgrounds": quality["backgrounds"],
        "residuals": list(_residuals(quality)),
        "footprint_charts": list(_footprint_charts(quality)),
        "scores": list(_scores(quality)),
        "motif_charts": list(_motif_charts(quality)),
    }


def _candidates(choice: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for one in choice["candidates"]:
        cells = [one.get(name) for name in CANDIDATE]
        cells = [None if isinstance(value, str) else value for value in cells]
        yield {"name": one["name"], "chosen": one["name"] == choice["chosen"], "cells": cells}


def _sorted(quality: Mapping[str, Any]) -> list[dict[str, Any]]:
    return sorted(quality["checks"], key=lambda one: one["good"])  # what is not good first


def _residuals(quality: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for enzyme, values in quality["residuals"].items():
        for g, (group, limit) in enumerate(zip(quality["groups"], quality["limits"], strict=True)):
            cells = [*(values[kind][g] for kind in KINDS), limit]
            yield {"enzyme": enzyme, "group": group, "cells": cells}


def _scores(quality: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    scores = quality["scores"]
    for loci in ("peaks", "background"):
        for g, values in enumerate(scores.get(loci, [])):
            flat = scores["flat"][g]["profile_mnll"] if loci == "background" else None
            row = values | {"flat": flat}
            cells = [row.get(name) for name in SCORES]
            yield {"loci": loci, "group": quality["groups"][g], "cells": cells}


def _footprint_charts(quality: Mapping[str, Any]) -> Iterator[Chart]:
    """Those of the motifs, and without one, of each group that was kept."""
    for one in quality["footprints"]:
        profiles = {kind: np.array(one["profiles"][kind]) for kind in KINDS}
        first = 0
        for g, (size, limit) in enumerate(
            zip(quality["signal_groups"], quality["limits"], strict=True)
        ):
            tracks = slice(first, first + size)
            if tracks.stop > len(profiles[KINDS[0]]):
                break
            own = {kind: values[tracks] for kind, values in profiles.items()}
            largest = one["largest"]["corrected"][g]
            named = f"{one['enzyme']}, {one['motif']}" if one["motif"] else "no motif"
            caption = f"{named}{_of_group(quality, g)}: corrected {largest:.5f}, limit {limit:.5f}"
            yield chart(caption, plots.footprint, own, 1000 * limit)
            first = tracks.stop


def _motif_charts(quality: Mapping[str, Any]) -> Iterator[Chart]:
    seen: Sequence[dict[str, Any]] = quality["motifs"]
    for g, one in enumerate(seen[: plots.MOST_LOGOS]):
        both = len(one["frequencies"]) == 2
        for strand, frequencies in zip(STRANDS, one["frequencies"], strict=False):
            which = f"{strand} cuts" if both else "cuts"
            caption = f"{which} that the bias model predicts{_of_group(quality, g)}"
            yield chart(caption, plots.motif, np.array(frequencies), height=HEIGHT)
    for enzyme in dict.fromkeys(one["enzyme"] for one in seen):
        for strand, (first, frequencies) in zip(STRANDS, plots.known(enzyme), strict=True):
            caption = f"{enzyme} as it is known, {strand} cuts"
            yield chart(caption, plots.motif, frequencies, first, height=HEIGHT)


def _of_group(quality: Mapping[str, Any], g: int) -> str:
    return f", {quality['groups'][g]}" if len(quality["groups"]) > 1 else ""
