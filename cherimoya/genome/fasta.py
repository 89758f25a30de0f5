"""A genome out of a FASTA file, and what every reader of a source file needs."""

import gzip
import os
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import numpy as np

from cherimoya.errors import DataError, printable
from cherimoya.genome.sequence import CODES
from cherimoya.util import console
from cherimoya.util.console import Say
from cherimoya.util.files import check_readable

GZIP_MAGIC = b"\x1f\x8b"
BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
MOST_HEADER = 1 << 20  # bytes of a header line of a FASTA file
MOST_LINE = 1 << 26  # letters of a line of another text file: a VCF file has 10 million in some
FASTA_BLOCK = 1 << 22  # larger ones are handed back to the system each time


@dataclass(frozen=True, eq=False)
class Genome:
    """A FASTA file.

    lengths: sequence name to length in bases, in the file's order
    letters: how often each letter other than A C G T occurs, by sequence name
    spool: a file of the codes of all sequences, one after the other, where they are kept
    """

    path: Path
    lengths: dict[str, int]
    letters: dict[str, Counter[str]]
    spool: Path | None

    def codes(self, chrom: str) -> np.ndarray:
        """(length,) uint8 of one sequence: 0-3 for A C G T in either case, 4 for other letters."""
        first = self._offsets[chrom]
        return self._all[first : first + self.lengths[chrom]]

    @cached_property
    def _all(self) -> np.ndarray:
        """The codes of all sequences: one file, open once, however many parts of it are kept."""
        if not any(self.lengths.values()):
            return np.zeros(0, np.uint8)
        assert self.spool is not None
        return np.memmap(self.spool, np.uint8, "r")

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_all"}  # the codes stay on disk

    @cached_property
    def _offsets(self) -> dict[str, int]:
        ends = np.cumsum(list(self.lengths.values())).tolist()
        return dict(zip(self.lengths, [0, *ends], strict=False))


def read_genome(path: str | Path, spool: Path | None, tell: Say = console.say) -> Genome:
    """The FASTA file at `path`, plain, gzip or BGZF; its codes go to the file `spool`, if any.

    The codes stay on disk, so that memory does not grow with the genome. `tell` hears how far
    it is.
    """
    path = Path(path)
    check_exists(path, "fasta")
    lengths: dict[str, int] = {}
    letters: dict[str, Counter[str]] = {}
    name = ""
    with (
        reading(path, f"fasta={path}", "rb") as file,
        open(spool or os.devnull, "wb") as codes_file,
    ):
        pieces, label = _fasta_pieces(file, path), f"reading {path.name}"
        for header, lines in console.track(pieces, label, None, "piece", tell=tell):
            if header is not None:
                name = _fasta_name(header, lengths, path)
                lengths[name], letters[name] = 0, Counter()
            codes = lines.translate(CODES, b"\r\n\t ")
            lengths[name] += len(codes)
            codes_file.write(codes)
            others = lines.translate(None, b"ACGTacgt\r\n\t ")
            letters[name].update(others.decode("latin-1").upper())
    return Genome(path, lengths, letters, spool)


@contextmanager
def spooled_genome(path: str | Path, tell: Say = console.say) -> Iterator[Genome]:
    """As `read_genome`, in a temporary file: codes can be read inside the block."""
    with TemporaryDirectory(prefix="cherimoya-") as folder:
        yield read_genome(path, Path(folder) / "genome", tell)


@contextmanager
def reading(path: Path, where: str, mode: str = "rt") -> Iterator[IO[Any]]:
    """The file at `path`, uncompressed on the way if it is gzip or BGZF; text in UTF-8.

    Damage, such as a BGZF file cut between two blocks, becomes a DataError that begins with
    `where`.
    """
    try:
        if not ends_whole(path):
            raise EOFError("the end-of-file block of BGZF is missing")
        opener: Any = gzip.open if _head(path, 2) == GZIP_MAGIC else open
        with opener(path, mode, encoding="utf-8-sig" if mode == "rt" else None) as file:
            yield file
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not a text file in UTF-8 ({error}).") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{where}: truncated or damaged ({error}). Copy it again.") from None


