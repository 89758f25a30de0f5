"""How commands resume an output that was interrupted.

A journal holds the rows of an unfinished output, and a folder its parts; a mark (`marks`) says that
an output is done.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from cherimoya.errors import DataError, DiskError, InUse, PackageError
from cherimoya.util import console
from cherimoya.util.console import Say, result, warning
from cherimoya.util.files import (
    LOCK,
    TEMPORARY,
    atomic_write,
    link_error,
    lock_folder,
    names_file,
    open_owned,
    remove,
    remove_left,
)
from cherimoya.util.marks import (
    DIGEST,
    check_mark,
    mark_of,
    measured,
    not_as_written,
    read_mark,
    set_aside,
    write_mark,
    write_sizes,
)

STOPPED = "stopped. Re-run the same command to resume."
MADE_FROM = "made_from.json"  # of the folder of an unfinished output


def is_done(output: Path, settings: Mapping[str, Any], overwrite: bool, say: Say) -> bool:
    """Whether `output` is there, made with the same `settings` (see `marked_path`), and whole.

    A damaged one is set aside. Raises DataError for one that was made otherwise.
    """
    if overwrite:
        return False
    if not output.exists():
        check_mark(mark_of(output))
        return False
    mark, fix = read_mark(mark_of(output)), "Choose another name, or set overwrite=true."
    if mark is None or "settings" not in mark.facts:
        raise DataError(f"output={output}: exists already. {fix}")
    before, now = mark.facts["settings"], json.loads(json.dumps(dict(settings)))
    if before != now:
        differ = ", ".join(sorted(k for k in {**before, **now} if before.get(k) != now.get(k)))
        raise DataError(f"output={output}: exists already, made with another {differ}. {fix}")
    if mark.damaged():
        say(warning(f"{output}: {not_as_written(mark)}, so it is made again"))
        set_aside(output, say)
        return False
    discard_journal(output)
    return True


def discard_journal(output: Path) -> None:
    """Remove the rows of an unfinished output: it is done."""
    journal_path(output).unlink(missing_ok=True)
    journal_mark(output).unlink(missing_ok=True)  # last: rows without a mark are not ours


def journal_path(output: Path) -> Path:
    """Where the rows of an unfinished output are kept."""
    return partial_path(output)


def journal_mark(output: Path) -> Path:
    """Where it is noted how much of them is whole."""
    return mark_of(output.with_name(f".{output.name}.partial"))


class Journal:
    """The rows of an `output` that are done, begun with `settings`; those of others are dropped.

    A hidden mark says how many bytes of the file are whole, and their SHA-256: what a kill left
    behind them is dropped. A file that does not begin with them is kept under another name. Rows
    are made `block` at a time: those of a block that is not whole are dropped, so that what follows
    is made in the same blocks as without the interruption. Who makes one owns the output
    (`files.lock_output`). At the end of a `with` block that ends well it is discarded.
    """

    def __init__(
        self,
        output: Path,
        settings: Mapping[str, Any],
        shape: tuple[int, ...],
        block: int = 1,
        dtype: type = np.float64,
    ) -> None:
        self._output, self._path = output, journal_path(output)
        self._shape, self._dtype = shape, np.dtype(dtype)
        self._block = block
        self._mark, self._settings = journal_mark(output), {"settings": dict(settings)}
        row = self._dtype.itemsize * int(np.prod(shape))
        self._count = self._whole_bytes() // (row * block) * block
        self._digest = hashlib.sha256()
        if self._count:
            with open_owned(self._path, "ab") as file:
                file.truncate(self._count * row)
            with open(self._path, "rb") as whole:
                self._digest = hashlib.file_digest(whole, "sha256")
        else:
            self._path.unlink(missing_ok=True)
        self._note(self._count * row)

    def __len__(self) -> int:
        return self._count

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """The output is made, or is to be gone on with: a line says so after Ctrl-C."""
        if error is None:
            discard_journal(self._output)
        elif isinstance(error, KeyboardInterrupt):
            console.say(result(STOPPED))

    def missing(self, total: int, label: str, unit: str, each: str = "block") -> Iterator[slice]:
        """The rows of each block that is still to do, of `total` rows, while progress is shown."""
        if len(self):
            console.say(f"{len(self):,} of {total:,} {unit} were done before")
        starts = range(len(self), total, self._block)
        blocks = -(-total // self._block)
        for start in console.track(starts, label, blocks, each, done=blocks - len(starts)):
            yield slice(start, start + self._block)

    def append(self, rows: np.ndarray) -> None:
        """Keep `rows` (k, *shape)."""
        content = np.ascontiguousarray(rows, self._dtype).tobytes()
        self._digest.update(content)
        if not self._count:  # noted before the file is there: one that is not noted is not ours
            with atomic_write(self._path) as first:
                first.write(content)
                first.flush()
                self._note(len(content))
        else:
            with names_file(self._path), open_owned(self._path, "ab") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                size = file.tell()
            self._note(size)
        self._count += len(rows)

    @property
    def rows(self) -> np.ndarray:
        """All of them, (n, *shape), on the disk."""
        if not self._count:
            return np.zeros((0, *self._shape), self._dtype)
        return np.memmap(self._path, self._dtype, "r", shape=(self._count, *self._shape))

    def _note(self, size: int) -> None:
        sizes = {self._path.name: {"size": size, DIGEST: self._digest.hexdigest()}}
        write_sizes(self._mark, self._settings, sizes)

    def _whole_bytes(self) -> int:
        """How much of what is there can be gone on with."""
        if self._path.is_symlink():
            raise link_error(self._path)
        if not os.path.lexists(self._path):
            return 0
        if not self._path.is_file() or not os.path.lexists(self._mark):
            raise _not_ours(self._path)
        mark = read_mark(self._mark)
        said = {} if mark is None else mark.files.get(self._path.name, {})
        if mark is None or not said.get("size") or measured(self._path, said["size"]) != said:
            console.say(
                warning(f"{self._path}: changed since it was written, so all of it is made again")
            )
            set_aside(self._path, console.say)
            return 0
        same = mark.facts == json.loads(json.dumps(self._settings))
        return int(said["size"]) if same else 0


def partial_path(output: Path) -> Path:
    """The file or folder in which what is done of `output` is kept until it is whole."""
    return output.with_name(f"{output.name}.partial")


def _not_ours(path: Path) -> DataError:
    return DataError(
        f"{path}: exists already, and is nothing that can be gone on with. Move it away, or choose "
        "another output."
    )


def forget_parts(output: Path) -> None:
    """Remove the parts that a process left that was killed when `output` was whole already.

    Those that another process has at hand stay.
    """
    folder = partial_path(output)
    remove_left(output.parent)
    if (folder / MADE_FROM).is_file():
        with suppress(InUse), lock_folder(folder):
            remove(folder)


@contextmanager
def resumable_output(
    output: Path, made_from: Mapping[str, Any], done: Callable[[Path], str], say: Say
) -> Iterator[Path]:
    """The folder of what is done of `output`, owned by this process alone.

    What is in it stays only if it was begun with the same `made_from`; `done` says what that is.
    It is removed when the block ends well or finds fault with an input, and kept for the same
    command otherwise.

    Raises InUse where another process makes the same output.
    """
    folder = partial_path(output)
    if folder.is_symlink():
        raise link_error(folder)
    if folder.exists() and not _may_be_ours(folder):
        raise _not_ours(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder):
        for link in [path for path in folder.rglob("*") if path.is_symlink()]:
            link.unlink()  # nothing is written through one
        remove_left(output.parent, folder)
        _begin(folder, json.loads(json.dumps(dict(made_from))), done, say)
        try:
            yield folder
        except BaseException as error:
            if isinstance(error, (DataError, PackageError)) and not isinstance(error, DiskError):
                remove(folder)
            else:
                say(result(f"{STOPPED} What is done is kept in {folder}"))
            raise
        remove(folder)


def _may_be_ours(folder: Path) -> bool:
    """Whether a process of ours may have left this: it notes first what it makes."""
    if not folder.is_dir():
        return False
    held = {path.name for path in folder.iterdir()}
    return MADE_FROM in held or all(name == LOCK or name.endswith(TEMPORARY) for name in held)


def _begin(
    folder: Path, made_from: Mapping[str, Any], done: Callable[[Path], str], say: Say
) -> None:
    """Leave in `folder` what was made from the same, and note what that is."""
    mark = read_mark(folder / MADE_FROM)
    if mark is not None and mark.facts["made_from"] == made_from:
        say(f"{folder}: resuming from what an interrupted run has done: {done(folder)}")
        return
    if (folder / MADE_FROM).is_file():
        before = {} if mark is None else mark.facts["made_from"]
        said = changed_keys(before, made_from)
        say(warning(f"{folder}: an interrupted run had other inputs, so it starts over: {said}"))
    for path in folder.iterdir():
        if path.name != LOCK and not (path.name == MADE_FROM and path.is_file()):
            remove(path)
    write_mark(folder / MADE_FROM, {"made_from": made_from}, [])


def changed_keys(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs: "key was 1, now 2; ..."."""
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return "; ".join(f"{key} was {before.get(key)}, now {now.get(key)}" for key in changed)
