"""The HDF5 file of loci: its format, an atomic writer and a validated reader."""

import json
import math
import zlib
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cherimoya.config.data import KeysConfig
from cherimoya.data import plain
from cherimoya.data.hdf5_file import created, opened
from cherimoya.data.loci import Header, Loci, check
from cherimoya.errors import DataError, printable
from cherimoya.util.files import atomic_path, disk_errors
from cherimoya.util.marks import checked_digest

FORMAT = "cherimoya-hdf5"
VERSION = 1
CHUNK_BYTES = 1 << 18
LEVEL = 1  # of gzip
AHEAD = 16  # chunks in memory for each thread
REQUIRED = ("sequence", "signal", "label", "chrom", "start", "end")
NUMBERS = ("in_window", "out_window", "max_jitter")
LISTS = ("track_names", "control_names", "signal_groups", "control_groups")
OPTIONAL = ("group_names", "group_depths")  # which not every file has


def write(path: str | Path, loci: Loci) -> Path:
    """Write `loci` to `path`, which appears whole or not at all.

    Raises DataError when `loci` is not valid, or when the folder or the disk refuses.
    """
    check(loci, str(path))
    return write_columns(path, loci.described(), loci.arrays())


def write_columns(
    path: str | Path, described: Mapping[str, Any], columns: Mapping[str, Any], threads: int = 1
) -> Path:
    """Write valid `columns` to `path`, which appears whole or not at all.

    described: NUMBERS, LISTS, genome and provenance; columns: one row for each locus, arrays or
    what reads like one, a slice of rows at a time; threads: that compress at once

    Raises DiskError when the folder or the disk refuses.
    """
    path = Path(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary, created(temporary) as file:
            _write_attributes(file, described)
            with ThreadPoolExecutor(threads) as pool:
                for name, values in columns.items():
                    _write_dataset(file, name, values, pool, AHEAD * threads)
    return path


def read_header(path: str | Path, keys: KeysConfig | None = None) -> Header:
    """The header of the file at `path`. Raises DataError as `read` does, values excepted."""
    with opened(path) as file:
        if _is_plain(file, path, keys):
            return plain.header(file, path, keys)  # type: ignore[arg-type]
        _check_present(file, path)
        return _header(file, path)


def is_prepared(path: str | Path) -> bool:
    """Whether the file is in this package's own format. Raises DataError if it cannot be read."""
    with opened(path) as file:
        return bool(file.attrs.get("format") == FORMAT)


def read(path: str | Path, rows: np.ndarray | None = None, keys: KeysConfig | None = None) -> Loci:
    """The loci of the file at `path`: all of them, or those at `rows` (n,), in that order.

    `keys` names the datasets of a plain file with one-hot sequences; a file in this package's
    own format ignores it. See `plain` for what a plain file must hold.

    Raises DataError, naming the file, the dataset, the value and the fix: missing, empty, not
    HDF5, truncated, another format or version, a dataset missing, shapes that disagree, codes
    over 4, negative, NaN or infinite signal.
    """
    with opened(path) as file:
        if _is_plain(file, path, keys):
            loci = plain.loci(file, path, keys, rows)  # type: ignore[arg-type]
        else:
            loci = _read_own(file, path, rows)
    check(loci, str(path))
    return loci


def fingerprint(path: str | Path) -> str:
    """The first 16 hex digits of the SHA-256 of the file's bytes.

    Raises DataError where the mark that its preparation left beside it is of other bytes.
    """
    return checked_digest(Path(path))[:16]


def _write_attributes(file: h5py.File, described: Mapping[str, Any]) -> None:
    file.attrs["format"] = FORMAT
    file.attrs["version"] = VERSION
    file.attrs["genome"] = described["genome"]
    for name in NUMBERS:
        file.attrs[name] = described[name]
    for name in (*LISTS, *(name for name in OPTIONAL if described.get(name))):
        file.attrs[name] = json.dumps(list(described[name]))
    file.attrs["provenance"] = json.dumps(dict(described["provenance"]), sort_keys=True)


def _write_dataset(file: h5py.File, name: str, values: Any, pool: Executor, at_once: int) -> None:
    """Compress in the threads of `pool`, since HDF5's own filters use one; `at_once` chunks."""
    if values.dtype.kind == "U":
        values = np.char.encode(values[:], "utf-8")
    n, row_shape = values.shape[0], values.shape[1:]
    row_bytes = values.dtype.itemsize * math.prod(row_shape)
    rows = min(n, max(1, CHUNK_BYTES // max(1, row_bytes)))
    shuffle = values.dtype.itemsize > 1 and values.dtype.kind != "S"
    dataset = file.create_dataset(
        name, values.shape, values.dtype, chunks=(rows, *row_shape),
        compression="gzip", compression_opts=LEVEL, shuffle=shuffle,
    )  # fmt: skip

    def compressed(first: int) -> bytes:
        chunk = values[first : first + rows]
        if len(chunk) < rows:  # the file holds whole chunks
            chunk = np.concatenate([chunk, np.zeros((rows - len(chunk), *row_shape), chunk.dtype)])
        if shuffle:
            flat = np.ascontiguousarray(chunk).reshape(-1, 1)
            chunk = flat.view(np.uint8).T
        return zlib.compress(chunk.tobytes(), LEVEL)

    starts = list(range(0, n, rows))
    for begin in range(0, len(starts), at_once):
        some = starts[begin : begin + at_once]
        for first, data in zip(some, pool.map(compressed, some), strict=True):
            dataset.id.write_direct_chunk((first, *(0 for _ in row_shape)), data)


def _read_own(file: h5py.File, path: str | Path, rows: np.ndarray | None) -> Loci:
    _check_present(file, path)
    header = _header(file, path)
    names = [name for name in ("sequence", "signal", "control", "start", "end") if name in file]
    arrays: dict[str, Any] = {"control": None}
    arrays |= {name: plain.read_rows(file[name], rows) for name in names}
    for name in ("signal", "control"):
        if arrays[name] is not None:
            arrays[name] = plain.counts(arrays[name], f"{path}: dataset {name!r}")
    for name in ("start", "end"):
        arrays[name] = plain.positions(arrays[name], f"{path}: dataset {name!r}")
    truth = {name: plain.read_rows(file[f"truth/{name}"], rows) for name in header.truth_names}
    if "expected" in truth:
        truth["expected"] = plain.numbers(truth["expected"], f"{path}: dataset 'truth/expected'")
    return Loci(**header.described(rows), **arrays, truth=truth)


def _header(file: h5py.File, path: str | Path) -> Header:
    return Header(
        n=len(file["sequence"]),
        **_described(file, path),
        signal_dtype=str(file["signal"].dtype),
        truth_names=sorted(file["truth"]) if "truth" in file else [],
        chrom=plain.as_text(plain.read_rows(file["chrom"], None)),
        label=plain.as_labels(file["label"], f"{path}: dataset 'label'", "Prepare it again."),
    )


def _described(file: h5py.File, path: str | Path) -> dict[str, Any]:
    """The attributes. Raises DataError for one that is missing, or not what it should be."""
    try:
        found: dict[str, Any] = {name: int(file.attrs[name]) for name in NUMBERS}
        there = [name for name in OPTIONAL if name in file.attrs]
        found |= {name: json.loads(file.attrs[name]) for name in (*LISTS, *there, "provenance")}
        found["genome"] = str(file.attrs["genome"])
    except (KeyError, ValueError, TypeError) as error:
        raise _damaged_attribute(path, str(error)) from None
    for name in NUMBERS:
        if found[name] < (name != "max_jitter"):
            raise _damaged_attribute(path, f"{name}={found[name]}")
    for name in LISTS:
        kind = int if name.endswith("groups") else str
        if not (isinstance(found[name], list) and all(type(v) is kind for v in found[name])):
            raise _damaged_attribute(path, f"{name}={found[name]!r}")
    for name in there:
        kinds = (str,) if name == "group_names" else (int, float)
        held, n = found[name], len(found["signal_groups"])
        if not (
            isinstance(held, list) and len(held) == n and all(isinstance(v, kinds) for v in held)
        ):
            raise _damaged_attribute(path, f"{name}={held!r}")
    if not isinstance(found["provenance"], dict):
        raise _damaged_attribute(path, f"provenance={found['provenance']!r}")
    return found


def _damaged_attribute(path: str | Path, what: str) -> DataError:
    said = printable(what, 200)
    return DataError(f"{path}: its attributes are damaged ({said}). Prepare the file again.")


def _check_present(file: h5py.File, path: str | Path) -> None:
    version = file.attrs.get("version")
    if version != VERSION:
        raise DataError(
            f"{path}: {FORMAT} version {printable(str(version))}, but this program reads version "
            f"{VERSION}. Prepare the file again, or install the release that wrote it."
        )
    for name in REQUIRED:
        if name not in file:
            raise DataError(
                f"{path}: dataset {name!r} is missing. It holds {plain.listing(file)}. "
                "Prepare the file again."
            )
    inside = [f"truth/{name}" for name in file["truth"]] if "truth" in file else []
    for name in (*REQUIRED, *(["control"] if "control" in file else []), *inside):
        if not isinstance(file[name], h5py.Dataset) or not file[name].shape:
            raise DataError(f"{path}: {name!r} is no dataset with rows. Prepare the file again.")
        if file[name].shape[:1] != file["sequence"].shape[:1]:
            raise DataError(
                f"{path}: dataset {name!r} has shape {file[name].shape} and 'sequence' has "
                f"{file['sequence'].shape}: they must agree on the number of loci. Prepare the "
                "file again."
            )


def _is_plain(file: h5py.File, path: str | Path, keys: KeysConfig | None) -> bool:
    found = file.attrs.get("format")
    if found == FORMAT:
        return False
    if keys is not None:
        return True
    said = "no format attribute" if found is None else f"format {printable(str(found))!r}"
    raise DataError(
        f"{path}: {said}, expected {FORMAT!r}. It holds {plain.listing(file)}. Make a file with "
        "cherimoya-prepare, or name the datasets of a plain one: "
        "'data.keys={sequence: X, signal: y, control: null, label: null, chrom: null}'."
    )
