"""By how much the ends in each file are to be shifted, by the motif of the enzyme that cut them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cherimoya.config.prepare import SHIFTS, PrepareConfig
from cherimoya.errors import DataError
from cherimoya.genome import bam
from cherimoya.genome.cut_sites import HALF, LIKE, Match, Surroundings, match
from cherimoya.genome.fasta import Genome
from cherimoya.genome.intervals import Intervals
from cherimoya.genome.strands import strands_of
from cherimoya.genome.track import Shift, Track
from cherimoya.util.console import Say, warning

LENGTH = 1000  # bases of the windows at loci in which cuts are looked at
MOST_WINDOWS = 2000
ENOUGH = 50_000  # cuts on each strand
LEAST = 500
SHARE = 100  # cuts that a window counts as at most, so that a few loci do not decide
SHOWN = 14  # bases to either side that are drawn
MOST_SHOWN = 8  # files of which they are: an attribute of HDF5 holds 64 KB
CANDIDATES: tuple[Shift, ...] = ((4, -5), (4, -4), (0, 0))

Groups = Sequence[Sequence[Track]]


@dataclass(frozen=True)
class Unit:
    """A file that tells strands apart, a pair of files that are the strands, or another track."""

    key: str
    tracks: list[Track]

    @property
    def name(self) -> str:
        """Of the file or files."""
        return " and ".join(dict.fromkeys(track.path.name for track in self.tracks))

    @property
    def where(self) -> str:
        """As a message begins."""
        return f"{self.key}={self.tracks[0].path}"

    @property
    def is_stranded(self) -> bool:
        """Whether the cuts of both strands are told apart."""
        return len(self.tracks) == 2 or self.tracks[0].shift is not None

    def cuts(self, chrom: str, starts: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Positions and weights by strand, in windows at `starts`."""
        if self.tracks[0].shift is not None:
            ends = self.tracks[0].ends(chrom, starts, LENGTH)
            found = [np.unique(at, return_counts=True) for at in ends]
        else:
            found = [_values(track, chrom, starts) for track in self.tracks]
        return [(at, _limited(at, weight, starts)) for at, weight in found]

    def keys(self, shift: Shift) -> str:
        """The keys that give a shift, as they are typed; without one, that they be left out."""
        group = "bam" if self.tracks[0].kind == bam.KIND else "fragments"
        names = [f"{group}.{key}" for key in SHIFTS]
        if shift == (0, 0):
            return f"leave {' and '.join(names)} out"
        return "set " + " ".join(f"{key}={value}" for key, value in zip(names, shift, strict=True))


def settle_shifts(
    config: PrepareConfig,
    genome: Genome,
    loci: Intervals,
    signal: Groups,
    control: Groups,
    say: Say,
) -> list[dict[str, Any]]:
    """Say by how much the ends of each file are to be shifted; with shift=auto, do it.

    Returns what was found, for the record. Raises DataError with shift=auto where it is not clear,
    or a file is shifted twice.
    """
    windows, found = _windows(loci, genome), []
    for unit in (*_units("signal", signal), *_units("control", control)):
        around = Surroundings(1 + unit.is_stranded)
        for chrom, starts in windows:
            codes = genome.codes(chrom)
            for strand, (at, weight) in enumerate(unit.cuts(chrom, starts)):
                around.add(strand, codes, at, weight)
            if around.cuts >= ENOUGH:
                break
        seen = match(around)
        if around.cuts < LEAST or not seen.is_clear:
            _unclear(unit, around, seen, config, say)
            continue
        said = _judged(unit, seen, config)
        say(said)
        found.append(_record(unit, around, seen))
        if config.shift == "auto" and len(found) <= MOST_SHOWN:
            found[-1]["frequencies"] = _shown(around, seen)
        if config.shift == "auto" and unit.tracks[0].shift is not None:
            unit.tracks[0].shift_by(seen.shift)
    return found


def _units(key: str, groups: Groups) -> Iterator[Unit]:
    known = set()
    for group in groups:
        if len(group) == 2 and all(track.shift is None for track in group):
            first, second = group
            plus_first = strands_of(first.path, second.path) != ("minus", "plus")
            yield Unit(key, [first, second] if plus_first else [second, first])
            continue
        for track in group:
            if track.path not in known:
                known.add(track.path)
                yield Unit(key, [track])


def _windows(loci: Intervals, genome: Genome) -> list[tuple[str, np.ndarray]]:
    """Chromosomes, those with most loci first, and where windows at some of the loci begin."""
    names, counts = np.unique(loci.chrom, return_counts=True)
    windows, left = [], MOST_WINDOWS
    for chrom in names[np.argsort(-counts, kind="stable")].tolist():
        starts = np.unique(loci.center[loci.chrom == chrom]) - LENGTH // 2
        apart: list[int] = []
        for start in starts.clip(0, max(genome.lengths[chrom] - LENGTH, 0)).tolist():
            if not apart or start >= apart[-1] + LENGTH:
                apart.append(start)
        chosen = np.linspace(0, len(apart) - 1, min(len(apart), left)).astype(int)
        windows.append((chrom, np.array(apart)[chosen]))
        left -= len(chosen)
        if not left:
            break
    return windows


