"""FASTA files through their index: `.fai` beside a plain file, and `.gzi` too beside a BGZF one.

An index is used only where it is no older than the file and each header lies where it says; any
other is left aside, with a word, and the whole file is read.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np

from cherimoya.errors import DataError
from cherimoya.genome.fasta import (
    BGZF_END,
    GZIP_MAGIC,
    MOST_HEADER,
    Genome,
    check_exists,
    ends_whole,
    read_genome,
    spooled_genome,
)
from cherimoya.genome.sequence import CODES
from cherimoya.util import console
from cherimoya.util.console import Say, warning

TABLE = np.frombuffer(CODES, np.uint8)
AT_ONCE = 1 << 22  # bases
KEPT = 256  # blocks of 64 kB, of BGZF
MOST_BLOCK = 1 << 16  # bytes of a block, packed or not


class NoIndexError(Exception):
    """Why the index is of no use; empty where there is none."""


@dataclass(frozen=True)
class Record:
    """Of a sequence: bases, byte of the first one, bases and bytes of a line."""

    length: int
    offset: int
    bases: int
    width: int

    @property
    def end(self) -> int:
        """The byte after its last line."""
        lines = -(-self.length // self.bases) if self.length else 0
        return self.offset + self.length + lines * (self.width - self.bases)


class Content:
    """The bytes of a plain file."""

    def __init__(self, path: Path) -> None:
        self.path, self._file = path, -1

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": -1}

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)

    @property
    def size(self) -> int:
        """Bytes, unpacked."""
        return self.path.stat().st_size

    def read(self, offset: int, size: int) -> bytes:
        """Some bytes; fewer at the end."""
        if self._file < 0:
            self._file = os.open(self.path, os.O_RDONLY)
        return os.pread(self._file, size, offset)


class Unpacked(Content):
    """The bytes that a BGZF file packs, found by its `.gzi`. Each block is checked as it is read.

    Raises NoIndexError where that is none.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        raw = Path(f"{path}.gzi").read_bytes()
        n = struct.unpack("<Q", raw[:8])[0] if len(raw) >= 8 else -1
        if len(raw) != 8 + 16 * n:
            raise NoIndexError("its .gzi is cut")
        pairs = np.frombuffer(raw, "<u8", offset=8).astype(np.int64).reshape(-1, 2)
        self._packed, self._first = np.vstack([np.zeros((1, 2), np.int64), pairs]).T.copy()
        if (np.diff(self._packed) <= 0).any() or (np.diff(self._first) < 0).any():
            raise NoIndexError("its .gzi is in no order")
        self._block = lru_cache(KEPT)(self._read_block)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {k: v for k, v in state.items() if k != "_block"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._block = lru_cache(KEPT)(self._read_block)

    @property
    def size(self) -> int:
        last = len(self._first) - 1
        end = int(self._packed[last]) + self._packed_size(int(self._packed[last]))
        if end not in (self.path.stat().st_size, self.path.stat().st_size - len(BGZF_END)):
            raise NoIndexError("its .gzi is of another file")
        return int(self._first[last]) + len(self._block(last))

    def read(self, offset: int, size: int) -> bytes:
        found = []
        i = int(np.searchsorted(self._first, offset, "right")) - 1
        while size > 0 and i < len(self._first):
            part = self._block(i)[offset - int(self._first[i]) :][:size]
            found.append(part)
            offset, size, i = offset + len(part), size - len(part), i + 1
        return b"".join(found)

    def _packed_size(self, at: int) -> int:
        head = super().read(at, 18)
        if len(head) < 18 or head[:2] != GZIP_MAGIC or head[12:14] != b"BC":
            raise NoIndexError("its .gzi is of another file")
        return int(struct.unpack("<H", head[16:18])[0]) + 1

    def _read_block(self, i: int) -> bytes:
        at = int(self._packed[i])
        unpacker = zlib.decompressobj(31)  # gzip, whose checksum it compares
        content = unpacker.decompress(super().read(at, self._packed_size(at)), MOST_BLOCK + 1)
        ends = i + 1 == len(self._first)
        if not unpacker.eof or (not ends and len(content) != self._first[i + 1] - self._first[i]):
            raise NoIndexError("its .gzi is of another file")
        return content


class Bases:
    """Codes (length,) uint8 of one sequence, read where they are asked for: by a slice, or by an
    array of positions that lie near each other."""

    def __init__(self, content: Content, record: Record) -> None:
        self._content, self._record = content, record
        self.shape = (record.length,)

    def __len__(self) -> int:
        return self._record.length

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)

    def __getitem__(self, key: slice | np.ndarray) -> np.ndarray:
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            assert step == 1
            firsts = range(start, stop, AT_ONCE)
            parts = [self._read(i, min(i + AT_ONCE, stop)) for i in firsts]
            return np.concatenate(parts) if parts else np.zeros(0, np.uint8)
        if not len(key):
            return np.zeros(0, np.uint8)
        first = int(key.min())
        return self._read(first, int(key.max()) + 1)[key - first]

    def _read(self, start: int, end: int) -> np.ndarray:
        one, path = self._record, self._content.path
        first, last = (one.offset + at // one.bases * one.width + at % one.bases
                       for at in (start, end - 1))  # fmt: skip
        try:
            raw = np.frombuffer(self._content.read(first, last + 1 - first), np.uint8)
        except (NoIndexError, zlib.error) as error:
            raise DataError(
                f"fasta={path}: damaged, or its index is not of it ({error}). Copy it again, or "
                f"make its index again: samtools faidx {path}"
            ) from None
        column = (np.arange(len(raw), dtype=np.int32) + start % one.bases) % one.width
        letters, ends = raw[column < one.bases], raw[column >= one.bases]
        if len(letters) != end - start or (letters <= 32).any() or (ends > 13).any():
            raise DataError(
                f"fasta={path}: lines of other lengths than its index says. Make that again: "
                f"samtools faidx {path}"
            )
        return TABLE[letters]


