"""FASTA + tracks + BED -> the HDF5 file of loci, with GC-matched background."""

import hashlib
import os
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cherimoya import __version__
from cherimoya.config import to_dict
from cherimoya.config_prepare import PrepareConfig
from cherimoya.data import hdf5
from cherimoya.data.background import Windows, candidates, match_gc
from cherimoya.data.funnel import Funnel
from cherimoya.data.gather import Say, Sources, flat, gather, gc_of, group_totals
from cherimoya.data.loci import N_CODE, Loci, smallest_integers
from cherimoya.data.sources import (
    Places,
    check_loci_names,
    read_genome,
    read_places,
)
from cherimoya.data.splits import shown
from cherimoya.data.tracks import check_track_names, open_tracks
from cherimoya.errors import DataError

OUTLIER_PERCENTILE = 99


def prepare(config: PrepareConfig, say: Say = print) -> Path:
    """Write the loci that `config` describes to `config.output` and return its path.

    A window is centred on base `center` when it covers [center - length // 2, ...). Peaks keep
    the order of the BED file, then follows the background by chromosome and position. The
    same files and configuration give the same loci. `say` is told about progress, in lines.

    Raises DataError, before any long work where it can, naming the file and the fix.
    """
    began, output = time.monotonic(), Path(config.output)
    _check_output(output, config.overwrite)
    places = read_places(config.loci, config.center)
    with (
        open_tracks(config.signal, "signal", config) as signal,
        open_tracks(config.control, "control", config) as control,
    ):
        genome = read_genome(config.fasta, set(places.chrom.tolist()))
        windows = Windows(config.in_window, config.out_window, config.max_jitter)
        sources = Sources(config, genome, signal, control, windows, say)
        _check_names(places, sources)
        loci = _loci(places, sources)
    say(f"writing {output} ...")
    hdf5.write(output, loci)
    peaks = int(loci.label.sum())
    say(
        f"{output}: {peaks:,} peaks and {len(loci) - peaks:,} background loci, "
        f"tracks {', '.join(loci.track_names)} ({loci.signal.dtype}), "
        f"{output.stat().st_size / 1e6:.1f} MB, {time.monotonic() - began:.1f} s"
    )
    return output


def _loci(places: Places, sources: Sources) -> Loci:
    """Peaks that pass every filter and their background, with provenance."""
    config, say = sources.config, sources.say
    funnel = Funnel(f"in {Path(config.loci).name}", len(places))
    peaks, cut_offs = _peaks(places, sources, funnel)
    say(funnel.table())
    _check_any_signal(peaks, config)
    parts = [peaks]
    if config.background_ratio > 0:
        parts += _background(places, peaks, cut_offs, sources)
    loci = _joined(parts)
    letters = sources.genome.letters
    if letters:
        listed = ", ".join(f"{letter} {count:,}" for letter, count in sorted(letters.items()))
        inside = int((loci.sequence == N_CODE).sum())
        say(f"letters other than A C G T are treated as N: {listed} ({inside:,} in the windows)")
    signal = smallest_integers(loci.signal)
    if signal.dtype.kind == "f":
        say("the signal is not whole numbers: stored as float32. Counts train best unnormalised.")
    control = None if loci.control is None else smallest_integers(loci.control)
    provenance = _provenance(config) | {"funnel": [list(row) for row in funnel.rows]}
    return replace(loci, signal=signal, control=control, provenance=provenance)


def _peaks(places: Places, sources: Sources, funnel: Funnel) -> tuple[Loci, np.ndarray | None]:
    """The loci that pass every filter, and the outlier cut-off of each signal group."""
    config, genome, windows = sources.config, sources.genome, sources.windows
    known = np.isin(places.chrom, list(genome.lengths))
    _check_some(funnel.keep("chromosome not in the genome", known), funnel)
    places = places.take(known)
    starts = windows.starts(places.center)
    lengths = np.array([genome.lengths[name] for name in places.chrom.tolist()])
    inside = (starts >= 0) & (starts + windows.stored <= lengths)
    _check_some(funnel.keep("past an end of the chromosome", inside), funnel)
    places = places.take(inside)
    places = places.take(funnel.keep("same centre as another", _first_of_each(places)))
    loci = gather(places, 1, sources)
    few_n = (loci.sequence == N_CODE).mean(axis=1) <= config.max_n_fraction
    _check_some(funnel.keep(f"N over {config.max_n_fraction:.0%}", few_n), funnel)
    loci = loci.take(few_n)
    if config.min_counts > 0:
        enough = group_totals(loci).sum(axis=1) >= config.min_counts
        _check_some(funnel.keep(f"under {config.min_counts:g} counts", enough), funnel)
        loci = loci.take(enough)
    if config.outlier_factor is None:
        return loci, None
    high = np.percentile(group_totals(loci), OUTLIER_PERCENTILE, axis=0)  # (groups,)
    cut_offs = np.where(high > 0, config.outlier_factor * high, np.inf)
    said = ", ".join(f"{value:,.0f}" for value in cut_offs)
    usual = _within(loci, cut_offs)
    _check_some(funnel.keep(f"over the outlier cut-off ({said} counts)", usual), funnel)
    return loci.take(usual), cut_offs


