"""Writing bigWig files of a value a base.

The layout is that of Kent et al. 2010 (doi:10.1093/bioinformatics/btq351, supplement).
"""

import struct
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path
from typing import IO

import numpy as np

from cherimoya.genome.bigwig_format import (
    FIXED_STEP,
    HEADER,
    INDEX,
    INDEX_MAGIC,
    MAGIC,
    NODE,
    SECTION,
    SUMMARY,
    TREE,
    TREE_MAGIC,
    VARIABLE_STEP,
)
from cherimoya.util.files import atomic_path, disk_errors, open_owned

Piece = tuple[str, np.ndarray, np.ndarray]  # chromosome, positions (k,) ascending, values (k,)
VERSION = 4
LEVEL = 1  # of compression: of predictions more takes longer and saves nothing
ITEMS = 1024  # of a block
LONG = 64  # values side by side that get blocks without positions
FANOUT = 256  # items of a tree's node
FIRST_ZOOM, ZOOM_STEP, MOST_ZOOMS = 1024, 4, 10  # bases of a summary, and how it grows
HEAD = struct.calcsize(f"<{HEADER}") + 24 * MOST_ZOOMS
ZOOM = np.dtype([(name, "<u4") for name in ("chrom", "start", "end", "count")]
                + [(name, "<f4") for name in ("low", "high", "sum", "squares")])  # fmt: skip


@dataclass
class _Blocks:
    """Where blocks lie: chromosome, start, end, offset and size of each."""

    rows: array = field(default_factory=lambda: array("q"))

    def table(self) -> np.ndarray:
        """(n, 5) int64"""
        return np.frombuffer(self.rows, np.int64).reshape(-1, 5)


@dataclass
class _Summary:
    """Of stretches of bases: number (n,) of the stretch, bases with values, and of these the
    lowest, highest, sum and sum of squares."""

    bins: np.ndarray
    columns: tuple[np.ndarray, ...]

    def coarser(self, factor: int) -> "_Summary":
        """Of stretches `factor` times as long; those that are there twice become one."""
        bins = self.bins // factor
        if not len(bins):
            return _Summary(bins, self.columns)
        first = np.flatnonzero(np.diff(bins, prepend=-1))
        ways = (np.add, np.minimum, np.maximum, np.add, np.add)
        columns = tuple(w.reduceat(c, first) for w, c in zip(ways, self.columns, strict=True))
        return _Summary(bins[first], columns)


def write_bigwig(path: Path, lengths: Mapping[str, int], pieces: Iterable[Piece]) -> Path:
    """Write values at positions to `path`, which appears whole or not at all.

    lengths: bases of each chromosome; pieces: chromosomes in sorted order, positions ascending.
    Values are kept to the bit as float32; NaN is none.

    Raises DiskError when the disk refuses.
    """
    named = {name: lengths[name] for name in sorted(lengths, key=str.encode)}
    with (
        disk_errors(path),
        atomic_path(path) as temporary,
        open_owned(temporary, "wb") as file,
    ):
        _write(file, named, pieces)
    return path


def _write(file: IO[bytes], lengths: Mapping[str, int], pieces: Iterable[Piece]) -> None:
    names = list(lengths)
    file.write(bytes(HEAD + struct.calcsize(f"<{SUMMARY}")))
    tree_at = file.tell()
    file.write(_chromosome_tree(lengths, tree_at))
    data_at, blocks = file.tell(), _Blocks()
    file.write(bytes(8))
    zooms = [_Blocks() for _ in range(MOST_ZOOMS)]
    packed: list[list[bytes]] = [[] for _ in zooms]
    total: list[_Summary] = []
    for chrom, own in _by_chromosome(pieces):
        number, fine = names.index(chrom), []
        for at, values in own:
            fine.append(_summary(at, values))
            _write_blocks(file, blocks, number, at, values)
        level = _joined(fine).coarser(1)
        for i in range(_zoom_levels(lengths)):
            _pack_zoom(level, number, lengths[chrom], i, zooms[i], packed[i])
            level = level.coarser(ZOOM_STEP)
        total.append(_Summary(level.bins * 0, level.columns).coarser(1))
    index_at = file.tell()
    file.write(_index(blocks.table(), index_at))
    zoom_headers = []
    for i, (kept, found) in enumerate(zip(packed, zooms, strict=True)):
        if kept:
            zoom_headers.append(_write_zoom(file, FIRST_ZOOM * ZOOM_STEP**i, kept, found))
    file.write(struct.pack("<I", MAGIC))  # as others end: a cut file is seen at once
    whole = _joined(total)
    head = struct.pack(
        f"<{HEADER}", MAGIC, VERSION, len(zoom_headers), tree_at, data_at, index_at, 0, 0, 0,
        HEAD, max(ITEMS * 8 + struct.calcsize(f"<{SECTION}"), ITEMS * ZOOM.itemsize), 0,
    )  # fmt: skip
    file.seek(0)
    file.write((head + b"".join(zoom_headers)).ljust(HEAD, b"\0") + _whole_summary(whole))
    file.seek(data_at)
    file.write(struct.pack("<Q", len(blocks.table())))


