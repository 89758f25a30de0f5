"""Loci in memory: sequence codes, signal and where they came from, and what makes them valid."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from cherimoya.errors import DataError
from cherimoya.genome.sequence import N_CODE
from cherimoya.util.console import counted


@dataclass(frozen=True, eq=False, kw_only=True)
class Described:
    """What is known of n loci beside their sequence and signal.

    label: (n,) uint8, 1 peak, 0 background
    chrom: (n,) text
    signal_groups, control_groups: channels in each group; [2] is a stranded pair
    provenance: where the numbers came from, as JSON-ready values
    group_names: of the signal groups, or none
    group_depths: counts of each signal group on the whole genome, or none where unknown
    """

    label: np.ndarray
    chrom: np.ndarray
    in_window: int
    out_window: int
    max_jitter: int
    track_names: list[str]
    control_names: list[str]
    signal_groups: list[int]
    control_groups: list[int]
    genome: str
    provenance: Mapping[str, Any]
    group_names: list[str] = field(default_factory=list)
    group_depths: list[float] = field(default_factory=list)

    def described(self, rows: np.ndarray | None = None) -> dict[str, Any]:
        """These fields by name, of all loci or of those at `rows`."""
        every = slice(None) if rows is None else rows
        found = {f.name: getattr(self, f.name) for f in fields(Described)}
        return found | {"label": self.label[every], "chrom": self.chrom[every]}


@dataclass(frozen=True, eq=False, kw_only=True)
class Header(Described):
    """What a file holds, without its sequence and signal."""

    n: int
    signal_dtype: str
    truth_names: list[str]

    def chromosomes(self) -> dict[str, tuple[int, int]]:
        """Chromosome -> (peaks, background), in the file's order."""
        counts = {}
        for name in dict.fromkeys(self.chrom.tolist()):
            labels = self.label[self.chrom == name]
            counts[name] = (int((labels == 1).sum()), int((labels == 0).sum()))
        return counts


@dataclass(frozen=True, eq=False, kw_only=True)
class Loci(Described):
    """n loci with J = `max_jitter` bases of margin on each side of both windows.

    sequence: (n, in_window + 2J) uint8, codes 0-3 = A C G T, 4 = N
    signal: (n, tracks, out_window + 2J) whole numbers or float32, counts at each base
    control: (n, control tracks, in_window + 2J), or None
    start, end: (n,) int64, the genomic interval of the stored sequence, 0-based, half open;
        -1 where the file does not say
    truth: what a simulation knows, such as expected (n, tracks, out_window + 2J) float32
    """

    sequence: np.ndarray
    signal: np.ndarray
    control: np.ndarray | None
    start: np.ndarray
    end: np.ndarray
    truth: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sequence)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays with one row for each locus, by dataset name; truth as truth/<name>."""
        found = {name: getattr(self, name) for name in ("sequence", "signal", "control", "label")}
        found |= {name: getattr(self, name) for name in ("chrom", "start", "end")}
        found |= {f"truth/{name}": values for name, values in self.truth.items()}
        return {name: values for name, values in found.items() if values is not None}

    def totals(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Counts of the loci at `rows`, without jitter, by signal group: (n, groups) float64."""
        j, ends = self.max_jitter, np.cumsum(self.signal_groups)[:-1]
        signal = self.signal[rows][:, :, j : j + self.out_window]
        groups = np.split(signal, ends, axis=1)
        return np.stack([g.sum(axis=(1, 2), dtype=np.float64) for g in groups], axis=1)

    def take(self, rows: np.ndarray) -> "Loci":
        """The loci at `rows`, in that order."""
        taken = {name: values[rows] for name, values in self.arrays().items()}
        truth = {name: taken.pop(f"truth/{name}") for name in self.truth}
        return replace(self, **taken, truth=truth)


def without_controls(loci: Loci) -> Loci:
    """The loci without control tracks."""
    return replace(loci, control=None, control_names=[], control_groups=[])