def _background(
    places: Places, peaks: Loci, cut_offs: np.ndarray | None, sources: Sources
) -> list[Loci]:
    """Background loci matched to `peaks`, away from all of `places`; an empty list if none."""
    config, say, windows = sources.config, sources.say, sources.windows
    rng = np.random.default_rng(config.seed)
    near = places.take(np.isin(places.chrom, np.unique(peaks.chrom)))
    pool, pool_gc = candidates(
        sources.genome, near, windows, config.min_distance, config.max_n_fraction, rng
    )
    asked = round(config.background_ratio * len(peaks))
    target = gc_of(peaks)
    rows = match_gc(target, pool_gc, asked, config.gc_bin, rng)
    fix = "Lower background_ratio or min_distance, or widen gc_bin, to get what is asked."
    if not len(rows):
        say(f"background: none of {asked:,} asked: {len(pool):,} windows away from peaks. {fix}")
        return []
    loci = gather(pool.take(rows), 0, sources)
    if cut_offs is not None:
        loci = loci.take(_within(loci, cut_offs))
    short = "" if len(loci) == asked else f" {fix}"
    say(
        f"background: {len(loci):,} of {asked:,} asked, from {len(pool):,} windows away from "
        f"peaks; mean GC {gc_of(loci).mean():.3f}, peaks {target.mean():.3f}.{short}"
    )
    return [loci] if len(loci) else []


def _within(loci: Loci, cut_offs: np.ndarray) -> np.ndarray:
    """(n,) true where no signal group's total is over its cut-off."""
    return np.all(group_totals(loci) <= cut_offs, axis=1)


def _joined(parts: list[Loci]) -> Loci:
    """The loci of all `parts`, in order."""
    arrays = {
        name: np.concatenate([part.arrays()[name] for part in parts]) for name in parts[0].arrays()
    }
    return replace(parts[0], **arrays)  # type: ignore[arg-type]


def _first_of_each(places: Places) -> np.ndarray:
    """(n,) true for the first locus at each centre."""
    _, chrom = np.unique(places.chrom, return_inverse=True)
    _, first = np.unique(np.stack([chrom, places.center]), axis=1, return_index=True)
    mask = np.zeros(len(places), bool)
    mask[first] = True
    return mask


def _check_output(output: Path, overwrite: bool) -> None:
    if output.is_dir():
        raise DataError(f"output={output}: a folder. Name the HDF5 file to write.")
    if output.exists() and not overwrite:
        raise DataError(
            f"output={output}: exists already. Choose another name, or set overwrite=true."
        )
    folder = next(parent for parent in output.absolute().parents if parent.exists())
    if not os.access(folder, os.W_OK):
        raise DataError(f"output={output}: {folder} cannot be written to. Choose another folder.")


def _check_names(places: Places, sources: Sources) -> None:
    check_loci_names(places, sources.genome, sources.config.loci)
    chroms = [c for c in dict.fromkeys(places.chrom.tolist()) if c in sources.genome.lengths]
    for track in flat([*sources.signal, *sources.control]):
        check_track_names(track, sources.genome, chroms)
        missing = [chrom for chrom in chroms if chrom not in track.lengths]
        if missing:
            sources.say(f"{track.path.name} has no {shown(missing)}: zeros there")


def _check_some(mask: np.ndarray, funnel: Funnel) -> None:
    if not mask.any():
        raise DataError(
            f"no locus is left: the last filter below removed them.\n{funnel.table()}\n"
            "Relax it (in_window, max_jitter, max_n_fraction, min_counts, outlier_factor), or "
            "check that loci, fasta and signal belong together."
        )


def _check_any_signal(peaks: Loci, config: PrepareConfig) -> None:
    for group, total in zip(config.signal, group_totals(peaks).sum(axis=0), strict=True):
        if total == 0:
            raise DataError(
                f"signal: {', '.join(group)} is zero at all {len(peaks):,} loci. Check that the "
                "file and the loci are of the same experiment and genome."
            )


def _provenance(config: PrepareConfig) -> dict[str, Any]:
    """Each source file's key, name, size and SHA-256, the command and the tool's version."""
    files = [("fasta", config.fasta), ("loci", config.loci)]
    files += [(key, f) for key in ("signal", "control") for f in _flat(getattr(config, key))]
    return {
        "sources": [_described(key, Path(name)) for key, name in files],
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "version": __version__,
        "config": to_dict(config),
    }


def _described(key: str, path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"key": key, "name": path.name, "size": path.stat().st_size, "sha256": digest}


def _flat(groups: list[list[str]]) -> list[str]:
    return [path for group in groups for path in group]
