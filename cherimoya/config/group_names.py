"""Names of signal groups: which may be given, and which group a name or a number stands for."""

import difflib
import re
from collections.abc import Sequence
from typing import TypeVar

from cherimoya.errors import ConfigError

T = TypeVar("T")
Groups = list[list[str]] | dict[str, list[str]]  # files by group, which may have names


def files_of(groups: Groups) -> list[list[str]]:
    """The files of each group."""
    return list(groups.values()) if isinstance(groups, dict) else groups


def names_of(groups: Groups) -> list[str]:
    """The name of each group; none where they have no names."""
    return list(groups) if isinstance(groups, dict) else []


def fault_of(name: str) -> str:
    """Why a group cannot have this name; nothing if it can. Files are called by it."""
    if not name.strip() or name != name.strip():
        return "a name neither is empty nor begins or ends with a space"
    if not name.isprintable() or "/" in name or name.startswith("."):
        return "files are called by it: no slash, no point at the beginning, no unprintable letters"
    return "" if len(name) <= 100 else "a name has at most 100 letters"


def in_order(names: Sequence[str]) -> list[str]:
    """Each name once, as people sort them: c2 before c10."""

    def parts(name: str) -> list[tuple[int, str]]:
        split = re.split(r"([0-9]+)", name)
        return [(int(part), "") if part.isdecimal() else (0, part) for part in split if part]

    return sorted(dict.fromkeys(names), key=lambda name: (parts(name), name))


def group_number(asked: str | int, names: Sequence[str], count: int, key: str) -> int:
    """The number, from 0, of the group that `asked` names, or is the number of.

    names: of the `count` groups, or none; where one is a number, such as of clusters, only names
    count, or 1 would be the second group in one file and the first in another

    Raises ConfigError, which begins with `key`, for a group that is not there.
    """
    text = str(asked)
    if text in names:
        return list(names).index(text)
    named_by_numbers = any(name.isdecimal() for name in names)
    is_number = text.isascii() and text.isdecimal() and not named_by_numbers
    if is_number and int(text) < count:
        return int(text)
    there = f"There are {count} signal groups, 0 to {count - 1}"
    if count == 1:
        there = "There is one signal group, 0"
    if names:
        shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        there = f"There are {shown}" if len(names) > 1 else f"There is {shown}"
        there += "" if named_by_numbers else " (or their numbers, from 0)"
    near = difflib.get_close_matches(text, names, n=1)
    guess = f" Did you mean {near[0]}?" if near else ""
    raise ConfigError(f"{key}: there is no signal group {text}.{guess} {there}.")
