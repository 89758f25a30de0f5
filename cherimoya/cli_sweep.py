"""The sweep part of the command line: which members it has, and whether each can begin."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from cherimoya import sweeps
from cherimoya.errors import CherimoyaError, ConfigError

GROUP = "sweep"


@dataclass(frozen=True)
class Sweep:
    """What a command line sweeps over."""

    name: str  # of its folder
    swept: list[str]  # keys
    members: list[list[str]]  # overrides of each
    folder: Path | None = None  # where it is known before the first member begins

    def overrides_of(self, task: Sequence[str]) -> dict[str, str]:
        """The swept ones of a member's overrides, by key."""
        found = dict(word.split("=", 1) for word in task if "=" in word)
        return {key: found[key] for key in self.swept if key in found}

    def ending(self, folder: Path) -> str:
        """What is said below the table of the sweep in `folder`."""
        return ""


def plan(arguments: Sequence[str], conf: Path) -> Sweep | None:
    """The sweep that the command line asks for with -m or sweep=...; None for a single run.

    Raises ConfigError when values are swept over without -m.
    """
    words = [a for a in arguments if "=" in a and not a.startswith("-")]
    parser = OverridesParser.create()
    given = [o for o in parser.parse_overrides(words) if not o.key_or_group.startswith("hydra")]
    chosen = next((str(o.value()) for o in given if o.key_or_group == GROUP), None)
    asked = {"-m", "--multirun"} & set(arguments)
    several = [o.input_line for o in given if o.is_sweep_override()]
    if several and not asked and chosen is None:
        raise ConfigError(f"{several[0]} names several values. Add -m for a run each.")
    if not asked and chosen is None:
        return None
    overrides = [*parser.parse_overrides(_params(conf, chosen)), *given]
    words = [o.input_line or "" for o in given]
    swept = list(dict.fromkeys(o.key_or_group for o in overrides if o.is_sweep_override()))
    name = sweeps.sweep_name(words, swept, chosen)
    return Sweep(name, swept, _members(overrides))


def _params(conf: Path, chosen: str | None) -> list[str]:
    path = conf / GROUP / f"{chosen}.yaml"
    if chosen is None or not path.is_file():
        return []
    params = OmegaConf.select(OmegaConf.load(path), "hydra.sweeper.params") or {}
    return [f"{key}={value}" for key, value in params.items()]


def _members(overrides: Sequence[Override]) -> list[list[str]]:
    """Every combination, as Hydra's own sweeper will make it."""
    (members,) = BasicSweeper.split_arguments(list(overrides), None)
    return members


def check(sweep: Sweep, conf: Path, name: str, resolve: Callable[[DictConfig], object]) -> None:
    """Compose and check every member before the first begins.

    Raises ConfigError that lists those that cannot be.
    """
    problems: dict[str, str] = {}
    with hydra.initialize_config_dir(str(conf), version_base="1.3"):
        for member in sweep.members:
            try:
                resolve(hydra.compose(name, member))
            except CherimoyaError as error:
                label = ",".join(f"{k}={v}" for k, v in sweep.overrides_of(member).items())
                problems[label] = str(error)
    if problems:
        listed = "\n".join(f"  {label}: {problem}" for label, problem in problems.items())
        raise ConfigError(
            f"{len(problems)} of {len(sweep.members)} runs cannot be, so none has begun:\n{listed}"
        )


def begin(
    folder: Path,
    overrides: Mapping[str, str],
    wanted: Mapping[str, Any],
    free: tuple[str, ...],
) -> str:
    """What to do about the member in `folder`, whose configuration is to be `wanted` (flat).

    "done" when it is, "resume" when it was interrupted, "new" else. Raises ConfigError when the
    folder holds a run with another configuration; keys that begin with one of `free` may differ.
    """
    config = folder / "config.yaml"
    if config.is_file():
        saved = flat(OmegaConf.to_container(OmegaConf.load(config)))
        changed = [
            f"{k} was {saved.get(k)}, now {v}"
            for k, v in wanted.items()
            if not k.startswith(free) and saved.get(k) != v
        ]
        if changed:
            raise ConfigError(
                f"{folder} holds a run with another configuration: {'; '.join(changed)}. Move it "
                "away, or name another hydra.sweep.dir."
            )
    member = sweeps.read_member(folder)
    sweeps.note_member(folder, overrides)
    if member.finished:
        return "done"
    if any((folder / "checkpoints" / n).is_file() for n in ("last.pt", "previous.pt")):
        return "resume"
    (folder / "metrics.jsonl").unlink(missing_ok=True)
    return "new"


def finished(folder: Path, sweep: Sweep) -> str:
    """The table of the sweep in `folder`, with the members that have not begun."""
    members = sweeps.read_sweep(folder)
    begun = {member.folder.name for member in members}
    for words in sweep.members:
        overrides = sweep.overrides_of(words)
        name = sweeps.member_name(overrides)
        if name not in begun:
            members.append(sweeps.read_member(folder / name, overrides))
    return sweeps.table(members) + sweep.ending(folder)


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
