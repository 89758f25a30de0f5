"""FASTA + tracks + BED -> the HDF5 file of loci, with GC-matched background."""

import errno
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from cherimoya.config.prepare import PrepareConfig
from cherimoya.data import hdf5
from cherimoya.errors import STDOUT, DataError
from cherimoya.genome.intervals import Intervals, enforce_spacing, joined, overlapping
from cherimoya.genome.track import stem
from cherimoya.prepare import provenance
from cherimoya.prepare.background import candidates, match_gc
from cherimoya.prepare.inputs import describe_parts, open_sources
from cherimoya.prepare.parts import Column, Sources, StoredWindows, extract_windows, flat
from cherimoya.records.overwrite import own_files, settle
from cherimoya.util import console
from cherimoya.util.console import Say, counted, result, warning
from cherimoya.util.marks import check_mark, mark_of, set_aside
from cherimoya.util.resume import forget_parts, resumable_output

OUTLIER_PERCENTILE = 99
GC_BINS = 50  # of the histogram that is recorded
FEW = 8  # signal groups whose cut-offs are said


class FilterReport:
    """Rows of (filter, loci removed, loci left), starting from `count` loci described by `what`."""

    def __init__(self, what: str, count: int) -> None:
        self.rows: list[tuple[str, int, int]] = [(what, 0, count)]

    def keep(self, reason: str, mask: np.ndarray) -> np.ndarray:
        """Record that the loci where `mask` (n,) is false go for `reason`; returns the mask.

        Raises DataError where none is left.
        """
        self.rows.append((reason, int((~mask).sum()), int(mask.sum())))
        if not mask.any():
            raise DataError(
                f"no locus is left: the last filter below removed them.\n{self.table()}\n"
                "Relax it (in_window, max_jitter, exclude, max_n_fraction, min_counts, "
                "outlier_factor), or check that loci, fasta and signal belong together."
            )
        return mask

    def table(self) -> str:
        """The rows as aligned text."""
        width = max(len(what) for what, _, _ in self.rows)
        lines = [f"{'loci':<{width}}  {'removed':>11}  {'left':>11}"]
        lines += [f"{what:<{width}}  {gone:>11,}  {left:>11,}" for what, gone, left in self.rows]
        return "\n".join(lines)


def prepare(config: PrepareConfig, say: Say = console.say) -> Path:
    """Write the loci that `config` describes to `config.output` and return its path.

    A window is centred on base `center` when it covers [center - length // 2, ...). Peaks keep
    the order of the BED files, then follows the background by chromosome and position. The
    same files and configuration give the same loci, so an output made of them is left as it is,
    and an interrupted preparation resumes after the parts that are done.
    `say` is told about progress, in lines.

    Raises DataError, before any long work where it can, naming the file and the fix.
    """
    assert config.output is not None
    began, output = time.monotonic(), Path(config.output)
    folder = provenance.check_output(output)
    provenance.check_kept(output, config)
    if output.exists() and not config.overwrite:
        damage = provenance.check_unchanged(output, config)
        if damage is None:
            made = "up to date, made from these files and this configuration already"
            say(result(f"{output}: {made}"))
            if not mark_of(output).exists():
                unsure = "is missing: whether the file is whole cannot be checked"
                say(warning(f"{mark_of(output)} {unsure}"))
            forget_parts(output)
            settle(output)
            return output
        say(warning(f"{output}: {damage}, so it is prepared again"))
        set_aside(output, say)
    elif not config.overwrite:
        check_mark(mark_of(output))
    begun_with = provenance.begun_with(config)
    try:
        with (
            own_files(output, provenance.plots_of(output, config), config.overwrite),
            resumable_output(output, begun_with, describe_parts, say) as parts,
            open_sources(config, parts, say) as sources,
        ):
            peaks, background, described = _loci(sources)
            if provenance.begun_with(config) != begun_with:
                raise DataError("an input file has changed while it was read. Start again.")
            said = _write(output, peaks, background, described, sources)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or error.filename == STDOUT:
            raise
        raise DataError(
            f"output={output}: the disk is full. While preparing, {folder} needs as many bytes as "
            "the genome has bases, 8 for each fragment, and the windows uncompressed (check=true "
            "says how many). Free space, or choose another folder."
        ) from None
    say(result(f"{said}, {output.stat().st_size / 1e6:.1f} MB, {time.monotonic() - began:.1f} s"))
    return output


