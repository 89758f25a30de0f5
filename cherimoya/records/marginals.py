"""What cherimoya-marginalize measured, and its table."""

import json
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from cherimoya.genome.motif import Motif
from cherimoya.util.marks import marked_path

STATISTICS = ("log2_fold_change", "log2_fold_change_sd", "fraction_up", "jsd", "jsd_sd")
PAIRED = ("difference", "difference_se")  # of log2 fold changes, from the motif `against`


@dataclass(frozen=True, eq=False)
class Marginals:
    """Effects of motifs: (m, G) each of STATISTICS over the backgrounds, and of PAIRED where they
    were set against one motif, by name; and (m,) each what a contrast of two groups has."""

    motifs: list[Motif]
    values: dict[str, np.ndarray]
    backgrounds: int
    contrast: dict[str, np.ndarray] = field(default_factory=dict)


def write_table(
    path: Path, marginals: Marginals, provenance: dict[str, Any], settings: dict[str, Any]
) -> Path:
    """A row for each motif, after a comment that says where the numbers come from."""
    groups = marginals.values["jsd"].shape[1]
    ends = [f"_{g}" if groups > 1 else "" for g in range(groups)]
    header = [f"{name}{end}" for name in marginals.values for end in ends] + [*marginals.contrast]
    marked = marked_path(path, {"settings": settings})
    with marked as temporary, open(temporary, "wb") as file:
        file.write(f"# {json.dumps(provenance, sort_keys=True)}\n".encode())
        file.write(("\t".join(["motif", "letters", "backgrounds", *header]) + "\n").encode())
        for i, motif in enumerate(marginals.motifs):
            own = [value for values in marginals.values.values() for value in values[i]]
            own += [values[i] for values in marginals.contrast.values()]
            numbers = [f"{value:.6g}" for value in own]
            cells = [motif.name, motif.letters, str(marginals.backgrounds), *numbers]
            file.write(("\t".join(cells) + "\n").encode())
    return path


def read_table(path: Path, motifs: list[Motif]) -> Marginals:
    """What `write_table` wrote of the `motifs`, with six digits of each number."""
    with open(path, encoding="utf-8") as file:
        header, *rows = [line.rstrip("\n").split("\t") for line in islice(file, 1, None)]
    columns = {name: np.array([float(r[i]) for r in rows]) for i, name in enumerate(header[3:], 3)}
    contrast = {name: columns.pop(name) for name in list(columns) if name.startswith("contrast")}
    values: dict[str, list[np.ndarray]] = {}
    for name, column in columns.items():  # of each group, one after another
        values.setdefault(name.rstrip("0123456789").removesuffix("_"), []).append(column)
    groups = {name: np.stack(of_groups, axis=1) for name, of_groups in values.items()}
    return Marginals(motifs, groups, int(rows[0][2]), contrast)
