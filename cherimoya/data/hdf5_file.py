"""HDF5 files, opened for reading whatever they are, or created."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from cherimoya.data.hdf5_probe import check_finishes, check_inside
from cherimoya.errors import CherimoyaError, DataError, printable
from cherimoya.util.files import check_readable

LIBRARY = "v108"  # whose files may have attributes over 64 KB: the provenance of many files


@contextmanager
def created(path: Path) -> Iterator[h5py.File]:
    """A new file to be written. Raises OSError where the disk refuses, at the end.

    The HDF5 library itself is told of no such error: it leaves out what it could not write as it
    closes a dataset that nothing refers to any more, or ends the process with a signal.
    """
    with _Disk(path) as disk:
        with h5py.File(disk, "w", libver=LIBRARY) as file:
            yield file
        if disk.error is not None:
            raise disk.error


class _Disk(io.RawIOBase):
    """A new file on the disk, whose errors are kept in place of raised."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115 - `close` closes it
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        left = memoryview(content)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            self.error = self.error or error
        return len(content)

    def truncate(self, size: int | None = None) -> int:
        try:
            return self._file.truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def readinto(self, content: Any) -> int:
        return self._file.readinto(content) or 0

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()


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
            check_inside(file, path)
            yield file
    except CherimoyaError:
        raise
    except Exception as error:  # of h5py and numpy, which have many kinds for damage
        said = printable(" ".join(str(error).split()), 200) or type(error).__name__
        raise DataError(
            f"{path}: truncated or damaged ({said}). Copy it again, or prepare it again."
        ) from None