def placed(sources: Sources) -> tuple[Intervals, FilterReport]:
    """The loci that pass the filters of position, which need no sequence or signal."""
    config, genome = sources.config, sources.genome
    windows, intervals = sources.windows, sources.intervals
    filters = FilterReport(
        f"in {', '.join(Path(p).name for p in config.loci_files)}", len(intervals)
    )
    known = np.isin(intervals.chrom, list(genome.lengths))
    intervals = intervals.take(filters.keep("chromosome not in the genome", known))
    starts = windows.starts(intervals.center)
    lengths = np.array([genome.lengths[name] for name in intervals.chrom.tolist()])
    inside = (starts >= 0) & (starts + windows.stored <= lengths)
    if not inside.all():
        past = intervals.take(~inside)
        chrom, one = str(past.chrom[0]), len(past) == 1
        sources.say(
            warning(
                f"{counted(len(past), 'locus is', 'loci are')} left out because "
                f"{'its window' if one else 'their windows'} of {windows.stored:,} bases "
                f"{'reaches' if one else 'reach'} past an end of the chromosome, the first "
                f"{past.name(0)} ({chrom} has {genome.lengths[chrom]:,} bases). A smaller "
                "in_window or max_jitter keeps more."
            )
        )
    intervals = intervals.take(filters.keep("past an end of the chromosome", inside))
    intervals = intervals.take(filters.keep("same centre as another", _first_of_each(intervals)))
    if config.exclude_files:
        free = ~_in_excluded(intervals, sources)
        intervals = intervals.take(filters.keep("in an excluded region", free))
    if config.overlap == "once":
        first = enforce_spacing(intervals, config.out_window)
        intervals = intervals.take(filters.keep("overlaps one before it", first))
    return intervals, filters


def _loci(sources: Sources) -> tuple[StoredWindows, StoredWindows | None, dict[str, Any]]:
    """Peaks that pass every filter, their background if there is some, and attributes of both."""
    config, say = sources.config, sources.say
    peaks, cut_offs, filters = _peaks(sources)
    say(filters.table())
    _check_any_signal(peaks, sources)
    background, gc = None, dict[str, list[int]]()
    if config.background_ratio > 0:
        background, gc = _background(peaks, cut_offs, sources)
    made = provenance.provenance(config) | {"gc": gc, "cut_sites": sources.cut_sites}
    made["funnel"] = [list(row) for row in filters.rows]
    windows = sources.windows
    return peaks, background, {
        "in_window": windows.in_window,
        "out_window": windows.out_window,
        "max_jitter": windows.max_jitter,
        "track_names": [track.name for track in flat(sources.signal)],
        "control_names": [track.name for track in flat(sources.control)],
        "signal_groups": [len(group) for group in sources.signal],
        "control_groups": [len(group) for group in sources.control],
        **_named_groups(sources),
        "genome": config.genome or stem(Path(config.fasta)),
        "provenance": made,
    }  # fmt: skip


def _named_groups(sources: Sources) -> dict[str, Any]:
    """Names of the signal groups, if they have some, and their depths, where known."""
    groups = sources.signal
    names = [group[0].group or group[0].name for group in groups]
    depths = [track.depth for group in groups for track in group]
    return {
        "group_names": names if any(group[0].group for group in groups) else [],
        "group_depths": [sum(track.depth for track in group) for group in groups]
        if len(groups) > 1 and None not in depths
        else [],
    }


