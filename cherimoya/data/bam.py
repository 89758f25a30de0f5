"""BAM files as tracks: the 5' ends of aligned reads."""

from array import array
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from cherimoya.config_prepare import BamConfig
from cherimoya.data.track import Cuts, Track, stem
from cherimoya.errors import DataError
from cherimoya.extras import needed

KIND = "BAM"
MAGIC = b"BAM\1"
PROPER, REVERSE, SECOND, DUPLICATE = 0x2, 0x10, 0x80, 0x400
NEVER = 0x4 | 0x100 | 0x200 | 0x800  # unmapped, secondary, failed, supplementary


class Reads:
    """An open BAM file, and the 5' ends of the chromosome that was last asked for."""

    def __init__(self, path: Path, alignments: Any, config: BamConfig) -> None:
        self.path, self.config = path, config
        self.lengths = dict(zip(alignments.references, alignments.lengths, strict=True))
        self._alignments = alignments
        self._chrom = ""
        self._cuts: list[Cuts] = []

    def __getstate__(self) -> dict[str, Any]:
        # another process opens the file itself
        return self.__dict__ | {"_alignments": None, "_chrom": "", "_cuts": []}

    def cuts(self, chrom: str) -> list[Cuts]:
        """Where reads start on `chrom`: of the plus and the minus strand, or of both together."""
        if chrom != self._chrom:
            try:
                ends = self._five_prime(chrom)
            except (OSError, ValueError) as error:
                raise DataError(
                    f"{self.path}: cannot be read on {chrom} ({error}). The file or its index is "
                    f"damaged: copy it again, then samtools index {self.path}"
                ) from None
            if not self.config.stranded:
                ends = [np.concatenate(ends)]
            self._chrom, self._cuts = chrom, [Cuts(positions) for positions in ends]
        return self._cuts

    def _five_prime(self, chrom: str) -> list[np.ndarray]:
        """0-based shifted 5' ends of the reads on each strand."""
        config = self.config
        never = NEVER | (DUPLICATE if config.duplicates == "drop" else 0)
        plus, minus = array("q"), array("q")
        self._alignments = self._alignments or needed("pysam").AlignmentFile(str(self.path), "rb")
        for read in self._alignments.fetch(chrom):
            flag = read.flag
            if flag & never or read.mapping_quality < config.min_mapq:
                continue
            if config.proper_pairs and not flag & PROPER:
                continue
            if config.mates != "both" and (config.mates == "second") != bool(flag & SECOND):
                continue
            if flag & REVERSE:
                minus.append(read.reference_end - 1 + config.shift_minus)
            else:
                plus.append(read.reference_start + config.shift_plus)
        return [np.frombuffer(ends, np.int64) for ends in (plus, minus)]


class Strand(Track):
    """One strand of the reads, or both together."""

    kind = KIND

    def __init__(self, reads: Reads, name: str, which: int) -> None:
        super().__init__(reads.path, name, reads.lengths)
        self._reads, self._which = reads, which

    def _values(self, chrom: str, start: int, end: int) -> np.ndarray:
        return self._reads.cuts(chrom)[self._which].values(start, end)


@contextmanager
def opened(path: Path, key: str, config: BamConfig) -> Iterator[list[Track]]:
    """The tracks of the BAM file at `path`: plus and minus if stranded, else one."""
    pysam = needed("pysam")
    before = pysam.set_verbosity(0)  # what is wrong is said here
    try:
        alignments = _alignments(path, key, pysam)
        try:
            _check(path, key, alignments)
            yield _tracks(Reads(path, alignments, config))
        finally:
            with suppress(OSError):  # a damaged file cannot even be closed
                alignments.close()
    finally:
        pysam.set_verbosity(before)


def _alignments(path: Path, key: str, pysam: Any) -> Any:
    try:
        return pysam.AlignmentFile(str(path), "rb", check_sq=False)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{key}={path}: truncated or damaged ({error}). Make or copy it again."
        ) from None


def _tracks(reads: Reads) -> list[Track]:
    name = stem(reads.path)
    names = [f"{name}.plus", f"{name}.minus"] if reads.config.stranded else [name]
    return [Strand(reads, name, which) for which, name in enumerate(names)]


def _check(path: Path, key: str, alignments: Any) -> None:
    if not alignments.references:
        raise DataError(
            f"{key}={path}: its header names no chromosomes (@SQ). Add the header of the "
            "reference: samtools reheader, or align again."
        )
    order = alignments.header.to_dict().get("HD", {}).get("SO")
    if order in ("unsorted", "queryname"):
        raise DataError(
            f"{key}={path}: not sorted by coordinate (SO:{order}). Sort it: "
            f"samtools sort -o sorted.bam {path} && samtools index sorted.bam"
        )
    if not alignments.has_index():
        raise DataError(
            f"{key}={path}: no index beside it. Make one: samtools index {path} (if it is not "
            "sorted, samtools sort before)"
        )
    with open(path, "rb") as file:
        file.seek(-min(28, path.stat().st_size), 2)
        if b"BC\2\0\x1b\0\3\0" not in file.read():
            raise DataError(
                f"{key}={path}: truncated (the end-of-file block is missing). Copy it again."
            )