def _values(track: Track, chrom: str, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions with values, and these; what cannot be counted is refused where it is cut out."""
    parts = [np.abs(track.values(chrom, start, start + LENGTH)) for start in starts.tolist()]
    values = np.concatenate([np.zeros(0), *parts])
    held = np.flatnonzero((values > 0) & np.isfinite(values))
    return starts[held // LENGTH] + held % LENGTH, values[held]


def _limited(at: np.ndarray, weight: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Weights (n,) of which each window has SHARE at most."""
    window = np.searchsorted(starts, at, "right").clip(1) - 1
    totals = np.bincount(window, weight, minlength=len(starts))
    limited: np.ndarray = weight * np.minimum(1, SHARE / np.maximum(totals, 1e-9))[window]
    return limited


def _unclear(
    unit: Unit, around: Surroundings, seen: Match, config: PrepareConfig, say: Say
) -> None:
    """Say, or raise, that no motif is seen; a control may be of anything."""
    if around.cuts < LEAST:
        why = f"{around.cuts:,} cuts near the loci are too few to see the motif of an enzyme"
        fix = f"{LEAST:,} are needed. Give more loci, or the whole file"
    else:
        why = "its ends show neither the motif of Tn5 nor that of DNase I"
        fix = f"correlation {_best(seen)}; {LIKE} is needed, at one shift alone"
    if config.shift == "auto" and unit.key == "signal":
        raise DataError(
            f"{unit.where}: shift=auto: {why} ({fix}). Without shift=auto ends count as they are, "
            "or as bam.shift_plus and the like say."
        )
    if config.shift == "auto" or config.check:
        say(warning(f"{unit.name}: {why} ({fix}): ends count as they are"))


def _judged(unit: Unit, seen: Match, config: PrepareConfig) -> str:
    """What to say of a file with a clear motif. Raises DataError where shift=auto cannot help."""
    enzyme, kind, given = seen.enzyme, _kind(seen), unit.tracks[0].shift
    others = CANDIDATES if given in (None, (0, 0)) else CANDIDATES[-1:]
    shift, evidence = written(seen.shift), f"correlation {_scores(seen, others)}"
    if kind == "right":
        return f"{unit.name}: cuts of {enzyme}, at the middle of its motif ({evidence}): no shift"
    lies = f"the motif of {enzyme} lies {shift} from where ends are counted ({evidence})"
    means = {
        "raw": "they are not shifted yet",
        "near": "one strand is a base off" if 0 in seen.shift else "both strands are a base off",
        "twice": "they are shifted twice, or as cuts of Tn5 are and these are not"
        if enzyme != "Tn5" else "they are shifted twice",
        "odd": "which no known way of shifting gives",
    }[kind]  # fmt: skip
    if given is None:
        if not seen.is_stranded and kind in ("raw", "twice"):
            means = "they are not shifted, or twice, which a track of both strands cannot tell"
        fix = "A bigWig cannot be shifted here: give its reads or fragments, or make it again"
    else:
        total = (given[0] + seen.shift[0], given[1] + seen.shift[1])
        fix = unit.keys(total).capitalize()
    if config.shift == "auto":
        if given is not None and kind in ("raw", "near"):
            return f"{unit.name}: {lies}: {means}, and shift=auto adds {shift}"
        if given is not None:
            fix = (
                "Give the file as it was before it was shifted, or, if this is as it should be, "
                f"leave shift=auto out and {unit.keys(seen.shift)}"
            )
        raise DataError(f"{unit.where}: {lies}: {means}. {fix}.")
    auto = "" if given is None or kind in ("twice", "odd") or given != (0, 0) else ", or shift=auto"
    return f"warning: {unit.name}: {lies}: {means}. {fix}{auto}."


def _kind(seen: Match) -> str:
    """What a shift says of the ends: right, near, raw, twice or odd."""
    plus, minus = seen.shift
    if (plus, minus) == (0, 0):
        return "right"
    if abs(plus) <= 1 and abs(minus) <= 1:
        return "near"
    if 3 <= plus <= 5 and -6 <= minus <= -3 and seen.enzyme == "Tn5":
        return "raw"
    return "twice" if -5 <= plus <= -3 and 3 <= minus <= 6 else "odd"


def written(shift: Shift) -> str:
    """+4/-5"""
    return "/".join(f"{bases:+d}" if bases else "0" for bases in shift)


def _scores(seen: Match, others: Sequence[Shift]) -> str:
    """The correlation at the best shift and at others, and of the other enzymes."""
    shifts = dict.fromkeys([seen.shift, *others])
    said = [f"{seen.score(shift):.2f} at {written(shift)}" for shift in shifts]
    said += [
        f"{enzyme} {scores.max():.2f} at best"
        for enzyme, scores in seen.scores.items()
        if enzyme != seen.enzyme
    ]
    return ", ".join(said)


def _best(seen: Match) -> str:
    return ", ".join(f"{enzyme} {scores.max():.2f}" for enzyme, scores in seen.scores.items())


def _record(unit: Unit, around: Surroundings, seen: Match) -> dict[str, Any]:
    """What is recorded of a file: the shift that it needs, and by what that is seen."""
    shifts = [seen.shift, *CANDIDATES]
    return {
        "file": unit.name,
        "enzyme": seen.enzyme,
        "found": list(seen.shift),
        "given": unit.tracks[0].shift,
        "cuts": around.cuts,
        "correlations": {written(shift): round(seen.score(shift), 4) for shift in shifts},
    }


def _shown(around: Surroundings, seen: Match) -> list[list[list[float]]]:
    """By strand, the bases around where cuts are to be counted, to be drawn."""
    shifts = seen.shift if seen.is_stranded else (0,)
    firsts = [HALF + bases - SHOWN for bases in shifts]
    return [
        one[first : first + 2 * SHOWN + 1].round(3).tolist()
        for one, first in zip(around.frequencies(), firsts, strict=True)
    ]