def crop(
    loci: Loci,
    in_window: int | None = None,
    out_window: int | None = None,
    max_jitter: int | None = None,
    where: str = "the data file",
) -> Loci:
    """`loci` with smaller, equally centred windows; None keeps the stored size.

    Jitter may grow where the windows shrink, since only window + 2 x jitter must fit.
    Raises DataError naming the data.* keys and `where` when more is asked than is stored.
    """
    wanted_in, wanted_out, jitter = crop_sizes(loci, in_window, out_window, max_jitter, where)
    length, stored = wanted_in + 2 * jitter, loci.sequence.shape[1]
    left = stored // 2 - length // 2  # keeps base stored // 2 at the centre
    cut_in = slice(left, left + length)
    profile, wanted = loci.signal.shape[2], wanted_out + 2 * jitter
    out_left = profile // 2 - wanted // 2
    cut_out = slice(out_left, out_left + wanted)
    return replace(
        loci,
        sequence=loci.sequence[:, cut_in],
        signal=loci.signal[:, :, cut_out],
        control=None if loci.control is None else loci.control[:, :, cut_in],
        start=np.where(loci.start < 0, -1, loci.start + left),
        end=np.where(loci.end < 0, -1, loci.start + left + length),
        in_window=wanted_in,
        out_window=wanted_out,
        max_jitter=jitter,
        truth={
            name: values[..., cut_out] if values.shape[2:] == (profile,) else values
            for name, values in loci.truth.items()
        },
    )


def crop_sizes(
    held: Described,
    in_window: int | None,
    out_window: int | None,
    max_jitter: int | None,
    where: str,
) -> tuple[int, int, int]:
    """The windows and jitter that `crop` gives; raises DataError as it does."""
    wanted_in = held.in_window if in_window is None else in_window
    wanted_out = held.out_window if out_window is None else out_window
    jitter = held.max_jitter if max_jitter is None else max_jitter
    if wanted_out > wanted_in or (wanted_in - wanted_out) % 2:
        raise DataError(
            f"data.in_window={wanted_in} and data.out_window={wanted_out}: the input must be at "
            f"least as long as the output and exceed it by an even number of bases. {where} "
            f"stores {held.in_window} and {held.out_window}: set both keys."
        )
    _check_fits(held, "in_window", wanted_in, jitter, where)
    _check_fits(held, "out_window", wanted_out, jitter, where)
    return wanted_in, wanted_out, jitter


def check(loci: Loci, where: str) -> None:
    """Raise DataError when the arrays disagree with each other or hold impossible values."""
    _check_shapes(loci, where)
    _check_values(loci, where)


def check_groups(groups: list[int], names: list[str], tracks: int, key: str, where: str) -> None:
    """Raise DataError unless `groups` add up to `tracks` and each track has a name."""
    if sum(groups) != tracks or any(size < 1 for size in groups):
        raise DataError(
            f"{where}: {key}={groups} adds up to {counted(sum(groups), 'track')}, but there "
            f"{'is' if tracks == 1 else 'are'} {tracks}. "
            "Each group is its number of channels, such as [2] for a stranded pair."
        )
    if max(groups, default=0) > 2:
        raise DataError(
            f"{where}: {key}={groups} has a group of {max(groups)} tracks. A group is one "
            "track, or the two strands of one sample, which a reverse complement exchanges. All "
            "tracks of a plain file are one group: give each sample a group of its own with "
            "cherimoya-prepare, 'signal=[[a.bw],[b.bw]]', or a file of its own."
        )
    if len(names) != tracks:
        raise DataError(
            f"{where}: {counted(len(names), 'track name')} {names} for {counted(tracks, 'track')}."
        )


def smallest_integers(values: np.ndarray) -> np.ndarray:
    """`values` in the smallest of uint8, int16, int32 that holds them, or float32 otherwise.

    uint16 is left out because torch cannot index it.
    """
    if values.dtype.kind == "f" and not np.array_equal(values, np.rint(values)):
        return values.astype(np.float32, copy=False)
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    for dtype in (np.uint8, np.int16, np.int32):
        limits = np.iinfo(dtype)
        if limits.min <= low and high <= limits.max:
            return values.astype(dtype, copy=False)
    return values.astype(np.float32, copy=False)


