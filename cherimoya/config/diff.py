"""What a configuration changes of the defaults, and the command that asks for the same again."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cherimoya.util.files import write_json
from cherimoya.util.shapes import Table, read_json

CHANGED = "changed.json"
SHAPE = Table(
    {"groups": Table(others=[str, (str, None)]), "keys": Table()},
    {"folders": [str], "adapts": Table()},
)
LEFT_OUT = ("trainer.resume", "logger.wandb.group")  # of the command that makes a run anew
PLAIN = re.compile(r"[A-Za-z_/][\w/.-]*", re.ASCII)
WORDS = {"null", "true", "false", "nan", "inf"}  # that mean something else than text


@dataclass(frozen=True)
class Changes:
    """What a run changed: options of groups, and keys of the groups that were chosen.

    groups: group -> its option and the default one; keys: dotted key -> its default; folders: of
    the user's own, with options of groups; adapts: dotted key -> its default, which the run may
    change to one that fits its length
    """

    groups: Mapping[str, tuple[str, str | None]]
    keys: Mapping[str, Any]
    folders: Sequence[str] = ()
    adapts: Mapping[str, Any] = field(default_factory=dict)


def write_changes(folder: Path, made: Changes) -> None:
    """Keep in `folder` what a run changed."""
    write_json(folder / CHANGED, asdict(made))


def read_changes(folder: Path) -> Changes | None:
    """What the run in `folder` changed; None if it did not note that. Raises DataError."""
    path = folder / CHANGED
    if not path.exists():
        return None
    content = read_json(path, (SHAPE, Table()))
    if not {"groups", "keys"} <= set(content):  # as earlier releases noted it
        return Changes({}, content)
    read_json(path, SHAPE)
    groups = {group: tuple(pair) for group, pair in content["groups"].items()}
    folders, adapts = tuple(content.get("folders", ())), content.get("adapts", {})
    return Changes(groups, content["keys"], folders, adapts)


def changes(
    config: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str = ""
) -> dict[str, Any]:
    """The default of each dotted key that is not at it; a group that only one has is one key."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        default = defaults.get(key)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            found |= changes(value, default, f"{prefix}{key}.")
        elif value != default:
            found[f"{prefix}{key}"] = default
    return found


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], free: tuple[str, ...] = ()
) -> list[str]:
    """What the configuration `now` changes of the one `before`, in words; not what is `free`.

    A key that `before` does not know, such as a newer version's, is no difference.

    free: beginnings of dotted keys that may differ
    """
    was, new = flat(before), flat(now)
    return [
        f"{key} was {was.get(key)}, now {new.get(key)}"
        for key in dict.fromkeys([*new, *was])
        if not key.startswith(free)
        and was.get(key) != new.get(key)
        and any(key == known or key.startswith(f"{known}.") for known in was)
    ]


def at(config: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def command(config: Mapping[str, Any], made: Changes) -> str:
    """The command for `config`, given what it changes."""
    words = [shlex.quote(f"--config-dir={folder}") for folder in made.folders]
    words += [f"{group}={option}" for group, (option, _) in made.groups.items()]
    values = {key: at(config, key) for key in made.keys if key not in LEFT_OUT}
    words += [shlex.quote(f"{key}={hydra_value(value)}") for key, value in values.items()]
    return " ".join(["cherimoya-train", *words])


def hydra_value(value: Any) -> str:
    """A value as Hydra's command line reads it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {hydra_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(hydra_value, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if not isinstance(value, str) or (PLAIN.fullmatch(value) and value.lower() not in WORDS):
        return str(value)
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
    trailing = re.search(r"\\*$", escaped)
    return f"'{escaped}{trailing[0] if trailing else ''}'"
