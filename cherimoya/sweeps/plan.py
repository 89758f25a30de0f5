"""The sweep part of the command line: its members, whether each can begin, and how all ended."""

import importlib.util
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
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
from cherimoya.config.data import DataConfig
from cherimoya.config.diff import differences, hydra_value
from cherimoya.config.groups import compose, composition, initialized, plain_values
from cherimoya.config.keys import type_of
from cherimoya.config.schema import build, to_dict
from cherimoya.config.train import FREE_ON_RESUME, TrainConfig
from cherimoya.errors import CherimoyaError, ConfigError, OtherRun, printable, without_password
from cherimoya.records import sweep as sweeps
from cherimoya.records.layout import read_config
from cherimoya.records.own_folders import check_run_folder
from cherimoya.records.status import DAMAGED
from cherimoya.records.sweep import Member, sync_command
from cherimoya.sweeps.data import HERE, check_data
from cherimoya.util.console import counted
from cherimoya.util.files import lock_folder

GROUP = "sweep"
MEMBER_OF = "--member-of"
CHECKED = "hydra_plugins.cherimoya_search.CheckedSweeper"  # of a grid
NEEDS = {  # launcher: the plug-in it comes with, and how to get that
    "joblib": ("hydra_joblib_launcher", "hydra-joblib-launcher"),
    "slurm": ("hydra_submitit_launcher", "'cherimoya-train[slurm]'"),
    "submitit_local": ("hydra_submitit_launcher", "'cherimoya-train[slurm]'"),
    "submitit_slurm": ("hydra_submitit_launcher", "'cherimoya-train[slurm]'"),
}
SLURM = ("sbatch", "srun")  # programs that submitit calls
MOST_RUNS = 100_000
PATIENCE_SECONDS = 15  # for a process that was just told to stop, to leave its folder


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
    swept = list(dict.fromkeys(o.key_or_group for o in overrides if o.is_sweep_override()))
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
    if module and not _is_there(f"hydra_plugins.{module}"):
        raise ConfigError(f"{word} needs a plug-in. Install it with: pip install {package}")


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


def check(sweep: Sweep, free: tuple[str, ...] = ()) -> None:
    """Compose and check every member before the first begins, and say what a file overrules.

    Raises ConfigError that lists those that cannot be: also those that share a folder, or whose
    folder holds a run with another configuration, though keys that begin with `free` may differ.
    The data of those that are not done are looked at too, if the sweep's runs read them here.
    A key that is not swept may be without effect in some members, as long as it has one in others.
    """
    problems: dict[str, str] = {}
    folders: set[Path] = set()
    idle = []
    data: dict[str, tuple[DataConfig, list[str]]] = {}
    notes: dict[str, None] = {}
    with initialized():
        for words in sweep.members:
            folder = sweep.folder_of(words)
            label = ",".join(f"{k}={v}" for k, v in sweep.overrides_of(words).items())
            try:
                if folder in folders:
                    raise ConfigError(f"another run has the folder {folder.name} too")
                folders.add(folder)
                values, choices = compose("train", [*sweep.settings, *words])
                plain = plain_values(values)
                config = build(TrainConfig, plain)
                sweep.check_member(config)
                check_same(folder, to_dict(config), free)
                to_do = not sweeps.read_member(folder).finished
                if to_do:
                    check_run_folder(folder, config.trainer.plots)
                made = composition(config, plain, words, choices)
                made.check_files()
                found = made.without_effect()
                notes |= dict.fromkeys(made.overruled())
                idle.append({k: m for k, m in found.items() if k not in sweep.swept})
                for key in found.keys() & set(sweep.swept):
                    raise ConfigError(found[key])
                if sweep.here and to_do:
                    data.setdefault(repr(config.data), (config.data, []))[1].append(label)
            except CherimoyaError as error:
                problems[label] = str(error)
    if problems:
        listed = "\n".join(f"  {label}: {problem}" for label, problem in problems.items())
        bad = f"{len(problems)} of {counted(len(sweep.members), 'run')}"
        raise ConfigError(f"{bad} cannot be, so none has begun:\n{listed}")
    if data:
        check_data(data.values(), len(sweep.members))
    for key in [key for key in (idle[0] if idle else ()) if all(key in each for each in idle)]:
        raise ConfigError(idle[0][key])
    for note in notes:
        print(f"note: {note}", file=sys.stderr, flush=True)


def check_same(folder: Path, wanted: Mapping[str, Any], free: tuple[str, ...]) -> None:
    """Raise OtherRun when `folder` holds a run that is not configured as `wanted`."""
    changed = differences(read_config(folder), wanted, free)
    if changed:
        raise OtherRun(
            f"{folder} holds a run with another configuration: {'; '.join(changed)}. Move it "
            "away, or name another hydra.sweep.dir."
        )


def begin(folder: Path, overrides: Mapping[str, str], wanted: Mapping[str, Any]) -> str:
    """What to do about the member in `folder`, whose configuration is to be `wanted`.

    "done" when it is, "resume" when it was interrupted, "new" else. Raises OtherRun, see
    `check_same`, and InUse when another process is at it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder, PATIENCE_SECONDS):
        check_same(folder, wanted, FREE_ON_RESUME)
        member = sweeps.read_member(folder)
        if not member.finished:
            check_run_folder(folder, page=False)  # which the run itself looks at
        sweeps.note_member(folder, overrides)
        if member.finished:
            return "done"
        saved = ("last.pt", "last.pt.new", "previous.pt")
        if any((folder / "checkpoints" / name).is_file() for name in saved):
            return "resume"
        for left in ("metrics.jsonl", "checkpoints/best.pt"):
            (folder / left).unlink(missing_ok=True)
        return "new"


def finished(sweep: Sweep, problems: Sequence[tuple[str, str]]) -> tuple[str, bool]:
    """The table of the sweep and what is not done in it, as its folder has it; and if all is.

    `problems` are errors, by member, that the folders cannot tell.
    """
    members = sweeps.read_sweep(sweep.folder)
    table = sweeps.table(members) + sweep.ending()
    lines = [f"\n=== sweep {sweep.folder}: {counted(len(members), 'run')}", table]
    bad = [m for m in members if m.state in ("failed", DAMAGED)]
    failed = {m.folder.name: str(m.status.get("error")) for m in bad}
    failed = dict(problems) | failed
    lines += [f"FAILED  {name}: {error}" for name, error in failed.items()]
    for member in members:
        if member.state in ("interrupted", "running") and member.folder.name not in failed:
            lines.append(f"{member.state.upper()}  {member.folder.name}{_why(member)}")
    waiting = sum(m.state == "waiting" for m in members)
    if waiting:
        lines.append(f"WAITING  {waiting} of {len(members)}")
    complete = not failed and all(m.finished for m in members)
    if not complete:
        lines.append("The same command goes on with what is not done.")
    if command := sync_command(sweep.folder, members=True):
        lines.append(f"\nW&B  {command}")
    return "\n".join(lines), complete


def _why(member: Member) -> str:
    status = member.status
    if member.state == "running":
        return f": by process {status.get('pid')} on {status.get('host')}"
    if member.state == "interrupted" and "traceback" not in status:
        return ": its process was killed, perhaps for want of memory"
    return ""
