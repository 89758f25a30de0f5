"""The scores of single loci, as a table."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from cherimoya.data.loci import Loci
from cherimoya.evaluation.scores import Scores
from cherimoya.records.per_locus import PROFILE_SCORES, group_column, output_windows
from cherimoya.util.files import atomic_write


def write_scored_loci(path: Path, scores: Scores, loci: Loci, rows: np.ndarray) -> Path:
    """A row for each scored locus: where it is, and per signal group its counts and scores.

    `rows` are those of `loci` that were scored. Columns of several groups end in _0, _1, ...;
    counts are log(1 + counts), an empty cell is a score that is undefined.
    """
    start, end = output_windows(loci, rows)
    columns: dict[str, Iterable[object]] = {
        "chrom": loci.chrom[rows], "start": start, "end": end, "label": scores.label.tolist()
    }  # fmt: skip
    n_groups = scores.log_counts.shape[1]
    for g in range(n_groups):
        values = {
            "observed_log_counts": scores.observed_log_counts,
            "predicted_log_counts": scores.log_counts,
            **{name: scores.profile[name] for name in PROFILE_SCORES},
        }
        for name, value in values.items():
            column = value[:, g].double().tolist()
            columns[group_column(name, g, n_groups)] = [_cell(number) for number in column]
    lines = ["\t".join(columns)]
    lines += ["\t".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    with atomic_write(path) as file:
        file.write("\n".join(lines).encode() + b"\n")
    return path


def _cell(number: float) -> str:
    return f"{number:.7g}" if np.isfinite(number) else ""
