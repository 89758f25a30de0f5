"""The patterns of a file that TF-MoDISco wrote, and which known motifs they match."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from cherimoya.data.hdf5_probe import check_finishes, check_inside
from cherimoya.errors import DataError
from cherimoya.records.attributions import DAMAGE

SIGNS = ("pos_patterns", "neg_patterns")
TABLE = "motifs.tsv"  # beside the file, by cherimoya-attribute
LARGEST_Q = 0.05  # of a match that is believed
MOST_BASES = 1000  # of a pattern


@dataclass(frozen=True, eq=False)
class StoredPattern:
    """A pattern: its name, pos_patterns.pattern_0 and so on, and the mean contributions (w, 4) of
    the bases that are there."""

    name: str
    contributions: np.ndarray


def is_hdf5(path: Path) -> bool:
    """Whether a file is HDF5, and so none of text."""
    return path.is_file() and bool(h5py.is_hdf5(path))


def read_patterns(path: Path, key: str) -> list[StoredPattern]:
    """The patterns of `path`, of both signs, in the order of their numbers.

    Raises DataError, naming the configuration's `key`, for a file that is damaged or none of
    TF-MoDISco's, or without patterns.
    """
    check_finishes(path)
    try:
        with h5py.File(path, "r", locking=False) as file:
            check_inside(file, path)
            found = [one for sign in SIGNS if sign in file for one in _patterns(file[sign], sign)]
    except DAMAGE as error:
        said = " ".join(str(error).split())[:120]
        raise DataError(
            f"{key}={path}: damaged, or not TF-MoDISco's ({said}). Give a folder of motifs by "
            "cherimoya-attribute, its modisco.h5, or a MEME file."
        ) from None
    if not found:
        raise DataError(
            f"{key}={path}: no pattern in it. Attribute more loci, some hundreds, or name a MEME "
            "file, such as motifs=JASPAR.meme."
        )
    return found


def _patterns(group: h5py.Group, sign: str) -> list[StoredPattern]:
    found = []
    for name in sorted(group, key=lambda name: [int(n) for n in re.findall(r"\d+", name)]):
        stored = group[name]["contrib_scores"]
        if stored.ndim != 2 or stored.shape[1] != 4 or not 0 < len(stored) <= MOST_BASES:
            raise ValueError(f"{sign}/{name} has contributions of shape {stored.shape}")
        values = stored[:].astype(np.float64)
        if not np.isfinite(values).all() or not values.any():
            raise ValueError(f"{sign}/{name} has no finite contributions")
        found.append(StoredPattern(f"{sign}.{name}", values))
    return found


def read_matches(folder: Path) -> dict[str, str]:
    """The known motif of each pattern in a folder by cherimoya-attribute, where its q-value is at
    most LARGEST_Q; none where there is no table, or another one."""
    path = folder / TABLE
    if not path.is_file():
        return {}
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        return {
            row["pattern"]: row["match"]
            for row in rows
            if row["match"] and float(row["q_value"]) <= LARGEST_Q
        }
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return {}
