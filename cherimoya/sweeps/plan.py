"""The sweep part of the command line: its members, its folder, and how its runs are launched."""

import importlib.util
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep
from omegaconf import DictConfig, OmegaConf

from cherimoya.config.command_line import flag, quotable
from cherimoya.config.command_line import overrides as overrides_in
from cherimoya.config.diff import hydra_value
from cherimoya.config.groups import initialized
from cherimoya.config.keys import type_of
from cherimoya.config.train import TrainConfig
from cherimoya.errors import ConfigError, printable, without_password
from cherimoya.records import sweep as sweeps
from cherimoya.sweeps.data import HERE

GROUP = "sweep"
MEMBER_OF = "--member-of"
CHECKED = "hydra_plugins.cherimoya_search.CheckedSweeper"  # of a grid
NEEDS = {  # launcher: the module it needs, and how to get that
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "hydra-joblib-launcher"),
    "slurm": ("submitit", "'cherimoya-train[slurm]'"),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", "hydra-submitit-launcher"),
    "submitit_slurm": ("hydra_plugins.hydra_submitit_launcher", "hydra-submitit-launcher"),
}
SLURM = ("sbatch", "srun")  # programs that submitit calls
MOST_RUNS = 100_000


@dataclass(frozen=True)
class Sweep:
    """What a command line sweeps over."""

    name: str  # of its folder
    swept: list[str]  # keys
    members: list[list[str]]  # overrides of each; none where a search finds them as it goes
    folder: Path
    is_member: bool = False  # one of its members, in a process of its own
    settings: list[str] = field(default_factory=list)  # of Hydra: where its files are
    here: bool = False  # whether its runs see the files of this process, by the same names

    def overrides_of(self, task: Sequence[str]) -> dict[str, str]:
        """The swept ones of a member's overrides, by key."""
        found = dict(word.lstrip("+").split("=", 1) for word in task if "=" in word)
        return {key: found[key] for key in self.swept if key in found}

    def folder_of(self, task: Sequence[str]) -> Path:
        """The folder of the member with these overrides."""
        return self.folder / sweeps.member_name(self.overrides_of(task))

    def write(self, arguments: Sequence[str]) -> None:
        """Write sweep.json: what `arguments` of cherimoya-train ask for."""
        members = [self.overrides_of(member) for member in self.members]
        command = ["cherimoya-train", *map(without_password, arguments)]
        sweeps.write_plan(self.folder, sweeps.Plan(self.name, command, self.swept, members))

    def check_member(self, config: TrainConfig) -> None:
        """Raise ConfigError for a member that could be a run, but not of this sweep."""

    def ending(self) -> str:
        """What is said below the table."""
        return ""


def plan(arguments: Sequence[str]) -> Sweep | None:
    """The sweep that the command line asks for with -m or sweep=...; None for a single run.

    Raises ConfigError when values are swept over without -m, and for a launcher that is not there.
    """
    parser = OverridesParser.create()
    parsed = parser.parse_overrides(overrides_in(arguments))
    given = [o for o in parsed if not o.key_or_group.startswith("hydra")]
    settings = {o.key_or_group: str(o.input_line) for o in parsed if o not in given}
    chosen = next((str(o.value()) for o in given if o.key_or_group == GROUP), None)
    in_mode = "=MULTIRUN" in settings.get("hydra.mode", "")
    asked = in_mode or flag(arguments, "--multirun") is not None
    several = [o for o in given if o.is_sweep_override()]
    if several and not asked and chosen is None:
        raise ConfigError(_several(several[0]))
    if not asked and chosen is None:
        return None
    fixed = [str(o.input_line) for o in given if not o.is_sweep_override()]
    found = search_folders(arguments)
    _check_plugin(settings.get("hydra/launcher", ""))
    extra = [v for k, v in settings.items() if k not in ("hydra.searchpath", "hydra.mode")]
    composed = hydra_of([*found, *extra, *fixed])
    launcher = composed.runtime.choices["hydra/launcher"]
    _check_slurm(composed.launcher, launcher)
    params = [f"{key}={value}" for key, value in (composed.sweeper.get("params") or {}).items()]
    overrides = [*parser.parse_overrides(params), *given]
    keys = (o.get_key_element().lstrip("+") for o in overrides if o.is_sweep_override())
    swept = list(dict.fromkeys(keys))
    name = sweeps.sweep_name([o.input_line or "" for o in given], swept, chosen)
    OmegaConf.register_new_resolver("sweep_name", lambda: name, replace=True)
    is_grid = composed.sweeper["_target_"].endswith(f".{BasicSweeper.__name__}")
    if is_grid:
        check_number(overrides)
    members = BasicSweeper.split_arguments(overrides, None)[0] if is_grid else []
    here = launcher in HERE and not composed.job.chdir
    return Sweep(name, swept, members, Path(composed.sweep.dir), settings=found, here=here)


