"""How a mapping of plain values becomes a checked dataclass, and what is said when it cannot."""

import difflib
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from cherimoya.errors import ConfigError

T = TypeVar("T")

_TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


class MissingValue(ConfigError):  # noqa: N818 - not wrong yet
    """A key that needs a value and has none."""


@dataclass(frozen=True)
class Used:
    """When a key has an effect: where `when` is true of its group.

    Elsewhere it does nothing, for the reason `why`, and `instead` is a word of the command line
    with which it would.
    """

    when: Callable[[Any], bool]
    why: str
    instead: str


def checked(
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    choices: tuple[Any, ...] | None = None,
    hint: str = "",
    default: Any = MISSING,
    used: Used | None = None,
) -> Any:
    """A dataclass field whose value must lie in a range or among `choices`.

    The check applies to every element of a list, and never to None. `hint` ends the message. A
    `default` is for keys that configurations saved by earlier releases lack. `used` says when the
    key has an effect, for those that do not always.
    """
    limits = {"at_least": at_least, "above": above, "at_most": at_most, "below": below}
    metadata = {"limits": limits, "choices": choices, "hint": hint, "used": used}
    return field(default=default, metadata=metadata)


def build(cls: type[T], values: Any, prefix: str = "") -> T:
    """Build the dataclass `cls` from `values`, recursively.

    Raises ConfigError naming the key, the value and the fix for an unknown or missing key, a
    wrong type, a value out of range, and whatever `__post_init__` objects to.
    """
    if not isinstance(values, Mapping):
        where = prefix or "the configuration"
        raise ConfigError(f"{where}={values!r}: expected a group of keys. Choose one of its files.")
    names = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in names:
            raise ConfigError(
                unknown_key(_join(prefix, str(key)), [_join(prefix, n) for n in names])
            )
    hints, arguments = get_type_hints(cls), {}
    missing: MissingValue | None = None  # which the others are checked before
    for f in fields(cls):  # type: ignore[arg-type]
        try:
            if f.name in values or (f.default, f.default_factory) == (MISSING, MISSING):
                arguments[f.name] = _value(hints[f.name], values, f, _join(prefix, f.name))
        except MissingValue as error:
            missing = missing or error
    if missing:
        raise missing
    return cls(**arguments)


def _value(hint: Any, values: Mapping[str, Any], f: Any, key: str) -> Any:
    """The checked value of a field."""
    if values.get(f.name, "???") == "???":
        raise MissingValue(f"{key} has no value. Set it on the command line: {key}=<value>")
    value = _convert(hint, values[f.name], key)
    _check(value, f.metadata, key)
    return value


def check_complete(cls: type, values: Mapping[Any, Any], name: str, base: str) -> None:
    """Raise ConfigError where `name`, in the place of our `base`, lacks keys of the dataclass."""
    if name == base:
        return
    usual = [f.name for f in fields(cls) if f.default is MISSING]
    absent = [key for key in usual if key not in values]
    if absent:
        listed = ", ".join(absent[:3]) + (" and more" if len(absent) > 3 else "")
        raise ConfigError(
            f"{name}.yaml lacks {listed}. Let it begin with defaults: [{base}, _self_], and set "
            "below that what is to differ."
        )


def known_keys(cls: type, prefix: str = "") -> Iterator[str]:
    """Every dotted key of the dataclass `cls`, groups included."""
    hints = get_type_hints(cls)
    for f in fields(cls):
        key = _join(prefix, f.name)
        yield key
        for option in (hints[f.name], *get_args(hints[f.name])):
            if is_dataclass(option) and get_origin(hints[f.name]) is not list:
                yield from known_keys(option, key)  # type: ignore[arg-type]


def unused_keys(config: Any, prefix: str = "") -> dict[str, Used]:
    """The dotted keys of the dataclass `config` that have no effect as it is, groups as one key."""
    found: dict[str, Used] = {}
    for f in fields(config):
        key, value = _join(prefix, f.name), getattr(config, f.name)
        used = f.metadata.get("used")
        if used is not None and not used.when(config):
            found[key] = used
        elif is_dataclass(value):
            found |= unused_keys(value, key)
    return found


