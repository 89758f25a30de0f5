"""How a mapping of plain values becomes a checked dataclass, and what is said when it cannot."""

import difflib
import math
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from operator import ge, gt, le, lt
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from cherimoya import registry
from cherimoya.errors import ConfigError
from cherimoya.util.own_code import own_errors

T = TypeVar("T")

DEVICES = ("auto", "cpu", "cuda")
NO_OTHER = "On other GPUs, such as Apple's mps, nothing was tested: there use cpu."
MOST_BASES = 10_000_000  # of a window, or between two
MOST = 2**63 - 1  # of whole numbers, the largest that arrays hold

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


@dataclass(frozen=True)
class Choice:
    """What a group's `name` chose: the name and the settings, a dataclass that goes with it.

    idle: settings that were given and belong to other names, each with the one it belongs to
    """

    group: str  # of registry.GROUPS
    name: str
    settings: Any
    idle: Mapping[str, str] = field(default_factory=dict, compare=False)

    def unused(self, key: str) -> dict[str, Used]:
        """The dotted keys, of the group at `key`, that have no effect as it is."""
        found = {
            joined(key, setting): Used(
                lambda _: False, f"{key}={self.name} has no such setting", f"{key}={other}"
            )
            for setting, other in self.idle.items()
        }
        return found | unused_keys(self.settings, key)

    def make(self, *arguments: Any) -> Any:
        """The thing itself: its class, called with `arguments` and its settings."""
        names = {f.name for f in fields(self.settings)} - {*registry.GROUPS[self.group].kept}
        settings = {name: getattr(self.settings, name) for name in names}
        make = registry.find(self.group, self.name)
        if self.is_ours:
            return make(*arguments, **settings)
        with own_errors(f"{self.group}: the __init__ of {self.name}"):
            return make(*arguments, **settings)

    @property
    def is_ours(self) -> bool:
        """Whether it is shipped with cherimoya."""
        return self.name in registry.GROUPS[self.group].ours


def chosen(group: str, usual: str | None = None) -> Any:
    """A dataclass field that is one Choice of `group`; without a name it is the `usual` one."""
    return field(metadata={"group": group, "usual": usual})


def several(group: str, *, rest: bool = False, used: Any = None, default: bool = False) -> Any:
    """A dataclass field of several Choices of `group`, by a name each.

    rest: they are the keys of the dataclass that none of its other fields has; used: of the
    dataclass and a name, when that Choice has an effect, see Used; default: there may be none
    """
    metadata = {"group": group, "many": True, "rest": rest, "used": used}
    return field(default_factory=dict, metadata=metadata) if default else field(metadata=metadata)


def build(cls: type[T], values: Any, prefix: str = "") -> T:
    """Build the dataclass `cls` from `values`, recursively.

    Raises ConfigError naming the key, the value and the fix for an unknown or missing key, a
    wrong type, a value out of range, and whatever `__post_init__` objects to.
    """
    if not isinstance(values, Mapping):
        where = prefix or "the configuration"
        raise ConfigError(f"{where}={values!r}: expected a group of keys. Choose one of its files.")
    every = fields(cls)  # type: ignore[arg-type]
    names = {f.name for f in every if not f.metadata.get("rest")}
    others = {k: v for k, v in values.items() if k not in names}
    for key, value in others.items():
        if len(names) == len(every) or not (value is None or isinstance(value, Mapping)):
            raise ConfigError(
                unknown_key(joined(prefix, str(key)), [joined(prefix, n) for n in names])
            )
    hints, arguments = get_type_hints(cls), {}
    missing: MissingValue | None = None  # which the others are checked before
    for f in every:
        try:
            if f.metadata.get("rest"):
                arguments[f.name] = _choices(f.metadata["group"], others, prefix)
            elif f.name in values or (f.default, f.default_factory) == (MISSING, MISSING):
                arguments[f.name] = _value(hints[f.name], values, f, joined(prefix, f.name))
        except MissingValue as error:
            missing = missing or error
    if missing:
        raise missing
    return cls(**arguments)


