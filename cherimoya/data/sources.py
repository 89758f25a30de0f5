"""What experiments come as: a FASTA genome, BED or narrowPeak loci."""

import gzip
import importlib
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from cherimoya.data.loci import N_CODE
from cherimoya.data.splits import name_mismatch, shown
from cherimoya.errors import DataError

GZIP_MAGIC = b"\x1f\x8b"
FASTA_BLOCK = 1 << 26
NO_FIELDS = ("track", "browser", "#")
SUMMIT_COLUMN = 9  # narrowPeak column 10, an offset from the start


@dataclass(frozen=True, eq=False)
class Places:
    """Loci on the genome: chrom (n,) text; center, start, end (n,) int64, 0-based, half open."""

    chrom: np.ndarray
    center: np.ndarray
    start: np.ndarray
    end: np.ndarray

    def __len__(self) -> int:
        return len(self.center)

    def take(self, rows: np.ndarray) -> "Places":
        """The places at `rows`, a mask or row numbers."""
        return Places(self.chrom[rows], self.center[rows], self.start[rows], self.end[rows])

    def name(self, row: int) -> str:
        """chrom:start-end of one place."""
        return f"{self.chrom[row]}:{self.start[row]:,}-{self.end[row]:,}"


@dataclass(frozen=True, eq=False)
class Genome:
    """A FASTA file.

    lengths: sequence name to length in bases, in the file's order
    codes: (length,) uint8 for each name that was asked for, 0-3 for A C G T in either case, 4
        for every other letter
    letters: how often each letter other than A C G T occurs in them
    """

    path: Path
    lengths: dict[str, int]
    codes: dict[str, np.ndarray]
    letters: Counter[str]


def read_genome(path: str | Path, names: Collection[str]) -> Genome:
    """The FASTA file at `path`, plain, gzip or BGZF, with the codes of the sequences in `names`."""
    path = Path(path)
    check_exists(path, "fasta")
    lengths: dict[str, int] = {}
    parts: dict[str, list[bytes]] = {}
    others: Counter[int] = Counter()
    name = ""
    try:
        with opened(path, "rb") as file:
            for header, lines in _fasta_pieces(file, path):
                if header is not None:
                    name = _fasta_name(header, lengths, path)
                    lengths[name] = 0
                codes = lines.translate(_CODES, b"\r\n\t ")
                lengths[name] += len(codes)
                if name in names:
                    parts.setdefault(name, []).append(codes)
                    others.update(lines.translate(None, b"ACGTacgt\r\n\t "))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"fasta={path}: truncated or damaged ({error}). Copy it again.") from None
    whole = {name: np.frombuffer(b"".join(pieces), np.uint8) for name, pieces in parts.items()}
    letters: Counter[str] = Counter()
    for code, count in others.items():
        letters[chr(code).upper()] += count
    return Genome(path, lengths, whole, letters)


