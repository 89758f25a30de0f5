"""The source files opened together, under the genome's names, and checked against each other."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from cherimoya.config.prepare import PrepareConfig
from cherimoya.errors import DataError
from cherimoya.genome.chrom_names import Aliases
from cherimoya.genome.fasta import Genome, read_genome
from cherimoya.genome.intervals import Intervals, has_summits, joined, read_intervals
from cherimoya.genome.open_tracks import matched, open_tracks
from cherimoya.genome.strands import check_unlike, strand_table
from cherimoya.prepare.background import Windows
from cherimoya.prepare.parts import PART, Sources, flat
from cherimoya.prepare.shift import settle_shifts
from cherimoya.prepare.workers import Workers, core_count
from cherimoya.util.console import Say, counted, warning
from cherimoya.util.marks import not_as_written, read_mark, write_mark

GENOME = "genome.json"
WORTH_WINDOWS = 50_000  # of signal
WORTH_BYTES = 100_000_000


@contextmanager
def open_sources(config: PrepareConfig, folder: Path | None, say: Say) -> Iterator[Sources]:
    """Every source file that `config` names; what is made of them is kept in `folder`, if any.

    Raises DataError when a file cannot be read, or when two are of different genomes.
    """
    files = [read_intervals(path, config.center) for path in config.loci_files]
    say(f"loci are centred on their {config.center}s (center={config.center})")
    if config.center == "midpoint":
        for path in filter(has_summits, config.loci_files):
            say(warning(f"{path} has summits in column 10: center=summit puts windows on these"))
    regions = [read_intervals(path, "midpoint", "exclude") for path in config.exclude_files]
    with (
        Workers(_worker_count(config, files) if folder else 1, folder or Path()) as workers,
        open_tracks(config.signal, "signal", config, folder, say) as signal,
        open_tracks(config.control, "control", config, folder, say) as control,
        TemporaryDirectory(prefix="cherimoya-") as scratch,
    ):
        genome = spooled_genome(config.fasta, folder or Path(scratch), say)
        aliases = Aliases(config.chrom_alias, genome, say)
        intervals = joined(_renamed(files, "loci", config.loci_files, aliases, genome))
        none = intervals.take(np.zeros(len(intervals), bool))
        others = _renamed(regions, "exclude", config.exclude_files, aliases, genome)
        excluded = joined([none, *others])
        chroms = [c for c in dict.fromkeys(intervals.chrom.tolist()) if c in genome.lengths]
        lines = [
            line
            for track in flat([*signal, *control])
            for line in matched(track, chroms, aliases, genome)
        ]
        for line in dict.fromkeys(lines):  # two strands of a file say the same
            say(line)
        known = intervals.take(np.isin(intervals.chrom, list(genome.lengths)))
        if not config.are_strands:
            for key, groups in (("signal", signal), ("control", control)):
                check_unlike(groups, known, config.out_window, key)
        say(strand_table(signal, control))
        cut_sites = settle_shifts(config, genome, known, signal, control, say)
        windows = Windows(config.in_window, config.out_window, config.max_jitter)
        yield Sources(
            config, genome, intervals, excluded, signal, control, cut_sites, windows, folder,
            workers, say,
        )  # fmt: skip


def _worker_count(config: PrepareConfig, loci: list[Intervals]) -> int:
    """As many processes as have something to do, if the work takes longer than to start them."""
    paths = [path for group in (*config.signal_files, *config.control) for path in group]
    windows = round(sum(map(len, loci)) * (1 + config.background_ratio))
    size = sum(Path(path).stat().st_size for path in [config.fasta, *paths] if Path(path).exists())
    if windows * len(paths) < WORTH_WINDOWS and size < WORTH_BYTES:
        return 1
    chroms = len({chrom for part in loci for chrom in part.chrom.tolist()})
    return min(config.processes or core_count(), chroms + windows // PART[1])


def _renamed(
    files: list[Intervals], key: str, paths: list[str], aliases: Aliases, genome: Genome
) -> Iterator[Intervals]:
    """The intervals of each file, on the genome's chromosomes."""
    for intervals, path in zip(files, paths, strict=True):
        where = f"{key}={path}"
        intervals = intervals.renamed(aliases.accepted(intervals.chrom.tolist(), where))
        lengths = np.array([genome.lengths.get(name, np.inf) for name in intervals.chrom.tolist()])
        for row in np.flatnonzero(intervals.start >= lengths)[:1].tolist():
            chrom = str(intervals.chrom[row])
            raise DataError(
                f"{where}: {intervals.name(row)} lies beyond the end of {chrom}, which has "
                f"{genome.lengths[chrom]:,} bases in fasta={genome.path}. They are of different "
                "assemblies: give the FASTA that the file was made with."
            )
        yield intervals


def spooled_genome(path: str | Path, folder: Path, say: Say) -> Genome:
    """The FASTA file at `path`; its codes are kept in `folder`, and not read twice."""
    spool, noted = folder / "genome", folder / GENOME
    mark = read_mark(noted)
    if mark is None or mark.damaged():
        if noted.exists():
            say(warning(f"{folder}: {not_as_written(mark)}, so the genome is read again"))
        genome = read_genome(path, spool, say)
        write_mark(noted, {"lengths": genome.lengths, "letters": genome.letters}, [spool])
        return genome
    letters = {name: Counter(counts) for name, counts in mark.facts["letters"].items()}
    return Genome(Path(path), mark.facts["lengths"], letters, spool)


def describe_parts(folder: Path) -> str:
    """What is done of a preparation."""
    done = ["the genome"] * (folder / GENOME).is_file()
    for pattern, *words in (
        ("*/fragments.json", "fragment file"),
        ("peaks-*", "part of the peaks", "parts of the peaks"),
        ("background-*", "part of the background", "parts of the background"),
    ):
        if n := len(list(folder.glob(pattern))):
            done.append(counted(n, *words))
    return ", ".join(done) or "nothing yet"