def _value(hint: Any, values: Mapping[str, Any], f: Any, key: str) -> Any:
    """The checked value of a field."""
    if values.get(f.name, "???") == "???":
        raise MissingValue(f"{key} has no value. Set it on the command line: {key}=<value>")
    if group := f.metadata.get("group"):
        if f.metadata.get("many"):
            return _choices(group, values[f.name], key)
        return choose(group, values[f.name], key, f.metadata["usual"])
    if type(values[f.name]) is int and abs(values[f.name]) > MOST:
        _check(values[f.name], f.metadata, key)  # the key's own bounds say more than those of all
    value = _convert(hint, values[f.name], key)
    _check(value, f.metadata, key)
    return value


def choose(group: str, values: Any, key: str, usual: str | None = None) -> Choice:
    """The Choice of `group` that `values` describe, whose name is `usual` if they have none.

    Raises ConfigError for a name that stands for nothing, and as `build` for its settings.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{key}={values!r}: expected a group of keys. Choose one of its files.")
    name = values.get("name", usual)
    if not isinstance(name, str):
        known = ", ".join(registry.names(group)) or "none"
        raise MissingValue(
            f"{key}.name has no value. Known here: {known}; or module:Class of your own"
        )
    settings = registry.settings_of(group, name, f"{key}.name")
    own = {k: v for k, v in values.items() if k != "name"}
    idle = _of_others(group, own, settings)
    own = {k: v for k, v in own.items() if k not in idle}
    return Choice(group, name, build(settings, own, key), idle)


def _choices(group: str, values: Any, key: str) -> dict[str, Choice]:
    """Several Choices; what is null, or has no name where names are not ours, is left out."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{key}={values!r}: expected a group of keys. Choose one of its files.")
    found, known = {}, registry.names(group)
    for name, own in values.items():
        below = joined(key, str(name))
        if own is not None and not isinstance(own, Mapping):
            raise ConfigError(_moved(group, str(name), key))
        if own is not None and (group != "logger" or "name" in own):  # a recipe may set one's keys
            found[str(name)] = choose(group, own, below, str(name) if name in known else None)
    return found


def _moved(group: str, setting: str, key: str) -> str:
    """The message for a key of the time when a group was one choice, or for none at all."""
    for name in registry.GROUPS[group].ours:
        if setting in {f.name for f in fields(registry.settings_of(group, name))}:
            return f"{joined(key, setting)} is {joined(key, name)}.{setting} now. Write that."
    return f"{joined(key, setting)}: expected a group of keys with a name. Choose one of its files."


def _of_others(group: str, values: Mapping[Any, Any], settings: type) -> dict[str, str]:
    """The keys that only other names of the group have, each with such a name."""
    names = {f.name for f in fields(settings)}
    return {
        key: other
        for other in reversed(registry.GROUPS[group].ours)
        for key in ({f.name for f in fields(registry.settings_of(group, other))} - names)
        if key in values
    }


def check_complete(cls: type, values: Mapping[Any, Any], name: str, base: str) -> None:
    """Raise ConfigError where `name`, in the place of our `base`, lacks keys of the dataclass."""
    if name == base:
        return
    usual = [f.name for f in fields(cls) if (f.default, f.default_factory) == (MISSING, MISSING)]
    absent = [key for key in usual if key not in values]
    if absent:
        listed = ", ".join(absent[:3]) + (" and more" if len(absent) > 3 else "")
        raise ConfigError(
            f"{name}.yaml lacks {listed}. Let it begin with defaults: [{base}, _self_], and set "
            "below that what is to differ."
        )


def unused_keys(config: Any, prefix: str = "") -> dict[str, Used]:
    """The dotted keys of the dataclass `config` that have no effect as it is, groups as one key."""
    found: dict[str, Used] = {}
    for f in fields(config):
        key, value, used = joined(prefix, f.name), getattr(config, f.name), f.metadata.get("used")
        if isinstance(value, Choice):
            found |= value.unused(key)
        elif f.metadata.get("many"):
            absent = registry.names(f.metadata["group"]) if used else []
            for name in dict.fromkeys([*value, *absent]):
                below = joined(prefix if f.metadata["rest"] else key, name)
                if why := used(config, name) if used else None:
                    found[below] = why
                elif name in value:
                    found |= value[name].unused(below)
        elif used is not None and not used.when(config):
            found[key] = used
        elif is_dataclass(value):
            found |= unused_keys(value, key)
    across: Callable[[], dict[str, Used]] = getattr(config, "unused_across_groups", dict)
    return across() | found


