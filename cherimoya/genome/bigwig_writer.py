"""Writing bigWig files of a value a base."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from cherimoya.errors import DiskError
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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with import_optional("figwig").BigWigWriter(
            temporary, dict(sorted(lengths.items())), level=LEVEL
        ) as file:
            for chrom, at, values in pieces:
                for first, dense in _stretches(at, values):
                    file.write(chrom, [first], dense[None], missing=np.nan)
        os.replace(temporary, path)
    except OSError as error:
        raise DiskError(f"{path}: cannot be written ({error}). Free some space.") from None
    finally:
        temporary.unlink(missing_ok=True)
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
