"""What --help prints: each key with its default, a sentence and its type, and the options."""

import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from cherimoya.cli.flags import HELP
from cherimoya.config import groups
from cherimoya.config.command_line import conf_dir, nearest
from cherimoya.config.diff import hydra_value
from cherimoya.config.explain import (
    Key,
    explained,
    group_names,
    option_files,
    read_comments,
    sentences,
)
from cherimoya.config.keys import known_fields
from cherimoya.errors import ConfigError

WIDEST, NARROWEST, COLUMN = 110, 60, 34
NEEDED = "???"


def help_text(name: str, schema: type, words: Sequence[str], asked: str = "") -> str:
    """The help of the command of conf/<name>.yaml, as the overrides `words` compose it.

    asked: a key or a group, which alone is explained then. Raises ConfigError for one that is not
    there.
    """
    with groups.initialized():
        values, choices = groups.compose(name, words)
    content = OmegaConf.to_container(values)
    said = sentences(name, choices)
    defaults = dict(leaves(content, schema))
    if asked:
        return "\n".join(_about(asked, name, schema, defaults, said, choices))
    keys = list(explained(schema, defaults, said))
    head = OmegaConf.load(conf_dir() / f"{name}.yaml").hydra.help
    lines = [head.header, "", head.template.rstrip()]
    if choices:
        lines += ["", "Groups, chosen as group=option (--help GROUP explains the options):"]
        lines += [line for group in group_names() for line in _row(group, _options(group, choices))]
    lines += ["", "Keys, changed as key=value (--help KEY explains one):"]
    lines += _grouped(keys, defaults)
    lines += ["", "Flags:"]
    return "\n".join([*lines, *(line for row in HELP.items() for line in _row(*row))])


def leaves(content: Any, schema: type) -> Iterator[tuple[str, Any]]:
    """The dotted keys of a composed configuration that hold a value, in its order."""
    known = known_fields(schema)

    def below(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for name, one in value.items():
            key = f"{prefix}{name}"
            inside = any(other.startswith(f"{key}.") for other in known)
            if isinstance(one, Mapping) and (inside or key not in known):
                yield from below(one, f"{key}.")
            elif name != "name":  # which chooses an option
                yield key, one

    yield from below(content, "")


def _width() -> int:
    columns = shutil.get_terminal_size((WIDEST, 24)).columns
    return max(NARROWEST, min(columns, WIDEST))


def _row(word: str, text: str) -> list[str]:
    """A word, and a text beside it that is wrapped."""
    wide = textwrap.wrap(text, max(_width() - COLUMN - 2, 20), break_on_hyphens=False) or [""]
    first = f"  {word}".ljust(COLUMN + 2)
    if len(word) >= COLUMN:
        return [first.rstrip(), *(" " * (COLUMN + 2) + line for line in wide)]
    return [(first + wide[0]).rstrip(), *(" " * (COLUMN + 2) + line for line in wide[1:])]


def _options(group: str, choices: Mapping[str, str]) -> str:
    """The options of a group, the one that is chosen first."""
    chosen = choices.get(group)
    names = sorted(option_files(group), key=lambda option: option != chosen)
    return ", ".join(names if chosen else ["none", *names])


def _word(key: Key, defaults: Mapping[str, Any]) -> str:
    value = defaults[key.name]
    return f"{key.name}={'<required>' if value == NEEDED else hydra_value(value)}"


def _text(key: Key) -> str:
    return f"{key.sentence} ({key.kind})" if key.sentence and key.kind else key.sentence or key.kind


def _grouped(keys: Sequence[Key], defaults: Mapping[str, Any]) -> Iterator[str]:
    """The keys, a blank line between groups."""
    before = None
    for key in keys:
        group = key.name.rpartition(".")[0]
        if before is not None and group != before:
            yield ""
        before = group
        yield from _row(_word(key, defaults), _text(key))


def _about(
    asked: str,
    name: str,
    schema: type,
    defaults: Mapping[str, Any],
    said: Mapping[str, str],
    choices: Mapping[str, str],
) -> Iterator[str]:
    """All about one key, or about a group, its options and its keys."""
    known, group = known_fields(schema), asked.replace(".", "/")
    if choices and group in group_names():
        yield f"{group}: {said.get(asked.replace('/', '.'), 'a group of options')}"
        yield from _of_options(group, choices)
        below = f"{asked.replace('/', '.')}."
        keys = [k for k in explained(schema, defaults, said) if k.name.startswith(below)]
        if keys:
            yield from ["", "Its keys:", *_grouped(keys, defaults)]
    elif asked in defaults:
        (key,) = explained(schema, [asked], said)
        yield from _one(key, _word(key, defaults))
    elif keys := [k for k in explained(schema, defaults, said) if k.name.startswith(f"{asked}.")]:
        yield from _grouped(keys, defaults)
    elif asked in known:  # of an option that is not chosen
        (key,) = explained(schema, [asked], said)
        yield from _one(key, key.name)
        options = list(_with(asked))
        if options:
            yield f"  a key of {' and '.join(options)}"
    else:
        near = nearest(asked, [*defaults, *(group_names() if choices else ())])
        fix = near if near.startswith("Did") else f"cherimoya-{name} --help lists them."
        raise ConfigError(f"--help {asked}: there is no such key or group. {fix}")


def _of_options(group: str, choices: Mapping[str, str]) -> Iterator[str]:
    for option, path in option_files(group).items():
        mark = " (chosen)" if choices.get(group) == option else ""
        yield from _row(f"{group}={option}{mark}", read_comments(path).of_file)


def _one(key: Key, word: str) -> Iterator[str]:
    yield word
    for line in (key.sentence, key.kind):
        if line:
            yield textwrap.fill(line, _width(), initial_indent="  ", subsequent_indent="  ")
    if key.used is not None:
        text = f"it does nothing where {key.used.why}: set {key.used.instead}."
        yield textwrap.fill(text, _width(), initial_indent="  ", subsequent_indent="  ")


def _with(key: str) -> Iterator[str]:
    """The options of the key's group whose own file has it."""
    group, _, name = key.rpartition(".")
    for option, path in option_files(group.replace(".", "/")).items():
        if name in read_comments(path).of_keys:
            yield f"{group.replace('.', '/')}={option}"
