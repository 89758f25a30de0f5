"""Writing bigWig files."""

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import repeat
from pathlib import Path

import numpy as np

from cherimoya.errors import DataError

Piece = tuple[str, np.ndarray, np.ndarray]  # chromosome, positions (k,) ascending, values (k,)


def write_bigwig(path: Path, lengths: Mapping[str, int], pieces: Iterable[Piece]) -> Path:
    """Write values at positions to `path`, which appears whole or not at all.

    lengths: bases of each chromosome; pieces: chromosomes in sorted order, positions ascending.
    Values are kept as float32; equal ones beside each other share an entry.

    Raises DataError without pybigtools, or when the disk refuses.
    """
    try:
        import pybigtools
    except ImportError:
        raise DataError(
            "pybigtools is not installed, which bigWig files need: "
            "pip install 'cherimoya-train[prepare]'. Or use format=hdf5."
        ) from None
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.bw")  # judged by its suffix
    try:
        pybigtools.open(str(temporary), "w").write(dict(lengths), _entries(pieces))
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error}). Free some space.") from None
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _entries(pieces: Iterable[Piece]) -> Iterator[tuple[str, int, int, float]]:
    for chrom, at, values in pieces:
        if not len(at):
            continue
        new = np.flatnonzero((np.diff(at) != 1) | (np.diff(values) != 0)) + 1
        first, last = np.concatenate([[0], new]), np.concatenate([new, [len(at)]]) - 1
        yield from zip(
            repeat(chrom), at[first].tolist(), (at[last] + 1).tolist(), values[first].tolist(),
            strict=False,
        )  # fmt: skip