def _by_chromosome(pieces: Iterable[Piece]) -> Iterator[tuple[str, Iterator[tuple]]]:
    """Each chromosome and its positions and values (k,) float32, without NaN and empty ones."""
    for chrom, own in groupby(pieces, lambda piece: piece[0]):
        cast = ((np.asarray(at), np.asarray(v).astype(np.float32)) for _, at, v in own)
        there = ((at, v, ~np.isnan(v)) for at, v in cast)
        yield chrom, ((at[known], v[known]) for at, v, known in there if known.any())


def _write_blocks(
    file: IO[bytes], blocks: _Blocks, chrom: int, at: np.ndarray, values: np.ndarray
) -> None:
    """Write values at positions, many side by side in blocks of their own without positions."""
    new_run = np.diff(at) != 1
    edges = np.concatenate([[0], np.flatnonzero(new_run) + 1, [len(at)]])
    long = np.diff(edges) >= LONG
    kept = np.concatenate([[True], long[1:] | long[:-1], [True]])  # where a block must end
    offset = file.tell()
    for first, last in pairwise(edges[kept].tolist()):
        dense = at[last - 1] - at[first] == last - 1 - first
        for i in range(first, last, ITEMS):
            rows = slice(i, min(i + ITEMS, last))
            start, end, n = int(at[rows.start]), int(at[rows.stop - 1]) + 1, rows.stop - i
            kind, step = (FIXED_STEP, 1) if dense else (VARIABLE_STEP, 0)
            block = struct.pack(f"<{SECTION}", chrom, start, end, step, 1, kind, 0, n)
            if dense:
                block += values[rows].tobytes()
            else:
                pairs = np.empty((n, 2), "<u4")
                pairs[:, 0], pairs[:, 1] = at[rows], values[rows].view(np.uint32)
                block += pairs.tobytes()
            block = zlib.compress(block, LEVEL)
            file.write(block)
            blocks.rows.extend((chrom, start, end, offset, len(block)))
            offset += len(block)


def _summary(at: np.ndarray, values: np.ndarray) -> _Summary:
    """Of the first zoom level, of values at positions."""
    wide = values.astype(np.float64)
    return _Summary(at, (np.ones(len(at)), wide, wide, wide, wide * wide)).coarser(FIRST_ZOOM)


def _joined(parts: list[_Summary]) -> _Summary:
    none = _Summary(np.zeros(0, np.int64), (np.zeros(0),) * 5)
    columns = zip(*(part.columns for part in [none, *parts]), strict=True)
    bins = np.concatenate([none.bins, *(part.bins for part in parts)])
    return _Summary(bins, tuple(np.concatenate(column) for column in columns))


def _zoom_levels(lengths: Mapping[str, int]) -> int:
    """How many there are: the last one still parts the longest chromosome."""
    sizes = (FIRST_ZOOM * ZOOM_STEP**i for i in range(MOST_ZOOMS))
    return sum(size < max(lengths.values(), default=0) for size in sizes)


