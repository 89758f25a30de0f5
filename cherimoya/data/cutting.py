"""Windows of sequence and signal of one chromosome, in this process or spread over several."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np

from cherimoya.data.background import Windows
from cherimoya.data.loci import smallest_integers
from cherimoya.data.places import Places
from cherimoya.data.sources import Genome
from cherimoya.data.track import Track
from cherimoya.errors import DataError

BLOCK = 512  # loci whose values are held as float32 at a time
WORTH = 20_000  # windows of signal that take longer to read than processes take to start

Piece = tuple[np.ndarray, np.ndarray, np.ndarray]  # sequence, signal, control


@dataclass(frozen=True, eq=False)
class Cutter:
    """Cuts windows out of a genome and tracks; it can be sent to another process."""

    genome: Genome
    windows: Windows
    signal: list[Track]
    control: list[Track]

    def __call__(self, places: Places) -> Piece:
        """Of places on one chromosome: sequence (n, stored) uint8, signal (n, tracks, length) and
        control (n, controls, stored) in the smallest type that holds them.

        Raises DataError for a negative value.
        """
        windows, starts = self.windows, self.windows.starts(places.center)
        inset = (windows.in_window - windows.out_window) // 2
        codes = self.genome.codes(str(places.chrom[0]))
        view = np.lib.stride_tricks.sliding_window_view(codes, windows.stored)
        length = windows.stored - 2 * inset
        return (
            view[starts],
            _values(self.signal, places, starts + inset, length),
            _values(self.control, places, starts, windows.stored),
        )


def pieces(cutter: Cutter, parts: list[Places], processes: int | None) -> Iterator[Piece]:
    """`cutter` of each of `parts`, in order, in up to `processes` processes; None: every core."""
    tracks = len(cutter.signal) + len(cutter.control)
    at_most = min(processes or core_count(), len(parts))
    if at_most < 2 or sum(map(len, parts)) * tracks < WORTH:
        yield from map(cutter, parts)
        return
    executor = ProcessPoolExecutor(at_most, get_context("spawn"), _begin, (cutter,))
    try:
        yield from executor.map(_cut, parts)
    except BrokenProcessPool:
        raise DataError(
            "a process that read signal was killed, most often for want of memory: use fewer at "
            "once, processes=1. A script that calls prepare() must do so under "
            "if __name__ == '__main__':"
        ) from None
    finally:
        executor.shutdown(cancel_futures=True)


def core_count() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def merged(arrays: list[np.ndarray], orders: list[np.ndarray]) -> np.ndarray:
    """One array with the rows of arrays[i] at orders[i], in a type that holds all. Empties
    `arrays`, so that the whole is not held twice."""
    dtype = np.result_type(*arrays)
    dtype = np.dtype(np.float32) if dtype.kind == "f" else dtype
    found = np.empty((sum(map(len, arrays)), *arrays[0].shape[1:]), dtype)
    for rows in reversed(orders):
        found[rows] = arrays.pop()
    return found


def _values(tracks: list[Track], places: Places, starts: np.ndarray, length: int) -> np.ndarray:
    """(n, tracks, length) in the smallest type."""
    chrom, blocks = str(places.chrom[0]), []
    for first in range(0, len(places), BLOCK):
        block = starts[first : first + BLOCK]
        values = np.empty((len(block), len(tracks), length), np.float32)
        for row, start in enumerate(block.tolist()):
            for i, track in enumerate(tracks):
                values[row, i] = track.values(chrom, start, start + length)
        if values.min(initial=0) < 0:
            raise DataError(
                _negative(values, block, tracks, places.take(np.arange(first, len(places))))
            )
        blocks.append(smallest_integers(values))
    orders = np.split(np.arange(len(places)), range(BLOCK, len(places), BLOCK))
    return merged(blocks, orders)


def _negative(values: np.ndarray, starts: np.ndarray, tracks: list[Track], places: Places) -> str:
    row, i, base = np.argwhere(values < 0)[0]
    return (
        f"{tracks[i].path}: {values[row, i, base]:g} at {places.chrom[row]}:"
        f"{starts[row] + base:,} (0-based), near the locus {places.name(row)}. Counts cannot be "
        "negative. For a minus strand stored as negative values, turn them: bigWigToBedGraph, "
        "awk '{$4 = -$4} 1', bedGraphToBigWig."
    )


_cutter: Cutter  # of a process that cuts for another


def _begin(cutter: Cutter) -> None:
    global _cutter
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process answers it
    _cutter = cutter


def _cut(places: Places) -> Piece:
    return _cutter(places)
