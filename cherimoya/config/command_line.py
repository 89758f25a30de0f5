"""The words of a command line, with file names as people type them, as words that Hydra reads."""

import difflib
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException

from cherimoya import registry
from cherimoya.config import options
from cherimoya.config.diff import hydra_value
from cherimoya.config.keys import known_keys, named_depth, text_depth
from cherimoya.config.paths import expanded
from cherimoya.config.quoting import is_file, is_open, named, quoted
from cherimoya.config.schema import unknown_key
from cherimoya.errors import ConfigError, printable

RESUME = "trainer.resume"
SPLITS = ("data.fold", "data.leave_out")  # typed, they take the place of a recipe's lists
LISTS = ("data.validation_chroms", "data.test_chroms")
VALUED = {  # flags of Hydra with a value, which may look like a key and its value: short, long
    "-c": "--cfg",
    "-p": "--package",
    "-cp": "--config-path",
    "-cn": "--config-name",
    "-cd": "--config-dir",
}
SHORT = VALUED | {"-h": "--help", "-m": "--multirun", "-sc": "--shell-completion", "-i": "--info"}
USUAL = {"loss": "kendall", "model.blocks": "cheri"}  # options by default
OPEN_KEYS = ("model.blocks.", "loss.", "optim.", "data.options.", "logger.", "metrics.")
OF_WANDB = tuple(f"logger.{f.name}" for f in fields(options.Wandb))  # keys before it had a name
BIAS_BLOCKS = ("bias_model.blocks", "bias_model/blocks")  # that use the options of model/blocks


def one_word_each(arguments: Sequence[str]) -> list[str]:
    """The arguments with each flag and its value as one word."""
    words, rest = [], list(arguments)
    while rest:
        word = rest.pop(0)
        valued = word in VALUED or word in VALUED.values()
        if word in ("-h", "--help"):  # of one key, or of all
            valued = bool(rest) and not rest[0].startswith("-") and "=" not in rest[0]
        words.append(f"{word}={rest.pop(0)}" if valued and rest else word)
    return [_with_folder(word) for word in words]


def _with_folder(word: str) -> str:
    """The word, of --config-dir with a folder that no shell has looked at after its =."""
    name, equals, value = word.partition("=")
    own = equals and SHORT.get(name, name) == "--config-dir"
    return f"{name}={expanded(value)}" if own else word


def flag(arguments: Sequence[str], name: str) -> str | None:
    """The value of a flag, by its long name; empty if it has none, None if it is not there."""
    pairs = [word.partition("=") for word in one_word_each(arguments)]
    values = [value for word, _, value in pairs if SHORT.get(word, word) == name]
    return values[-1] if values else None


def overrides(arguments: Sequence[str]) -> list[str]:
    """The words that change a key or choose an option of a group."""
    return [word for word in arguments if is_override(word)]


def is_override(word: str) -> bool:
    """Whether the word changes a key, chooses an option, or with ~ removes one."""
    return not word.startswith("-") and ("=" in word or word.startswith("~"))


def parse(word: str) -> Override:
    """What Hydra understands. Raises ConfigError for what it cannot read."""
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException as error:
        raise ConfigError(f"{word!r} is not key=value: {str(error).splitlines()[0]}") from None
    except ValueError:  # Python's
        raise ConfigError(f"{printable(word)}: a number has too many digits to be read.") from None


