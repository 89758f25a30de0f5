"""BAM files as tracks: the 5' ends of aligned reads."""

from array import array
from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from cherimoya.config.prepare import BamConfig
from cherimoya.errors import DataError
from cherimoya.genome.fasta import ends_whole
from cherimoya.genome.track import Cuts, Shift, Track, stem
from cherimoya.util import console
from cherimoya.util.console import Say, warning
from cherimoya.util.files import atomic_path
from cherimoya.util.marks import read_mark, write_mark
from cherimoya.util.native import LibraryError, call
from cherimoya.util.optional import import_optional

KIND = "BAM"
MAGIC = b"BAM\1"
PROPER, REVERSE, SECOND, DUPLICATE = 0x2, 0x10, 0x80, 0x400
NEVER = 0x4 | 0x100 | 0x200 | 0x800  # unmapped, secondary, failed, supplementary
LINK = "reads.bam"  # to the file, from where there is no index that htslib would load by itself
MOST_READS = 500
INDEX, MARK = "index.csi", "index.json"

Ends = tuple["array[int]", "array[int]"]


class Reads:
    """A BAM file, and the 5' ends of the chromosome that was last asked for.

    spool: the folder of LINK and INDEX; lengths: of its chromosomes; shift: of ends by strand
    """

    def __init__(self, path: Path, spool: Path, lengths: dict[str, int], config: BamConfig) -> None:
        self.path, self.spool, self.lengths, self.config = path, spool, lengths, config
        self.shift = (config.shift_plus, config.shift_minus)
        self._chrom = ""
        self._cuts: list[Cuts] = []

    def __getstate__(self) -> dict[str, Any]:
        # another process reads the file itself
        return self.__dict__ | {"_chrom": "", "_cuts": []}

    def cuts(self, chrom: str) -> list[Cuts]:
        """Where reads start on `chrom`: of the plus and the minus strand, or of both together."""
        if chrom != self._chrom:
            ends = self.ends(_five_prime, chrom)
            if self.config.exchange_strands:
                ends.reverse()
            if not self.config.stranded:
                ends = [np.concatenate(ends)]
            self._chrom, self._cuts = chrom, [Cuts(positions) for positions in ends]
        return self._cuts

    def shift_by(self, shift: Shift) -> None:
        """Add this to the ends from now on."""
        self.shift, self._chrom = shift, ""

    def ends(self, function: Callable[..., Any], chrom: str, *arguments: Any) -> list[np.ndarray]:
        """The ends on the plus and the minus strand that `function` finds, shifted."""
        try:
            ends = call(function, self.path, self.spool, chrom, self.config, *arguments)
        except LibraryError as error:
            raise DataError(
                f"{self.path}: cannot be read on {chrom} ({error}). It is damaged: copy it again."
            ) from None
        return [own + bases for own, bases in zip(ends, self.shift, strict=True)]


