"""The HDF5 file of predictions, a row for each locus."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cherimoya.data.hdf5_file import created
from cherimoya.util.files import atomic_path

FORMAT, VERSION = "cherimoya-predictions", 1

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]  # rows (k,) ascending, logits, log_counts


def write_predictions(
    path: Path,
    chrom: np.ndarray,
    start: np.ndarray,
    shape: tuple[int, int, int],
    parts: Iterable[Rows],
    attributes: Mapping[str, Any],
) -> Path:
    """Write predictions to `path`, which appears whole or not at all.

    chrom, start: (n,) of each output window; shape: tracks, groups and bases of a window; parts:
    rows of the file with their logits (k, tracks, bases) and log_counts (k, groups), in any order.

    The file holds chrom, start, end (n,), logits (n, tracks, bases) and log_counts (n, groups),
    float32, and `attributes`, as JSON where they are no plain numbers or text.
    """
    tracks, groups, bases = shape
    with atomic_path(path) as temporary, created(temporary) as file:
        for name, value in ({"format": FORMAT, "version": VERSION} | dict(attributes)).items():
            plain = isinstance(value, (str, int, float))
            file.attrs[name] = value if plain else json.dumps(value)
        n = len(chrom)
        file.create_dataset("chrom", data=np.char.encode(chrom.astype(str), "utf-8"))
        file.create_dataset("start", data=start.astype(np.int64))
        file.create_dataset("end", data=start.astype(np.int64) + bases)
        logits = file.create_dataset(
            "logits", (n, tracks, bases), np.float32, chunks=(1, tracks, bases),
            compression="gzip", compression_opts=1, shuffle=True,
        )  # fmt: skip
        log_counts = file.create_dataset("log_counts", (n, groups), np.float32)
        for rows, some_logits, some_counts in parts:
            logits[rows], log_counts[rows] = some_logits, some_counts
    return path