def _pack_zoom(
    level: _Summary, chrom: int, length: int, i: int, found: _Blocks, packed: list[bytes]
) -> None:
    """Compress the summaries of a chromosome; offsets are those within the level."""
    size = FIRST_ZOOM * ZOOM_STEP**i
    records = np.empty(len(level.bins), ZOOM)
    records["chrom"], records["start"] = chrom, level.bins * size
    records["end"] = np.minimum((level.bins + 1) * size, length)
    for name, column in zip(ZOOM.names[3:], level.columns, strict=True):  # type: ignore[index]
        records[name] = column
    for first in range(0, len(records), ITEMS):
        part = records[first : first + ITEMS]
        packed.append(zlib.compress(part.tobytes(), LEVEL))
        start, end = int(part["start"][0]), int(part["end"][-1])
        found.rows.extend((chrom, start, end, 0, len(packed[-1])))


def _write_zoom(file: IO[bytes], size: int, packed: list[bytes], found: _Blocks) -> bytes:
    """Write a zoom level; its entry in the header."""
    data_at, table = file.tell(), found.table().copy()
    file.write(struct.pack("<I", len(table)))
    table[:, 3] = data_at + 4 + np.cumsum(table[:, 4]) - table[:, 4]
    file.write(b"".join(packed))
    index_at = file.tell()
    file.write(_index(table, index_at))
    return struct.pack("<IIQQ", size, 0, data_at, index_at)


def _whole_summary(whole: _Summary) -> bytes:
    if not len(whole.bins):
        return bytes(struct.calcsize(f"<{SUMMARY}"))
    count, low, high, total, squares = whole.columns
    return struct.pack(
        f"<{SUMMARY}", int(count.sum()), low.min(), high.max(), total.sum(), squares.sum()
    )


def _index(table: np.ndarray, at: int) -> bytes:
    """The index of blocks (n, 5), to be written at byte `at`."""
    keys = np.ascontiguousarray(table[:, [0, 1, 0, 2]].astype("<u4")).view(np.uint8)
    places = np.ascontiguousarray(table[:, 3:].astype("<u8")).view(np.uint8)
    limits = table[[0, 0, -1, -1], [0, 1, 0, 2]].tolist() if len(table) else [0] * 4
    head = struct.pack(f"<{INDEX}", INDEX_MAGIC, FANOUT, len(table), *limits, at, ITEMS, 0)
    keys, places = keys.reshape(len(table), 16), places.reshape(len(table), 16)
    return head + _tree(keys, places, at + len(head), 8)


def _chromosome_tree(lengths: Mapping[str, int], at: int) -> bytes:
    """The names, sorted, with number and length, to be written at byte `at`."""
    names = [name.encode() for name in lengths]
    size = max(map(len, names), default=1)
    keys = np.frombuffer(b"".join(name.ljust(size, b"\0") for name in names), np.uint8)
    numbers = np.array([*enumerate(lengths.values())], "<u4").reshape(-1, 2).view(np.uint8)
    head = struct.pack(f"<{TREE}", TREE_MAGIC, FANOUT, size, 8, len(names), 0)
    return head + _tree(keys.reshape(-1, size), numbers, at + len(head), size)


def _tree(keys: np.ndarray, values: np.ndarray, at: int, first: int) -> bytes:
    """Nodes of at most FANOUT items from byte `at` on, the root first.

    keys: (n, k) bytes, values: (n, v) bytes of the leaves. The key of an inner item is made of the
    `first` bytes of its node's first key and the rest of its last one.
    """
    levels = [keys]
    while len(levels[-1]) > FANOUT:
        below = levels[-1]
        last = np.minimum(np.arange(FANOUT, len(below) + FANOUT, FANOUT), len(below)) - 1
        levels.append(np.hstack([below[::FANOUT, :first], below[last, first:]]))
    made: list[bytes] = []
    for depth in reversed(range(len(levels))):
        n, k = levels[depth].shape
        if depth:
            width = k + (8 if depth > 1 else values.shape[1])
            at += 4 * max(1, -(-n // FANOUT)) + n * (k + 8)
            children = at + np.arange(n) * (4 + FANOUT * width)
            payload = children.astype("<u8").view(np.uint8).reshape(n, 8)
        else:
            payload = values
        items = np.hstack([levels[depth], payload])
        for i in range(0, max(n, 1), FANOUT):
            part = items[i : i + FANOUT]
            made.append(struct.pack(f"<{NODE}", depth == 0, 0, len(part)) + part.tobytes())
    return b"".join(made)