def readable(word: str, schema: type, several: bool) -> str:
    """`word` as Hydra reads it, with quotes around text that it would take for something else.

    several: whether a comma separates the values of a sweep, and is no part of a name.

    Raises ConfigError, with the forms that work, for several values where there can be one.
    """
    key, equals, text = word.partition("=")
    depth = text_depth(schema, key.lstrip("+"))
    of_hydra = key.startswith("hydra.")
    is_folder = of_hydra and key.endswith("dir")
    if of_hydra and equals:
        depth, several = (0, True), several and not is_folder
    if not equals or depth is None:
        return word
    if is_file(text):
        return f"{key}={quoted(text, 0, False)}"
    below = named_depth(schema, key.lstrip("+"))
    if below is not None and text.startswith("{") and text.endswith("}"):
        return f"{key}={named(text, below)}"
    try:
        override = OverridesParser.create().parse_override(word)
    except (HydraException, ValueError):
        return f"{key}={quoted(text, depth[0], several)}"
    if override.is_sweep_override():
        if not several:
            return _one_value(key, text, *depth)
        is_list = isinstance(override.value(), ChoiceSweep) and not re.match(r"\w+\(", text)
        return (
            f"{key}={quoted(text, depth[0], True)}" if is_list and expanded(text) != text else word
        )
    is_right = _is_text(override.value(), depth[0]) or (of_hydra and not is_folder)
    if is_right and not is_open(text, depth[0]):
        return word
    return f"{key}={quoted(text, depth[0], several)}"


def quotable(key: str, text: str) -> str:
    """The word that gives `key` the value `text`, sign by sign, for a shell."""
    kept = text.replace("${", r"\${")
    plain = f'"{kept}"' if not {'"', "\\"} & set(text) else hydra_value(kept)
    return shlex.quote(f"{key}={plain}")


def _one_value(key: str, text: str, depth: int, may_be_text: bool) -> str:
    """Several values by Hydra's grammar, where one is wanted: a name with a comma, if it can be."""
    if not depth:
        return f"{key}={hydra_value(text)}"
    listed = "[" * depth + text + "]" * depth
    raise ConfigError(
        f"{key}={text} names several values. Write a list: {shlex.quote(f'{key}={listed}')}"
        + (f", or one name that has a comma: {quotable(key, text)}" if may_be_text else "")
    )


def _is_text(value: Any, depth: int) -> bool:
    """Whether the value is text, or lists of it no deeper than `depth`; null is what it says."""
    if isinstance(value, list):
        return depth > 0 and all(_is_text(item, depth - 1) for item in value)
    return value is None or isinstance(value, str)


def nearest(word: str, known: Sequence[str]) -> str:
    """The one of `known` that is spelled most like `word`, as a question, or which there are."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"Did you mean {near[0]}?" if near else f"Known here: {', '.join(known)}."


def several_runs(arguments: Sequence[str]) -> bool:
    """Whether these are the arguments of a sweep."""
    chosen = any(word.startswith("sweep=") and word != "sweep=null" for word in arguments)
    return chosen or flag(arguments, "--multirun") is not None


def conf_dir() -> Path:
    """The configuration files: the packaged copy, else the checkout's."""
    packaged = Path(__file__).parents[1] / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "conf"


def today(word: str) -> str:
    """The word with its key of today, where it had another one, or names a group by its key.

    logger.project=a is logger.wandb.project=a, model.blocks=bpnet is model/blocks=bpnet, and
    bias_model.blocks=bpnet is model/blocks@bias_model.blocks=bpnet.
    """
    key, equals, text = word.partition("=")
    plus, bare = re.fullmatch(r"(\+*)(.*)", key).groups()  # type: ignore[union-attr]
    if bare in OF_WANDB:
        return f"{plus}logger.wandb.{bare.removeprefix('logger.')}{equals}{text}"
    if bare == "model.blocks" and not text.startswith("{"):
        return f"{plus}model/blocks{equals}{text}"
    if bare in BIAS_BLOCKS and not text.startswith("{"):
        return f"{plus}model/blocks@{BIAS_BLOCKS[0]}{equals}{text}"
    return word


