"""Files that appear whole or not at all, and files and folders that one process owns."""

import errno
import fcntl
import json
import math
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import IO, Any

from cherimoya.errors import DataError, DiskError, InUse, disk_words
from cherimoya.util import console
from cherimoya.util.console import warning

LOCK = ".lock"  # of a run's folder
TEMPORARY = ".tmp"  # how the name of a file ends that is not whole
TRIES = 1000  # to make a file in a folder that others may remove
MOST_PID = 1 << 22  # of Linux
LOOK_SECONDS = 0.1  # between two tries to own a folder

Hear = Callable[[Path, Path], None]
_HEARING: list[Hear] = []


def check_readable(path: Path, key: str) -> None:
    """Raise DataError naming the configuration's `key` for a file that this user may not read."""
    try:
        if path.is_file():
            with open(path, "rb"):
                return
    except PermissionError:
        raise DataError(f"{key}={path} may not be read: ask its owner (chmod)") from None


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` for a file or folder to be written; it is synced to disk and
    takes the place of `path` when the block ends well, and is removed otherwise.

    An OSError of the block names `path` if it names no file, or the temporary one.
    """
    temporary = path.with_name(f".{path.name}{_own_ending(os.getpid())}")
    remove(temporary)
    try:
        with names_file(path, temporary):
            yield temporary
            if temporary.is_dir():
                remove(path)
            else:
                sync(temporary)
            for hear in tuple(_HEARING):
                hear(path, temporary)
            os.replace(temporary, path)
            sync(path.parent)
    finally:
        with suppress(OSError):  # what is raised already says more
            remove(temporary)


@contextmanager
def hearing(hear: Hear) -> Iterator[None]:
    """Where `hear` is told of each file, whole under its temporary name, before it is renamed:
    its path and that name."""
    _HEARING.append(hear)
    try:
        yield
    finally:
        _HEARING.remove(hear)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that knows no sync of folders
            raise
    finally:
        os.close(opened)


def check_name(path: Path) -> None:
    """Raise DataError where the file system takes no name as long as that of `path` with what is
    added to it while it is made, of which its unfinished rows' mark gets the most.
    """
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    most = os.pathconf(folder, "PC_NAME_MAX")
    added = len(os.fsencode(f"...partial.done.json{_own_ending(MOST_PID)}"))
    size = len(os.fsencode(path.name))
    if size + added > most:
        raise DataError(
            f"{path}: its name is too long, as {added} bytes are added while it is made and names "
            f"have at most {most} there. Choose an output whose name is shorter by "
            f"{size + added - most}."
        )


def _own_ending(pid: int) -> str:
    """How a temporary name of process `pid` of this machine ends."""
    return f".{socket.gethostname()}.{pid}{TEMPORARY}"


@contextmanager
def names_file(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Where an OSError that names no file, or its `temporary` name, gets that of `path`."""
    try:
        yield
    except OSError as error:
        if error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise


def remove_left(*folders: Path) -> None:
    """Remove the temporary files in `folders` of this machine's processes that were killed."""
    for folder in folders:
        for path in folder.glob(f".*{TEMPORARY}"):
            pid = path.name.removesuffix(TEMPORARY).rpartition(".")[2]
            ours = pid.isdecimal() and path.name.endswith(_own_ending(int(pid)))
            if ours and not _is_alive(int(pid)):
                remove(path)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which takes the name `path` as in `atomic_path`."""
    with atomic_path(path) as temporary, open_owned(temporary, "wb") as file:
        yield file


def open_owned(path: Path, mode: str) -> IO[Any]:
    """As `open`, of a file in a folder that others may write. Raises DiskError for a link, and
    for a pipe or device, at which one would wait."""

    def opener(name: str, flags: int) -> int:
        found = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        if not S_ISREG(os.fstat(found).st_mode):
            os.close(found)
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO), name)
        return found

    try:
        return open(path, mode, opener=opener)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise DiskError(
                f"{path}: something else than a file has its name. Move it away."
            ) from None
        if error.errno != errno.ELOOP:
            raise
        raise link_error(path) from None


def link_error(path: Path) -> DiskError:
    """What is said of a link where a file or folder of our own should be."""
    return DiskError(f"{path} is a link, through which nothing is written. Remove it.")


def user_cache() -> Path:
    """Where what can be made again is kept: $XDG_CACHE_HOME/cherimoya, or ~/.cache/cherimoya."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cherimoya"


def private_folder(path: Path) -> Path:
    """A folder that this user alone may write, made if there is none. Raises DiskError else."""
    with suppress(FileExistsError):
        path.mkdir(mode=0o700, parents=True)
    found = path.lstat()
    if not S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise DiskError(
            f"{path} is not a folder that you alone may write, so what is in it is not used. "
            "Remove it or move it away."
        )
    return path


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Where an OSError becomes a DiskError of `path`, which is being written."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise disk_words(error) from None


def cut_torn_line(path: Path) -> None:
    """Cut off, and say so, a last line of `path` that a killed process did not write to its end."""
    with open_owned(path, "r+b") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
            console.say(warning(f"{path}: its last line was cut short, and is left out"))


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, if it is there.

    A kill leaves no half of a folder under its name, but under one that `remove_left` knows.
    """
    if path.is_dir() and not path.is_symlink():
        gone = path
        if not path.name.endswith(TEMPORARY):
            gone = path.with_name(f".{path.name}.gone{_own_ending(os.getpid())}")
            remove(gone)
            os.replace(path, gone)
        shutil.rmtree(gone)
    else:
        path.unlink(missing_ok=True)


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
    refusal = "{} is in use by process {}. Wait until it ends, or stop it first."
    with _locked(folder / LOCK, patience, lambda pid: refusal.format(folder, pid)) as lock:
        with names_file(folder / LOCK):
            lock.truncate(0)
            os.write(lock.fileno(), str(os.getpid()).encode())  # not kept for a second try
        yield


@contextmanager
def lock_output(output: Path, patience: float = 0) -> Iterator[None]:
    """Own a file that is being made, and what lies beside it while it is not whole.

    Its folder is made; one that nothing came into goes again. Raises InUse if another process
    makes the same file, and still after `patience` s.
    """
    path = output.with_name(f".{output.name}.lock")
    made = [folder for folder in path.parents if not folder.exists()]
    refusal = (
        f"output={output} is being made by another process. Wait until it ends, or choose another "
        "output."
    )
    with _locked(path, patience, lambda _: refusal):
        try:
            remove_left(output.parent)
            yield
        finally:
            path.unlink(missing_ok=True)
            for folder in made:
                with suppress(OSError):  # not empty
                    folder.rmdir()


def _locked(path: Path, patience: float, refusal: Callable[[str], str]) -> IO[str]:
    """The open file at `path`, locked; raises InUse with what `refusal` makes of its content."""
    end = time.monotonic() + patience
    tries = TRIES
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock = open_owned(path, "a+")  # the caller closes it, which unlocks it
        except FileNotFoundError:  # another owner removed the folder again, or there can be none
            tries -= 1
            if not tries:
                raise
            continue
        if not _taken(lock):
            with lock:
                if time.monotonic() >= end:
                    lock.seek(0)
                    raise InUse(refusal(lock.read().strip() or "unknown"))
            time.sleep(LOOK_SECONDS)
        elif _is_named(lock, path):
            held = os.pread(lock.fileno(), 100, 0).strip()
            if held and not held.isdigit():
                lock.close()
                raise DiskError(f"{path}: something else has the name of a lock. Move it away.")
            return lock
        else:  # its owner removed it meanwhile
            lock.close()


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
