"""Sequence and signal around loci, cut out part by part and kept on disk."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cherimoya.config.prepare import PrepareConfig
from cherimoya.genome.fasta import Genome
from cherimoya.genome.intervals import Intervals
from cherimoya.genome.track import Track
from cherimoya.prepare.background import Windows
from cherimoya.prepare.cutting import KNOWN, TYPES, Cutter, keep
from cherimoya.prepare.workers import Workers
from cherimoya.util import console
from cherimoya.util.console import Say, counted
from cherimoya.util.marks import is_whole

PART = (1024, 8192)  # loci cut at once: more than the first, if they can be, up to the second
COUNTS = ("signal", "control")  # which each part holds in the smallest of TYPES
AT_ONCE = 256  # parts that may be open for reading at a time


@dataclass(frozen=True, eq=False)
class Sources:
    """The opened files, their tracks by group, and what to cut out of them.

    intervals: the loci; excluded: the regions that none may touch; cut_sites: see `settle_shifts`
    folder: where parts are kept; None: nothing is to be cut
    """

    config: PrepareConfig
    genome: Genome
    intervals: Intervals
    excluded: Intervals
    signal: list[list[Track]]
    control: list[list[Track]]
    cut_sites: list[dict[str, Any]]
    windows: Windows
    folder: Path | None
    workers: Workers
    say: Say


@dataclass(frozen=True, eq=False)
class StoredWindows:
    """n loci of which sequence, signal and control are on disk.

    parts: folders; part, row: (n,) where each locus is; the rest is described at Cutter
    """

    intervals: Intervals
    parts: list[Path]
    part: np.ndarray
    row: np.ndarray
    totals: np.ndarray
    gc: np.ndarray
    unknown: np.ndarray
    types: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.part)

    def take(self, rows: np.ndarray) -> "StoredWindows":
        """The loci at `rows`, a mask or row numbers."""
        names = ("part", "row", "totals", "gc", "unknown")
        return replace(
            self,
            intervals=self.intervals.take(rows),
            types={name: types[rows] for name, types in self.types.items()},
            **{name: getattr(self, name)[rows] for name in names},
        )


class Column:
    """One array of all `stored` loci, in order, read a few rows at a time."""

    def __init__(self, name: str, stored: Sequence[StoredWindows]) -> None:
        before = np.cumsum([0, *(len(some.parts) for some in stored)])
        files = [part / f"{name}.npy" for some in stored for part in some.parts]
        self._part = np.concatenate(
            [some.part + first for some, first in zip(stored, before, strict=False)]
        )
        self._row = np.concatenate([some.row for some in stored])
        self._file = lru_cache(AT_ONCE)(lambda i: np.load(files[i], mmap_mode="r"))
        row = self._file(int(self._part[0]))[:1]
        types = [some.types[name].max(initial=0) for some in stored if name in some.types]
        self.dtype = np.dtype(TYPES[max(types)]) if types else row.dtype
        self.shape = (len(self._part), *row.shape[1:])

    def __len__(self) -> int:
        return len(self._part)

    def __getitem__(self, rows: slice) -> np.ndarray:
        part, row = self._part[rows], self._row[rows]
        values = np.empty((len(part), *self.shape[1:]), self.dtype)
        for i in np.unique(part).tolist():
            there = part == i
            values[there] = self._file(i)[row[there]]
        return values


def extract_windows(intervals: Intervals, what: str, sources: Sources) -> StoredWindows:
    """Sequence, signal and control around each of `intervals`, kept in parts that are named `what`.

    A part that was kept before of the same loci is not cut again.
    """
    assert sources.folder is not None
    signal, control = flat(sources.signal), flat(sources.control)
    orders = _orders(intervals)
    parts = [sources.folder / _part_name(what, intervals.take(rows)) for rows in orders]
    cutter = Cutter(
        sources.genome, sources.windows, signal, control, [len(group) for group in sources.signal]
    )
    missing = [i for i, part in enumerate(parts) if not is_whole(part, sources.say)]
    missing.sort(key=lambda i: -len(orders[i]))  # a long one last would leave the others idle
    done = sources.workers.map(
        keep, cutter, [(intervals.take(orders[i]), parts[i]) for i in missing]
    )
    label = f"reading {counted(len(signal) + len(control), 'track')} at {what}"
    before = len(parts) - len(missing)
    for _ in console.track(done, label, len(parts), "part", before, tell=sources.say):
        pass
    return _kept(intervals, parts, orders)


def _kept(intervals: Intervals, parts: list[Path], orders: list[np.ndarray]) -> StoredWindows:
    """The loci of `parts`, which hold those at `orders` each."""
    found: dict[str, list[np.ndarray]] = defaultdict(list)
    for i, (folder, rows) in enumerate(zip(parts, orders, strict=True)):
        found["part"].append(np.full(len(rows), i, np.int32))
        found["row"].append(np.arange(len(rows), dtype=np.int32))
        with np.load(folder / KNOWN) as known:
            for name, values in known.items():
                found[name].append(values)
    place = np.argsort(np.concatenate(orders))  # of each locus among those of all parts
    arrays = {name: np.concatenate(values)[place] for name, values in found.items()}
    types = {name: arrays.pop(f"{name}_type") for name in COUNTS if f"{name}_type" in arrays}
    return StoredWindows(intervals, parts, types=types, **arrays)


def _orders(intervals: Intervals) -> list[np.ndarray]:
    """Row numbers of the loci of each part, by chromosome and position.

    Small chromosomes share one part, large ones have several.
    """
    parts: list[np.ndarray] = []
    for rows in by_chromosome(intervals):
        if parts and len(parts[-1]) + len(rows) <= PART[0]:
            parts[-1] = np.concatenate([parts[-1], rows])
        else:
            parts += np.array_split(rows, -(-len(rows) // PART[1]))
    return parts


def _part_name(what: str, intervals: Intervals) -> str:
    """A name that tells which loci are in the part."""
    digest = hashlib.sha256("\0".join(intervals.chrom.tolist()).encode())
    digest.update(intervals.center.astype("<i8").tobytes())
    first, last = intervals.chrom[0], intervals.chrom[-1]
    named = first if first == last else f"{first}..{last}"
    safe = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in named)
    return f"{what}-{safe[:60]}-{digest.hexdigest()[:16]}"


def by_chromosome(intervals: Intervals) -> list[np.ndarray]:
    """Row numbers of the loci on each chromosome, in order of position."""
    order = np.lexsort((intervals.center, intervals.chrom))
    return np.split(
        order, np.flatnonzero(intervals.chrom[order][1:] != intervals.chrom[order][:-1]) + 1
    )


def flat(groups: list[list[Track]]) -> list[Track]:
    """The tracks of all groups, in order."""
    return [track for group in groups for track in group]
