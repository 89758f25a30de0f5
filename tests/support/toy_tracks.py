"""BAM files of toy reads, and what is counted in a file of reads or fragments."""

from pathlib import Path

import numpy as np
import pytest
from toy import LENGTHS, Toy, configure

from cherimoya.genome.open_tracks import open_tracks

pysam = pytest.importorskip("pysam")

READ = 10  # bases
BAM = {"shift_plus": 0, "shift_minus": 0, "min_mapq": 0, "duplicates": "drop", "mates": "both"}
BAM |= {"proper_pairs": False, "stranded": False, "exchange_strands": False}
ENDS = {"kind": "auto", "shift_plus": 0, "shift_minus": 0, "counts": False}


def bam(toy: Toy, *reads: tuple, name: str = "reads.bam", index: bool = True, **hd: str) -> Path:
    """A BAM file of reads (chrom, start, flag, mapq) of READ bases, with its index."""
    path = toy.folder / name
    header = {
        "HD": {"VN": "1.6", "SO": "coordinate"} | hd,
        "SQ": [{"SN": c, "LN": n} for c, n in LENGTHS.items()],
    }
    with pysam.AlignmentFile(str(path), "wb", header=header) as file:
        for chrom, start, flag, mapq in reads:
            read = pysam.AlignedSegment(file.header)
            read.query_name, read.flag, read.mapping_quality = "r", flag, mapq
            read.reference_name, read.reference_start = chrom, start
            read.cigarstring, read.query_sequence = f"{READ - 2}M5N2M", "A" * READ
            file.write(read)
    if index:
        pysam.index(str(path))
    return path


def counted(path: Path, chrom: str = "chrA", **values) -> list[dict[int, int]]:
    """Base -> count on `chrom`, for each track of the file."""
    config = configure(fasta="-", loci="-", signal=[[str(path)]], output="-", **values)
    with open_tracks(config.signal, "signal", config) as (tracks,):
        whole = [track.values(chrom, 0, LENGTHS[chrom]) for track in tracks]
    return [{int(at): int(v[at]) for at in np.flatnonzero(v)} for v in whole]
