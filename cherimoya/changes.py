"""What a configuration changes of the defaults, and the command that asks for the same again."""

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHANGED = "changed.json"
LEFT_OUT = ("trainer.resume", "logger.group")  # of the command that makes a run anew
PLAIN = re.compile(r"[A-Za-z_/][\w/.-]*", re.ASCII)
WORDS = {"null", "true", "false", "nan", "inf"}  # that mean something else than text


def note_changes(folder: Path, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Keep in `folder` which keys of `config` differ from the defaults, and those defaults."""
    (folder / CHANGED).write_text(json.dumps(changes(config, defaults), indent=2) + "\n")


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


def at(config: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def command(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """The command for `config`, given the defaults of what it changes."""
    values = {key: at(config, key) for key in defaults if key not in LEFT_OUT}
    words = [shlex.quote(f"{key}={hydra_value(value)}") for key, value in values.items()]
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
