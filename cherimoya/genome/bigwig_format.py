"""What a bigWig file holds, every part of it checked as far as the format allows.

The layout is that of Kent et al. 2010 (doi:10.1093/bioinformatics/btq351, supplement). Blocks of
values are zlib streams, which carry checksums; all else is checked against what the blocks say.
"""

import os
import struct
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

import numpy as np

MAGIC, TREE_MAGIC, INDEX_MAGIC = 0x888FFC26, 0x78CA8C91, 0x2468ACE0
HEADER = "IHHQQQHHQQIQ"
TREE, INDEX, NODE, SECTION, SUMMARY = "IIIIQQ", "IIQIIIIQII", "BBH", "IIIIIBBH", "Q4d"
BEDGRAPH, VARIABLE_STEP, FIXED_STEP = 1, 2, 3
COLUMNS = {BEDGRAPH: 3, VARIABLE_STEP: 2, FIXED_STEP: 1}  # of four bytes
LONGEST = struct.calcsize(f"<{SECTION}") + 12 * 65535 + 1  # bytes that no block has
DEEPEST = 64  # levels of a tree
TOLERANCE = 1e-9  # of sums, which depend on the order of adding


class DamageError(Exception):
    """What is wrong with a file, in words."""


@dataclass(frozen=True)
class Blocks:
    """The blocks of values on one chromosome, in order: first base, last base + 1, place and
    size in the file; (n,) each."""

    start: np.ndarray
    end: np.ndarray
    offset: np.ndarray
    size: np.ndarray


@dataclass
class Contents:
    """lengths: chromosome to bases; blocks: by chromosome; order: of bytes, < or >"""

    order: str
    compressed: bool
    lengths: dict[str, int]
    blocks: dict[str, Blocks] = field(default_factory=dict)


def read_contents(file: IO[bytes]) -> Contents:
    """What the open file holds; every block is read once. Raises DamageError."""
    order = "<" if _read(file, 0, 4) == struct.pack("<I", MAGIC) else ">"
    header = _unpack(file, 0, order, HEADER)
    if header[0] != MAGIC:
        raise DamageError("it does not start as a bigWig does")
    tree, data, index, summary, buffer = header[3], header[4], header[5], header[9], header[10]
    names, lengths = _chromosomes(file, order, tree)
    contents = Contents(order, buffer > 0, lengths)
    leaves = _leaves(file, order, index) if index else ()
    covered, total, size = 0, 0.0, 0.0
    rows = array("q")
    for offset, length in leaves:
        chrom, start, end, values = read_block(file, contents, offset, length)
        if chrom not in names:
            raise DamageError(f"a block is of chromosome number {chrom}, which it does not name")
        rows.extend((chrom, int(start[0]), int(end[-1]), offset, length))
        span = end - start
        covered += int(span.sum())
        total += float(np.dot(values.astype(np.float64), span))
        size += float(np.dot(np.abs(values, dtype=np.float64), span))
    table = np.frombuffer(rows, np.int64).reshape(-1, 5)
    count = _unpack(file, data, order, "Q")[0] if data else 0
    all_found = len(table) == count
    if summary:
        said, _, _, said_total, _ = _unpack(file, summary, order, SUMMARY)
        same = not np.isfinite(said_total) or (
            bool(np.isfinite(total)) and abs(total - said_total) <= TOLERANCE * size
        )
        if said != covered and not (all_found and contents.compressed):
            raise DamageError(f"it says that {said:,} bases have values, but {covered:,} do")
        if not same and not contents.compressed:
            raise DamageError(f"its values should add up to {said_total:g}, but do to {total:g}")
    elif not all_found:
        raise DamageError(f"{len(table):,} blocks of {count:,} were found")
    contents.blocks = _by_chromosome(table, names)
    return contents


