"""Plain HDF5 files: one-hot sequences and signal, under names that the user gives."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cherimoya.config.data import KeysConfig
from cherimoya.data.loci import Header, Loci, smallest_integers
from cherimoya.errors import DataError, printable
from cherimoya.genome.sequence import N_CODE
from cherimoya.util.console import counted

BLOCK = 2048
MOST_PACKED = 1100  # bytes that one byte of gzip can stand for, a little more than
MOST_UNWRITTEN = 1 << 26  # bytes of a dataset that need not be in its file
COUNT_TYPES = (np.uint8, np.int16, np.int32, np.float32)
PARTS = 10


def header(file: h5py.File, path: str | Path, keys: KeysConfig) -> Header:
    """The header of a plain file.

    Its sequence dataset is one-hot (n, 4, L), A C G T; a column of zeros is N. Its signal is
    (n, tracks, out). Windows come from the shapes, jitter is 0, and all tracks form one signal
    group. Without labels every locus is a peak. Without chromosomes the loci get the names
    part0 to part9 by their order, peaks and background each, so that splits can be chosen.
    """
    _check_shapes(file, path, keys)
    signal = file[keys.signal]
    n, tracks, length = signal.shape
    controls = file[keys.control].shape[1] if keys.control else 0
    label, chrom = np.ones(n, np.uint8), None
    if keys.chrom is not None:
        chrom = as_text(read_rows(file[keys.chrom], None))
    if keys.label is not None:
        fix = "Write those, or leave labels out of data.keys (label: null), and all are peaks."
        label = as_labels(file[keys.label], f"{path}: dataset {keys.label!r}", fix)
    return Header(
        n=n,
        in_window=file[keys.sequence].shape[2],
        out_window=length,
        max_jitter=0,
        track_names=[f"track{i}" for i in range(tracks)],
        control_names=[f"control{i}" for i in range(controls)],
        signal_groups=[tracks],
        control_groups=[controls] if controls else [],
        genome="unknown",
        provenance={"sources": [{"name": Path(path).name}], "keys": vars(keys)},
        signal_dtype=str(signal.dtype),
        truth_names=[],
        chrom=_parts(label) if chrom is None else chrom,
        label=label,
    )


def loci(
    file: h5py.File, path: str | Path, keys: KeysConfig, rows: np.ndarray | None = None
) -> Loci:
    """The loci of a plain file: all, or those at `rows`. Raises DataError."""
    described = header(file, path, keys).described(rows)
    unknown = np.full(len(described["label"]), -1, np.int64)
    control = None
    if keys.control:
        control = _counts(file[keys.control], rows, f"{path}: dataset {keys.control!r}")
    return Loci(
        **described,
        sequence=_codes(file[keys.sequence], rows, f"{path}: dataset {keys.sequence!r}"),
        signal=_counts(file[keys.signal], rows, f"{path}: dataset {keys.signal!r}"),
        control=control,
        start=unknown,
        end=unknown.copy(),
    )


def read_rows(dataset: h5py.Dataset, rows: np.ndarray | None) -> np.ndarray:
    """`dataset[rows]` in that order, read in whole blocks: far faster than h5py's own way.

    Raises DataError where the file is too small for what the dataset is said to hold.
    """
    stored, usual = dataset.id.get_storage_size(), dataset.compression in (None, "gzip", "lzf")
    if usual and dataset.nbytes > max(MOST_UNWRITTEN, MOST_PACKED * stored):
        raise DataError(
            f"{dataset.file.filename}: dataset {dataset.name[1:]!r} is said to hold "
            f"{dataset.nbytes:,} bytes, in {stored:,} of the file. Copy it again, or make it again."
        )
    if rows is None:
        return dataset[:]
    order = np.argsort(rows, kind="stable")
    ascending = np.asarray(rows)[order]
    found = np.empty((len(order), *dataset.shape[1:]), dataset.dtype)
    step = dataset.chunks[0] * max(1, BLOCK // dataset.chunks[0]) if dataset.chunks else BLOCK
    for low in range(0, len(dataset), step):
        first, last = np.searchsorted(ascending, (low, low + step))
        if first < last:
            start, stop = ascending[first], ascending[last - 1] + 1
            found[order[first:last]] = dataset[start:stop][ascending[first:last] - start]
    return found


def as_labels(dataset: h5py.Dataset, where: str, fix: str) -> np.ndarray:
    """(n,) uint8 of the 0 and 1, or false and true, in `dataset`. Raises DataError for others."""
    values, rule = read_rows(dataset, None), f"A label is 1 for a peak and 0 for background. {fix}"
    if values.ndim != 1 or values.dtype.kind not in "buif":
        raise DataError(
            f"{where} is {values.dtype} of shape {values.shape}, such as {_first(values)}. {rule}"
        )
    wrong = (values != 0) & (values != 1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"{where} holds {values[row]} at locus {row} ({int(wrong.sum())} such values). {rule}"
        )
    return values.astype(np.uint8)


def _first(values: np.ndarray) -> str:
    """The first of some values, for a message."""
    first = values.flat[0] if values.size else None
    first = first.item() if isinstance(first, np.generic) else first
    return repr(first.decode(errors="replace") if isinstance(first, bytes) else first)


def as_text(values: np.ndarray) -> np.ndarray:
    """(n,) byte strings, objects or whole numbers as a numpy text array. Raises ValueError."""
    if values.ndim != 1:
        raise ValueError(f"names of shape {values.shape}")
    if values.dtype.kind == "S":
        return np.char.decode(values, "utf-8")
    return np.array([v.decode() if isinstance(v, bytes) else str(v) for v in values.tolist()])


def listing(file: h5py.File) -> str:
    """The names and shapes of the datasets in `file`."""
    found: list[str] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found.append(f"{printable(name)} {item.shape}")

    file.visititems(visit)
    return ", ".join(found[:12]) or "no datasets"


def _check_shapes(file: h5py.File, path: str | Path, keys: KeysConfig) -> None:
    for key, name in vars(keys).items():
        if name is not None and not isinstance(file.get(name), h5py.Dataset):
            raise DataError(
                f"{path}: data.keys.{key}={name}: no such dataset. It holds {listing(file)}."
            )
    sequence, signal = file[keys.sequence], file[keys.signal]
    for name in (keys.sequence, keys.signal, keys.control):
        if name is not None and file[name].dtype.kind not in "buif":
            raise DataError(f"{path}: dataset {name!r} is {file[name].dtype}, not numbers.")
    if sequence.ndim != 3 or sequence.shape[1] != 4:
        raise DataError(
            f"{path}: dataset {keys.sequence!r} has shape {sequence.shape}; one-hot sequences "
            "must be (loci, 4, length), A C G T. Transpose it."
        )
    if len(sequence) == 0:
        raise DataError(f"{path}: dataset {keys.sequence!r} holds no loci.")
    if signal.ndim != 3 or signal.shape[2] > sequence.shape[2]:
        raise DataError(
            f"{path}: dataset {keys.signal!r} has shape {signal.shape}; it must be (loci, tracks, "
            f"length), no longer than the sequences ({sequence.shape[2]})."
        )
    if (sequence.shape[2] - signal.shape[2]) % 2:
        raise DataError(
            f"{path}: {keys.sequence!r} is {sequence.shape[2]} long and {keys.signal!r} "
            f"{signal.shape[2]}: they must differ by an even number. Drop one base of the longer."
        )
    if keys.control and (file[keys.control].ndim, file[keys.control].shape[-1]) != (
        3,
        sequence.shape[2],
    ):
        raise DataError(
            f"{path}: dataset {keys.control!r} has shape {file[keys.control].shape}; it must be "
            f"(loci, control tracks, {sequence.shape[2]}), as long as the sequences."
        )
    for name in vars(keys).values():
        if name is not None and len(file[name]) != len(sequence):
            raise DataError(
                f"{path}: dataset {name!r} has {counted(len(file[name]), 'row')} and "
                f"{keys.sequence!r} {len(sequence)}: they must agree."
            )


def _codes(dataset: h5py.Dataset, rows: np.ndarray | None, where: str) -> np.ndarray:
    """One-hot (n, 4, L) as codes (n, L), a block of loci at a time."""
    wanted = np.arange(len(dataset)) if rows is None else np.asarray(rows)
    codes = np.empty((len(wanted), dataset.shape[2]), np.uint8)
    for low in range(0, len(wanted), BLOCK):
        block = read_rows(dataset, wanted[low : low + BLOCK])
        set_ = block.sum(axis=1, dtype=np.float32)
        if not (np.isin(block, (0, 1)).all() and set_.max(initial=0) <= 1):
            row = int(np.argmax(((block != 0) & (block != 1)).any((1, 2)) | (set_ > 1).any(1)))
            raise DataError(
                f"{where}: locus {wanted[low + row]} is not one-hot. Each base must be one 1 "
                "among four, or four zeros for N."
            )
        codes[low : low + BLOCK] = np.where(set_ == 0, N_CODE, block.argmax(axis=1))
    return codes


def _counts(dataset: h5py.Dataset, rows: np.ndarray | None, where: str) -> np.ndarray:
    values = counts(read_rows(dataset, rows), where)
    return values if values.dtype.kind == "f" else smallest_integers(values)


def counts(values: np.ndarray, where: str) -> np.ndarray:
    """`values` in a type that training works with, those of other types converted.

    Raises DataError, which names `where`, for what holds no numbers.
    """
    if values.dtype in COUNT_TYPES and values.dtype.isnative:
        return values
    if values.dtype.kind in "bui":
        return smallest_integers(values)
    return numbers(values, where)


def numbers(values: np.ndarray, where: str) -> np.ndarray:
    """`values` as float32. Raises DataError, which names `where`, for what holds no numbers."""
    if values.dtype.kind not in "buif":
        raise DataError(f"{where} is {values.dtype}: it must hold numbers.")
    with np.errstate(over="ignore"):  # what is too large is refused later
        return values.astype(np.float32, copy=False)


def positions(values: np.ndarray, where: str) -> np.ndarray:
    """(n,) whole numbers as int64. Raises DataError, which names `where`, for anything else."""
    if values.ndim != 1 or values.dtype.kind not in "ui":
        raise DataError(
            f"{where} is {values.dtype} of shape {values.shape}: it must hold positions."
        )
    return values.astype(np.int64)


def _parts(label: np.ndarray) -> np.ndarray:
    """part0 to part9 by order, dealt among peaks and among background alike."""
    part = np.zeros(len(label), np.int64)
    for value in (0, 1):
        rows = np.flatnonzero(label == value)
        part[rows] = np.arange(len(rows)) * PARTS // max(1, len(rows))
    return np.char.add("part", part.astype(str))
