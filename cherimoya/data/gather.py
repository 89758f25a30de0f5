"""Cutting sequence and signal out of opened files, around places on the genome."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cherimoya import progress
from cherimoya.config_prepare import PrepareConfig
from cherimoya.data.background import Windows, gc_fraction
from cherimoya.data.loci import Loci
from cherimoya.data.sources import Genome, Places
from cherimoya.data.track import Track, stem
from cherimoya.errors import DataError

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Sources:
    """The opened files, their tracks by group, and what to cut out of them."""

    config: PrepareConfig
    genome: Genome
    signal: list[list[Track]]
    control: list[list[Track]]
    windows: Windows
    say: Say


def gather(places: Places, label: int, sources: Sources) -> Loci:
    """Sequence, signal (float32) and control around each of `places`."""
    config, windows = sources.config, sources.windows
    starts = windows.starts(places.center)
    sequence = np.empty((len(places), windows.stored), np.uint8)
    for chrom in dict.fromkeys(places.chrom.tolist()):
        rows = np.flatnonzero(places.chrom == chrom)
        codes = sources.genome.codes[chrom]
        sequence[rows] = np.lib.stride_tricks.sliding_window_view(codes, windows.stored)[
            starts[rows]
        ]
    inset = (windows.in_window - windows.out_window) // 2
    what = "peaks" if label else "background"
    signal = _values(
        flat(sources.signal), places, starts + inset, windows.stored - 2 * inset, what, sources
    )
    control = None
    if sources.control:
        control = _values(flat(sources.control), places, starts, windows.stored, what, sources)
    return Loci(
        sequence=sequence,
        signal=signal,
        control=control,
        label=np.full(len(places), label, np.uint8),
        chrom=places.chrom,
        start=starts,
        end=starts + windows.stored,
        in_window=windows.in_window,
        out_window=windows.out_window,
        max_jitter=windows.max_jitter,
        track_names=[track.name for track in flat(sources.signal)],
        control_names=[track.name for track in flat(sources.control)],
        signal_groups=[len(group) for group in sources.signal],
        control_groups=[len(group) for group in sources.control],
        genome=config.genome or stem(Path(config.fasta)),
        provenance={},
    )


def _values(
    tracks: list[Track],
    places: Places,
    starts: np.ndarray,
    length: int,
    what: str,
    sources: Sources,
) -> np.ndarray:
    """(n, tracks, length) float32. Raises DataError for a negative value."""
    values = np.empty((len(places), len(tracks), length), np.float32)
    label = f"reading {len(tracks)} tracks at {what}"
    rows = np.argsort(places.chrom, kind="stable")  # a track may hold one chromosome at a time
    for row in progress.shown(rows, label, len(places), "locus", tell=sources.say):
        chrom, start = str(places.chrom[row]), int(starts[row])
        for i, track in enumerate(tracks):
            values[row, i] = track.values(chrom, start, start + length)
    if values.min(initial=0) >= 0:
        return values
    row, i, base = np.argwhere(values < 0)[0]
    raise DataError(
        f"{tracks[i].path}: {values[row, i, base]:g} at {places.chrom[row]}:"
        f"{starts[row] + base:,} (0-based), near the locus {places.name(row)}. Counts cannot be "
        "negative. For a minus strand stored as negative values, turn them: bigWigToBedGraph, "
        "awk '{$4 = -$4} 1', bedGraphToBigWig."
    )


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
