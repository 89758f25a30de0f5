"""Files that appear whole or not at all, and files and folders that one process owns."""

import fcntl
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from cherimoya.errors import DataError, InUse

LOCK = ".lock"  # of a run's folder
LOOK_SECONDS = 0.1  # between two tries to own a folder


def check_readable(path: Path, key: str) -> None:
    """Raise DataError naming the configuration's `key` for a file that this user may not read."""
    try:
        if path.is_file():
            with open(path, "rb"):
                return
    except PermissionError:
        raise DataError(f"{key}={path} may not be read: ask its owner (chmod)") from None


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """A file to write; it is synced to disk and takes the name `path` when the block ends well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, values: Mapping[str, Any]) -> Path:
    """Write `values` to `path`; NaN becomes null, which JSON can say."""
    with atomic_write(path) as file:
        file.write(json.dumps(jsonable(values), indent=2, allow_nan=False).encode() + b"\n")
    return path


def jsonable(value: Any) -> Any:
    """`value` with None for every number that is not finite."""
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@contextmanager
def lock_folder(folder: Path, patience: float = 0) -> Iterator[None]:
    """Own the run folder; raises InUse if another process does, and still after `patience` s."""
    with open(folder / LOCK, "a+") as lock:
        end = time.monotonic() + patience
        while not _taken(lock):
            if time.monotonic() >= end:
                lock.seek(0)
                raise InUse(
                    f"{folder} is in use by process {lock.read().strip() or 'unknown'}. "
                    "Wait until it ends, or stop it first."
                )
            time.sleep(LOOK_SECONDS)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


@contextmanager
def lock_output(output: Path, patience: float = 0) -> Iterator[None]:
    """Own a file that is being made, and what lies beside it while it is not whole.

    Its folder is made; one that nothing came into goes again. Raises InUse if another process
    makes the same file, and still after `patience` s.
    """
    end = time.monotonic() + patience
    path = output.with_name(f".{output.name}.lock")
    made = [folder for folder in path.parents if not folder.exists()]
    with ExitStack() as stack:
        while True:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                lock = stack.enter_context(open(path, "a"))
            except FileNotFoundError:  # another owner removed the folder again
                continue
            if not _taken(lock):
                if time.monotonic() < end:
                    lock.close()
                    time.sleep(LOOK_SECONDS)
                    continue
                raise InUse(
                    f"output={output} is being made by another process. Wait until it ends, or "
                    "choose another output."
                )
            if _is_named(lock, path):  # else its owner removed it meanwhile
                break
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            for folder in made:
                with suppress(OSError):  # not empty
                    folder.rmdir()


def _is_named(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _taken(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True
