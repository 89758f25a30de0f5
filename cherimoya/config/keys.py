"""The dotted keys that a configuration has, and what each of them holds."""

import types
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from cherimoya import registry
from cherimoya.config.schema import joined


def known_keys(cls: type, prefix: str = "") -> Iterator[str]:
    """Every dotted key of the dataclass `cls`, groups and the settings of every name included."""
    hints = get_type_hints(cls)
    for f in fields(cls):
        key = joined(prefix, f.name)
        if group := f.metadata.get("group"):
            yield from _known_choices(f, group, prefix if f.metadata.get("rest") else key)
            continue
        yield key
        for option in (hints[f.name], *get_args(hints[f.name])):
            if is_dataclass(option) and get_origin(hints[f.name]) is not list:
                yield from known_keys(option, key)  # type: ignore[arg-type]


def _known_choices(f: Any, group: str, key: str) -> Iterator[str]:
    """The dotted keys of a field of Choices at `key`."""
    if not f.metadata.get("rest"):
        yield key
    for name in registry.GROUPS[group].ours:  # others may not even load
        below = joined(key, name) if f.metadata.get("many") else key
        yield from dict.fromkeys([below, joined(below, "name")])
        yield from known_keys(registry.settings_of(group, name), below)


def type_of(cls: type, key: str) -> type | None:
    """The type of the dotted `key` of the dataclass `cls`, less None; None for no plain one."""
    hint = _hint_of(cls, key)
    options = [a for a in get_args(hint) or (hint,) if a is not type(None)]
    if get_origin(hint) is list or len(options) != 1 or not isinstance(options[0], type):
        return None
    return options[0]


def text_depth(cls: type, key: str) -> tuple[int, bool] | None:
    """How deep lists of text go in the dotted `key` of `cls`, and whether text alone will do.

    None for a key that holds something else.
    """
    hint = _hint_of(cls, key)
    options = [a for a in get_args(hint) if a is not type(None)]
    options = options if get_origin(hint) in (Union, types.UnionType) else [hint]
    depths = [_list_depth(option) for option in options]
    known = [depth for depth in depths if depth is not None]
    return (max(known), 0 in known or depths == [1]) if known else None


def _hint_of(cls: type, key: str) -> Any:
    """The type hint of the dotted `key` of the dataclass `cls`; None if it has no such key."""
    group, _, rest = key.partition(".")
    for f in fields(cls):
        if not f.metadata.get("group"):
            continue
        inside = key if f.metadata.get("rest") else rest if f.name == group else ""
        named, _, below = inside.partition(".")
        for name in registry.GROUPS[f.metadata["group"]].ours if inside else ():
            if not f.metadata.get("many"):
                below = inside
            elif name != named:
                continue
            hint = _hint_of(registry.settings_of(f.metadata["group"], name), below)
            if hint is not None:
                return hint
    hint = get_type_hints(cls).get(group)
    if not rest:
        return hint
    if get_origin(hint) is list:
        return None
    options = [o for o in (*get_args(hint), hint) if isinstance(o, type) and is_dataclass(o)]
    return _hint_of(options[0], rest) if options else None


def _list_depth(hint: Any) -> int | None:
    """0 for text, 1 for a list of text, and so on; None for anything else."""
    if hint is str:
        return 0
    inner = _list_depth(get_args(hint)[0]) if get_origin(hint) is list else None
    return None if inner is None else inner + 1
