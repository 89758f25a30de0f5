"""The HDF5 file of attributions."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cherimoya.data.hdf5_file import created
from cherimoya.data.hdf5_probe import check_finishes, check_inside
from cherimoya.data.plain import as_text
from cherimoya.errors import DataError
from cherimoya.genome.sequence import N_CODE
from cherimoya.util.files import check_readable, disk_errors
from cherimoya.util.marks import mark_of, marked_path, not_as_written, read_mark

FORMAT = "cherimoya-attributions"
VERSION = 1
BLOCK = 512  # loci in memory
# what h5py raises for a damaged file, and what is done with it here
DAMAGE = (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, MemoryError)


@dataclass(frozen=True, eq=False)
class Attributions:
    """n loci of W bases.

    sequence: (n, W) uint8 codes, 4 = N; chrom (n,) text; start (n,) int64, 0-based, -1 unknown
    hypothetical: target name -> (n, 4, W) float32, what each base would contribute there
    contributions: target name -> (n, W) float32, what the base that is there contributes
    settings: method, targets, models and loci, as JSON-ready values
    intervals: target name -> (n, 2, W) float32, ends of the 95 % interval of the contributions over
        models, of a contrast by several
    dependency: target name -> (n, W, W) float32, at (i, j) how much the effect of base j depends on
        base i, with method=dependency
    """

    sequence: np.ndarray
    chrom: np.ndarray
    start: np.ndarray
    hypothetical: dict[str, np.ndarray]
    contributions: dict[str, np.ndarray]
    settings: dict[str, Any]
    intervals: dict[str, np.ndarray] = field(default_factory=dict)
    dependency: dict[str, np.ndarray] = field(default_factory=dict)


def at_sequence(hypothetical: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """(n, W) of (n, 4, W) at the bases (n, W) that are there; 0 where there is an N."""
    padded = np.concatenate([hypothetical, np.zeros_like(hypothetical[:, :1])], axis=1)
    return np.take_along_axis(padded, codes[:, None].astype(np.int64), axis=1)[:, 0]


def write_attributions(
    path: Path,
    sequence: np.ndarray,
    chrom: np.ndarray,
    start: np.ndarray,
    hypothetical: Mapping[str, np.ndarray],
    settings: Mapping[str, Any],
    provenance: Mapping[str, Any],
    intervals: Mapping[str, np.ndarray] | None = None,
    dependency: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write attributions, see `Attributions`, to `path`, which appears whole, with its mark.

    Raises DiskError when the disk refuses.
    """
    n, width = sequence.shape
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        marked = marked_path(path, {"settings": settings})
        with marked as temporary, created(temporary) as file:
            file.attrs.update({"format": FORMAT, "version": VERSION, "done": n})
            file.attrs["settings"] = json.dumps(dict(settings), sort_keys=True)
            file.attrs["provenance"] = json.dumps(dict(provenance), sort_keys=True)
            file.create_dataset("sequence", data=sequence, compression="gzip", compression_opts=1)
            file.create_dataset("chrom", data=np.char.encode(chrom.astype(str), "utf-8"))
            file.create_dataset("start", data=start)
            file.create_dataset("end", data=np.where(start < 0, -1, start + width))
            for name, values in hypothetical.items():
                _write_target(file, name, values, sequence)
            for group, tables in (("intervals", intervals), ("dependency", dependency)):
                for name, values in (tables or {}).items():
                    file.create_dataset(f"{group}/{name}", data=values, compression="gzip")
    return path


def _write_target(file: h5py.File, name: str, values: np.ndarray, sequence: np.ndarray) -> None:
    """What each base would contribute, and what the base that is there does, BLOCK loci a time."""
    n, width = sequence.shape
    made = [
        file.create_dataset(
            f"{group}/{name}", shape, "f4", chunks=(1, *shape[1:]),
            compression="gzip", compression_opts=1, shuffle=True,
        )
        for group, shape in (("hypothetical", (n, 4, width)), ("contributions", (n, width)))
    ]  # fmt: skip
    for first in range(0, n, BLOCK):
        rows = slice(first, first + BLOCK)
        made[0][rows] = values[rows]
        made[1][rows] = at_sequence(values[rows], sequence[rows])


