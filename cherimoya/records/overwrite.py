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
from cherimoya.util.files import check_name, hearing
from cherimoya.util.marks import OF_FOLDER, Size, mark_of, measured, read_mark, write_sizes

BESIDE = "beside"  # in the mark of an output: what was written with it
OLDER = "older"  # in the same: what is ours still, and was written before it
ENDINGS = ("", f".{OF_FOLDER}", ".fai", ".gzi", ".bai", ".csi", ".tbi")  # of a file that is read


def check_inputs_kept(config: Any, written: Mapping[Path, str]) -> None:
    """Raise ConfigError where what `config` has a command read would be overwritten.

    written: the files and folders that it writes, each with how to do without, where that can be;
    their names may be too long, which is a DataError
    """
    for path in written:
        check_name(path)
    for key, named in _texts(to_dict(config)):
        for source in filter(os.path.exists, _read(named)):
            for path, fix in written.items():
                if _falls_on(source, path):
                    raise ConfigError(
                        f"{key}={source} would be overwritten by {path}. Choose another output"
                        f"{fix}."
                    )


def check_own(written: Mapping[Path, str], *ours: Mapping[str, Size | None]) -> None:
    """Raise DataError where one of the files or folders `written` is there and not ours.

    written: each with how to do without; ours: sizes by name, None of what is ours at any size
    """
    for path, fix in written.items():
        if os.path.lexists(path) and not _is_own(path, *ours):
            known = any(path.name in sizes for sizes in ours)
            what = "changed since it was written" if known else "exists already"
            raise DataError(f"{path}: {what}. Choose another output{fix}, or set overwrite=true.")


@contextmanager
def own_files(
    output: Path, written: Mapping[Path, str], overwrite: bool, anew: bool = False
) -> Iterator[None]:
    """Where the files `written`, which lie beside `output`, are made; see `check_own`.

    The mark of the output names them, and until it is whole a hidden note: also after a kill.
    anew: the output itself is made, so that what lies beside it from before is not of it
    """
    made, older = _noted(output)
    if not overwrite:
        check_own(written, made, older)
    if not written:
        yield
        return
    stamps = {path: _stamp(path) for path in written}
    names = {path.name for path in written}
    others = {name: size for name, size in made.items() if name not in names}
    kept = {} if anew else others
    own = {path.name: measured(path) for path in written if _is_own(path, made, older)}
    older = {n: s for n, s in {**older, **others, **own}.items() if s and n not in kept}
    older = {n: s for n, s in older.items() if n in own or n not in names}
    try:
        with noting(_note_of(output), written, kept, older):
            yield
    finally:
        for path in written:
            if _stamp(path) != stamps[path]:  # ours also with the bytes that it had
                older.pop(path.name, None)
                if size := measured(path):
                    kept[path.name] = size
        with suppress(OSError):  # a full disk: the note is as true
            _note(output, kept, older)


@contextmanager
def noting(
    note: Path,
    written: Collection[Path],
    made: Mapping[str, Size] | None = None,
    older: Mapping[str, Size] | None = None,
) -> Iterator[None]:
    """Where the mark `note` says of each of the files `written`, before it has its name, what is
    in it, so that after a kill it can be told from one that somebody else put there.

    made, older: sizes by name of what is ours already, made with the output or before it
    """
    sizes, names = dict(made or {}), {path.absolute() for path in written}

    def write() -> None:
        write_sizes(note, {OLDER: dict(older or {})}, sizes)

    def hear(path: Path, temporary: Path) -> None:
        if path.absolute() in names and (size := measured(temporary)):
            sizes[path.name] = size
            write()

    note.parent.mkdir(parents=True, exist_ok=True)
    write()
    with hearing(hear):
        yield


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
    made, first = _noted(output)[0], next(iter(joined), None)

    def is_made(path: Path) -> bool:
        return path.name in made and measured(path) == made[path.name]

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
        made, older = _noted(output)
        _note(output, {n: s for n, s in made.items() if measured(output.with_name(n)) == s}, older)


def _note(output: Path, made: Mapping[str, Size], older: Mapping[str, Size]) -> None:
    mark, note = read_mark(mark_of(output)), _note_of(output)
    said = {BESIDE: made, OLDER: older}
    if mark is not None:
        write_sizes(mark_of(output), mark.facts | said, mark.files)
    elif made or older:
        write_sizes(note, {OLDER: older}, made)
    if mark is not None or not (made or older):
        note.unlink(missing_ok=True)


def may_write(path: Path, output: Path) -> bool:
    """Whether `path` beside `output` is not there, or as a command wrote it."""
    return not os.path.lexists(path) or _is_own(path, *_noted(output))


def _note_of(output: Path) -> Path:
    return output.with_name(f".{output.name}.written.json")


def _noted(output: Path) -> tuple[dict[str, Size], dict[str, Size]]:
    """Sizes by name of the files of ours beside `output`: made with it, and before it."""
    note, mark = read_mark(_note_of(output)), read_mark(mark_of(output))
    facts = {} if mark is None else mark.facts
    made, older = facts.get(BESIDE, {}), facts.get(OLDER, {})
    if note is not None:
        made, older = note.files, note.facts.get(OLDER, {})
    return {n: s for n, s in made.items() if s}, dict(older)


def _is_own(path: Path, *ours: Mapping[str, Size | None]) -> bool:
    if path.name == PAGE:  # which cherimoya-report may have made anew
        return is_page(path)
    named = [sizes[path.name] for sizes in ours if path.name in sizes]
    return None in named or (bool(named) and measured(path) in named)


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