def forced(word: str, given: Mapping[str, str]) -> str:
    """The word with ++ before it, where the chosen options of its group may lack the key.

    A setting of one of ours that is not chosen has no effect, which is said; one of the user's own
    may have a default that its file does not name. given: the words that choose options
    """
    group, _, setting = word.partition("=")[0].rpartition(".")
    if group in USUAL:  # one option of the group, or in a sweep several
        ours = registry.GROUPS[group].ours
        names = given.get(group.replace(".", "/"), USUAL[group]).split(",")
        names = [given[f"{group}.name"]] if f"{group}.name" in given else names
        lacking = any(
            n not in ours
            or f"{group}.{setting}" not in known_keys(registry.settings_of(group, n), group)
            for n in names
        )
        return f"++{word}" if lacking and setting != "name" else word
    group, _, name = group.rpartition(".")
    if group == "logger":
        chosen = given.get(group, "wandb").strip("[]").split(",")
        return word if name in chosen else f"++{word}"
    is_own = group in ("optim", "metrics") and name not in registry.GROUPS[group].ours
    return f"++{word}" if is_own else word


def checked_arguments(arguments: Sequence[str], schema: type, several: bool) -> Iterator[str]:
    """The command line, with every key known and readable; a resumed run gets its own folder.

    several: whether a key may have several values, of a sweep

    Raises ConfigError for a key that does not exist, also behind + and ++.
    """
    own = flag(arguments, "--config-dir")
    if own is not None:
        check_config_dir(Path(own))
        registry.add_folder(own)
    keys = set(known_keys(schema))
    groups = {str(p.relative_to(conf_dir())) for p in conf_dir().rglob("*") if p.is_dir()}
    # Only what is composed tells the keys of options that are the user's own.
    open_groups = own is not None or bool(registry.plugins())
    given = dict(today(word).split("=", 1) for word in overrides(arguments) if "=" in word)
    for argument in arguments:
        if not is_override(argument):
            yield argument
            continue
        word = forced(readable(today(argument), schema, several), given)
        yield word
        override = parse(word)
        key = override.key_or_group
        if key.split(".")[0] == "hydra" or key.split("/")[0] == "hydra":
            continue
        is_own = open_groups or word.startswith("+")
        if key not in keys | groups and not (is_own and key.startswith(OPEN_KEYS)):
            raise ConfigError(unknown_key(key, sorted(keys)))
        if key in SPLITS and word.partition("=")[2] != "null" and not set(LISTS) & given.keys():
            yield from (f"{name}=null" for name in LISTS)
        if key == RESUME and override.value() is not None:
            folder = _run_folder(str(override.value()), arguments)
            yield f"hydra.run.dir={hydra_value(str(folder))}"


def check_config_dir(folder: Path) -> None:
    """Raise ConfigError for what of a folder of configurations Hydra would ignore.

    That is what cannot be read, and a group's file with the name of one of ours.
    """
    for ours in (conf_dir(), *conf_dir().rglob("*/")):
        path = folder / ours.relative_to(conf_dir())
        try:
            os.scandir(path).close()
            os.stat(os.path.join(path, "."))  # whether its files can be opened
            if path != folder:
                _check_names(path, ours)
        except OSError as error:
            if path != folder and not isinstance(error, PermissionError):
                continue  # it has no such group
            raise ConfigError(
                f"--config-dir={folder}: {path} cannot be read ({error.strerror}). Name a folder "
                "of configurations that you may read."
            ) from None


def _check_names(folder: Path, ours: Path) -> None:
    """Raise ConfigError for a file of one's own group `folder` that one of `ours` would hide."""
    for known in ours.glob("*.yaml"):
        own = folder / known.name
        if own.is_file() and own.read_bytes() != known.read_bytes():
            raise ConfigError(
                f"{own}: cherimoya has an option of that name, which would be taken in its place. "
                f"Give the file another name, such as my_{known.name}."
            )


def _run_folder(value: str, arguments: Sequence[str]) -> Path:
    folder = Path(value)
    if several_runs(arguments):
        raise ConfigError(f"{RESUME}={value}: one run is resumed at a time. Leave out -m, sweep.")
    if not (folder / "config.yaml").is_file():
        raise ConfigError(
            f"{RESUME}={value}: no run there (config.yaml is missing). Name a run folder."
        )
    return folder