def check_number(overrides: Sequence[Override]) -> None:
    """Raise ConfigError where the values of the overrides make more runs than can be listed."""
    swept, number = [o for o in overrides if o.is_discrete_sweep()], 1
    for override in swept:
        value = override.value()
        values: Iterable[Any]
        if isinstance(value, RangeSweep):  # the other way would list it to shuffle it
            values = value.range()
        else:
            values = override.sweep_string_iterator()
        number *= sum(1 for _ in islice(values, MOST_RUNS + 1))
    if number > MOST_RUNS:
        words = " ".join(str(override.input_line) for override in swept)
        raise ConfigError(f"{printable(words)}: more than {MOST_RUNS:,} runs. Name fewer values.")


def hydra_of(words: list[str]) -> DictConfig:
    """Hydra's own part of the configuration."""
    with initialized():
        found: DictConfig = hydra.compose("train", words, return_hydra_config=True).hydra
    return found


def member(arguments: Sequence[str], folder: Path) -> Sweep:
    """The sweep in `folder`, of which `arguments` name one member.

    Raises ConfigError when there is no such sweep, or the arguments leave a swept key open.
    """
    written = sweeps.read_plan(folder)
    if written is None:
        raise ConfigError(
            f"{MEMBER_OF} {folder}: no sweep there ({sweeps.PLAN} is missing). Start it with "
            "cherimoya-train -m ..., or plan it with cherimoya-sweep slurm ..."
        )
    sweep = Sweep(written.name, list(written.swept), [list(arguments)], folder, is_member=True)
    missing = [key for key in sweep.swept if key not in sweep.overrides_of(arguments)]
    if missing:
        raise ConfigError(f"{MEMBER_OF} {folder}: {', '.join(missing)} has no value here.")
    return sweep


def without_member_of(arguments: Sequence[str]) -> tuple[list[str], Path | None]:
    """The arguments without --member-of, which Hydra does not know, and the folder it names."""
    rest = list(arguments)
    if MEMBER_OF not in rest:
        return rest, None
    at = rest.index(MEMBER_OF)
    if at + 1 == len(rest):
        raise ConfigError(f"{MEMBER_OF} names no folder. Give that of the sweep.")
    return rest[:at] + rest[at + 2 :], Path(rest[at + 1])


def for_hydra(arguments: Sequence[str], sweep: Sweep | None) -> list[str]:
    """The arguments with the folder of the sweep as planned, or of its member, which is one run."""
    if sweep is None:
        return list(arguments)
    words = [a for a in overrides_in(arguments) if not a.startswith("hydra.sweep.dir=")]
    others = [a for a in arguments if a not in words and not a.startswith("hydra.sweep.dir=")]
    if sweep.is_member:
        words += [f"hydra.run.dir={hydra_value(str(sweep.folder_of(arguments)))}", "hydra.mode=RUN"]
    else:
        words.append(f"hydra.sweep.dir={hydra_value(str(sweep.folder))}")
        if sweep.members:
            words.append(f"hydra.sweeper._target_={CHECKED}")
    return [*others, *words]  # Hydra's parser wants all overrides together


def _several(override: Override) -> str:
    """What to say of several values where one is wanted; of text, that it may have a comma."""
    word, key = override.input_line or "", override.key_or_group
    advice = f"{word} names several values. Add -m for a run each."
    if not isinstance(override.value(), ChoiceSweep) or type_of(TrainConfig, key) is not str:
        return advice
    text = ",".join(str(getattr(v, "text", v)) for v in override.value().list)  # type: ignore
    return f"{advice} For one name that has a comma: {quotable(key, text)}"


def _check_plugin(word: str) -> None:
    module, package = NEEDS.get(word.rpartition("=")[2], ("", ""))
    if module and not _is_there(module):
        raise ConfigError(
            f"{word} needs {module.rpartition('.')[2]}. Install it with: pip install {package}"
        )


def _check_slurm(launcher: DictConfig, name: str) -> None:
    """Raise ConfigError where runs are to be submitted to SLURM from a machine without it."""
    submits = name == "submitit_slurm" or (name == "slurm" and launcher.cluster == "slurm")
    absent = [program for program in SLURM if submits and shutil.which(program) is None]
    if absent:
        raise ConfigError(
            f"hydra/launcher={name}: there is no {absent[0]} here. Start this on a login node of "
            "the cluster, run it on this machine with hydra/launcher=processes, or write a script "
            "to submit later with: cherimoya-sweep slurm -m ... > sweep.sbatch"
        )


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even a hydra_plugins
        return False


def search_folders(arguments: Sequence[str]) -> list[str]:
    """Hydra's --config-dir and hydra.searchpath, as an override that composes like them."""
    given = [word for word in overrides_in(arguments) if word.startswith("hydra.searchpath=")]
    folder = flag(arguments, "--config-dir")
    if folder:
        given.append(f"hydra.searchpath=[{hydra_value(f'file://{Path(folder).absolute()}')}]")
    return given[-1:]