def read_places(path: str | Path, center: str) -> Places:
    """The lines of a BED or narrowPeak file, plain or gzip.

    center: "midpoint", or "summit" (narrowPeak column 10, bases after the start). Raises
    DataError with the line's number for a line that cannot be understood.
    """
    path = Path(path)
    check_exists(path, "loci")
    rows = []
    try:
        with opened(path, "rt", encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip() and not line.startswith(NO_FIELDS):
                    rows.append(_place(line, center, f"loci={path}, line {number}"))
    except (UnicodeDecodeError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"loci={path}: not a BED file ({error}). Give a text file.") from None
    if not rows:
        raise DataError(f"loci={path}: no loci in it. Give a BED file with at least one line.")
    chrom, middle, start, end = zip(*rows, strict=True)
    numbers = (np.array(column, np.int64) for column in (middle, start, end))
    return Places(np.array(chrom), *numbers)


def opened(path: Path, mode: str, encoding: str | None = None) -> IO[Any]:
    """The file at `path`, uncompressed on the way if it is gzip or BGZF."""
    opener: Any = gzip.open if _head(path, 2) == GZIP_MAGIC else open
    return opener(path, mode, encoding=encoding)


def check_exists(path: Path, key: str) -> None:
    """Raise DataError naming the configuration's `key` unless `path` is a file with content."""
    if not path.is_file():
        raise DataError(
            f"{key}={path}: {'a folder, not a file' if path.is_dir() else 'no such file'}. "
            f"Relative paths start at {Path.cwd()}."
        )
    if path.stat().st_size == 0:
        raise DataError(f"{key}={path}: the file is empty.")


def check_loci_names(places: Places, genome: Genome, path: str | Path) -> None:
    """Raise DataError when the loci name chromosomes in another way than the genome."""
    asked = list(dict.fromkeys(places.chrom.tolist()))
    if name_mismatch(asked, genome.lengths) or not set(asked) & set(genome.lengths):
        raise DataError(
            f"loci={path} and fasta={genome.path} name chromosomes differently. "
            f"The loci: {shown(asked)}. The genome: {shown(genome.lengths)}. "
            f"{_renaming(asked, genome.lengths, str(path))}"
        )


def _place(line: str, center: str, where: str) -> tuple[str, int, int, int]:
    columns = line.rstrip("\r\n").split("\t") if "\t" in line else line.split()
    if len(columns) < 3:
        raise DataError(
            f"{where}: {line.strip()!r} has {len(columns)} columns. BED needs chrom, start, end."
        )
    try:
        start, end = int(columns[1]), int(columns[2])
    except ValueError:
        raise DataError(
            f"{where}: start {columns[1]!r} and end {columns[2]!r} must be whole numbers. "
            "If this line is a header, start it with #."
        ) from None
    if not 0 <= start < end:
        raise DataError(
            f"{where}: start {start} and end {end}: BED intervals start at 0 or later and end "
            "after they start."
        )
    offset = (end - start) // 2 if center == "midpoint" else _summit(columns, end - start, where)
    return columns[0], start + offset, start, end


def _summit(columns: list[str], length: int, where: str) -> int:
    fix = "Use center=midpoint, or a narrowPeak file with summits in column 10."
    if len(columns) <= SUMMIT_COLUMN:
        raise DataError(f"{where}: {len(columns)} columns, so no summit. {fix}")
    text = columns[SUMMIT_COLUMN].strip()
    if not text.isdigit() or int(text) >= length:
        raise DataError(
            f"{where}: summit offset {text} must lie in the peak of {length} bases. {fix}"
        )
    return int(text)


def _fasta_pieces(file: IO[bytes], path: Path) -> Iterator[tuple[bytes | None, bytes]]:
    """(header, lines of letters) in order; header None where the sequence before goes on."""
    rest, first = b"", True
    while block := file.read(FASTA_BLOCK):
        if first and not block.startswith(b">"):
            raise DataError(f"fasta={path}: not a FASTA file, which starts with '>'.")
        first = False
        whole, newline, rest = (rest + block).rpartition(b"\n")
        yield from _split_headers(whole + newline)
    yield from _split_headers(rest)


def _split_headers(lines: bytes) -> Iterator[tuple[bytes | None, bytes]]:
    """The same for whole lines."""
    before, *records = re.split(rb"^>", lines, flags=re.MULTILINE)
    if before:
        yield None, before
    for record in records:
        header, _, letters = record.partition(b"\n")
        yield header, letters


def _fasta_name(header: bytes, known: Collection[str], path: Path) -> str:
    words = header.decode("utf-8", "replace").split()
    if not words or words[0] in known:
        what = f"two sequences are named {words[0]}" if words else "a sequence has no name"
        raise DataError(f"fasta={path}: {what}. Give each its own name after '>'.")
    return words[0]


def _renaming(asked: Iterable[str], held: Iterable[str], path: str) -> str:
    """What to type so that the names agree, when only `chr` differs."""
    asked, mismatch = list(asked), name_mismatch(asked, held)
    if mismatch and all(new == f"chr{old}" for old, new in mismatch.items()):
        return f"Rename the loci: sed 's/^/chr/' {path} > renamed.bed"
    if mismatch and all(old == f"chr{new}" for old, new in mismatch.items()):
        return f"Rename the loci: sed 's/^chr//' {path} > renamed.bed"
    return "Rename one to match the other, or give the FASTA that the loci were made with."


def _head(path: Path, size: int) -> bytes:
    with open(path, "rb") as file:
        return file.read(size)


def needed(module: str) -> Any:
    """The optional package `module`; raises DataError with what to install."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise DataError(
            f"{module} is not installed, which preparing data needs: "
            "pip install 'cherimoya-train[prepare]'"
        ) from None


_CODES = bytes(b"ACGT".find(bytes([i]).upper()) % (N_CODE + 1) for i in range(256))