def _check_fits(held: Described, name: str, window: int, jitter: int, where: str) -> None:
    stored = getattr(held, name)
    if window + 2 * jitter > stored + 2 * held.max_jitter:
        room = (stored + 2 * held.max_jitter - window) // 2
        smaller = f"Set data.max_jitter={room} or less" if room >= 0 else f"Set data.{name} smaller"
        raise DataError(
            f"data.{name}={window} with data.max_jitter={jitter} needs {window + 2 * jitter} bases "
            f"a locus; {where} stores {stored + 2 * held.max_jitter} ({name}={stored}, "
            f"max_jitter={held.max_jitter}). {smaller}, or prepare the file again with "
            f"{name}={window} max_jitter={jitter}."
        )


def _check_shapes(loci: Loci, where: str) -> None:
    n = len(loci.sequence)
    if n == 0:
        raise DataError(f"{where}: no loci in dataset 'sequence'. Prepare the file again.")
    for name, values in loci.arrays().items():
        if values.ndim == 0 or len(values) != n:
            raise DataError(
                f"{where}: dataset {name!r} has shape {values.shape}, but 'sequence' has {n} "
                "rows: one row for each locus is needed. Prepare the file again."
            )
    for name in ("label", "chrom", "start", "end"):
        _check_shape(name, getattr(loci, name), (n,), where)
    tracks = loci.signal.shape[1] if loci.signal.ndim == 3 else 0
    _check_shape("sequence", loci.sequence, (n, loci.in_window + 2 * loci.max_jitter), where)
    _check_shape("signal", loci.signal, (n, tracks, loci.out_window + 2 * loci.max_jitter), where)
    check_groups(loci.signal_groups, loci.track_names, tracks, "signal_groups", where)
    controls = 0
    if loci.control is not None:
        controls = loci.control.shape[1] if loci.control.ndim == 3 else 0
        length = loci.in_window + 2 * loci.max_jitter
        _check_shape("control", loci.control, (n, controls, length), where)
    check_groups(loci.control_groups, loci.control_names, controls, "control_groups", where)
    for name, values in loci.truth.items():
        if values.dtype.kind not in "buif":
            raise DataError(f"{where}: dataset {f'truth/{name}'!r} is {values.dtype}, not numbers.")
    if "expected" in loci.truth:
        _check_shape("truth/expected", loci.truth["expected"], loci.signal.shape, where)


def _check_shape(name: str, values: np.ndarray, expected: tuple[int, ...], where: str) -> None:
    if values.shape != expected:
        raise DataError(
            f"{where}: dataset {name!r} has shape {values.shape}; the windows and jitter ask for "
            f"{expected}. Prepare the file again."
        )


def _check_values(loci: Loci, where: str) -> None:
    if loci.sequence.dtype != np.uint8:
        raise DataError(
            f"{where}: dataset 'sequence' is {loci.sequence.dtype}. It must be uint8 with codes "
            "0-3 for A C G T and 4 for N."
        )
    if loci.sequence.max(initial=0) > N_CODE:
        row = int(np.argmax((loci.sequence > N_CODE).any(axis=1)))
        raise DataError(
            f"{where}: dataset 'sequence' holds "
            f"{loci.sequence[row].max()} at locus {row}. It must be uint8 with codes 0-3 for "
            "A C G T and 4 for N."
        )
    if loci.label.max() > 1:
        raise DataError(f"{where}: dataset 'label' holds {loci.label.max()}: only 1 (peak) and 0.")
    for name in ("signal", "control"):
        values = getattr(loci, name)
        if values is not None:
            _check_counts(name, values, where)


def _check_counts(name: str, values: np.ndarray, where: str) -> None:
    if values.dtype.kind not in "uif":
        raise DataError(f"{where}: dataset {name!r} is {values.dtype}: it must hold numbers.")
    low, high = values.min(initial=0), values.max(initial=0)  # NaN comes through both
    if low >= 0 and np.isfinite(high):
        return
    bad = (values < 0) | ~np.isfinite(values)
    row, track, base = np.argwhere(bad)[0]
    raise DataError(
        f"{where}: dataset {name!r} holds {values[row, track, base]} at locus {row}, track "
        f"{track}, base {base} ({int(bad.sum())} such values). Counts must be 0 or more: fix the "
        "bigWig (for a minus strand written as negative values, its absolute values)."
    )
