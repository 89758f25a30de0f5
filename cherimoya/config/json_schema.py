"""A JSON schema of a command's configuration, by which editors complete and check YAML files."""

import types
from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from cherimoya import registry
from cherimoya.config.explain import sentences
from cherimoya.config.schema import joined

DRAFT = "https://json-schema.org/draft/2020-12/schema"
LATER = {"type": "string", "pattern": r"^(\$\{.*\}|\?\?\?)$"}  # ${another.key}, or ??? for no value
NAMES = {int: "integer", float: "number", bool: "boolean", str: "string"}
LIMITS = {
    "at_least": "minimum", "above": "exclusiveMinimum", "at_most": "maximum",
    "below": "exclusiveMaximum",
}  # fmt: skip
Schema = dict[str, Any]


def json_schema(command: str, cls: type) -> Schema:
    """Of the files that can stand in the place of conf/<command>.yaml, or beside it as a recipe.

    No key is required there: a recipe says only what differs from the defaults.
    """
    said = sentences(command)
    made = _object(cls, "", said)
    properties = {"defaults": {"type": "array", "description": "options of groups"}}
    return {
        "$schema": DRAFT,
        "title": f"cherimoya-{command}",
        "type": "object",
        "properties": properties | made["properties"] | {"hydra": {"type": "object"}},
        "additionalProperties": made["additionalProperties"],
    }


def _object(cls: type, prefix: str, said: Mapping[str, str]) -> Schema:
    """Of a dataclass, whose keys begin with `prefix`."""
    hints, is_open = get_type_hints(cls), False
    properties: dict[str, Schema] = {}
    for f in fields(cls):
        key = joined(prefix, f.name)
        if f.metadata.get("rest"):
            properties |= _named(f.metadata["group"], prefix, said)
            is_open = True
        else:
            properties[f.name] = _described(_of_field(hints[f.name], f, key, said), key, said)
    return {"type": "object", "properties": properties, "additionalProperties": is_open}


def _of_field(hint: Any, f: Field[Any], key: str, said: Mapping[str, str]) -> Schema:
    group = f.metadata.get("group")
    if group and f.metadata.get("many"):
        named = _named(group, key, said)
        return {"type": "object", "properties": named, "additionalProperties": True}
    if group:
        return _choice(group, key, said)
    return _with_later(_type(hint, f.metadata, key, said))


def _described(made: Schema, key: str, said: Mapping[str, str]) -> Schema:
    return {"description": said[key], **made} if key in said else made


def _named(group: str, prefix: str, said: Mapping[str, str]) -> dict[str, Schema]:
    """The settings of each name of a group that has several at once, such as optim.muon."""
    ours = registry.GROUPS[group].ours
    made = {name: _choice(group, joined(prefix, name), said, name) for name in ours}
    return {name: {"anyOf": [of_name, {"type": "null"}]} for name, of_name in made.items()}


def _choice(group: str, key: str, said: Mapping[str, str], only: str | None = None) -> Schema:
    """The name and the settings of what a group chooses; one of the user's own has others."""
    names = [only] if only else [*registry.GROUPS[group].ours]
    properties: dict[str, Schema] = {
        "name": {"type": "string", "examples": names, "description": "or module:Class of your own"}
    }
    for name in names:
        properties |= _object(registry.settings_of(group, name), key, said)["properties"]
    return {"type": "object", "properties": properties, "additionalProperties": True}


def _with_later(made: Schema) -> Schema:
    """Or text that Hydra replaces, where plain text is not allowed anyway."""
    if made.get("type") == "string" and "enum" not in made:
        return made
    return {"anyOf": [*made.get("anyOf", [made]), LATER]}


def _type(hint: Any, metadata: Mapping[str, Any], key: str, said: Mapping[str, str]) -> Schema:
    """Of a type, with the limits and choices of its field."""
    if get_origin(hint) in (Union, types.UnionType):
        made = [_type(option, metadata, key, said) for option in get_args(hint)]
        return {"anyOf": made}
    if hint is type(None):
        return {"type": "null"}
    if get_origin(hint) is list:
        return {"type": "array", "items": _type(get_args(hint)[0], metadata, key, said)}
    if get_origin(hint) is dict:
        inner = get_args(hint)[1]
        values = {} if inner is Any else _type(inner, metadata, key, said)
        return {"type": "object", "additionalProperties": values}
    if is_dataclass(hint):
        return _object(hint, key, said)  # type: ignore[arg-type]
    made_of: Schema = {"type": NAMES[hint]}
    if hint is str:
        if metadata.get("choices"):
            made_of["enum"] = list(metadata["choices"])
        elif "chroms" in key or "groups" in key:
            made_of["type"] = ["string", "integer"]  # a name such as 1
    if hint in (int, float):
        limits = metadata.get("limits") or {}
        made_of |= {LIMITS[name]: limit for name, limit in limits.items() if limit is not None}
    return made_of
