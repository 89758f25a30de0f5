"""What predictions along a genome are made from: its sequence, loci on it, control tracks."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cherimoya.errors import ConfigError, DataError
from cherimoya.genome import bigwig
from cherimoya.genome.chrom_names import Aliases, format_aliases, format_names, name_mismatch
from cherimoya.genome.fasta import Genome, check_exists
from cherimoya.genome.intervals import read_intervals
from cherimoya.genome.open_tracks import matched
from cherimoya.util.console import say

Values = Callable[[str, int], np.ndarray]  # of a chromosome and its length: (tracks, length)


@dataclass(frozen=True, eq=False)
class Windows:
    """Output windows on one chromosome: first bases (n,), and their rows in the whole (n,)."""

    chrom: str
    start: np.ndarray
    row: np.ndarray


def control_values(
    groups: Sequence[Sequence[str]],
    chroms: Collection[str],
    aliases: Aliases,
    genome: Genome,
) -> Values | None:
    """The values of bigWig tracks (tracks, length) float32 over one of `chroms`; None without any.

    Raises DataError for a track that names these otherwise, or is for another assembly.
    """
    if not groups:
        return None
    tracks = []
    for path in (Path(path) for group in groups for path in group):
        check_exists(path, "control")
        tracks += bigwig.read_bigwig(path, "control")
    lines = [line for track in tracks for line in matched(track, chroms, aliases, genome)]
    for line in dict.fromkeys(lines):
        say(line)

    def values(chrom: str, length: int) -> np.ndarray:
        rows = [track.values(chrom, 0, length) for track in tracks]
        return np.stack(rows).astype(np.float32)

    return values


def tiles(lengths: Mapping[str, int], chroms: Sequence[str], out_window: int) -> list[Windows]:
    """Windows that abut from the first base of each chromosome on, the last one past its end."""
    made, row = [], 0
    for chrom in chroms:
        start = np.arange(0, lengths[chrom], out_window, dtype=np.int64)
        made.append(Windows(chrom, start, np.arange(row, row + len(start))))
        row += len(start)
    return made


def around(
    path: str, center: str, lengths: Mapping[str, int], aliases: Aliases, out_window: int
) -> list[Windows]:
    """A window around each locus of a BED file, by chromosome; rows are the file's.

    Raises DataError for a locus whose centre is not on the genome.
    """
    loci = read_intervals(path, center)
    loci = loci.renamed(aliases.accepted(loci.chrom.tolist(), f"loci={path}"))
    check_chroms(dict.fromkeys(loci.chrom.tolist()), lengths, f"loci={path}")
    beyond = np.array([lengths[c] for c in loci.chrom.tolist()]) <= loci.center
    if beyond.any():
        row = int(np.argmax(beyond))
        raise DataError(
            f"loci={path}: {loci.name(row)} lies beyond the end of {loci.chrom[row]}, which "
            f"has {lengths[str(loci.chrom[row])]:,} bases ({int(beyond.sum())} such loci). Give "
            "the FASTA that the loci were made with."
        )
    start = loci.center - out_window // 2
    return [
        Windows(chrom, start[rows], rows)
        for chrom in dict.fromkeys(loci.chrom.tolist())
        for rows in [np.flatnonzero(loci.chrom == chrom)]
    ]


def check_chroms(names: Collection[str], lengths: Mapping[str, int], where: str) -> None:
    """Raise ConfigError when a chromosome that `where` names is not in the genome."""
    unknown = [name for name in names if name not in lengths]
    if unknown:
        mismatch = name_mismatch(unknown, lengths)
        fix = "Name some that it has."
        if mismatch:
            fix = f"The two name chromosomes differently: {format_aliases(mismatch)}. Rename one."
        raise ConfigError(
            f"{where} names {format_names(unknown)}, which the FASTA does not have. In the FASTA: "
            f"{format_names(lengths)}. {fix}"
        )


def own_bases(start: np.ndarray, out_window: int, length: int) -> np.ndarray:
    """Of ascending windows at `start` (n,), the bases [first, end) that each speaks for: (n, 2).

    Where windows overlap, each base belongs to the one whose middle is nearest; none beyond the
    chromosome's ends. Of windows at the same place only the first has bases.
    """
    bases = np.zeros((len(start), 2), np.int64)
    start, rows = np.unique(start, return_index=True)
    border = (start[:-1] + start[1:] + out_window + 1) // 2
    first = np.maximum(start, np.concatenate([[0], border]))
    end = np.minimum(np.minimum(start + out_window, length), np.concatenate([border, [length]]))
    bases[rows] = np.stack([first, np.maximum(end, first)], axis=1)
    return bases


def padded_bases(windows: Sequence[Windows], lengths: Mapping[str, int], out: int, cut: int) -> int:
    """How many windows read beyond an end of their chromosome, where there are only N."""
    beyond = 0
    for w in windows:
        outside = (w.start - cut < 0) | (w.start + out + cut > lengths[w.chrom])
        beyond += int(outside.sum())
    return beyond


def described(path: str) -> list[str | int]:
    """A file by its path, size and time, which tell whether it is still the same."""
    facts = Path(path).stat()
    return [str(Path(path).absolute()), facts.st_size, facts.st_mtime_ns]
