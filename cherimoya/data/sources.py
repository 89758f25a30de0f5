"""What experiments come as: a FASTA genome, bigWig tracks, BED or narrowPeak loci."""

import gzip
import importlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from cherimoya.data.loci import N_CODE
from cherimoya.data.splits import name_mismatch, shown
from cherimoya.errors import DataError

GZIP_MAGIC = b"\x1f\x8b"
BIGWIG_MAGIC = (b"\x26\xfc\x8f\x88", b"\x88\x8f\xfc\x26")
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


class Genome:
    """A FASTA file, one chromosome in memory at a time.

    `lengths` maps chromosome to length in bases, in the file's order; `letters` counts those
    other than A C G T in the chromosomes read so far.
    """

    def __init__(self, path: Path, fasta: Any) -> None:
        self.path = path
        self.lengths: dict[str, int] = dict(zip(fasta.references, fasta.lengths, strict=True))
        self._fasta = fasta
        self._letters: dict[str, Counter[str]] = {}

    @property
    def letters(self) -> Counter[str]:
        return sum(self._letters.values(), Counter())

    def codes(self, chrom: str) -> np.ndarray:
        """(length,) uint8: 0-3 for A C G T in either case, 4 for every other letter."""
        text = np.frombuffer(self._fasta.fetch(chrom).encode("ascii"), np.uint8)
        codes = _CODES[text]
        others = np.bincount(text[codes == N_CODE], minlength=1)
        self._letters[chrom] = Counter()
        for letter in np.flatnonzero(others):
            self._letters[chrom][chr(letter).upper()] += int(others[letter])
        return codes


@contextmanager
def open_genome(path: str | Path) -> Iterator[Genome]:
    """The FASTA file at `path`, plain or BGZF; its index goes to a temporary folder."""
    path = Path(path)
    _check_fasta(path)
    pysam = _needed("pysam")
    with TemporaryDirectory() as folder, ExitStack() as stack:
        fai, gzi = f"{folder}/fai", f"{folder}/gzi"
        verbosity = pysam.set_verbosity(0)
        stack.callback(pysam.set_verbosity, verbosity)
        try:
            pysam.faidx(str(path), "--fai-idx", fai, "--gzi-idx", gzi)
            compressed = gzi if Path(gzi).exists() else None
            fasta = pysam.FastaFile(
                str(path), filepath_index=fai, filepath_index_compressed=compressed
            )
        except (pysam.SamtoolsError, OSError, ValueError):
            raise DataError(
                f"fasta={path}: cannot be indexed. Lines of one sequence must be equally long, "
                f"without blank lines, and the file complete: `samtools faidx {path}` says where."
            ) from None
        yield Genome(path, stack.enter_context(fasta))


class Track:
    """A bigWig file. `lengths` maps chromosome to length in bases."""

    def __init__(self, path: Path, bigwig: Any) -> None:
        self.path = path
        self.lengths: dict[str, int] = dict(bigwig.chroms())
        self._bigwig = bigwig

    def values(self, chrom: str, start: int, end: int) -> np.ndarray:
        """(end - start,) float32; zeros where the file has no value or no such chromosome."""
        if chrom not in self.lengths:
            return np.zeros(end - start, np.float32)
        try:
            values = self._bigwig.values(chrom, start, end, numpy=True)
        except RuntimeError as error:
            raise DataError(
                f"{self.path}: cannot be read at {chrom}:{start:,}-{end:,} ({error}). "
                "The file is damaged: make or copy it again."
            ) from None
        return np.where(np.isnan(values), np.float32(0), values)


@contextmanager
def open_tracks(paths: Iterable[str | Path], key: str) -> Iterator[list[Track]]:
    """The bigWig files at `paths`, which the configuration names under `key`."""
    bigwig = _needed("pyBigWig")
    with ExitStack() as stack:
        tracks = []
        for path in map(Path, paths):
            _check_bigwig(path, key)
            try:
                opened = stack.enter_context(bigwig.open(str(path)))
            except RuntimeError:
                raise DataError(
                    f"{key}: {path} is truncated or damaged. Make or copy it again."
                ) from None
            tracks.append(Track(path, opened))
        yield tracks


def read_places(path: str | Path, center: str) -> Places:
    """The lines of a BED or narrowPeak file, plain or gzip.

    center: "midpoint", or "summit" (narrowPeak column 10, bases after the start). Raises
    DataError with the line's number for a line that cannot be understood.
    """
    path = Path(path)
    check_exists(path, "loci")
    opener = gzip.open if _head(path, 2) == GZIP_MAGIC else open
    rows = []
    try:
        with opener(path, "rt", encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip() and not line.startswith(NO_FIELDS):
                    rows.append(_place(line, center, f"loci={path}, line {number}"))
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"loci={path}: not a BED file ({error}). Give a text file.") from None
    if not rows:
        raise DataError(f"loci={path}: no loci in it. Give a BED file with at least one line.")
    chrom, middle, start, end = zip(*rows, strict=True)
    numbers = (np.array(column, np.int64) for column in (middle, start, end))
    return Places(np.array(chrom), *numbers)


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


def check_track_names(track: Track, genome: Genome, chroms: Iterable[str]) -> None:
    """Raise DataError when a bigWig is for another genome or another naming of it.

    `chroms` are those with loci: other chromosomes may be called anything.
    """
    if name_mismatch(track.lengths, chroms) or not set(track.lengths) & set(genome.lengths):
        raise DataError(
            f"{track.path} and fasta={genome.path} name chromosomes differently. The bigWig: "
            f"{shown(track.lengths)}. The genome: {shown(genome.lengths)}. Rename them in the "
            "bigWig (bigWigToBedGraph, sed, bedGraphToBigWig), or give the FASTA it was made with."
        )
    for chrom in chroms:
        length = track.lengths.get(chrom, genome.lengths[chrom])
        if length != genome.lengths[chrom]:
            raise DataError(
                f"{track.path}: {chrom} has {length:,} bases, but {genome.lengths[chrom]:,} in "
                f"fasta={genome.path}. They are different assemblies: give the FASTA that the "
                "reads were aligned to."
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


def _check_fasta(path: Path) -> None:
    check_exists(path, "fasta")
    head = _head(path, 18)
    if head[:2] == GZIP_MAGIC and not (head[3] & 4 and head[12:14] == b"BC"):
        raise DataError(
            f"fasta={path}: gzip cannot be read at random. Recompress it as BGZF, which gzip "
            f"tools read too: gunzip -c {path} | bgzip > genome.fa.gz"
        )
    with gzip.open(path) if head[:2] == GZIP_MAGIC else open(path, "rb") as file:
        if file.read(1) != b">":
            raise DataError(f"fasta={path}: not a FASTA file, which starts with '>'.")


def _check_bigwig(path: Path, key: str) -> None:
    check_exists(path, key)
    if _head(path, 4) not in BIGWIG_MAGIC:
        raise DataError(f"{key}={path}: not a bigWig file. Give a .bw or .bigWig file.")


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


def _needed(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise DataError(
            f"{module} is not installed, which preparing data needs: "
            "pip install 'cherimoya-train[prepare]'"
        ) from None


def _code_table() -> np.ndarray:
    table = np.full(256, N_CODE, np.uint8)
    for code, letter in enumerate(b"ACGT"):
        table[[letter, letter + 32]] = code
    return table


_CODES = _code_table()
