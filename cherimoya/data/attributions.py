"""The HDF5 file of attributions: written block by block, so that it can be continued."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cherimoya.data.hdf5 import CREATE
from cherimoya.data.plain import as_text
from cherimoya.errors import DataError

FORMAT = "cherimoya-attributions"
VERSION = 1


@dataclass(frozen=True, eq=False)
class Attributions:
    """n loci of W bases.

    sequence: (n, W) uint8 codes, 4 = N; chrom (n,) text; start (n,) int64, 0-based, -1 unknown
    hypothetical: target name -> (n, 4, W) float32, what each base would contribute there
    contributions: target name -> (n, W) float32, what the base that is there contributes
    settings: method, targets, models and loci, as JSON-ready values
    """

    sequence: np.ndarray
    chrom: np.ndarray
    start: np.ndarray
    hypothetical: dict[str, np.ndarray]
    contributions: dict[str, np.ndarray]
    settings: dict[str, Any]


class AttributionWriter:
    """An unfinished file. `done` loci of it are written."""

    def __init__(self, file: h5py.File) -> None:
        self._file = file

    @property
    def done(self) -> int:
        """Loci already attributed."""
        return int(self._file.attrs["done"])

    def append(self, hypothetical: Mapping[str, np.ndarray]) -> None:
        """Add the next loci: target name -> (k, 4, W)."""
        first = self.done
        for name, values in hypothetical.items():
            rows = slice(first, first + len(values))
            codes = self._file["sequence"][rows]
            self._file[f"hypothetical/{name}"][rows] = values
            self._file[f"contributions/{name}"][rows] = at_sequence(values, codes)
        self._file.attrs["done"] = first + len(next(iter(hypothetical.values())))
        self._file.flush()


def at_sequence(hypothetical: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """(n, W) of (n, 4, W) at the bases (n, W) that are there; 0 where there is an N."""
    padded = np.concatenate([hypothetical, np.zeros_like(hypothetical[:, :1])], axis=1)
    return np.take_along_axis(padded, codes[:, None].astype(np.int64), axis=1)[:, 0]


@contextmanager
def attribution_writer(
    path: Path,
    sequence: np.ndarray,
    chrom: np.ndarray,
    start: np.ndarray,
    targets: Sequence[str],
    settings: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> Iterator[AttributionWriter]:
    """A writer for `path`, which appears when all loci are in and the block ends well.

    What was written for the same `settings` before an interruption is kept. Raises DataError
    when the disk refuses.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    said = json.dumps(dict(settings), sort_keys=True)
    try:
        if not _continues(partial, said):
            _create(partial, sequence, chrom, start, targets, said)
        with h5py.File(partial, "r+", locking=False) as file:
            file.attrs["provenance"] = json.dumps(dict(provenance), sort_keys=True)
            yield AttributionWriter(file)
        os.replace(partial, path)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error}). Free space, or choose another folder."
        ) from None


def read_attributions(path: str | Path) -> Attributions:
    """What cherimoya-attribute wrote to `path`. Raises DataError if it is no such file."""
    path = Path(path)
    if not path.is_file() or not h5py.is_hdf5(path):
        raise DataError(f"{path}: no file of attributions. Make one with cherimoya-attribute.")
    with h5py.File(path, "r", locking=False) as file:
        if file.attrs.get("format") != FORMAT:
            raise DataError(f"{path}: format {file.attrs.get('format')!r}, expected {FORMAT!r}.")
        return Attributions(
            sequence=file["sequence"][:],
            chrom=as_text(file["chrom"][:]),
            start=file["start"][:],
            hypothetical={name: d[:] for name, d in file["hypothetical"].items()},
            contributions={name: d[:] for name, d in file["contributions"].items()},
            settings=json.loads(file.attrs["settings"]),
        )


def _continues(partial: Path, settings: str) -> bool:
    """Whether `partial` is readable and was begun with the same settings."""
    try:
        with h5py.File(partial, "r", locking=False) as file:
            return bool(file.attrs["settings"] == settings and file.attrs["done"] >= 0)
    except (OSError, KeyError):
        return False


def _create(
    partial: Path,
    sequence: np.ndarray,
    chrom: np.ndarray,
    start: np.ndarray,
    targets: Sequence[str],
    settings: str,
) -> None:
    n, width = sequence.shape
    with h5py.File(partial, "w", **CREATE) as file:
        file.attrs.update({"format": FORMAT, "version": VERSION, "settings": settings, "done": 0})
        file.create_dataset("sequence", data=sequence, compression="gzip", compression_opts=1)
        file.create_dataset("chrom", data=np.char.encode(chrom.astype(str), "utf-8"))
        file.create_dataset("start", data=start)
        file.create_dataset("end", data=np.where(start < 0, -1, start + width))
        for name in targets:
            for group, shape in (("hypothetical", (n, 4, width)), ("contributions", (n, width))):
                file.create_dataset(
                    f"{group}/{name}", shape, "f4", chunks=(1, *shape[1:]),
                    compression="gzip", compression_opts=1, shuffle=True,
                )  # fmt: skip