def read_block(
    file: IO[bytes], contents: Contents, offset: int, size: int
) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Of one block the chromosome's number, and of its items start, end (n,) int64 and value (n,).

    Raises DamageError.
    """
    raw = _read(file, offset, size)
    if contents.compressed:
        unpacker = zlib.decompressobj()
        try:
            raw = unpacker.decompress(raw, LONGEST)
        except zlib.error as error:
            raise DamageError(f"a block of values fails its checksum: {error}") from None
        if not unpacker.eof:
            raise DamageError("a block of values is cut")
    head = struct.calcsize(f"={SECTION}")
    if len(raw) < head:
        raise DamageError("a block of values is cut")
    chrom, first, last, step, span, kind, _, n = struct.unpack_from(contents.order + SECTION, raw)
    columns = COLUMNS.get(kind, 0)
    if not columns or not n or len(raw) != head + 4 * columns * n:
        raise DamageError("a block is none of values")
    numbers = np.frombuffer(raw, f"{contents.order}u4", columns * n, head).reshape(n, columns)
    values = numbers[:, -1].copy().view(f"{contents.order}f4").astype(np.float32)
    start = first + step * np.arange(n, dtype=np.int64)
    if kind != FIXED_STEP:
        start = numbers[:, 0].astype(np.int64)
    end = numbers[:, 1].astype(np.int64) if kind == BEDGRAPH else start + span
    if (start >= end).any() or (start[1:] < end[:-1]).any():
        raise DamageError("values of a block overlap, or are of no base")
    if not contents.compressed and (start[0] < first or end[-1] > last):
        raise DamageError("values of a block lie outside of it")
    return chrom, start, end, values


def _chromosomes(file: IO[bytes], order: str, tree: int) -> tuple[dict[int, str], dict[str, int]]:
    """Number to name, and name to length."""
    magic, _, key_size, value_size, count, _ = _unpack(file, tree, order, TREE)
    if magic != TREE_MAGIC or value_size != 8 or not key_size:
        raise DamageError("its list of chromosomes is no such list")
    names: dict[int, str] = {}
    lengths: dict[str, int] = {}
    root = tree + struct.calcsize(f"={TREE}")
    for item in _items(file, order, root, key_size + 8, key_size + 8, key_size):
        name = item[:key_size].rstrip(b"\0").decode("ascii", "replace")
        number, length = struct.unpack(f"{order}II", item[key_size:])
        if not name.isprintable() or not name or number in names or name in lengths:
            raise DamageError(f"its list of chromosomes holds {name!r} twice, or no name")
        names[number], lengths[name] = name, length
    if len(names) != count:
        raise DamageError(f"its list of chromosomes holds {len(names)} of {count}")
    return names, lengths


def _leaves(file: IO[bytes], order: str, index: int) -> Iterator[tuple[int, int]]:
    """Offset and size of every block."""
    if _unpack(file, index, order, INDEX)[0] != INDEX_MAGIC:
        raise DamageError("its index is no index")
    for item in _items(file, order, index + struct.calcsize(f"={INDEX}"), 32, 24, 16):
        offset, size = struct.unpack(f"{order}QQ", item[16:])
        yield offset, size


def _items(
    file: IO[bytes], order: str, root: int, leaf: int, inner: int, child: int
) -> Iterator[bytes]:
    """The items of a tree's leaves; `child` is where an inner item names the node below."""
    seen: set[int] = set()
    waiting = [(root, 0)]
    while waiting:
        offset, depth = waiting.pop()
        if offset in seen or depth > DEEPEST:
            raise DamageError("a tree of it leads back to itself")
        seen.add(offset)
        is_leaf, _, count = _unpack(file, offset, order, NODE)
        size = leaf if is_leaf else inner
        raw = _read(file, offset + struct.calcsize(f"={NODE}"), size * count)
        items = [raw[at : at + size] for at in range(0, len(raw), size)]
        if is_leaf > 1:
            raise DamageError("a tree of it has a node of no kind")
        if is_leaf:
            yield from items
        else:
            below = [struct.unpack_from(f"{order}Q", item, child)[0] for item in items]
            waiting += [(place, depth + 1) for place in reversed(below)]


def _by_chromosome(table: np.ndarray, names: dict[int, str]) -> dict[str, Blocks]:
    """The blocks of each chromosome, from rows of its number, start, end, offset and size."""
    table = table[np.lexsort((table[:, 1], table[:, 0]))]
    indexed = {}
    for part in np.split(table, np.flatnonzero(np.diff(table[:, 0])) + 1) if len(table) else []:
        _, start, end, offset, size = part.T
        name = names[int(part[0, 0])]
        if (start[1:] < end[:-1]).any():
            raise DamageError(f"blocks of values on {name} overlap")
        indexed[name] = Blocks(start, end, offset, size)
    return indexed


def _unpack(file: IO[bytes], offset: int, order: str, layout: str) -> tuple:
    return struct.unpack(order + layout, _read(file, offset, struct.calcsize(f"={layout}")))


def _read(file: IO[bytes], offset: int, size: int) -> bytes:
    held = os.fstat(file.fileno()).st_size
    if offset + size > held:
        raise DamageError(f"it ends before byte {offset + size:,}")
    return os.pread(file.fileno(), size, offset)
