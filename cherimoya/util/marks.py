"""Marks of finished files: their size and SHA-256, which are checked before a file is believed."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from cherimoya.errors import DataError
from cherimoya.util.console import Say, warning
from cherimoya.util.files import atomic_path, names_file, remove, sync, write_json

FILES, DIGEST = "files", "sha256"
OF_FOLDER = "done.json"  # a folder's mark, inside it

Size = dict[str, Any]  # size in bytes, sha256


@dataclass(frozen=True)
class Mark:
    """What a mark says. facts: what the work was of; files: size and SHA-256 by name."""

    folder: Path
    facts: dict[str, Any]
    files: dict[str, Size]

    def damaged(self) -> list[Path]:
        """The files that are missing, or not as they were when the mark was written."""
        paths = {self.folder / name: size for name, size in self.files.items()}
        return [path for path, size in paths.items() if measured(path) != size]


def mark_of(output: Path) -> Path:
    """Where the mark of an output is: beside it."""
    return output.with_name(f"{output.name}.{OF_FOLDER}")


def measured(path: Path, end: int | None = None) -> Size | None:
    """Size and SHA-256 of a file, or of its first `end` bytes; None where it is missing."""
    digest, size = hashlib.sha256(), 0
    if path.exists() and not path.is_file():  # a pipe would never end
        return None
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20 if end is None else min(1 << 20, end - size)):
                digest.update(block)
                size += len(block)
    except FileNotFoundError:
        return None
    return {"size": size, DIGEST: digest.hexdigest()}


def checked_digest(path: Path) -> str:
    """SHA-256 of a file, in hex. Raises DataError where the mark beside it is of other bytes."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    mark = read_mark(mark_of(path))
    if mark is not None and mark.files.get(path.name, {}).get(DIGEST, digest) != digest:
        raise DataError(
            f"{path}: cut short or changed since it was written, as {mark_of(path).name} beside it "
            f"says. Make it again, or copy both again; if the change is meant, remove "
            f"{mark_of(path)}."
        )
    return digest


def write_mark(path: Path, facts: Mapping[str, Any], files: Iterable[Path]) -> Path:
    """Mark `files`, which lie in the mark's folder, as whole, once they are on the disk."""
    sizes = {}
    for file in files:
        with names_file(file):
            sync(file)
        sizes[file.name] = measured(file)
    return write_sizes(path, facts, sizes)


def write_sizes(path: Path, facts: Mapping[str, Any], sizes: Mapping[str, Size | None]) -> Path:
    """The same for files that were measured before. The mark holds a digest of its own."""
    values = json.loads(json.dumps({**facts, FILES: sizes}))
    return write_json(path, {**values, DIGEST: _digest(values)})


@contextmanager
def marked_path(path: Path, facts: Mapping[str, Any]) -> Iterator[Path]:
    """As `atomic_path`, for a file with a mark beside it. Where the file is, the mark is."""
    with atomic_path(path) as temporary:
        yield temporary
        sync(temporary)
        path.unlink(missing_ok=True)  # of which the mark would be another's
        write_sizes(mark_of(path), facts, {path.name: measured(temporary)})


def read_mark(path: Path) -> Mark | None:
    """The mark at `path`; None where there is none, or it cannot be read."""
    try:
        values = json.loads(path.read_bytes() if path.is_file() else b"")
        if values.pop(DIGEST) != _digest(values):
            return None
        return Mark(path.parent, values, values.pop(FILES))
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None


def check_mark(path: Path) -> None:
    """Raise DataError where something else has the name of a mark that is to be written."""
    if os.path.lexists(path) and read_mark(path) is None:
        raise DataError(
            f"{path}: exists already, and is no mark. Choose another output, or set overwrite=true."
        )


@contextmanager
def marked_folder(folder: Path, facts: Mapping[str, Any] | None = None) -> Iterator[Path]:
    """A folder to fill with files, which appears whole and with a mark when the block ends well.

    facts: what the mark says that the work was of
    """
    with atomic_path(folder) as temporary:
        temporary.mkdir(parents=True)
        yield temporary
        write_mark(temporary / OF_FOLDER, facts or {}, sorted(temporary.iterdir()))


def is_whole(folder: Path, say: Say) -> bool:
    """Whether `folder` is as `marked_folder` left it; one that is not is removed, and that said."""
    if not folder.is_dir():
        return False
    mark = read_mark(folder / OF_FOLDER)
    if mark is not None and not mark.damaged():
        return True
    say(warning(f"{folder}: {not_as_written(mark)}, so it is made again"))
    remove(folder)
    return False


def set_aside(path: Path, say: Say) -> None:
    """Give a file that is not as it was written another name: it may be somebody's."""
    names = (f"{path.name}.damaged{number or ''}" for number in count())
    kept = next(kept for kept in map(path.with_name, names) if not os.path.lexists(kept))
    os.replace(path, kept)
    say(warning(f"{path}: what was there is kept as {kept.name}"))


def not_as_written(mark: Mark | None) -> str:
    """Why what a mark stands for is not believed, in words."""
    if mark is None:
        return f"nothing valid says that it is whole ({OF_FOLDER})"
    names = ", ".join(path.name for path in mark.damaged())
    return f"{names} cut short or changed since it was written"


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
