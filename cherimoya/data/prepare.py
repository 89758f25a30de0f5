"""FASTA + tracks + BED -> the HDF5 file of loci, with GC-matched background."""

import errno
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from cherimoya.config_prepare import PrepareConfig
from cherimoya.data import hdf5, origin
from cherimoya.data.background import candidates, match_gc
from cherimoya.data.funnel import Funnel
from cherimoya.data.gather import Sources, gather, gc_of, group_totals, n_fractions
from cherimoya.data.inputs import open_sources
from cherimoya.data.loci import N_CODE, Loci, smallest_integers
from cherimoya.data.places import Places, apart, overlapping
from cherimoya.data.sources import Say
from cherimoya.errors import DataError

OUTLIER_PERCENTILE = 99
GC_BINS = 50  # of the histogram that is recorded


def prepare(config: PrepareConfig, say: Say = print) -> Path:
    """Write the loci that `config` describes to `config.output` and return its path.

    A window is centred on base `center` when it covers [center - length // 2, ...). Peaks keep
    the order of the BED files, then follows the background by chromosome and position. The
    same files and configuration give the same loci, so an output made of them is left as it is.
    `say` is told about progress, in lines.

    Raises DataError, before any long work where it can, naming the file and the fix.
    """
    assert config.output is not None
    began, output = time.monotonic(), Path(config.output)
    folder = origin.check_output(output)
    if output.exists() and not config.overwrite:
        origin.check_unchanged(output, config)
        say(f"{output}: up to date, made from these files and this configuration already")
        return output
    try:
        with (
            TemporaryDirectory(prefix=f".{output.name}.", dir=folder) as scratch,
            open_sources(config, Path(scratch), say) as sources,
        ):
            loci = _loci(sources)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise DataError(
            f"output={output}: the disk is full. While preparing, {folder} needs as many bytes as "
            "the genome has bases, and 8 for each fragment. Free space, or choose another folder."
        ) from None
    say(f"writing {output} ...")
    hdf5.write(output, loci)
    peaks = int(loci.label.sum())
    say(
        f"{output}: {peaks:,} peaks and {len(loci) - peaks:,} background loci, "
        f"tracks {', '.join(loci.track_names)} ({loci.signal.dtype}), "
        f"{output.stat().st_size / 1e6:.1f} MB, {time.monotonic() - began:.1f} s"
    )
    return output


def placed(sources: Sources) -> tuple[Places, Funnel]:
    """The loci that pass the filters of position, which need no sequence or signal."""
    config, genome, windows, places = (
        sources.config,
        sources.genome,
        sources.windows,
        sources.places,
    )
    funnel = Funnel(f"in {', '.join(Path(p).name for p in config.loci_files)}", len(places))
    known = np.isin(places.chrom, list(genome.lengths))
    _check_some(funnel.keep("chromosome not in the genome", known), funnel)
    places = places.take(known)
    starts = windows.starts(places.center)
    lengths = np.array([genome.lengths[name] for name in places.chrom.tolist()])
    inside = (starts >= 0) & (starts + windows.stored <= lengths)
    _check_some(funnel.keep("past an end of the chromosome", inside), funnel)
    places = places.take(inside)
    places = places.take(funnel.keep("same centre as another", _first_of_each(places)))
    if config.exclude_files:
        free = ~_in_excluded(places, sources)
        _check_some(funnel.keep("in an excluded region", free), funnel)
        places = places.take(free)
    if config.overlap == "once":
        first = apart(places, config.out_window)
        places = places.take(funnel.keep("overlaps one before it", first))
    return places, funnel


def _loci(sources: Sources) -> Loci:
    """Peaks that pass every filter and their background, with provenance."""
    config, say = sources.config, sources.say
    peaks, cut_offs, funnel = _peaks(sources)
    say(funnel.table())
    _check_any_signal(peaks, config)
    parts, gc = [peaks], dict[str, list[int]]()
    del peaks  # `parts` alone holds it
    if config.background_ratio > 0:
        others, gc = _background(parts[0], cut_offs, sources)
        parts += others
        del others
    loci = _joined(parts)
    _say_letters(loci, sources)
    signal = smallest_integers(loci.signal)
    if signal.dtype.kind == "f":
        say("the signal is not whole numbers: stored as float32. Counts train best unnormalised.")
    control = None if loci.control is None else smallest_integers(loci.control)
    provenance = origin.provenance(config) | {"gc": gc}
    provenance["funnel"] = [list(row) for row in funnel.rows]
    return replace(loci, signal=signal, control=control, provenance=provenance)


