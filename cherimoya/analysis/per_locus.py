"""What a run keeps of single loci: the scores of each scored one, and the profiles of a few.

Read back without torch, so that a page can be made wherever the folder is.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cherimoya import logged
from cherimoya.files import appearing

if TYPE_CHECKING:
    from cherimoya.data.loci import Loci
    from cherimoya.training.evaluation import Scores

SCORED_LOCI = f"{logged.LOCI}.tsv"
EXAMPLES = "examples.npz"
PROFILE_SCORES = ("profile_mnll", "profile_pearson", "profile_jsd")


def output_windows(loci: "Loci", rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Start and end of the predicted window of each locus; -1 where the file does not say."""
    shift = loci.max_jitter + (loci.in_window - loci.out_window) // 2
    known = loci.start[rows] >= 0
    start = np.where(known, loci.start[rows] + shift, -1)
    return start, np.where(known, start + loci.out_window, -1)


def write_scored_loci(path: Path, scores: "Scores", loci: "Loci", rows: np.ndarray) -> Path:
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
    with appearing(path) as file:
        file.write("\n".join(lines).encode() + b"\n")
    return path


def group_column(name: str, group: int, n_groups: int) -> str:
    """The column of a signal group."""
    return f"{name}_{group}" if n_groups > 1 else name


def _cell(number: float) -> str:
    return f"{number:.7g}" if np.isfinite(number) else ""


@dataclass(frozen=True, eq=False)
class ScoredLoci:
    """n scored loci: columns of test_loci.tsv as arrays, those of signal groups as (n, n_groups).

    label: (n,), 1 peak, 0 background; the rest float64, NaN where undefined.
    """

    label: np.ndarray
    observed_log_counts: np.ndarray
    predicted_log_counts: np.ndarray
    profile_mnll: np.ndarray
    profile_pearson: np.ndarray
    profile_jsd: np.ndarray


def read_scored_loci(path: Path) -> ScoredLoci:
    """What `write_scored_loci` wrote."""
    with open(path, newline="") as file:
        header, *rows = csv.reader(file, delimiter="\t")
    columns = dict(zip(header, zip(*rows, strict=True), strict=True)) if rows else {}

    def grouped(name: str) -> np.ndarray:
        names = [c for c in header if c == name or c.startswith(f"{name}_")]
        found = [[float(cell or "nan") for cell in columns.get(c, ())] for c in names]
        return np.array(found, dtype=np.float64).T

    names = ("observed_log_counts", "predicted_log_counts", *PROFILE_SCORES)
    return ScoredLoci(
        label=np.array(columns.get("label", ()), dtype=np.int64),
        **{name: grouped(name) for name in names},
    )


@dataclass(frozen=True, eq=False)
class Examples:
    """A few loci with what was observed and what the model expects there, in counts a base.

    observed, expected: (n, tracks, L); chrom, start, end: (n,), -1 where unknown;
    sign: (tracks,), -1 for the second of a stranded pair.
    """

    chrom: np.ndarray
    start: np.ndarray
    end: np.ndarray
    observed: np.ndarray
    expected: np.ndarray
    sign: np.ndarray
    track_names: np.ndarray


def write_examples(path: Path, examples: Examples) -> Path:
    """Keep `examples` as a compressed NumPy archive with an array for each field."""
    with appearing(path) as file:
        np.savez_compressed(file, **vars(examples))
    return path


def read_examples(path: Path) -> Examples:
    """What `write_examples` wrote."""
    with np.load(path, allow_pickle=False) as archive:
        return Examples(**{name: archive[name] for name in Examples.__dataclass_fields__})
