"""The dotted keys that a configuration has, and what each of them holds."""

import types
from collections.abc import Iterator, Mapping
from dataclasses import Field, fields, is_dataclass
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from cherimoya import registry
from cherimoya.config.schema import joined


@cache
def known_keys(cls: type, prefix: str = "") -> Mapping[str, Any]:
    """Every dotted key of the dataclass `cls`, groups and the settings of every name included.

    Each with its type hint, of the first name that has it; None where nobody asks for the type.
    """
    return {key: hint for key, (hint, _) in known_fields(cls, prefix).items()}


@cache
def known_fields(cls: type, prefix: str = "") -> Mapping[str, tuple[Any, Field[Any] | None]]:
    """As `known_keys`, each with its type hint and its field, None for the name of a choice."""
    found: dict[str, tuple[Any, Field[Any] | None]] = {}
    for key, hint, of_class in _fields(cls, prefix):
        found.setdefault(key, (hint, of_class))
    return found


def _fields(cls: type, prefix: str) -> Iterator[tuple[str, Any, Field[Any] | None]]:
    hints = get_type_hints(cls)
    for f in fields(cls):
        key, hint = joined(prefix, f.name), hints[f.name]
        if not f.metadata.get("rest"):
            yield key, hint, f
        if group := f.metadata.get("group"):
            above, many = prefix if f.metadata.get("rest") else key, f.metadata.get("many")
            for name in registry.GROUPS[group].ours:  # others may not even load
                below = joined(above, name) if many else above
                yield below, None, None
                yield joined(below, "name"), None if many else str, None
                yield from _fields(registry.settings_of(group, name), below)
            continue
        for option in (hint, *get_args(hint)):
            if is_dataclass(option) and get_origin(hint) is not list:
                yield from _fields(option, key)  # type: ignore[arg-type]


def type_of(cls: type, key: str) -> type | None:
    """The type of the dotted `key` of the dataclass `cls`, less None; None for no plain one."""
    hint = known_keys(cls).get(key)
    options = [a for a in get_args(hint) or (hint,) if a is not type(None)]
    if get_origin(hint) is list or len(options) != 1 or not isinstance(options[0], type):
        return None
    return options[0]


def text_depth(cls: type, key: str) -> tuple[int, bool] | None:
    """How deep lists of text go in the dotted `key` of `cls`, and whether text alone will do.

    None for a key that holds something else.
    """
    hint = known_keys(cls).get(key)
    options = [a for a in get_args(hint) if a is not type(None)]
    options = options if get_origin(hint) in (Union, types.UnionType) else [hint]
    depths = [_list_depth(option) for option in options]
    known = [depth for depth in depths if depth is not None]
    return (max(known), 0 in known or depths == [1]) if known else None


def named_depth(cls: type, key: str) -> int | None:
    """How deep lists of text go below names in the dotted `key` of `cls`; None for no names."""
    hint = known_keys(cls).get(key)
    named = [get_args(option)[1] for option in get_args(hint) if get_origin(option) is dict]
    return _list_depth(named[0]) if named else None


def _list_depth(hint: Any) -> int | None:
    """0 for text, 1 for a list of text, and so on; None for anything else."""
    if hint is str:
        return 0
    inner = _list_depth(get_args(hint)[0]) if get_origin(hint) is list else None
    return None if inner is None else inner + 1
