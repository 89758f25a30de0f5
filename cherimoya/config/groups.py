"""A composed configuration beside its parts: what was typed, and what its groups have."""

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf, open_dict

from cherimoya import registry
from cherimoya.config.command_line import conf_dir, overrides, parse
from cherimoya.config.diff import Changes, at, changes, flat, hydra_value
from cherimoya.config.paths import LEFT, expanded
from cherimoya.config.schema import Used, to_dict, unused_keys
from cherimoya.config.train import WARMUP, TrainConfig
from cherimoya.errors import ConfigError

FILES = ("experiment", "sweep")  # groups whose options set keys of all the others
OF_LOGGERS = "logger."  # which a recipe may set, and be run with another logger


@dataclass(frozen=True)
class Composition:
    """A checked configuration of cherimoya-train, and what it was composed of.

    typed: keys and groups of the command line, with their values; choices: the option of each
    group; own: the values that these options have by themselves, without experiment, sweep or
    typed keys; usual: the options where none is chosen
    """

    config: TrainConfig
    values: Mapping[str, Any]
    typed: Mapping[str, Any]
    choices: Mapping[str, str]
    own: Mapping[str, Any]
    usual: Mapping[str, str]

    def changes(self) -> Changes:
        """What differs from the default options, and from what the chosen ones have."""
        unused = unused_keys(self.config)
        keys = {
            key: default
            for key, default in changes(to_dict(self.config), self.own).items()
            if not any(_is_in(key, name) for name in unused)
        }
        groups = {
            group: (option, self.usual.get(group))
            for group, option in self.choices.items()
            if group not in FILES and option != self.usual.get(group) and _is_known(group, option)
        }
        chosen = WARMUP in keys or WARMUP in self.typed
        adapts = {} if chosen else {WARMUP: self.config.optim.warmup_epochs}
        return Changes(groups, keys, tuple(registry.own_folders()), adapts)

    def without_effect(self) -> dict[str, str]:
        """The typed keys that do nothing, each with a message that says why and what would."""
        return without_effect(self.config, self.typed)

    def check_files(self) -> None:
        """Raise ConfigError for a key without effect that an experiment or sweep file sets.

        What a file sets for one option may be left behind where another one is typed. Also for a
        warm-up, set there or typed, that is longer than the training.
        """
        if not self.changes().adapts:
            self.config.check_warmup()
        for key, used in unused_keys(self.config).items():
            value, group = at(self.values, key), key.split(".")[0]
            if value is None or value == at(self.own, key) or group in self.typed:
                continue
            if not key.startswith(OF_LOGGERS) and not any(_is_in(k, key) for k in self.typed):
                raise ConfigError(
                    f"{self._files} sets {key}={hydra_value(value)}, which does nothing: "
                    f"{used.why}. Remove it from the file, or set {used.instead}."
                )

    def overruled(self) -> Iterator[str]:
        """What an experiment or sweep changes of the options that were typed, a message each."""
        if not set(FILES) & set(self.choices):
            return
        unused = unused_keys(self.config)
        for group in (g for g in self.choices if g in self.typed and g not in FILES):
            prefix = group.replace("/", ".")
            for key, value in flat({prefix: at(self.own, prefix)}).items():
                now = at(self.values, key)
                is_typed = any(_is_in(key, k) for k in self.typed if "." in k)
                if now == value or value == "???" or key in unused or is_typed:
                    continue
                word = shlex.quote(f"{key}={hydra_value(value)}")
                yield (
                    f"{self._files} sets {key}={hydra_value(now)}, where "
                    f"{group}={self.choices[group]} has {hydra_value(value)}. To have that, add "
                    f"{word}"
                )

    @property
    def _files(self) -> str:
        named = [f"{group}={self.choices[group]}" for group in FILES if group in self.choices]
        return " with ".join(named) or "the configuration file"


def composition(
    config: TrainConfig,
    values: Mapping[str, Any],
    words: Sequence[str],
    choices: Mapping[str, str],
) -> Composition:
    """What `config` was composed of: `words` of the command line and the options `choices`.

    Hydra has to be initialised.
    """
    options = [f"{g}={o}" for g, o in choices.items() if g not in FILES and _is_known(g, o)]
    own, _ = _own(tuple(options))
    return Composition(config, values, typed(words), choices, own, _own(())[1])