def to_dict(config: Any) -> Any:
    """A dataclass as plain nested dictionaries, the inverse of `build`."""
    if isinstance(config, Choice):
        return {"name": config.name, **to_dict(config.settings)}
    if isinstance(config, dict):
        return {key: to_dict(value) for key, value in config.items()}
    if isinstance(config, list):
        return [to_dict(value) for value in config]
    if not is_dataclass(config):
        return config
    found: dict[str, Any] = {}
    for f in fields(config):
        value = to_dict(getattr(config, f.name))
        found |= value if f.metadata.get("rest") else {f.name: value}
    return found


def unknown_key(key: str, candidates: list[str]) -> str:
    """The message for a key that does not exist, with the nearest one that does."""
    near = difflib.get_close_matches(key, candidates, n=1, cutoff=0.5)
    if not near:  # a key typed without its group, such as n_filters for model.n_filters
        leaves = {c.rsplit(".", 1)[-1]: c for c in candidates}
        near = [leaves[n] for n in difflib.get_close_matches(key.rsplit(".", 1)[-1], leaves, n=1)]
    if near:
        return f"unknown key {key}. Did you mean {near[0]}?"
    if not candidates:
        return f"unknown key {key}: {key.rpartition('.')[0]} takes no keys. Leave it out."
    return f"unknown key {key}. Known here: {', '.join(sorted(candidates))}"


def joined(prefix: str, name: str) -> str:
    """The dotted key `name` of the group `prefix`, which may be none."""
    return f"{prefix}.{name}" if prefix else name


def _convert(hint: Any, value: Any, key: str) -> Any:
    """`value` as the type `hint`, or a ConfigError: no silent rounding, no text as a number."""
    if get_origin(hint) in (Union, types.UnionType):
        options = [a for a in get_args(hint) if a is not type(None)]
        if value is None and len(options) < len(get_args(hint)):
            return None
        kind = dict if isinstance(value, Mapping) else list
        is_some = isinstance(value, (list, tuple, Mapping))
        same = [a for a in options if is_some and get_origin(a) is kind]
        return _convert([*same, *options][0], value, key)
    if get_origin(hint) is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{key}={value!r}: expected a group of keys")
        _, item = get_args(hint)
        return {
            str(k): v if item is Any else _convert(item, v, joined(key, str(k)))
            for k, v in value.items()
        }
    if get_origin(hint) is list:
        if not isinstance(value, (list, tuple)):
            shown = "null" if value is None else repr(value)
            name, depth = key.partition("[")[0], key.count("[") + 1
            form = f"{name}={'[' * depth}...{']' * depth}"
            raise ConfigError(f"{key}={shown}: expected a list, such as {form}")
        (item,) = get_args(hint)
        return [_convert(item, v, f"{key}[{i}]") for i, v in enumerate(value)]
    if is_dataclass(hint):
        return build(hint, value, key)  # type: ignore[arg-type]
    if hint in (int, float) and isinstance(value, int) and abs(value) > MOST:
        raise ConfigError(f"{key}={value}: must be at {'most ' if value > 0 else 'least -'}{MOST}")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)  # chromosome names such as 1
    if type(value) is not hint:
        shown = "null" if value is None else value
        whole = hint is int and type(value) is float and abs(value) <= MOST and value % 1 == 0
        form = f", without e and point: {value:.0f}" if whole else ""
        raise ConfigError(f"{key}={shown}: expected {_TYPE_NAMES.get(hint, hint.__name__)}{form}")
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
        if isinstance(item, float) and not math.isfinite(item):
            raise ConfigError(f"{key}={item}: must be a finite number.{hint}")
        for name, limit in metadata["limits"].items():
            if limit is not None and not _COMPARE[name](item, limit):
                raise ConfigError(f"{key}={item}: must be {name.replace('_', ' ')} {limit}.{hint}")


_COMPARE = {"at_least": ge, "above": gt, "at_most": le, "below": lt}
