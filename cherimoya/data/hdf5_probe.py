"""HDF5 files looked through by another process, before this one reads them.

In a damaged file the HDF5 library can run in circles for ever, or crash, and nothing in Python can
stop it. So a helper process touches first what a reader will touch: links, attributes, the index of
every dataset, and small datasets whole. What it cannot finish is not read here.
"""

import contextlib
import resource
from pathlib import Path
from typing import Any

import h5py

from cherimoya.errors import DataError, ProcessError, printable
from cherimoya.util import native

SECONDS = 60.0  # for a file, the other process's start included, which a busy machine may delay
BYTES_A_SECOND = 50e6  # and more for a large one, which may lie far away
SMALL = 1 << 20  # bytes of a dataset that is read whole
MEMORY = 8 << 30  # bytes that the other process may ask for


def check_finishes(path: Path) -> None:
    """Raise DataError for a file in which the HDF5 library would not come to an end."""
    try:
        limit = SECONDS + path.stat().st_size / BYTES_A_SECOND
        native.call(look_through, path.absolute(), limit=limit)
    except native.LibraryError:
        return  # what it says of the file, the reader hears too
    except (DataError, ProcessError, TimeoutError):
        raise DataError(
            f"{path}: damaged, the HDF5 library cannot get through it. Copy it again, or prepare "
            "it again."
        ) from None


def check_inside(file: h5py.File, path: str | Path) -> None:
    """Raise DataError where HDF5 would read another file in the place of a dataset or group."""
    if (name := _outside(file)) is not None:
        raise DataError(
            f"{path}: {printable(name)!r} lies in another file, which is not read. Write its "
            "values into this one."
        )


def _outside(file: h5py.File) -> str | None:
    """The first name in the file that is not of the file itself."""

    def visit(name: str, link: Any) -> str | None:
        if isinstance(link, h5py.ExternalLink):
            return name
        with contextlib.suppress(Exception):  # what is damaged, nobody reads
            if isinstance(link, h5py.HardLink) and isinstance(item := file[name], h5py.Dataset):
                parts = item.virtual_sources() if item.is_virtual else []
                if item.external or any(part.file_name != "." for part in parts):
                    return name
        return None

    found: str | None = file.visititems_links(visit)
    return found


def look_through(path: Path) -> None:
    """Touch all that a reader may ask for, in little memory."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with contextlib.suppress(OSError, ValueError):  # where there is no such limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, before[1]))
    try:
        with h5py.File(path, "r", locking=False) as file:
            if _outside(file) is None:  # else it is refused by the reader
                _touch(file)
                file.visititems(lambda _, item: _touch(item))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _touch(item: Any) -> None:
    """What a reader may ask of a group or dataset; errors are the reader's."""
    with contextlib.suppress(Exception):
        dict(item.attrs)
    if isinstance(item, h5py.Dataset):
        with contextlib.suppress(Exception):
            if item.chunks:
                for i in range(item.id.get_num_chunks()):
                    item.id.get_chunk_info(i)
        with contextlib.suppress(Exception):
            item.id.get_storage_size()
            if item.nbytes <= SMALL or item.dtype.hasobject:
                item[:]
            else:
                item[:1], item[-1:]
