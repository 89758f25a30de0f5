"""Contributions as bigWig files, for genome browsers."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from cherimoya.genome.bigwig_writer import Piece, write_bigwig
from cherimoya.records.attributions import Attributions, read_attributions


def track_path(path: Path, target: str) -> Path:
    """Where the track of a target of the file at `path` goes."""
    return path.with_name(f"{path.stem}.{target}.bw")


def write_tracks(path: Path, lengths: Mapping[str, int]) -> list[Path]:
    """A bigWig of the contributions of each target in the file at `path`, beside it.

    lengths: chromosome to bases. Where loci overlap, the mean; nothing elsewhere.
    """
    found, written = read_attributions(path), []
    for name in found.contributions:
        written.append(write_bigwig(track_path(path, name), lengths, _pieces(found, name)))
    return written


def _pieces(found: Attributions, name: str) -> Iterator[Piece]:
    """Every attributed base and its value, by chromosome, sorted."""
    values = found.contributions[name]
    for chrom in sorted(set(found.chrom.tolist())):
        rows = np.flatnonzero(found.chrom == chrom)
        bases = found.start[rows, None] + np.arange(values.shape[1])
        at, index, count = np.unique(bases, return_inverse=True, return_counts=True)
        total = np.bincount(index.ravel(), weights=values[rows].ravel())
        yield chrom, at, total / count
