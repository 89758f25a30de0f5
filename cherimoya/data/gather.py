"""Sequence and signal out of opened files, around places on the genome."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cherimoya import progress
from cherimoya.config_prepare import PrepareConfig
from cherimoya.data.background import Windows, gc_fraction, n_fraction
from cherimoya.data.cutting import Cutter, merged, pieces
from cherimoya.data.loci import Loci
from cherimoya.data.places import Places
from cherimoya.data.sources import Genome, Say
from cherimoya.data.track import Track, stem


@dataclass(frozen=True, eq=False)
class Sources:
    """The opened files, their tracks by group, and what to cut out of them.

    places: the loci; excluded: the regions that none may touch
    """

    config: PrepareConfig
    genome: Genome
    places: Places
    excluded: Places
    signal: list[list[Track]]
    control: list[list[Track]]
    windows: Windows
    say: Say


def gather(places: Places, label: int, sources: Sources) -> Loci:
    """Sequence, signal and control around each of `places`, read chromosome by chromosome."""
    config, windows = sources.config, sources.windows
    starts = windows.starts(places.center)
    signal, control = flat(sources.signal), flat(sources.control)
    orders = _by_chromosome(places)
    cutter = Cutter(sources.genome, windows, signal, control)
    found = pieces(cutter, [places.take(rows) for rows in orders], config.processes)
    what = f"reading {len(signal) + len(control)} tracks at {'peaks' if label else 'background'}"
    shown = progress.shown(found, what, len(orders), "chromosome", tell=sources.say)
    columns = [list(arrays) for arrays in zip(*shown, strict=True)]
    read = [merged(arrays, orders) for arrays in columns]
    return Loci(
        sequence=read[0],
        signal=read[1],
        control=read[2] if control else None,
        label=np.full(len(places), label, np.uint8),
        chrom=places.chrom,
        start=starts,
        end=starts + windows.stored,
        in_window=windows.in_window,
        out_window=windows.out_window,
        max_jitter=windows.max_jitter,
        track_names=[track.name for track in signal],
        control_names=[track.name for track in control],
        signal_groups=[len(group) for group in sources.signal],
        control_groups=[len(group) for group in sources.control],
        genome=config.genome or stem(Path(config.fasta)),
        provenance={},
    )


def n_fractions(places: Places, sources: Sources) -> np.ndarray:
    """(n,) share of N in the stored sequence of each of `places`."""
    shares = np.empty(len(places))
    for rows in _by_chromosome(places):
        codes = sources.genome.codes(str(places.chrom[rows[0]]))
        starts = sources.windows.starts(places.center[rows])
        shares[rows] = n_fraction(codes, starts, sources.windows.stored)
    return shares


def _by_chromosome(places: Places) -> list[np.ndarray]:
    """Row numbers of the places on each chromosome, in order of position."""
    order = np.lexsort((places.center, places.chrom))
    return np.split(order, np.flatnonzero(places.chrom[order][1:] != places.chrom[order][:-1]) + 1)


def flat(groups: list[list[Track]]) -> list[Track]:
    """The tracks of all groups, in order."""
    return [track for group in groups for track in group]


def group_totals(loci: Loci) -> np.ndarray:
    """(n, groups) total signal in the output window."""
    inside = loci.signal[:, :, loci.max_jitter : loci.max_jitter + loci.out_window]
    per_track = inside.sum(axis=2, dtype=np.float64)  # (n, tracks)
    return np.add.reduceat(per_track, np.cumsum([0, *loci.signal_groups[:-1]]), axis=1)


def gc_of(loci: Loci) -> np.ndarray:
    """(n,) GC fraction of the input windows."""
    n, stored = loci.sequence.shape
    starts = np.arange(n) * stored + loci.max_jitter
    return gc_fraction(loci.sequence.ravel(), starts, loci.in_window)
