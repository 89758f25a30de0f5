"""What each key of a command is: its type and range from the dataclasses, a sentence from the
comments of conf/*.yaml."""

import re
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from cherimoya import registry
from cherimoya.config.command_line import conf_dir
from cherimoya.config.keys import known_fields
from cherimoya.config.schema import Used

WITH_GROUPS = "train"  # the one command that has groups
ROOT = "_global_"  # a package of Hydra: the file sets keys of all groups
OF_OTHERS = ("experiment", "sweep", "hydra")  # folders whose files explain no keys
SAME = {"bias_model.blocks": "model.blocks"}  # a group with the settings of another one
LINE = re.compile(r"(?P<indent> *)(?P<item>- )?(?P<key>[\w/@.]+):(?P<rest>.*)")
PLAIN = {int: "whole number", float: "number", bool: "true or false", str: "text"}
SIGNS = {"at_least": ">=", "above": ">", "at_most": "<=", "below": "<"}
HUGE = 10_000  # limits from here on only guard against a slip, and are not shown


@dataclass(frozen=True)
class Key:
    """A dotted key: what it is for, which values it takes, and when it has an effect."""

    name: str
    sentence: str
    kind: str
    used: Used | None = None


@dataclass
class Comments:
    """The comments of one YAML file: of the file itself, and of each of its keys."""

    of_file: str = ""
    of_keys: dict[str, str] = field(default_factory=dict)


def read_comments(path: Path) -> Comments:
    """What stands behind and above the keys of a file, lines that go on joined."""
    found, above, last = Comments(), "", ""
    columns = {0: ""}  # the key below whose column a line belongs
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.strip()
        if text.startswith("#"):
            words = text.lstrip("# ")
            if words.startswith("@package"):
                continue
            if last and line.index("#") > 0 and found.of_keys.get(last):
                found.of_keys[last] += f" {words}"
            elif not above and text.startswith("#   "):  # a command, after what the file is for
                above = "a command"
            elif not above:
                found.of_file = f"{found.of_file} {words}".strip()
            continue
        match = LINE.fullmatch(line)
        if match is None:
            continue
        above = "a key"
        indent = len(match["indent"])
        columns = {at: key for at, key in columns.items() if at < indent}
        parent = columns[max(columns)] if columns else ""
        last = f"{parent}.{match['key']}" if parent else match["key"]
        columns[indent + 1] = last
        found.of_keys[last] = _comment(match["rest"])
    found.of_file = found.of_file.rstrip(":")  # which commands follow
    return found


def _comment(rest: str) -> str:
    """What stands behind the # of a value, which is none inside of quotes."""
    quote = ""
    for at, sign in enumerate(rest):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        elif sign == "#" and rest[at - 1 : at] in (" ", ""):
            return rest[at + 1 :].strip()
    return ""


def option_files(group: str) -> dict[str, Path]:
    """The files of a group, such as model/blocks, by option: ours, and the user's own."""
    found: dict[str, Path] = {}
    for folder in (conf_dir(), *map(Path, registry.conf_folders())):
        for path in sorted((folder / group).glob("*.yaml")):
            found.setdefault(path.stem, path)
    return found


def group_names() -> list[str]:
    """Every group of cherimoya-train, as in model/blocks=cheri."""
    folders = (conf_dir(), *map(Path, registry.conf_folders()))
    names = {str(p.parent.relative_to(f)) for f in folders for p in f.glob("*/**/*.yaml")}
    return sorted(name for name in names if not name.startswith("hydra"))


def _package(group: str, path: Path) -> str:
    """The dotted key under which a file's keys lie."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    named = re.fullmatch(r"#\s*@package\s+(\S+)\s*", first)
    package = named[1] if named else group.replace("/", ".")
    return "" if package == ROOT else package


def sentences(command: str, choices: Mapping[str, str] | None = None) -> dict[str, str]:
    """What each dotted key of conf/<command>.yaml and of its groups is for, where a comment says.

    choices: the option of each group, where that is known; its own file comes before the others
    of the group
    """
    found: dict[str, str] = {}
    top = read_comments(conf_dir() / f"{command}.yaml").of_keys
    _add(found, "", {k.removeprefix("defaults."): v for k, v in top.items() if v})
    for group in group_names() if command == WITH_GROUPS else ():
        if group.split("/")[0] in OF_OTHERS:
            continue
        files = option_files(group)
        option = (choices or {}).get(group)
        chosen = [files[option]] if option in files else []
        for path in (*chosen, *files.values()):
            _add(found, _package(group, path), read_comments(path).of_keys)
    return found


def _add(found: dict[str, str], package: str, keys: Mapping[str, str]) -> None:
    for name, text in keys.items():
        if text:
            found.setdefault(f"{package}.{name}" if package else name, text)


def explained(schema: type, names: Iterable[str], said: Mapping[str, str]) -> Iterator[Key]:
    """The dotted keys `names` of the dataclass `schema`, in the words of `said`."""
    known = known_fields(schema)
    for name in names:
        other = next((name.replace(a, b, 1) for a, b in SAME.items() if name.startswith(a)), name)
        sentence = said.get(name) or said.get(other, "")
        if name not in known:
            yield Key(name, sentence, "")
            continue
        hint, of_class = known[name]
        metadata = {} if of_class is None else of_class.metadata
        used = metadata.get("used")
        kind = kind_of(hint, metadata)
        yield Key(name, sentence, kind, used if isinstance(used, Used) else None)


def kind_of(hint: Any, metadata: Mapping[str, Any]) -> str:
    """The values of a type, in words: "whole number >= 1, or null"."""
    if metadata.get("choices"):
        words = _any_of([str(choice) for choice in metadata["choices"]])
        return f"list of {words}" if get_origin(hint) is list else words + _or_null(hint)
    limits = metadata.get("limits") or {}
    shown = [
        f"{SIGNS[name]} {limit:g}"
        for name, limit in limits.items()
        if limit is not None and abs(limit) < HUGE
    ]
    return " ".join([_type(hint), " and ".join(shown)]).strip() + _or_null(hint)


def _or_null(hint: Any) -> str:
    return ", or null" if type(None) in get_args(hint) else ""


def _any_of(words: list[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def _type(hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        options = [_type(a) for a in get_args(hint) if a is not type(None)]
        return _any_of(list(dict.fromkeys(options)))
    if get_origin(hint) is list:
        return f"list of {_plural(get_args(hint)[0])}"
    if get_origin(hint) is dict:
        return f"{{name: {_type(get_args(hint)[1])}}}"
    if is_dataclass(hint):
        return f"{{{', '.join(f.name for f in fields(hint))}}}"
    return PLAIN.get(hint, "group of keys")


def _plural(hint: Any) -> str:
    words = {"whole number": "whole numbers", "number": "numbers", "text": "texts"}
    inner = _type(hint)
    return words.get(inner, inner if not inner.startswith("list") else f"lists{inner[4:]}")
