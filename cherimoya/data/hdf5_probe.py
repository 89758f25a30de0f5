"""HDF5 files looked through by another process, before this one reads them.

In a damaged file the HDF5 library can run in circles for ever, or crash, and nothing in Python can
stop it. So a helper process touches first what a reader will touch: links, attributes, the index of
every dataset, and small datasets whole. What it cannot finish is not read here.
"""

import atexit
import contextlib
import os
import select
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from cherimoya.errors import DataError

SECONDS = 60.0  # for a file, its start included, which a busy machine may take long for
BYTES_A_SECOND = 50e6  # and more for a large one, which may lie far away
SMALL = 1 << 20  # bytes of a dataset that is read whole
MEMORY = 8 << 30  # bytes that the helper may ask for
SERVE = "from cherimoya.data.hdf5_probe import serve; serve()"
DONE = b"done\n"


def check_finishes(path: Path) -> None:
    """Raise DataError for a file in which the HDF5 library would not come to an end."""
    limit = SECONDS + path.stat().st_size / BYTES_A_SECOND
    if not _helper().finishes(path, limit):
        raise DataError(
            f"{path}: damaged, the HDF5 library cannot get through it. Copy it again, or prepare "
            "it again."
        )


class _Helper:
    """The other process, started when it is needed, and again after a file that it did not survive.

    It ends with this one, or when its input does.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.end)

    def finishes(self, path: Path, limit: float) -> bool:
        """Whether it came through the file, alive and in time (s)."""
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-c", SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        process = self._process
        assert process.stdin
        assert process.stdout
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(os.fsencode(path.absolute()).hex().encode() + b"\n")
            process.stdin.flush()
            answered, _, _ = select.select([process.stdout], [], [], limit)
            if answered and process.stdout.readline() == DONE:
                return True
        self.end()
        return False

    def end(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@cache
def _helper() -> _Helper:
    return _Helper()


def serve() -> None:
    """The helper: a path a line on standard input, answered when the file was looked through."""
    import resource

    import h5py  # noqa: F401 - before its memory is limited

    _, most = resource.getrlimit(resource.RLIMIT_AS)
    with contextlib.suppress(OSError, ValueError):  # where there is no such limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, most))
    for line in sys.stdin.buffer:
        with contextlib.suppress(Exception):  # what it says of the file, the reader hears too
            _look_through(os.fsdecode(bytes.fromhex(line.decode())))
        sys.stdout.buffer.write(DONE)
        sys.stdout.buffer.flush()


def _look_through(path: str) -> None:
    import h5py

    with h5py.File(path, "r", locking=False) as file:
        _touch(file)
        file.visititems(lambda _, item: _touch(item))


def _touch(item: Any) -> None:
    """What a reader may ask of a group or dataset; errors are the reader's."""
    import h5py

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