def type_of(cls: type, key: str) -> type | None:
    """The type of the dotted `key` of the dataclass `cls`, less None; None for no plain one."""
    for part in key.split("."):
        hint = get_type_hints(cls).get(part) if is_dataclass(cls) else None
        options = [a for a in get_args(hint) or (hint,) if a is not type(None)]
        if get_origin(hint) is list or len(options) != 1 or not isinstance(options[0], type):
            return None
        cls = options[0]
    return cls


def text_depth(cls: type, key: str) -> tuple[int, bool] | None:
    """How deep lists of text go in the dotted `key` of `cls`, and whether text alone will do.

    None for a key that holds something else.
    """
    *groups, name = key.split(".")
    for group in groups:
        hint = get_type_hints(cls).get(group) if is_dataclass(cls) else None
        inside = [o for o in (*get_args(hint), hint) if isinstance(o, type) and is_dataclass(o)]
        cls = inside[0] if inside else type(None)
    hint = get_type_hints(cls).get(name) if is_dataclass(cls) else None
    options = [a for a in get_args(hint) if a is not type(None)]
    options = options if get_origin(hint) in (Union, types.UnionType) else [hint]
    depths = [_list_depth(option) for option in options]
    known = [depth for depth in depths if depth is not None]
    return (max(known), 0 in known or depths == [1]) if known else None


def _list_depth(hint: Any) -> int | None:
    """0 for text, 1 for a list of text, and so on; None for anything else."""
    if hint is str:
        return 0
    inner = _list_depth(get_args(hint)[0]) if get_origin(hint) is list else None
    return None if inner is None else inner + 1


def unknown_key(key: str, candidates: list[str]) -> str:
    """The message for a key that does not exist, with the nearest one that does."""
    near = difflib.get_close_matches(key, candidates, n=1, cutoff=0.5)
    if not near:  # a key typed without its group, such as n_filters for model.n_filters
        leaves = {c.rsplit(".", 1)[-1]: c for c in candidates}
        near = [leaves[n] for n in difflib.get_close_matches(key.rsplit(".", 1)[-1], leaves, n=1)]
    if near:
        return f"unknown key {key}. Did you mean {near[0]}?"
    return f"unknown key {key}. Known here: {', '.join(sorted(candidates))}"


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _convert(hint: Any, value: Any, key: str) -> Any:
    """`value` as the type `hint`, or a ConfigError: no silent rounding, no text as a number."""
    if get_origin(hint) in (Union, types.UnionType):
        options = [a for a in get_args(hint) if a is not type(None)]
        if value is None:
            return None
        lists = [a for a in options if get_origin(a) is list and isinstance(value, (list, tuple))]
        return _convert([*lists, *options][0], value, key)
    if get_origin(hint) is list:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{key}={value!r}: expected a list, such as {key}=[...]")
        (item,) = get_args(hint)
        return [_convert(item, v, f"{key}[{i}]") for i, v in enumerate(value)]
    if is_dataclass(hint):
        return build(hint, value, key)  # type: ignore[arg-type]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)  # chromosome names such as 1
    if type(value) is not hint:
        shown = "null" if value is None else value
        raise ConfigError(f"{key}={shown}: expected {_TYPE_NAMES.get(hint, hint.__name__)}")
    return value


def _check(value: Any, metadata: Mapping[str, Any], key: str) -> None:
    if value is None or not metadata:
        return
    hint = f" {metadata['hint']}" if metadata["hint"] else ""
    choices = metadata["choices"]
    for item in value if isinstance(value, list) else [value]:
        if choices is not None and item not in choices:
            near = difflib.get_close_matches(str(item), [str(c) for c in choices], n=1)
            guess = f" Did you mean {near[0]}?" if near else ""
            listed = ", ".join(str(c) for c in choices)
            raise ConfigError(f"{key}={item}: must be one of {listed}.{guess}{hint}")
        for name, limit in metadata["limits"].items():
            if limit is not None and not _COMPARE[name](item, limit):
                words = name.replace("_", " ")
                raise ConfigError(f"{key}={item}: must be {words} {limit}.{hint}")


_COMPARE = {
    "at_least": lambda a, b: a >= b,
    "above": lambda a, b: a > b,
    "at_most": lambda a, b: a <= b,
    "below": lambda a, b: a < b,
}
