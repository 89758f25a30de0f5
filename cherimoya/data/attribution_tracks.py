"""Contributions as bigWig files, for genome browsers."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from cherimoya.data.attributions import Attributions, read_attributions
from cherimoya.data.sources import _needed


def write_tracks(path: Path, lengths: Mapping[str, int]) -> list[Path]:
    """A bigWig of the contributions of each target in the file at `path`, beside it.

    lengths: chromosome to bases. Where loci overlap, the mean; nothing elsewhere.
    """
    bigtools = _needed("pybigtools")
    found, written = read_attributions(path), []
    for name in found.contributions:
        track = path.with_name(f"{path.stem}.{name}.bw")
        bigtools.open(str(track), "w").write(dict(lengths), _entries(found, name))
        written.append(track)
    return written


def _entries(found: Attributions, name: str) -> Iterator[tuple[str, int, int, float]]:
    """(chrom, start, end, value) of every attributed base, sorted."""
    values = found.contributions[name]
    for chrom in sorted(set(found.chrom.tolist())):
        rows = np.flatnonzero(found.chrom == chrom)
        bases = found.start[rows, None] + np.arange(values.shape[1])
        at, index, count = np.unique(bases, return_inverse=True, return_counts=True)
        total = np.bincount(index.ravel(), weights=values[rows].ravel())
        for base, value in zip(at.tolist(), (total / count).tolist(), strict=True):
            yield chrom, base, base + 1, value
