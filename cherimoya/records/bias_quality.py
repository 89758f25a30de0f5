"""The quality control of a bias model (bias_quality.json), read back without torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cherimoya.records.layout import SCORES
from cherimoya.util.shapes import Table, read, read_json

KINDS = ("with_bias", "bias_model", "corrected")  # of predictions
ENZYMES = ("Tn5", "DNase I", "simulated")  # whose motifs are known
OF_GROUPS = Table({key: [float] for key in KINDS})
SHAPE = Table(
    {
        "enzyme": (str, None),
        "groups": [str],
        "signal_groups": [int],
        "backgrounds": int,
        "limits": [float],
        "footprints": [
            Table(
                {
                    "motif": str,
                    "enzyme": (str, None),
                    "largest": OF_GROUPS,
                    "profiles": Table({key: [[float]] for key in KINDS}),
                }
            )
        ],
        "residuals": Table(others=OF_GROUPS),
        "scores": Table(known={key: [SCORES] for key in ("peaks", "background", "flat")}),
        "motifs": [
            Table({"enzyme": ENZYMES, "correlation": (float, None), "frequencies": [[[float]]]})
        ],
        "checks": [Table({"name": str, "good": bool, "why": str})],
    }
)


def read_quality(path: Path) -> dict[str, Any]:
    """What `bias_quality` found; empty where there is no such file. Raises DataError."""
    return read(path, lambda path: _consistent(read_json(path, SHAPE)), {})


def _consistent(values: dict[str, Any]) -> dict[str, Any]:
    """The values, whose lists are as long as each other. Raises ValueError."""
    scores, sizes = values["scores"], values["signal_groups"]
    by_group = [values["groups"], values["limits"], values["motifs"], *scores.values()]
    for one in (*values["residuals"].values(), *(f["largest"] for f in values["footprints"])):
        by_group += [one[kind] for kind in KINDS]
    if any(len(one) != len(sizes) for one in by_group) or min(sizes, default=0) < 1:
        raise ValueError("signal groups differ")
    if "background" in scores and "flat" not in scores:
        raise ValueError("a flat profile is missing")
    for one in values["footprints"]:
        _check_profiles(one["profiles"])
    for one in values["motifs"]:
        held = np.array(one["frequencies"])
        if held.ndim != 3 or len(held) > 2 or held.shape[2] != 4 or not (held > 0).all():
            raise ValueError("frequencies are missing")
    return values


def _check_profiles(profiles: Mapping[str, Any]) -> None:
    shapes = {np.array(profiles[kind]).shape for kind in KINDS}
    if len(shapes) > 1 or any(len(shape) != 2 or not shape[1] for shape in shapes):
        raise ValueError("profiles differ")