def text_lines(path: Path, where: str) -> Iterator[tuple[int, str]]:
    """Number, from 1, and text of each line, without its end, as `reading` reads it."""
    with reading(path, where) as file:
        for number, line in enumerate(iter(lambda: file.readline(MOST_LINE + 1), ""), 1):
            check_line(line, f"{where}, line {number:,}")
            yield number, line.rstrip("\r\n")


def check_line(line: str | bytes, where: str) -> None:
    """Raise DataError for one that is too long, whole or not."""
    if len(line) > MOST_LINE:
        raise DataError(
            f"{where}: longer than {MOST_LINE:,} letters. This is another kind of file, or its "
            "line ends are missing."
        )


def ends_whole(path: Path) -> bool:
    """Whether a BGZF file ends with the block that says so; true for other files."""
    head = _head(path, 18)
    is_bgzf = head.startswith(GZIP_MAGIC) and len(head) == 18 and head[3] & 4
    if not is_bgzf or head[12:14] != b"BC":
        return True
    with open(path, "rb") as file:
        file.seek(-min(len(BGZF_END), path.stat().st_size), os.SEEK_END)
        return file.read() == BGZF_END


def check_exists(path: Path, key: str) -> None:
    """Raise DataError naming the configuration's `key` unless `path` is a file with content that
    may be read."""
    check_readable(path, key)
    if not path.is_file():
        raise DataError(
            f"{key}={path}: {'a folder, not a file' if path.is_dir() else 'no such file'}. "
            f"Relative paths start at {Path.cwd()}."
        )
    if path.stat().st_size == 0:
        raise DataError(f"{key}={path}: the file is empty. Make or copy it again, or leave it out.")


def _fasta_pieces(file: IO[bytes], path: Path) -> Iterator[tuple[bytes | None, bytes]]:
    """(header, no letters), then (None, some letters of that sequence) in order, however long
    lines are."""
    header: bytes | None = None  # one that has begun
    before = b""
    while block := file.read(FASTA_BLOCK):
        if not before and not block.startswith(b">"):
            break
        at, before = 0, before or b"\n"
        while at < len(block):
            if header is not None:
                end = block.find(b"\n", at)
                header += block[at:] if end < 0 else block[at:end]
                _check_header(header, path)
                if end < 0:
                    break
                yield header, b""
                header, at = None, end + 1
            elif block[at] == ord(">") and (block[at - 1 : at] if at else before) == b"\n":
                header, at = b"", at + 1
            else:
                end = block.find(b"\n>", at)
                stop = len(block) if end < 0 else end + 1
                yield None, block[at:stop]
                at = stop
        before = block[-1:]
    if not before:
        raise DataError(f"fasta={path}: not a FASTA file, which starts with '>'.")
    if header is not None:
        yield header, b""


def _check_header(header: bytes, path: Path) -> None:
    if len(header) > MOST_HEADER:
        raise DataError(
            f"fasta={path}: a header line of more than {MOST_HEADER:,} letters. It is no FASTA "
            "file, or its line ends are missing."
        )
    if b"\r" in header[:-1]:
        raise DataError(
            f"fasta={path}: lines end in carriage returns alone. Write new ones: "
            f"tr '\\r' '\\n' < {path} > new.fa"
        )


def _fasta_name(header: bytes, known: Collection[str], path: Path) -> str:
    tokens = header.decode("utf-8", "replace").split()
    if not tokens or tokens[0] in known:
        what = "a sequence has no name"
        if tokens:
            what = f"two sequences are named {printable(tokens[0])}"
        raise DataError(f"fasta={path}: {what}. Give each its own name after '>'.")
    return tokens[0]


def _head(path: Path, size: int) -> bytes:
    with open(path, "rb") as file:
        return file.read(size)
