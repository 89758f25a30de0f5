"""Opening tracks of any kind, told apart by what the file holds, and checking their names."""

import gzip
import zlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import count
from pathlib import Path

from cherimoya import progress
from cherimoya.config_prepare import PrepareConfig
from cherimoya.data import bam, bigwig, fragments
from cherimoya.data.aliases import Aliases, check_names, named
from cherimoya.data.sources import Genome, Say, check_exists, opened
from cherimoya.data.splits import shown
from cherimoya.data.strands import check_groups
from cherimoya.data.track import Track
from cherimoya.errors import DataError

KINDS = "Give a bigWig, a BAM or a fragment file (chrom, start, end, barcode, count)."


@contextmanager
def open_tracks(
    groups: Iterable[Iterable[str | Path]],
    key: str,
    config: PrepareConfig,
    scratch: Path | None = None,
    tell: Say = progress.say,
) -> Iterator[list[list[Track]]]:
    """The tracks of the files in each group, which the configuration names under `key`.

    scratch: a folder in which what was read of a file is kept; None: a temporary one.
    tell: hears how far reading is
    """
    paths = [[Path(path) for path in group] for group in groups]
    kinds = {path: kind_of(path, key) for group in paths for path in group}
    channels = [
        [2 if kinds[path] == bam.KIND and config.bam.stranded else 1 for path in group]
        for group in paths
    ]
    check_groups(paths, channels, key, config.are_strands)
    number = count(1)
    with ExitStack() as stack:
        yield [
            [
                track
                for path in group
                for track in stack.enter_context(
                    _opened(
                        path,
                        kinds[path],
                        key,
                        config,
                        scratch and scratch / f"{key}-{next(number)}",
                        tell,
                    )
                )
            ]
            for group in paths
        ]


def _opened(
    path: Path, kind: str, key: str, config: PrepareConfig, spool: Path | None, tell: Say
) -> AbstractContextManager[list[Track]]:
    if kind == bigwig.KIND:
        return bigwig.opened(path, key)
    if kind == bam.KIND:
        return bam.opened(path, key, config.bam)
    return fragments.opened(path, key, config.fragments, spool, tell)


def kind_of(path: Path, key: str) -> str:
    """What the file at `path` is, by what it holds: the KIND of one of the readers.

    Raises DataError, naming the configuration's `key`, for a file that is none of them.
    """
    check_exists(path, key)
    with open(path, "rb") as file:
        raw = file.read(4)
    if raw in bigwig.MAGIC:
        return bigwig.KIND
    try:
        with opened(path, "rb") as file:
            head = file.read(1 << 12)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{key}={path}: truncated or damaged ({error}). Copy it again.") from None
    if head.startswith(bam.MAGIC):
        return bam.KIND
    _check_fragments(head, f"{key}={path}")
    return fragments.KIND


def _check_fragments(head: bytes, where: str) -> None:
    """Raise DataError when a file that starts with `head` cannot be a fragment file."""
    if head.startswith((b"@HD\t", b"@SQ\t", b"CRAM")):
        raise DataError(
            f"{where}: SAM or CRAM. Turn it into a sorted BAM: samtools sort -o reads.bam, "
            "samtools index reads.bam"
        )
    if any(word in head for word in (b"type=wiggle", b"fixedStep", b"variableStep")):
        raise DataError(f"{where}: a wiggle text file. Turn it into a bigWig: wigToBigWig")
    lines = [x for x in head.split(b"\n") if not x.startswith((b"#", b"track", b"browser"))]
    columns = lines[0].split(b"\t") if lines else []
    if b"\0" in head or len(columns) < 3:
        raise DataError(f"{where}: not a bigWig, BAM or fragment file. {KINDS}")
    if len(columns) == 4 and _is_number(columns[3]):
        raise DataError(
            f"{where}: a bedGraph by its 4 columns. Turn it into a bigWig: bedGraphToBigWig"
        )


def _is_number(text: bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def matched(track: Track, chroms: Collection[str], aliases: Aliases, genome: Genome) -> list[str]:
    """Give the track the genome's names; what there is to say about it on `chroms`.

    Raises DataError for a track that names them otherwise, or is for another assembly.
    """
    changed = aliases.of(track.lengths, str(track.path))
    track.rename(changed)
    check_names(track.lengths, chroms, str(track.path), genome)
    check_lengths(track, genome, chroms)
    missing = [chrom for chrom in chroms if chrom not in track.lengths]
    said = [f"{track.path.name}: {named(changed)}"] if changed else []
    return said + [f"{track.path.name} has no {shown(missing)}: zeros there"] * bool(missing)


def check_lengths(track: Track, genome: Genome, chroms: Iterable[str]) -> None:
    """Raise DataError when a track is for another assembly, judged by the lengths of `chroms`."""
    for chrom in chroms:
        length = track.lengths.get(chrom) or genome.lengths[chrom]
        end = track.ends.get(chrom, 0) if isinstance(track, fragments.Fragments) else 0
        if length != genome.lengths[chrom] or end > length:
            raise DataError(
                f"{track.path}: {chrom} has {max(length, end):,} bases"
                f"{' or more' if end else ''}, but {genome.lengths[chrom]:,} in "
                f"fasta={genome.path}. They are different assemblies: give the FASTA that the "
                "reads were aligned to."
            )
