"""HDF5 files opened for reading, whatever they are."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from cherimoya.data.hdf5_probe import check_finishes
from cherimoya.errors import CherimoyaError, DataError, printable
from cherimoya.util.files import check_readable


@contextmanager
def opened(path: str | Path) -> Iterator[h5py.File]:
    """The file open for reading; what h5py says about damage becomes a DataError."""
    path = Path(path)
    check_readable(path, "data.path")
    if not path.is_file():
        raise DataError(
            f"data.path={path}: {'is a folder' if path.is_dir() else 'no such file'}. Make one "
            "with cherimoya-prepare, or set data.path to an existing HDF5 file."
        )
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty. Prepare it again, or copy it again.")
    if not h5py.is_hdf5(path):
        raise DataError(
            f"{path}: not an HDF5 file. Set data.path to a file made by cherimoya-prepare."
        )
    check_finishes(path)
    try:
        # a finished file never changes, and network file systems often refuse locks
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except CherimoyaError:
        raise
    except Exception as error:  # of h5py and numpy, which have many kinds for damage
        said = printable(" ".join(str(error).split()), 200) or type(error).__name__
        raise DataError(
            f"{path}: truncated or damaged ({said}). Copy it again, or prepare it again."
        ) from None
