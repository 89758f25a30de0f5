"""What preparing would do, said without doing it."""

from pathlib import Path

from cherimoya.config.prepare import PrepareConfig
from cherimoya.errors import DataError
from cherimoya.genome.chrom_names import format_names
from cherimoya.genome.intervals import Intervals
from cherimoya.prepare import provenance
from cherimoya.prepare.inputs import open_sources
from cherimoya.prepare.parts import PART, Sources, flat
from cherimoya.prepare.prepare import placed
from cherimoya.prepare.workers import core_count
from cherimoya.records.overwrite import may_write
from cherimoya.util import console
from cherimoya.util.console import Say, counted, result
from cherimoya.util.resume import partial_path

COUNT = 2  # bytes, in most experiments
PER_PROCESS = 150e6  # bytes that a process takes before it holds data
GB = 1e9


def inspect(config: PrepareConfig, say: Say = console.say) -> None:
    """Say what the source files hold, which loci would be kept by position, and what it takes.

    Writes nothing. Raises DataError as `prepare` does, for all that shows without reading the
    signal.
    """
    with open_sources(config, None, say) as sources:
        genome = sources.genome
        say(
            result(
                f"fasta: {genome.path.name}: {counted(len(genome.lengths), 'sequence')}, "
                f"{sum(genome.lengths.values()):,} bases: {format_names(genome.lengths)}"
            )
        )
        for key, groups in (("signal", sources.signal), ("control", sources.control)):
            for i, group in enumerate(groups, 1):
                for track in group:
                    say(
                        result(
                            f"{key}, group {i} of {len(groups)}: {track.name} ({track.kind}, "
                            f"{track.path.name}): {counted(len(track.lengths), 'chromosome')}"
                        )
                    )
        intervals, filters = placed(sources)
        say(result(filters.table()))
        say(result("filters by sequence and signal come after these"))
        for line in _costs(intervals, sources):
            say(result(line))
    if config.output is not None:
        say(result(f"output={config.output}: {_fate(Path(config.output), config)}"))
    say(result("nothing was written: leave check=true out to prepare"))


def _costs(intervals: Intervals, sources: Sources) -> list[str]:
    """How many bytes the loci take in memory and on disk, at most."""
    config, windows = sources.config, sources.windows
    tracks, controls = len(flat(sources.signal)), len(flat(sources.control))
    length = windows.out_window + 2 * windows.max_jitter
    rows = round(len(intervals) * (1 + config.background_ratio))
    each = windows.stored + COUNT * (tracks * length + controls * windows.stored)
    processes = config.processes or core_count()
    # a process holds a part twice while it joins its blocks
    memory = (1 + processes) * PER_PROCESS + processes * 2 * min(rows, PART[1]) * each
    bases = sum(sources.genome.lengths.values())
    return [
        f"would read {counted(tracks + controls, 'track')} at {counted(rows, 'window')} of "
        f"{windows.stored:,} bases, "
        f"background included, in {counted(processes, 'process', 'processes')}",
        f"needs about {memory / GB:.2g} GB of memory, and {(bases + rows * each) / GB:.2g} GB of "
        "disk beside the output while it runs",
    ]


def _fate(output: Path, config: PrepareConfig) -> str:
    provenance.check_output(output)
    provenance.check_kept(output, config)
    if not output.exists():
        for plot in provenance.plots_of(output, config):
            if not (config.overwrite or may_write(plot, output)):
                return f"would be refused ({plot}: exists already)"
        left = partial_path(output)
        if left.is_dir():
            return f"would be written, with what is in {left} if that is of the same inputs"
        return "would be written"
    try:
        damage = provenance.check_unchanged(output, config)
    except DataError as error:
        return "would be replaced" if config.overwrite else f"would be refused ({error})"
    if config.overwrite:
        return "would be replaced"
    if damage is not None:
        return f"{damage}: would be prepared again"
    return "is up to date and would be left as it is"
