"""JSON, YAML and other files that may be damaged: what is read has the shape that readers count on.

A shape is a type, of which float takes whole numbers too; None; a text that must be it; a function
that says whether a value will do; a tuple of shapes of which one must fit; a list with the shape of
all its items, or with one for each of several; a Table; or ANY.
"""

import csv
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from cherimoya.errors import DataError, printable
from cherimoya.util import yaml_file

T = TypeVar("T")
Shape = Any

ANY = object
DEEPEST = 50  # levels of tables and lists in each other
LARGEST = 1e39  # as float32 has them
MOST = 2**53  # of whole numbers
FIX = "Put back what was written there, or remove it."
# what json, yaml, csv, zipfile and NumPy raise for damaged files
DAMAGE = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, EOFError,
    MemoryError, NotImplementedError, RuntimeError, SyntaxError, struct.error, zlib.error,
    csv.Error, zipfile.BadZipFile, yaml.YAMLError,
)  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Shapes by key: of those that must be there, of those that may, and of all others."""

    needed: Mapping[str, Shape] = field(default_factory=dict)
    known: Mapping[str, Shape] = field(default_factory=dict)
    others: Shape = ANY


def read(path: Path, parse: Callable[[Path], T], otherwise: T, fix: str = FIX) -> T:
    """What `parse` makes of `path`; `otherwise` where there is no such file.

    Raises DataError, which ends with `fix`, for one that cannot be read.
    """
    try:
        if path.is_file():
            return parse(path)
        if not path.exists():
            return otherwise
        why = "something else than a file has its name"
    except RecursionError:
        why = "nested too deep"
    except UnicodeDecodeError:
        why = "no UTF-8"
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}). {fix}") from None
    except DAMAGE as error:
        why = printable(" ".join(str(error).split()) or type(error).__name__, 200)
    raise DataError(f"{path} is damaged ({why}). {fix}")


def read_json(path: Path, shape: Shape = Table(), fix: str = FIX) -> dict[str, Any]:
    """The table in `path`; empty where there is no such file. Raises DataError.

    Numbers that are not finite become None, as they are written.
    """
    return read(path, lambda path: _fitting(_from_json(path.read_bytes()), shape), {}, fix)


def read_json_lines(path: Path, shape: Shape, fix: str = FIX) -> list[dict[str, Any]]:
    """The tables in `path`, one a line; without a last line that has no end. Raises DataError."""

    def parse(path: Path) -> list[dict[str, Any]]:
        lines = path.read_bytes().split(b"\n")[:-1]
        return [_fitting(_from_json(line), shape) for line in lines]

    return read(path, parse, [], fix)


def read_yaml(path: Path, shape: Shape = Table(), fix: str = FIX) -> dict[str, Any]:
    """As `read_json`, of YAML."""
    return read(path, lambda path: _fitting(yaml_file.read_yaml(path), shape), {}, fix)


def tried(problems: list[str], read: Callable[[], T], otherwise: T) -> T:
    """What `read` gives; `otherwise` where it raises a DataError, whose message joins `problems`"""
    try:
        return read()
    except DataError as error:
        problems.append(str(error))
        return otherwise


def _from_json(content: bytes) -> Any:
    return json.loads(content, object_pairs_hook=_without_doubles)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _fitting(value: Any, shape: Shape) -> Any:
    """`value`, if it fits, as it would be written now."""

    def plain(value: Any, depth: int = 0) -> Any:
        """The value with text that can be written and numbers that are finite."""
        if depth > DEEPEST:
            raise ValueError("nested too deep")
        if isinstance(value, dict):
            return {plain(k, depth): plain(v, depth + 1) for k, v in value.items()}
        if isinstance(value, list):
            return [plain(v, depth + 1) for v in value]
        if isinstance(value, str):
            return value.encode(errors="replace").decode()  # halves of a pair of UTF-16
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if isinstance(value, int):
            float(value)  # one of thousands of digits cannot even be printed
        elif value is not None:
            raise ValueError(f"a {type(value).__name__}")
        return value

    found = plain(value)
    if why := misfit(found, shape):
        raise ValueError(why)
    return found


def misfit(value: Any, shape: Shape, where: str = "it") -> str | None:
    """What is wrong with `value`, the one at the key `where`; None where it fits."""
    if isinstance(shape, tuple):
        found = [misfit(value, one, where) for one in shape]
        return None if None in found else found[0]
    if isinstance(shape, Table):
        if not isinstance(value, dict):
            return f"{where} is no table of keys"
        absent = [f"{key} is missing" for key in shape.needed if key not in value]
        shapes = {**shape.needed, **shape.known}
        parts = (misfit(v, shapes.get(k, shape.others), str(k)) for k, v in value.items())
        return next(filter(None, [*absent, *parts]), None)
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{where} is no list"
        if len(shape) not in (1, len(value)):
            return f"{where} has not {len(shape)} items"
        each = shape * len(value) if len(shape) == 1 else shape
        parts = (misfit(v, one, where) for v, one in zip(value, each, strict=True))
        return next(filter(None, parts), None)
    return None if _is(value, shape) else f"{where} is {str(value)[:40]!r}"


def _is(value: Any, shape: Shape) -> bool:
    """Whether a value without parts fits."""
    if shape is None or isinstance(shape, str):
        return bool(value == shape)
    if shape is float:
        return type(value) in (int, float) and abs(value) <= LARGEST
    if shape is int:
        return type(value) is int and abs(value) <= MOST
    return isinstance(value, shape) if isinstance(shape, type) else bool(shape(value))
