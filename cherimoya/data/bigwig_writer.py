"""Writing bigWig files of a value a base.

The library that reads them takes a Python tuple for each value to write, which is several times as
slow. The format is that of Kent et al. 2010, doi 10.1093/bioinformatics/btq351, in its supplement.
"""

import os
import shutil
import struct
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np

from cherimoya.data.bigwig_blocks import SLOT, Blocks, Raw, chromosome_tree, write_index
from cherimoya.data.workers import core_count
from cherimoya.errors import DataError, DiskError

Piece = tuple[str, np.ndarray, np.ndarray]  # chromosome, positions (k,) ascending, values (k,)

MAGIC, VERSION = 0x888FFC26, 4
VARIABLE, FIXED = 2, 3  # kinds of section: with or without positions
MANY_GAPS = 1 / 16  # of the values: from there on, positions take less room than sections
AT_ONCE = 1 << 16  # values that a thread compresses at a time
MOST_CHROMS = 65_535

FIRST_ZOOM, ZOOM_STEP, MOST_ZOOMS = 64, 4, 8  # bases of a record, how much longer the next are
RECORDS = 512  # of a zoom level, in a block
SUMS = ("sum", "squares")
WHOLE, REAL = ("chrom", "start", "end", "valid"), ("low", "high", *SUMS)
RECORD = np.dtype([(name, "<u4") for name in WHOLE] + [(name, "<f4") for name in REAL])
EXACT = np.dtype([(name, "<f8" if name in SUMS else RECORD[name]) for name in RECORD.names or ()])


def write_bigwig(path: Path, lengths: Mapping[str, int], pieces: Iterable[Piece]) -> Path:
    """Write values at positions to `path`, which appears whole or not at all.

    lengths: bases of each chromosome; pieces: chromosomes in sorted order, positions ascending.
    Values are kept to the bit as float32.

    Raises DataError for more chromosomes than a file can name, DiskError when the disk refuses.
    """
    if len(lengths) > MOST_CHROMS:
        raise DataError(
            f"{path}: {len(lengths):,} chromosomes, but a bigWig holds {MOST_CHROMS:,}. Choose "
            "some with chroms=[...], or use format=hdf5."
        )
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            _write(file, dict(sorted(lengths.items())), pieces, path.parent)
        os.replace(temporary, path)
    except OSError as error:
        raise DiskError(f"{path}: cannot be written ({error}). Free some space.") from None
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _write(file: IO[bytes], lengths: dict[str, int], pieces: Iterable[Piece], folder: Path) -> None:
    longest = max(lengths.values(), default=0)
    sizes = [FIRST_ZOOM * ZOOM_STEP**i for i in range(MOST_ZOOMS)]
    sizes = [size for size in sizes if size < longest]
    threads = core_count()
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(threads))
        spools = [stack.enter_context(TemporaryFile(dir=folder)) for _ in sizes]
        zooms = [Blocks(spool, pool, 2 * threads) for spool in spools]
        summary_at = 64 + 24 * len(sizes)
        file.write(bytes(summary_at + 40))  # filled in at the end
        file.write(chromosome_tree(lengths))
        data_at = file.tell()
        file.write(bytes(8))
        blocks = Blocks(file, pool, 2 * threads)
        whole, counts = np.zeros(0, EXACT), np.zeros(len(sizes), int)
        for chrom, some in groupby(pieces, key=lambda piece: piece[0]):
            number = list(lengths).index(chrom)
            records = np.concatenate(list(_added(blocks, number, some)))
            whole = np.concatenate([whole, _reduced(records, longest + 1)])
            for i, size in enumerate(sizes):
                records = _reduced(records, size)
                counts[i] += len(records)
                zooms[i].add(_of_records, records.astype(RECORD))
        leaves = blocks.end()
        index_at = file.tell()
        write_index(file, leaves)
        headers = [
            struct.pack("<IIQQ", size, 0, *_appended(file, zoom, spool, count))
            for size, zoom, spool, count in zip(sizes, zooms, spools, counts.tolist(), strict=True)
        ]
        file.write(struct.pack("<I", MAGIC))
        largest = max(24 + 8 * SLOT, RECORD.itemsize * RECORDS)  # bytes of a block
        file.seek(0)
        file.write(
            struct.pack("<IHHQQQ", MAGIC, VERSION, len(sizes), summary_at + 40, data_at, index_at)
        )
        file.write(struct.pack("<HHQQIQ", 0, 0, 0, summary_at, largest, 0))
        file.write(b"".join([*headers, _summary(whole)]))
        file.seek(data_at)
        file.write(struct.pack("<Q", len(leaves)))