@dataclass(frozen=True, eq=False)
class IndexedGenome(Genome):
    """A FASTA file of which the bases that are asked for are read; its letters are not counted."""

    content: Content
    records: dict[str, Record]

    def codes(self, chrom: str) -> np.ndarray:
        return cast(np.ndarray, Bases(self.content, self.records[chrom]))


@contextmanager
def genome_on_disk(path: str | Path, tell: Say = console.say) -> Iterator[Genome]:
    """The FASTA file at `path`: through its index, or read to a temporary file, as `read_genome`
    does. Codes can be read inside the block."""
    indexed = open_indexed(Path(path), tell)
    if indexed is not None:
        yield indexed
    else:
        with spooled_genome(path, tell) as genome:
            yield genome


def genome_lengths(path: str | Path, tell: Say = console.say) -> dict[str, int]:
    """Bases of each sequence of the FASTA file at `path`."""
    return (open_indexed(Path(path), tell) or read_genome(path, None, tell)).lengths


def open_indexed(path: Path, tell: Say) -> IndexedGenome | None:
    """The FASTA file at `path` through its index, None where that is of no use, which is said."""
    check_exists(path, "fasta")
    try:
        content = _content(path)
        records = _records(path)
        _check_places(content, records)
    except (NoIndexError, OSError, ValueError, zlib.error) as error:
        if str(error):
            said = f"{path}.fai is not used ({error}), so all of {path.name} is read. Make it again"
            tell(warning(f"{said}: samtools faidx {path}"))
        return None
    lengths = {name: record.length for name, record in records.items()}
    return IndexedGenome(path, lengths, {}, None, content, records)


def _content(path: Path) -> Content:
    index, zipped = Path(f"{path}.fai"), Path(f"{path}.gzi")
    with path.open("rb") as file:
        head = file.read(18)
    packed = head.startswith(GZIP_MAGIC)
    beside = [index, zipped] if packed else [index]
    if not all(one.is_file() for one in beside):
        raise NoIndexError
    if any(one.stat().st_mtime_ns < path.stat().st_mtime_ns for one in beside):
        raise NoIndexError("it is older than the file")
    if packed and not ends_whole(path):
        raise NoIndexError("the file is cut")
    return Unpacked(path) if packed else Content(path)


def _records(path: Path) -> dict[str, Record]:
    """By name, in the file's order. Raises NoIndexError, ValueError."""
    records: dict[str, Record] = {}
    for line in Path(f"{path}.fai").read_text().splitlines():
        name, *numbers = line.split("\t")
        if len(numbers) != 4 or not all(n.isascii() and n.isdecimal() for n in numbers):
            raise NoIndexError("it is no index of a FASTA file")
        one = Record(*map(int, numbers))
        if name in records or (one.length and not 0 < one.bases < one.width <= one.bases + 2):
            raise NoIndexError(f"its lines of {name!r} cannot be")
        records[name] = one
    if not records:
        raise NoIndexError("it is empty")
    return records


def _check_places(content: Content, records: dict[str, Record]) -> None:
    """Raise NoIndexError unless the records, each behind its header, are all that there is."""
    end, one = 0, None
    for name, one in records.items():
        size = one.offset - end
        header = content.read(end, size) if 0 < size <= MOST_HEADER else b""
        words = header[1:].decode("utf-8", "replace").split()
        whole = header[:1] == b">" and header.find(b"\n") == size - 1
        if not whole or b"\r" in header[:-2] or words[:1] != [name]:
            raise NoIndexError(f"{name} is not where it says")
        end = one.end
    assert one is not None
    if content.size not in (end, end - (one.width - one.bases)):
        raise NoIndexError("the file has another size")