def _peaks(sources: Sources) -> tuple[StoredWindows, np.ndarray | None, FilterReport]:
    """The loci that pass every filter, and the outlier cut-off of each signal group."""
    config = sources.config
    intervals, filters = placed(sources)
    peaks = extract_windows(intervals, "peaks", sources)
    _say_letters(int(peaks.unknown.sum()), sources)
    few_n = peaks.unknown / sources.windows.stored <= config.max_n_fraction
    peaks = peaks.take(filters.keep(f"N over {config.max_n_fraction:.0%}", few_n))
    if config.min_counts > 0:
        enough = peaks.totals.sum(axis=1) >= config.min_counts
        peaks = peaks.take(filters.keep(f"under {config.min_counts:g} counts", enough))
    cut_offs = None
    if config.outlier_factor is not None:
        high = np.percentile(peaks.totals, OUTLIER_PERCENTILE, axis=0)  # (groups,)
        cut_offs = np.where(high > 0, config.outlier_factor * high, np.inf)
        said = ", ".join(f"{value:,.0f}" for value in cut_offs[:FEW])
        said += ", ..." if len(cut_offs) > FEW else ""
        usual = np.all(peaks.totals <= cut_offs, axis=1)
        peaks = peaks.take(filters.keep(f"over the outlier cut-off ({said} counts)", usual))
    return peaks, cut_offs, filters


def _background(
    peaks: StoredWindows, cut_offs: np.ndarray | None, sources: Sources
) -> tuple[StoredWindows | None, dict[str, list[int]]]:
    """Background loci matched to `peaks`, away from all loci, and how many have which GC.

    None and an empty dictionary if there are none.
    """
    config, say = sources.config, sources.say
    rng = np.random.default_rng(config.seed)
    near = sources.intervals.take(
        np.isin(sources.intervals.chrom, np.unique(peaks.intervals.chrom))
    )
    pool, pool_gc = candidates(sources.genome, near, sources.windows, config, rng, sources.workers)
    free = ~_in_excluded(pool, sources)
    pool, pool_gc = pool.take(free), pool_gc[free]
    wanted = round(config.background_ratio * len(peaks))
    rows = match_gc(peaks.gc, pool_gc, wanted, config.gc_bin, rng)
    fix = "Lower background_ratio or min_distance, or widen gc_bin, to get as many."
    if not len(pool):
        say(warning(_no_room(wanted, sources)))
        return None, {}
    if not len(rows):
        say(warning(f"background: none of {wanted:,} requested: {len(pool):,} free windows. {fix}"))
        return None, {}
    loci = extract_windows(pool.take(rows), "background", sources)
    if cut_offs is not None:
        loci = loci.take(np.all(loci.totals <= cut_offs, axis=1))
    short = "" if len(loci) == wanted else f" {fix}"
    mean_gc = loci.gc.mean() if len(loci) else np.nan
    say(
        f"background: {len(loci):,} of {wanted:,} requested, from {counted(len(pool), 'window')} "
        f"away from peaks; mean GC {mean_gc:.3f}, peaks {peaks.gc.mean():.3f}.{short}"
    )
    if not len(loci):
        return None, {}
    shares = {"peaks": peaks.gc, "background": loci.gc, "free windows": pool_gc}
    return loci, {
        name: np.histogram(values, GC_BINS, (0, 1))[0].tolist() for name, values in shares.items()
    }


def _no_room(wanted: int, sources: Sources) -> str:
    """What to say where no window can be background."""
    config, windows = sources.config, sources.windows
    keys = ["a smaller out_window"]
    keys += ["a smaller in_window or max_jitter"]
    keys += [f"a smaller min_distance than {config.min_distance:,}"] * (config.min_distance > 0)
    keys += ["fewer regions in exclude"] * bool(config.exclude_files)
    keys += ["fewer or shorter loci"]
    return (
        f"background: none of {wanted:,} requested: on the chromosomes of the peaks no window of "
        f"{windows.out_window:,} bases lies between the loci, with {windows.stored:,} bases of "
        f"known sequence around it. What makes room: {', '.join(keys)}. To do without: "
        "background_ratio=0"
    )


