"""Windows of sequence and signal, cut out of opened files and kept on disk part by part."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cherimoya.errors import DataError
from cherimoya.genome.fasta import Genome
from cherimoya.genome.intervals import Intervals
from cherimoya.genome.sequence import N_CODE
from cherimoya.genome.track import Track
from cherimoya.prepare.background import Windows
from cherimoya.util.marks import marked_folder

BLOCK = 512  # loci whose values are held as float32 at a time
TYPES = (np.uint8, np.int16, np.int32, np.float32)  # of counts; torch cannot index uint16
HIGHEST = np.array([np.iinfo(kind).max for kind in TYPES[:3]], np.float64)
KNOWN = "known.npz"

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Cutter:
    """Cuts windows out of a genome and tracks; it can be sent to another process.

    groups: tracks of each signal group
    """

    genome: Genome
    windows: Windows
    signal: list[Track]
    control: list[Track]
    groups: list[int]

    def __call__(self, intervals: Intervals) -> Arrays:
        """sequence (n, stored) uint8, signal (n, tracks, length) and, if there are some, control
        (n, controls, stored) in the smallest of TYPES, and of each locus:

        totals: (n, groups) of signal in the output window
        gc: (n,) share of G and C in the input window
        unknown: (n,) letters other than A C G T in the stored sequence
        signal_type, control_type: (n,) the smallest of TYPES that holds the locus, by its number

        `intervals` lie sorted by chromosome. Raises DataError for values that are no counts.
        """
        blocks = [self._block(intervals.take(rows)) for rows in _blocks(intervals)]
        return {name: _joined([block[name] for block in blocks]) for name in blocks[0]}

    def _block(self, intervals: Intervals) -> Arrays:
        """The same of a few loci on one chromosome."""
        windows, starts = self.windows, self.windows.starts(intervals.center)
        inset = (windows.in_window - windows.out_window) // 2
        codes = self.genome.codes(str(intervals.chrom[0]))
        sequence = np.lib.stride_tricks.sliding_window_view(codes, windows.stored)[starts]
        read = sequence[:, windows.max_jitter : windows.max_jitter + windows.in_window]
        gc = ((read == 1) | (read == 2)).sum(axis=1)
        signal = _values(self.signal, intervals, starts + inset, windows.stored - 2 * inset)
        first = np.cumsum([0, *self.groups[:-1]])
        inside = signal[:, :, windows.max_jitter : windows.max_jitter + windows.out_window]
        arrays = {
            "sequence": sequence,
            "totals": np.add.reduceat(inside.sum(axis=2, dtype=np.float64), first, axis=1),
            "gc": gc / np.maximum((read < N_CODE).sum(axis=1), 1),
            "unknown": (sequence == N_CODE).sum(axis=1),
        }
        counts = {"signal": signal}
        if self.control:
            counts["control"] = _values(self.control, intervals, starts, windows.stored)
        for name, values in counts.items():
            types = smallest_types(values)
            arrays[f"{name}_type"] = types
            arrays[name] = values.astype(TYPES[types.max(initial=0)])
        return arrays


def keep(cutter: Cutter, job: tuple[Intervals, Path]) -> None:
    """Cut the job's intervals and write what comes out to its folder, which appears whole.

    sequence, signal and control become files of their own, the rest is in KNOWN.
    """
    intervals, folder = job
    arrays = cutter(intervals)
    with marked_folder(folder) as made:
        for name in ("sequence", "signal", "control"):
            if name in arrays:
                np.save(made / f"{name}.npy", arrays.pop(name))
        np.savez(made / KNOWN, **arrays)  # type: ignore[arg-type]


def smallest_types(values: np.ndarray) -> np.ndarray:
    """(n,) which of TYPES is the smallest that holds values[i] (tracks, length), all >= 0."""
    whole = (values == np.rint(values)).all(axis=(1, 2))
    held_by = np.searchsorted(HIGHEST, values.max(axis=(1, 2), initial=0).astype(np.float64))
    return np.where(whole, held_by, len(HIGHEST)).astype(np.uint8)


def _blocks(intervals: Intervals) -> Iterator[np.ndarray]:
    """Row numbers of up to BLOCK loci at a time, on one chromosome each."""
    changes = np.flatnonzero(intervals.chrom[1:] != intervals.chrom[:-1]) + 1
    for rows in np.split(np.arange(len(intervals)), changes):
        yield from np.split(rows, range(BLOCK, len(rows), BLOCK))


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    dtype = np.result_type(*arrays)
    if np.float32 in [array.dtype for array in arrays]:
        dtype = np.dtype(np.float32)
    return np.concatenate(arrays, dtype=dtype, casting="same_kind")


def _values(
    tracks: list[Track], intervals: Intervals, starts: np.ndarray, length: int
) -> np.ndarray:
    """(n, tracks, length) float32."""
    chrom = str(intervals.chrom[0])
    values = np.empty((len(starts), len(tracks), length), np.float32)
    for row, start in enumerate(starts.tolist()):
        for i, track in enumerate(tracks):
            values[row, i] = track.values(chrom, start, start + length)
    if values.min(initial=0) < 0 or not np.isfinite(values.max(initial=0)):
        raise DataError(_no_count(values, starts, tracks, intervals))
    return values


def _no_count(
    values: np.ndarray, starts: np.ndarray, tracks: list[Track], intervals: Intervals
) -> str:
    row, i, base = np.argwhere((values < 0) | ~np.isfinite(values))[0]
    where = (
        f"{tracks[i].path}: {values[row, i, base]:g} at {intervals.chrom[row]}:"
        f"{starts[row] + base:,} (0-based), near the locus {intervals.name(row)}."
    )
    if values[row, i, base] > 0:
        return f"{where} Counts must be finite. Make the file again, or give zero there."
    return (
        f"{where} Counts cannot be negative. For a minus strand stored as negative values, turn "
        "them: bigWigToBedGraph, awk '{$4 = -$4} 1', bedGraphToBigWig."
    )