@cache
def _own(words: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    values, choices = compose("train", words)
    content = OmegaConf.to_container(values)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}, choices


@contextmanager
def initialized(folder: str | None = None) -> Iterator[None]:
    """Hydra with our configurations, and those of the user's own `folder`."""
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        if folder:  # a configuration of any name may be there, as of --config-dir
            paths = create_config_search_path(str(conf_dir()))
            path = f"file://{Path(folder).absolute()}"
            paths.prepend("command-line", path, SearchPathQuery(provider="schema"))  # its last
            GlobalHydra.instance().clear()
            Hydra.create_main_hydra2(task_name="app", config_search_path=paths)
        yield


def compose(name: str, words: Sequence[str]) -> tuple[DictConfig, dict[str, str]]:
    """The configuration `name` with the overrides `words`, and the option of each group.

    Hydra has to be initialised.
    """
    values = hydra.compose(name, list(words), return_hydra_config=True)
    choices = chosen(OmegaConf.to_container(values.hydra.runtime.choices))
    with open_dict(values):
        del values["hydra"]
    return values, choices


def chosen(choices: Any) -> dict[str, str]:
    """Hydra's own record of the options, less its own groups and those without one."""
    return {g: o for g, o in choices.items() if o is not None and not g.startswith("hydra")}


def plain_values(values: DictConfig) -> dict[str, Any]:
    """`values` as dictionaries and lists; a resume may start from another folder, so the data's
    path is made absolute."""
    content = OmegaConf.to_container(values, resolve=True)
    assert isinstance(content, dict)
    content = _expanded(content)
    data = content.get("data", {})
    if data.get("path") not in (None, "???"):
        data["path"] = os.path.abspath(data["path"])
    if isinstance(content.get("checkpoint"), str) and content["checkpoint"] != "???":
        content["checkpoint"] = [content["checkpoint"]]  # one need not be written as a list
    for key in ("signal", "control"):  # one file is one group of one track
        if isinstance(content.get(key), str) and content[key] != "???":
            content[key] = [[content[key]]]
    return {str(k): v for k, v in content.items()}


def _expanded(value: Any) -> Any:
    """The values of files with ~ and variables as `expanded` has them, as far as they begin so."""
    if isinstance(value, dict):
        return {key: _expanded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_expanded(one) for one in value]
    return expanded(value) if isinstance(value, str) and value.startswith(LEFT) else value


def _is_known(group: str, option: str) -> bool:
    """Whether the option is one of ours, or of a folder that --config-dir or a package names."""
    folders = (conf_dir(), *map(Path, registry.conf_folders()))
    return any((folder / group / f"{option}.yaml").is_file() for folder in folders)


def typed(words: Sequence[str]) -> dict[str, Any]:
    """Keys and groups of a command line with their values, less those that ~ removes."""
    parsed = [parse(word) for word in overrides(words) if not word.startswith("~")]
    return {o.key_or_group: o.value() for o in parsed}


def without_effect(config: Any, typed: Mapping[str, Any]) -> dict[str, str]:
    """The `typed` keys that do nothing in `config`, each with a message that says why."""
    found = {}
    for name, used in unused_keys(config).items():
        for key, value in typed.items():
            if value is not None and _is_in(key, name):
                found[key] = does_nothing(f"{key}={hydra_value(value)}", used)
    return found


def refuse_without_effect(config: Any, words: Sequence[str]) -> None:
    """Raise ConfigError for a key among the `words` of a command line that does nothing."""
    for message in without_effect(config, typed(words)).values():
        raise ConfigError(message)


def does_nothing(word: str, used: Used) -> str:
    """The message for `word` of a command line, whose key has no effect."""
    legible = word if set(word) & set('"\\') else word.replace("'", '"')  # in a shell's '...'
    key, shown = word.partition("=")[0], shlex.quote(legible)
    return f"{shown} does nothing: {used.why}. Set {used.instead} {shown}, or leave {key} out."


def _is_in(key: str, group: str) -> bool:
    return key == group or key.startswith(f"{group}.")