def _write(
    output: Path,
    peaks: StoredWindows,
    background: StoredWindows | None,
    described: dict[str, Any],
    sources: Sources,
) -> str:
    """Write the loci, and say what is to be known of them; returns what was written, in words."""
    stored, say = [peaks] if background is None else [peaks, background], sources.say
    intervals = joined(one.intervals for one in stored)
    starts, labels = sources.windows.starts(intervals.center), np.zeros(len(intervals), np.uint8)
    labels[: len(peaks)] = 1
    names = ("sequence", "signal", "control") if sources.control else ("sequence", "signal")
    columns: dict[str, Any] = {name: Column(name, stored) for name in names}
    signal = columns["signal"].dtype
    columns |= {"label": labels, "chrom": intervals.chrom}
    columns |= {"start": starts, "end": starts + sources.windows.stored}
    if signal.kind == "f":
        say(_fractions(peaks, described["track_names"]))
    say(f"writing {output} ...")
    assert sources.folder is not None
    made = sources.folder / output.name  # so that a kill leaves nothing elsewhere
    with provenance.marked(output, described["provenance"]) as temporary:
        os.replace(hdf5.write_columns(made, described, columns, sources.workers.count), temporary)
    return (
        f"{output}: {counted(len(peaks), 'peak')} and "
        f"{counted(len(intervals) - len(peaks), 'background locus', 'background loci')}, "
        f"tracks {', '.join(described['track_names'])} ({signal})"
    )


def _in_excluded(intervals: Intervals, sources: Sources) -> np.ndarray:
    """(n,) true where the stored sequence touches an excluded region."""
    starts = sources.windows.starts(intervals.center)
    return overlapping(intervals, starts, starts + sources.windows.stored, sources.excluded)


def _say_letters(inside: int, sources: Sources) -> None:
    letters: Counter[str] = Counter()
    for chrom in np.unique(sources.intervals.chrom).tolist():
        letters.update(sources.genome.letters.get(chrom, {}))
    if letters:
        listed = ", ".join(f"{letter} {count:,}" for letter, count in sorted(letters.items()))
        sources.say(
            warning(
                f"letters other than A C G T are treated as N: {listed} ({inside:,} in the windows)"
            )
        )


def _fractions(peaks: StoredWindows, names: list[str]) -> str:
    """What to say of signal that is not whole numbers, or of numbers over 2^31."""
    rows = np.flatnonzero(peaks.types["signal"] == peaks.types["signal"].max())
    values = Column("signal", [peaks.take(rows[:1])])[:1][0]  # (tracks, length)
    tracks = [name for name, v in zip(names, values, strict=True) if (v != np.rint(v)).any()]
    return (
        f"the signal is not whole numbers ({', '.join(tracks) or 'or too large'} at "
        f"{peaks.intervals.name(rows[0])}, {len(rows):,} such loci): stored as float32. Counts "
        "train best as they are: give a file that is not normalised, if there is one."
    )


def _first_of_each(intervals: Intervals) -> np.ndarray:
    """(n,) true for the first locus at each centre."""
    _, chrom = np.unique(intervals.chrom, return_inverse=True)
    _, first = np.unique(np.stack([chrom, intervals.center]), axis=1, return_index=True)
    mask = np.zeros(len(intervals), bool)
    mask[first] = True
    return mask


def _check_any_signal(peaks: StoredWindows, sources: Sources) -> None:
    every = "the only locus" if len(peaks) == 1 else f"all {len(peaks):,} loci"
    for group, total in zip(sources.signal, peaks.totals.sum(axis=0), strict=True):
        if total == 0:
            named = f" of {group[0].group}" if group[0].group else ""
            paths = ", ".join(dict.fromkeys(str(track.path) for track in group))
            raise DataError(
                f"signal: {paths}{named} is zero at {every}. Check that the "
                "file and the loci are of the same experiment and genome, and for a BAM that "
                "bam.mates, bam.proper_pairs and bam.min_mapq leave reads."
            )