def read_attributions(path: str | Path) -> Attributions:
    """What cherimoya-attribute wrote to `path`. Raises DataError for other or damaged files.

    One with a mark beside it is opened only if it is as it was written, and another one only if
    HDF5, which damage can hang, gets through it.
    """
    path = Path(path)
    check_readable(path, "attributions")
    mark = read_mark(mark_of(path))
    if path.is_file() and mark is not None and mark.damaged():
        raise DataError(
            f"{path}: {not_as_written(mark)}. Copy it again, or attribute again with "
            "overwrite=true."
        )
    if not path.is_file() or not h5py.is_hdf5(path):
        raise DataError(f"{path}: no file of attributions. Make one with cherimoya-attribute.")
    if mark is None:
        check_finishes(path)
    try:
        with h5py.File(path, "r", locking=False) as file:
            check_inside(file, path)
            if file.attrs.get("format") != FORMAT:
                raise DataError(
                    f"{path}: format {file.attrs.get('format')!r}, expected {FORMAT!r}."
                )
            return _read(file)
    except DAMAGE as error:
        said = " ".join(str(error).split())[:120]
        raise DataError(
            f"{path}: truncated or damaged ({said}). Copy it again, or attribute again with "
            "overwrite=true."
        ) from None


def _read(file: h5py.File) -> Attributions:
    n, width = file["sequence"].shape
    groups = {name: dict(file[name]) for name in ("hypothetical", "contributions")}
    if (
        not n
        or not width
        or not groups["hypothetical"]
        or (list(groups["hypothetical"]) != list(groups["contributions"]))
    ):
        raise ValueError("no loci, or no targets")
    shapes = {"sequence": (n, width), "chrom": (n,), "start": (n,)}
    shapes |= {f"hypothetical/{name}": (n, 4, width) for name in groups["hypothetical"]}
    shapes |= {f"contributions/{name}": (n, width) for name in groups["contributions"]}
    intervals, dependency = (
        dict(file[name]) if name in file else {} for name in ("intervals", "dependency")
    )
    shapes |= {f"intervals/{name}": (n, 2, width) for name in intervals}
    shapes |= {f"dependency/{name}": (n, width, width) for name in dependency}
    for name, shape in shapes.items():  # before they are read: damage can make them huge
        if file[name].shape != shape:
            raise ValueError(f"{name} has shape {file[name].shape}, not {shape}")
    attributions = Attributions(
        sequence=file["sequence"][:],
        chrom=as_text(file["chrom"][:]),
        start=file["start"][:],
        hypothetical={name: d[:] for name, d in groups["hypothetical"].items()},
        contributions={name: d[:] for name, d in groups["contributions"].items()},
        settings=json.loads(file.attrs["settings"]),
        intervals={name: d[:] for name, d in intervals.items()},
        dependency={name: d[:] for name, d in dependency.items()},
    )
    _check(attributions)
    return attributions


def _check(attributions: Attributions) -> None:
    if attributions.sequence.dtype != np.uint8 or attributions.sequence.max() > N_CODE:
        raise ValueError("sequence holds other codes than 0 to 4")
    if attributions.start.dtype.kind not in "iu" or attributions.start.min() < -1:
        raise ValueError("start holds positions that cannot be")
    held = (
        attributions.hypothetical, attributions.contributions, attributions.intervals,
        attributions.dependency,
    )  # fmt: skip
    for values in (value for one in held for value in one.values()):
        if values.dtype.kind != "f" or not np.isfinite(values).all():
            raise ValueError("contributions are not finite numbers")
    if not isinstance(attributions.settings, dict):
        raise ValueError("settings are no table")
