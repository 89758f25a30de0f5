"""Compressed blocks of a bigWig file, and the trees by which they and chromosomes are found."""

import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO

import numpy as np

Place = tuple[int, int, int]  # chromosome, start, end
Raw = Iterable[tuple[Place, bytes]]

CHROM_MAGIC, INDEX_MAGIC = 0x78CA8C91, 0x2468ACE0
NODE = 256  # entries of a node of an index
LEVEL = 1  # of compression: more gains little for numbers
SLOT = 1024  # values of a block, at most

PLACE = np.dtype([("chrom", "<u4"), ("start", "<u4"), ("end_chrom", "<u4"), ("end", "<u4")])
LEAF = np.dtype([("place", PLACE), ("offset", "<u8"), ("size", "<u8")])
BRANCH = np.dtype([("place", PLACE), ("offset", "<u8")])


class Blocks:
    """Blocks that are compressed in the threads of `pool` and written to `file` in their order."""

    def __init__(self, file: IO[bytes], pool: ThreadPoolExecutor, ahead: int) -> None:
        self._file, self._pool, self._ahead = file, pool, ahead
        self._waiting: list[Future[tuple[np.ndarray, bytes]]] = []
        self._leaves = [np.zeros(0, LEAF)]

    def add(self, raw: Callable[..., Raw], *arguments: object) -> None:
        """Write the blocks that raw(*arguments) gives, which runs in a thread."""
        self._waiting.append(self._pool.submit(_compressed, raw, arguments))
        while len(self._waiting) > self._ahead:
            self._write_next()

    def end(self) -> np.ndarray:
        """The leaves (blocks,) of the index, once all is written."""
        while self._waiting:
            self._write_next()
        return np.concatenate(self._leaves)

    def _write_next(self) -> None:
        leaves, data = self._waiting.pop(0).result()
        leaves["offset"] += np.uint64(self._file.tell())
        self._file.write(data)
        self._leaves.append(leaves)


def write_index(file: IO[bytes], leaves: np.ndarray) -> None:
    """Write the R tree of `leaves`, which lie in order of position, where `file` stands."""
    levels = [leaves]
    while len(levels[0]) > NODE:
        levels.insert(0, _parents(levels[0], NODE))
    bounds = _parents(leaves, len(leaves))["place"][0].tolist() if len(leaves) else (0, 0, 0, 0)
    header = (INDEX_MAGIC, NODE, len(leaves), *bounds, file.tell(), SLOT, 0)
    file.write(struct.pack("<IIQIIIIQII", *header))
    for level, below in zip(levels, [*levels[1:], None], strict=True):
        if below is not None:  # its nodes follow those of this level
            here = 4 * -(-len(level) // NODE) + level.nbytes
            node = 4 + NODE * below.dtype.itemsize
            level["offset"] = file.tell() + here + node * np.arange(len(level))
        for first in range(0, max(len(level), 1), NODE):
            some = level[first : first + NODE]
            file.write(struct.pack("<BBH", below is None, 0, len(some)) + some.tobytes())


def chromosome_tree(lengths: Mapping[str, int]) -> bytes:
    """The tree of names, in one node: the number of each is its place in `lengths`, sorted."""
    names = [name.encode() for name in lengths]
    width = max(map(len, names), default=1)
    header = struct.pack("<IIIIQQ", CHROM_MAGIC, max(len(names), 1), width, 8, len(names), 0)
    node = struct.pack("<BBH", 1, 0, len(names))
    items = [
        name.ljust(width, b"\0") + struct.pack("<II", i, length)
        for i, (name, length) in enumerate(zip(names, lengths.values(), strict=True))
    ]
    return header + node + b"".join(items)


def _compressed(raw: Callable[..., Raw], arguments: tuple[object, ...]) -> tuple[np.ndarray, bytes]:
    """Leaves with offsets from the first block on, and the blocks."""
    blocks = [(place, zlib.compress(data, LEVEL)) for place, data in raw(*arguments)]
    leaves = np.zeros(len(blocks), LEAF)
    chrom, start, end = np.array([place for place, _ in blocks], np.uint32).reshape(-1, 3).T
    place = leaves["place"]
    place["chrom"] = place["end_chrom"] = chrom
    place["start"], place["end"] = start, end
    leaves["size"] = [len(data) for _, data in blocks]
    leaves["offset"] = np.cumsum(leaves["size"]) - leaves["size"]
    return leaves, b"".join(data for _, data in blocks)


def _parents(level: np.ndarray, node: int) -> np.ndarray:
    """(nodes,) what each `node` entries of a level span."""
    first, last = (
        level["place"][::node],
        np.append(level["place"][node - 1 :: node], level["place"][-1]),
    )
    found = np.zeros(len(first), BRANCH)
    found["place"] = first
    for name in ("end_chrom", "end"):
        found["place"][name] = last[name][: len(first)]
    return found