class Strand(Track):
    """One strand of the reads, or both together."""

    kind = KIND

    def __init__(self, reads: Reads, name: str, which: int) -> None:
        super().__init__(reads.path, name, reads.lengths)
        self._reads, self._which = reads, which

    @property
    def shift(self) -> Shift:
        """As of every track."""
        return self._reads.shift

    def shift_by(self, shift: Shift) -> None:
        """As of every track."""
        self._reads.shift_by(shift)

    def _values(self, chrom: str, start: int, end: int) -> np.ndarray:
        return self._reads.cuts(chrom)[self._which].values(start, end)

    def _ends(self, chrom: str, starts: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        plus, minus = self._reads.ends(_near, chrom, starts, length)
        return plus, minus


def read_bam(path: Path, key: str, config: BamConfig, spool: Path, tell: Say) -> list[Track]:
    """The tracks of the BAM file at `path`: plus and minus if stranded, else one.

    The file is read whole and indexed in the folder `spool`; an index that lies beside it may be
    older or damaged, and is not used.
    """
    import_optional("pysam")
    if not ends_whole(path):
        raise DataError(
            f"{key}={path}: truncated (the end-of-file block is missing). Copy it again."
        )
    reads, name = _indexed(path, key, config, spool, tell), stem(path)
    names = [f"{name}.plus", f"{name}.minus"] if config.stranded else [name]
    return [Strand(reads, name, which) for which, name in enumerate(names)]


def _indexed(path: Path, key: str, config: BamConfig, spool: Path, tell: Say) -> Reads:
    _link(path, spool / LINK)
    try:
        lengths = call(_lengths, path, spool)
        if not lengths:
            raise DataError(
                f"{key}={path}: its header names no chromosomes (@SQ). Add the header of the "
                "reference: samtools reheader, or align again."
            )
        mark = read_mark(spool / MARK)
        if mark is None or mark.damaged():  # else an interrupted run has made it
            with console.report_duration(f"indexing {path.name}"):
                call(_make_index, path, spool, key)
            write_mark(spool / MARK, {}, [spool / INDEX])
    except LibraryError as error:
        said = " ".join(str(error).split()).replace(str(spool / LINK), path.name)
        raise DataError(
            f"{key}={path}: truncated or damaged ({said}). Make or copy it again."
        ) from None
    if older := _older_index(path):
        tell(
            warning(f"{older.name} is older than {path.name}: not used, the BAM was indexed afresh")
        )
    return Reads(path, spool, lengths, config)


def _link(path: Path, link: Path) -> None:
    """Make the file at `path` known as `link`. Raises DataError where the disk allows no links."""
    link.unlink(missing_ok=True)
    try:
        link.symlink_to(path.absolute())
    except OSError as error:
        raise DataError(
            f"{path} cannot be read by way of {link.parent}, which allows no links "
            f"({error.strerror}). Choose an output on another disk, or make a bigWig of the reads."
        ) from None


def _older_index(path: Path) -> Path | None:
    """An index beside the file that was made before it, if there is one."""
    beside = [path.with_name(path.name + suffix) for suffix in (".bai", ".csi")]
    beside += [path.with_suffix(suffix) for suffix in (".bai", ".csi")]
    made = path.stat().st_mtime
    return next((p for p in beside if p.is_file() and p.stat().st_mtime < made), None)


# What follows runs in the libraries' own process.


def _lengths(path: Path, spool: Path) -> dict[str, int]:
    """Chromosome to length, by the header."""
    with import_optional("pysam").AlignmentFile(str(spool / LINK), "rb", check_sq=False) as file:
        return dict(zip(file.references, file.lengths, strict=True))


def _make_index(path: Path, spool: Path, key: str) -> None:
    """Index the file, which reads all of it and checks each block's checksum.

    In one thread: htslib's threads wait for each other forever over some damaged blocks.
    """
    pysam = import_optional("pysam")
    try:
        with atomic_path(spool / INDEX) as made:
            pysam.index("-c", "-o", str(made), str(spool / LINK))
    except pysam.SamtoolsError:
        if _is_sorted(spool / LINK):
            raise
        raise DataError(
            f"{key}={path}: not sorted by coordinate. Sort it: "
            f"samtools sort -o sorted.bam {path} && samtools index sorted.bam"
        ) from None


def _is_sorted(path: Path) -> bool:
    """Whether the reads lie by coordinate. Raises OSError where they cannot be read."""
    last = (0, -1)
    with import_optional("pysam").AlignmentFile(str(path), "rb") as file:
        for read in file.fetch(until_eof=True):
            at = (read.reference_id % 2**32, read.reference_start)  # those without a place go last
            if at < last:
                return False
            last = at
    return True


@lru_cache(maxsize=1)
def _alignments(spool: Path, _size: int, _time: int) -> Any:
    link, index = str(spool / LINK), str(spool / INDEX)
    return import_optional("pysam").AlignmentFile(link, "rb", index_filename=index)


def _five_prime(path: Path, spool: Path, chrom: str, config: BamConfig) -> list[np.ndarray]:
    """0-based 5' ends of the reads on each strand, int64."""
    alignments, found = _opened(path, spool), (array("q"), array("q"))
    seen = _find_ends(alignments.fetch(chrom), path, config, found)
    held = next(one.total for one in alignments.get_index_statistics() if one.contig == chrom)
    if seen != held:
        raise DataError(
            f"{path}: {seen:,} reads were read on {chrom}, which has {held:,}. It has changed "
            "meanwhile: start again."
        )
    return [np.frombuffer(ends, np.int64) for ends in found]


def _near(
    path: Path, spool: Path, chrom: str, config: BamConfig, starts: np.ndarray, length: int
) -> list[np.ndarray]:
    """The same in windows of `length` bases at `starts`, of MOST_READS at most in each."""
    alignments, near = _opened(path, spool), (array("q"), array("q"))
    for start in starts.tolist():
        found = (array("q"), array("q"))
        reads = islice(alignments.fetch(chrom, start, start + length), MOST_READS)
        _find_ends(reads, path, config, found)
        for kept, ends in zip(near, found, strict=True):
            kept.extend(end for end in ends if start <= end < start + length)
    return [np.frombuffer(ends, np.int64) for ends in near]


def _opened(path: Path, spool: Path) -> Any:
    stat = path.stat()
    return _alignments(spool, stat.st_size, stat.st_mtime_ns)


def _find_ends(reads: Iterable[Any], path: Path, config: BamConfig, found: Ends) -> int:
    """Add the 5' ends of those that count to `found`, of plus and minus; how many there were."""
    never = NEVER | (DUPLICATE if config.duplicates == "drop" else 0)
    (plus, minus), seen = found, 0
    for read in reads:
        seen += 1
        flag = read.flag
        if flag & never or read.mapping_quality < config.min_mapq:
            continue
        if config.proper_pairs and not flag & PROPER:
            continue
        if config.mates != "both" and (config.mates == "second") != bool(flag & SECOND):
            continue
        if not read.cigartuples:
            raise DataError(
                f"{path}: read {read.query_name} at {read.reference_name}:"
                f"{read.reference_start:,} (0-based) is mapped but has no CIGAR (*), so where it "
                "ends is unknown. Leave such reads out: samtools view -b -e 'ncigar > 0' "
                f"-o whole.bam {path}"
            )
        if flag & REVERSE:
            minus.append(read.reference_end - 1)
        else:
            plus.append(read.reference_start)
    return seen