def _peaks(sources: Sources) -> tuple[Loci, np.ndarray | None, Funnel]:
    """The loci that pass every filter, and the outlier cut-off of each signal group."""
    config = sources.config
    places, funnel = placed(sources)
    few_n = n_fractions(places, sources) <= config.max_n_fraction
    _check_some(funnel.keep(f"N over {config.max_n_fraction:.0%}", few_n), funnel)
    loci = gather(places.take(few_n), 1, sources)
    totals = group_totals(loci)
    left = np.arange(len(loci))
    if config.min_counts > 0:
        enough = totals.sum(axis=1) >= config.min_counts
        _check_some(funnel.keep(f"under {config.min_counts:g} counts", enough), funnel)
        left = left[enough]
    cut_offs = None
    if config.outlier_factor is not None:
        high = np.percentile(totals[left], OUTLIER_PERCENTILE, axis=0)  # (groups,)
        cut_offs = np.where(high > 0, config.outlier_factor * high, np.inf)
        said = ", ".join(f"{value:,.0f}" for value in cut_offs)
        usual = np.all(totals[left] <= cut_offs, axis=1)
        _check_some(funnel.keep(f"over the outlier cut-off ({said} counts)", usual), funnel)
        left = left[usual]
    return loci if len(left) == len(loci) else loci.take(left), cut_offs, funnel


def _background(
    peaks: Loci, cut_offs: np.ndarray | None, sources: Sources
) -> tuple[list[Loci], dict[str, list[int]]]:
    """Background loci matched to `peaks`, away from all loci, and how many have which GC.

    An empty list and dictionary if there are none.
    """
    config, say = sources.config, sources.say
    rng = np.random.default_rng(config.seed)
    near = sources.places.take(np.isin(sources.places.chrom, np.unique(peaks.chrom)))
    pool, pool_gc = candidates(
        sources.genome, near, sources.windows, config.min_distance, config.max_n_fraction, rng
    )
    free = ~_in_excluded(pool, sources)
    pool, pool_gc = pool.take(free), pool_gc[free]
    asked = round(config.background_ratio * len(peaks))
    target = gc_of(peaks)
    rows = match_gc(target, pool_gc, asked, config.gc_bin, rng)
    fix = "Lower background_ratio or min_distance, or widen gc_bin, to get what is asked."
    if not len(rows):
        say(f"background: none of {asked:,} asked: {len(pool):,} windows away from peaks. {fix}")
        return [], {}
    loci = gather(pool.take(rows), 0, sources)
    if cut_offs is not None:
        loci = loci.take(np.all(group_totals(loci) <= cut_offs, axis=1))
    short = "" if len(loci) == asked else f" {fix}"
    say(
        f"background: {len(loci):,} of {asked:,} asked, from {len(pool):,} windows away from "
        f"peaks; mean GC {gc_of(loci).mean():.3f}, peaks {target.mean():.3f}.{short}"
    )
    if not len(loci):
        return [], {}
    shares = {"peaks": target, "background": gc_of(loci), "free windows": pool_gc}
    return [loci], {
        name: np.histogram(values, GC_BINS, (0, 1))[0].tolist() for name, values in shares.items()
    }


def _in_excluded(places: Places, sources: Sources) -> np.ndarray:
    """(n,) true where the stored sequence touches an excluded region."""
    starts = sources.windows.starts(places.center)
    return overlapping(places, starts, starts + sources.windows.stored, sources.excluded)


def _say_letters(loci: Loci, sources: Sources) -> None:
    letters: Counter[str] = Counter()
    for chrom in np.unique(sources.places.chrom).tolist():
        letters.update(sources.genome.letters.get(chrom, {}))
    if letters:
        listed = ", ".join(f"{letter} {count:,}" for letter, count in sorted(letters.items()))
        inside = int((loci.sequence == N_CODE).sum())
        sources.say(
            f"letters other than A C G T are treated as N: {listed} ({inside:,} in the windows)"
        )


def _joined(parts: list[Loci]) -> Loci:
    """The loci of all `parts`, in order. Empties `parts`, to hold no more than one array twice."""
    columns = [part.arrays() for part in parts]
    shell = replace(parts[0], **{name: np.zeros(0) for name in columns[0]})  # type: ignore[arg-type]
    parts.clear()
    arrays = {name: np.concatenate([c.pop(name) for c in columns]) for name in list(columns[0])}
    return replace(shell, **arrays)  # type: ignore[arg-type]


def _first_of_each(places: Places) -> np.ndarray:
    """(n,) true for the first locus at each centre."""
    _, chrom = np.unique(places.chrom, return_inverse=True)
    _, first = np.unique(np.stack([chrom, places.center]), axis=1, return_index=True)
    mask = np.zeros(len(places), bool)
    mask[first] = True
    return mask


def _check_some(mask: np.ndarray, funnel: Funnel) -> None:
    if not mask.any():
        raise DataError(
            f"no locus is left: the last filter below removed them.\n{funnel.table()}\n"
            "Relax it (in_window, max_jitter, exclude, max_n_fraction, min_counts, "
            "outlier_factor), or check that loci, fasta and signal belong together."
        )


def _check_any_signal(peaks: Loci, config: PrepareConfig) -> None:
    for group, total in zip(config.signal, group_totals(peaks).sum(axis=0), strict=True):
        if total == 0:
            raise DataError(
                f"signal: {', '.join(group)} is zero at all {len(peaks):,} loci. Check that the "
                "file and the loci are of the same experiment and genome, and for a BAM that "
                "bam.mates, bam.proper_pairs and bam.min_mapq leave reads."
            )
