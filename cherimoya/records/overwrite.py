"""No command writes over what it reads, or over what it did not write itself."""

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cherimoya.config.schema import joined, to_dict
from cherimoya.errors import ConfigError, DataError
from cherimoya.records.layout import CONFIG, PAGE
from cherimoya.records.own_folders import is_page
from cherimoya.records.run import BEST
from cherimoya.util import console
from cherimoya.util.console import result
from cherimoya.util.marks import OF_FOLDER, Size, mark_of, measured, read_mark, write_sizes

BESIDE = "beside"  # in the mark of an output: what was written with it
ENDINGS = ("", f".{OF_FOLDER}", ".fai", ".gzi", ".bai", ".csi", ".tbi")  # of a file that is read


def check_inputs_kept(config: Any, written: Mapping[Path, str]) -> None:
    """Raise ConfigError where what `config` has a command read would be overwritten.

    written: the files and folders that it writes, each with how to do without, where that can be
    """
    for key, named in _texts(to_dict(config)):
        for source in filter(os.path.exists, _read(named)):
            for path, fix in written.items():
                if _falls_on(source, path):
                    raise ConfigError(
                        f"{key}={source} would be overwritten by {path}. Choose another output"
                        f"{fix}."
                    )


def check_own(written: Mapping[Path, str], ours: Mapping[str, Size | None]) -> None:
    """Raise DataError where one of the files or folders `written` is there and not ours.

    written: each with how to do without; ours: sizes by name, None of one that is being written
    """
    for path, fix in written.items():
        if os.path.lexists(path) and not _is_own(path, ours):
            what = "changed since it was written" if path.name in ours else "exists already"
            raise DataError(f"{path}: {what}. Choose another output{fix}, or set overwrite=true.")


@contextmanager
def own_files(
    output: Path, written: Mapping[Path, str], overwrite: bool, anew: bool = False
) -> Iterator[None]:
    """Where the files `written`, which lie beside `output`, are made; see `check_own`.

    The mark of the output names them, and until it is whole a hidden note: also after a kill.
    anew: the output itself is made, so that what lies beside it from before is not of it
    """
    note, ours = _note_of(output), _noted(output)
    if not overwrite:
        check_own(written, ours)
    if not written:
        yield
        return
    note.parent.mkdir(parents=True, exist_ok=True)
    theirs = {path: _stamp(path) for path in written if not _is_own(path, ours)}
    write_sizes(note, {}, ours | {path.name: None for path in written})
    try:
        yield
    finally:
        for path in written:
            ours.pop(path.name, None)
            if _stamp(path) != theirs.get(path):  # ours also with the bytes that it had
                ours[path.name] = measured(path)
        if anew:
            ours = {path.name: ours[path.name] for path in written if path.name in ours}
        with suppress(OSError):  # a full disk: all of them are ours to write still
            _note(output, ours)


def _stamp(path: Path) -> tuple[int, int] | None:
    """What changes where a file is written anew; None where it is missing."""
    with suppress(FileNotFoundError, NotADirectoryError):
        found = os.lstat(path)
        return found.st_ino, found.st_mtime_ns
    return None


def to_make(
    output: Path, beside: Mapping[Path, str], done: bool, joined: Collection[Path] = ()
) -> dict[Path, str] | None:
    """Which of the files `beside` an output are still to be made; None where all is `done`.

    Those of a whole output stay that are as they were written with it. joined: the first of them
    stands for all, as a VCF file for its index, which not every one has
    """
    if not done:
        return dict(beside)
    console.say(result(f"done already: {output}"))
    ours, first = _noted(output), next(iter(joined), None)

    def is_made(path: Path) -> bool:
        size = ours.get(path.name)
        return size is not None and measured(path) == size

    todo = {
        path: fix
        for path, fix in beside.items()
        if not is_made(first if first and path in joined else path)
    }
    if not todo:
        settle(output)
    return todo or None


def settle(output: Path) -> None:
    """Have the mark of a whole output say what was written with it, where a note still does."""
    if _note_of(output).is_file():
        sizes = {name: measured(output.with_name(name)) for name in _noted(output)}
        _note(output, {name: size for name, size in sizes.items() if size is not None})


def _note(output: Path, ours: Mapping[str, Size | None]) -> None:
    mark, note = read_mark(mark_of(output)), _note_of(output)
    if mark is not None:
        write_sizes(mark_of(output), mark.facts | {BESIDE: ours}, mark.files)
    elif ours:
        write_sizes(note, {}, ours)
    if mark is not None or not ours:
        note.unlink(missing_ok=True)


def may_write(path: Path, output: Path) -> bool:
    """Whether `path` beside `output` is not there, or as a command wrote it."""
    return not os.path.lexists(path) or _is_own(path, _noted(output))


def _note_of(output: Path) -> Path:
    return output.with_name(f".{output.name}.written.json")


def _noted(output: Path) -> dict[str, Size | None]:
    mark, note = read_mark(mark_of(output)), read_mark(_note_of(output))
    ours: dict[str, Size | None] = {} if mark is None else dict(mark.facts.get(BESIDE, {}))
    return ours if note is None else {**ours, **note.files}


def _is_own(path: Path, ours: Mapping[str, Size | None]) -> bool:
    if path.name == PAGE:  # which cherimoya-report may have made anew
        return is_page(path)
    return path.name in ours and ours[path.name] in (None, measured(path))


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a configuration but its output, any of which may be a path, with its key."""
    if isinstance(value, dict):
        for name, one in value.items():
            if name != "output":
                yield from _texts(one, joined(key, name))
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one, key)
    elif isinstance(value, str):
        yield key, value


def _read(named: str) -> list[str]:
    """What is read where a configuration names a file, or a run's folder."""
    if os.path.isdir(named):
        return [os.path.join(named, "checkpoints", BEST), os.path.join(named, CONFIG)]
    return [named + ending for ending in ENDINGS]


def _falls_on(source: str, path: Path) -> bool:
    """Whether `source` is `path` or lies in it, by whatever name."""
    if Path(os.path.realpath(source)).is_relative_to(os.path.realpath(path)):
        return True
    return path.exists() and os.path.samefile(source, path)
