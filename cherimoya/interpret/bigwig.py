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
    attributions, written = read_attributions(path), []
    for name in attributions.contributions:
        written.append(write_bigwig(track_path(path, name), lengths, _pieces(attributions, name)))
    return written


def _pieces(attributions: Attributions, name: str) -> Iterator[Piece]:
    """Every attributed base and its value, by chromosome, sorted."""
    values = attributions.contributions[name]
    for chrom in sorted(set(attributions.chrom.tolist())):
        rows = np.flatnonzero(attributions.chrom == chrom)
        bases = attributions.start[rows, None] + np.arange(values.shape[1])
        at, index, count = np.unique(bases, return_inverse=True, return_counts=True)
        total = np.bincount(index.ravel(), weights=values[rows].ravel())
        yield chrom, at, total / count
