"""What a run keeps of single loci: the scores of each scored one, and the profiles of a few.

Read back without torch, so that a page can be made wherever the folder is.
"""

import csv
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cherimoya.util.files import atomic_write
from cherimoya.util.shapes import LARGEST, MOST, read

if TYPE_CHECKING:
    from cherimoya.data.loci import Loci

PROFILE_SCORES = ("profile_mnll", "profile_pearson", "profile_jsd")


def output_windows(loci: "Loci", rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Start and end of the predicted window of each locus; -1 where the file does not say."""
    shift = loci.max_jitter + (loci.in_window - loci.out_window) // 2
    known = loci.start[rows] >= 0
    start = np.where(known, loci.start[rows] + shift, -1)
    return start, np.where(known, start + loci.out_window, -1)


def group_column(name: str, group: int, n_groups: int) -> str:
    """The column of a signal group."""
    return f"{name}_{group}" if n_groups > 1 else name


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


def read_scored_loci(path: Path) -> ScoredLoci | None:
    """What `write_scored_loci` wrote; None where it did not. Raises DataError."""
    return read(path, _scored_loci, None)


def _scored_loci(path: Path) -> ScoredLoci:
    with open(path, newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file, delimiter="\t")
    columns = dict(zip(header, zip(*rows, strict=True), strict=True)) if rows else {}

    def grouped(name: str) -> np.ndarray:
        names = [c for c in header if c == name or c.startswith(f"{name}_")]
        values = [[float(cell or "nan") for cell in columns.get(c, ())] for c in names]
        return np.array(values, dtype=np.float64).T

    names = ("observed_log_counts", "predicted_log_counts", *PROFILE_SCORES)
    found = ScoredLoci(
        label=np.array(columns.get("label", ()), dtype=np.int64),
        **{name: grouped(name) for name in names},
    )
    shape = (len(found.label), found.observed_log_counts.shape[-1])
    for name in names:
        values = getattr(found, name)
        if values.shape != shape or (np.abs(values[~np.isnan(values)]) > LARGEST).any():
            raise ValueError(f"{name} is not what it can be")
    if not np.isin(found.label, (0, 1)).all():
        raise ValueError("label is neither 0 nor 1")
    return found


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
    with atomic_write(path) as file:
        np.savez_compressed(file, **vars(examples))
    return path


def read_examples(path: Path) -> Examples | None:
    """What `write_examples` wrote; None where it did not. Raises DataError."""
    return read(path, _examples, None)


def _examples(path: Path) -> Examples:
    if not zipfile.is_zipfile(path):
        raise ValueError("no archive of NumPy")
    with np.load(path, allow_pickle=False) as archive:
        found = Examples(**{name: archive[name] for name in Examples.__dataclass_fields__})
    n, tracks, length = found.observed.shape
    for names, shape, kinds in (
        (("chrom",), (n,), "U"), (("start", "end"), (n,), "iu"), (("sign",), (tracks,), "iuf"),
        (("track_names",), (tracks,), "U"), (("observed", "expected"), (n, tracks, length), "iuf"),
    ):  # fmt: skip
        for name in names:
            values = getattr(found, name)
            if values.shape != shape or values.dtype.kind not in kinds:
                raise ValueError(f"{name} has another shape or type")
            if kinds != "U" and not (np.abs(values.astype(float)) <= MOST).all():
                raise ValueError(f"{name} holds what is no number, or too large")
    return found