def _added(blocks: Blocks, number: int, pieces: Iterable[Piece]) -> Iterator[np.ndarray]:
    """Add the pieces of one chromosome to `blocks`; gives their records of FIRST_ZOOM bases."""
    yield np.zeros(0, EXACT)
    for _, at, values in pieces:
        found = values.astype("<f4")
        for first in range(0, len(at), AT_ONCE):
            some = slice(first, first + AT_ONCE)
            blocks.add(_sections, number, at[some], found[some])
        if len(at):
            yield _of_values(number, at, found)


def _appended(file: IO[bytes], zoom: Blocks, spool: IO[bytes], count: int) -> tuple[int, int]:
    """Move a zoom level to the end of `file`; returns where its data and its index begin."""
    leaves, data_at = zoom.end(), file.tell()
    file.write(struct.pack("<I", count))
    leaves["offset"] += np.uint64(file.tell())
    spool.seek(0)
    shutil.copyfileobj(spool, file)
    index_at = file.tell()
    write_index(file, leaves)
    return data_at, index_at


def _sections(chrom: int, at: np.ndarray, values: np.ndarray) -> Raw:
    """Blocks of up to SLOT values, without positions where no base between them is left out."""
    gaps = np.flatnonzero(np.diff(at) != 1) + 1
    cuts = gaps if len(gaps) < MANY_GAPS * len(at) else gaps[:0]
    for first, end in zip([0, *cuts.tolist()], [*cuts.tolist(), len(at)], strict=True):
        for begin in range(first, end, SLOT):
            where, what = at[begin : min(begin + SLOT, end)], values[begin : min(begin + SLOT, end)]
            place = (chrom, int(where[0]), int(where[-1]) + 1)
            dense = place[2] - place[1] == len(where)
            kind = (int(dense), 1, FIXED if dense else VARIABLE, 0, len(where))
            if not dense:
                what = np.rec.fromarrays([where.astype("<u4"), what])
            yield place, struct.pack("<IIIIIBBH", *place, *kind) + what.tobytes()


def _of_values(chrom: int, at: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Records of FIRST_ZOOM bases; one at either end may be a part."""
    first = np.flatnonzero(np.diff(at // FIRST_ZOOM, prepend=-1))
    last = np.append(first[1:], len(at)) - 1
    exact = values.astype(np.float64)
    found = np.zeros(len(first), EXACT)
    found["chrom"], found["start"], found["end"] = chrom, at[first], at[last] + 1
    found["valid"] = last - first + 1
    found["low"] = np.minimum.reduceat(values, first)
    found["high"] = np.maximum.reduceat(values, first)
    found["sum"] = np.add.reduceat(exact, first)
    found["squares"] = np.add.reduceat(exact * exact, first)
    return found


def _reduced(records: np.ndarray, size: int) -> np.ndarray:
    """Records of `size` bases out of shorter ones on the same chromosome."""
    if not len(records):
        return records
    first = np.flatnonzero(np.diff(records["start"].astype(np.int64) // size, prepend=-1))
    found = records[first]
    found["end"] = records["end"][np.append(first[1:], len(records)) - 1]
    found["low"] = np.minimum.reduceat(records["low"], first)
    found["high"] = np.maximum.reduceat(records["high"], first)
    for name in ("valid", *SUMS):
        found[name] = np.add.reduceat(records[name], first)
    return found


def _of_records(records: np.ndarray) -> Raw:
    """Blocks of the records of one chromosome."""
    for begin in range(0, len(records), RECORDS):
        some = records[begin : begin + RECORDS]
        place = (int(some["chrom"][0]), int(some["start"][0]), int(some["end"][-1]))
        yield place, some.tobytes()


def _summary(whole: np.ndarray) -> bytes:
    """Of everything: bases, lowest, highest, sum and sum of squares."""
    low, high = (whole["low"].min(), whole["high"].max()) if len(whole) else (0.0, 0.0)
    sums = [float(whole[name].sum()) for name in SUMS]
    return struct.pack("<Qdddd", int(whole["valid"].astype(np.int64).sum()), low, high, *sums)
