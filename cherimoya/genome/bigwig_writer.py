"""Writing bigWig files of a value a base."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from cherimoya.util.files import atomic_path, disk_errors
from cherimoya.util.optional import import_optional

Piece = tuple[str, np.ndarray, np.ndarray]  # chromosome, positions (k,) ascending, values (k,)
FAR = 1_000  # bases without a value from which on a stretch ends
LONGEST = 1 << 20  # bases of a stretch
LEVEL = 1  # of compression: of predictions more takes longer and saves nothing


def write_bigwig(path: Path, lengths: Mapping[str, int], pieces: Iterable[Piece]) -> Path:
    """Write values at positions to `path`, which appears whole or not at all.

    lengths: bases of each chromosome; pieces: chromosomes in sorted order, positions ascending.
    Values are kept to the bit as float32.

    Raises PackageError without figwig, DiskError when the disk refuses.
    """
    writer, named = import_optional("figwig").BigWigWriter, dict(sorted(lengths.items()))
    with (
        disk_errors(path),
        atomic_path(path) as temporary,
        writer(temporary, named, level=LEVEL) as file,
    ):
        for chrom, at, values in pieces:
            for first, dense in _stretches(at, values):
                file.write(chrom, [first], dense[None], missing=np.nan)
    return path


def _stretches(at: np.ndarray, values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """First position and the values side by side, NaN where there is none."""
    new = (np.diff(at) > FAR) | (np.diff(at // LONGEST) != 0)
    for rows in np.split(np.arange(len(at)), np.flatnonzero(new) + 1):
        if len(rows):
            first = int(at[rows[0]])
            dense = np.full(int(at[rows[-1]]) + 1 - first, np.nan, np.float32)
            dense[at[rows] - first] = values[rows]
            yield first, dense
