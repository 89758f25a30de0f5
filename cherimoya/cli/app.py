"""What every command does with its words: read them, compose and check, run, and tell the truth."""

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from string import Template
from typing import Any, Protocol

import hydra
from omegaconf import DictConfig, OmegaConf

from cherimoya.cli import hydra_errors
from cherimoya.cli.job import Job, complain
from cherimoya.cli.pipe import quiet_when_closed
from cherimoya.config import command_line, groups
from cherimoya.config.command_line import checked_arguments, conf_dir, flag
from cherimoya.config.groups import Composition, composition
from cherimoya.config.schema import MissingValue, check_complete
from cherimoya.config.train import TrainConfig, resolve
from cherimoya.distributed import launch
from cherimoya.errors import CherimoyaError, ConfigError
from cherimoya.records import sweep as sweeps
from cherimoya.sweeps import plan as cli_sweep
from cherimoya.sweeps import search as cli_search
from cherimoya.sweeps.plan import Sweep

USAGE = 2  # the exit code for a command line that is none


class Command(Protocol):
    """A command whose arguments may ask for several runs."""

    def plan(self, arguments: list[str], member_of: Path | None) -> Sweep | None:
        """The sweep that they ask for, if they do."""


def _may_sweep(arguments: list[str]) -> bool:
    """Whether a sweep may begin: runs are not only told about, nor is it one member by itself."""
    return not command_line.only_tells(arguments) and cli_search.ONCE not in arguments


def _at_work(job: Job) -> AbstractContextManager[None]:
    """While it lasts, the folder of the sweep that this process leads, if any, says so."""
    leads = job.sweep if job.sweep and not job.sweep.is_member else None
    return sweeps.at_work(leads.folder) if leads else nullcontext()


def _check_one_run(name: str, arguments: list[str]) -> None:
    """Refuse a sweep over a configuration of the user's own."""
    if command_line.several_runs(arguments):
        raise ConfigError(
            f"--config-name={name} is for one run. For a sweep keep what differs in a file "
            f"experiment/{name}.yaml that begins with '# @package _global_', and add "
            f"experiment={name}"
        )


@quiet_when_closed()
def main(
    name: str,
    schema: type,
    work: Callable[[DictConfig], None],
    command: Command | None = None,
) -> None:
    """Run `work` on each configuration that Hydra composes; the exit code tells the truth."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that errors come here, to be put into words
    base, arguments = name, sys.argv[1:]
    in_words = partial(
        hydra_errors.in_words, name=name, arguments=arguments, schema=schema, conf=conf_dir()
    )
    job, code = Job(work, in_words, command), 0
    try:
        launch.read_slurm()
        given, member_of = cli_sweep.without_member_of(arguments)
        arguments = command_line.one_word_each(given)
        name = flag(arguments, "--config-name") or name
        if flag(arguments, "--shell-completion") is None:
            arguments = list(checked_arguments(arguments, schema, several=command is not None))
        if launch.rank() > 0 and not any(a.startswith("hydra.run.dir=") for a in arguments):
            arguments.append("hydra.run.dir=.")  # the folder is the first process's
        if flag(arguments, "--help") is not None:
            _print_help(name, command_line.overrides(arguments))
            return
        if not command and any(a.startswith("hydra/launcher=") for a in arguments):
            raise ConfigError("hydra/launcher is for the sweeps of cherimoya-train. Leave it out.")
        if name != base:
            _check_one_run(name, arguments)
        if flag(arguments, "--cfg") is not None or name != base:
            _check_composed(name, arguments, schema, base)
        elif command and _may_sweep(arguments):
            job.sweep = command.plan(arguments, member_of)
            arguments = cli_sweep.for_hydra(arguments, job.sweep)
        sys.argv[1:] = arguments
        decorated = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=name)
        with _at_work(job):
            decorated(job)()
    except (CherimoyaError, *hydra_errors.COMPOSING, OSError) as error:
        said = in_words(error)
        if said is None:
            raise
        complain(said)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        code = 130
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    code = _conclude(job, code)
    if code:
        raise SystemExit(code)


def _conclude(job: Job, code: int) -> int:
    """Say how the runs of a sweep ended; the exit code of all."""
    if job.sweep and not job.sweep.is_member and code != USAGE:
        words, complete = cli_sweep.finished(job.sweep, job.problems)
        print(words, flush=True)
        _offer_report(job.sweep.folder)
        return code or int(not complete)
    for label, problem in job.problems:
        print(f"FAILED  {label}: {problem}")
    return code or int(bool(job.problems))


def _check_composed(name: str, arguments: list[str], schema: type, base: str) -> None:
    """Raise ConfigError where --cfg would show a configuration that cannot be.

    What has no value yet may be missing there. A file of the user's own, in the place of `base`,
    needs all groups.
    """
    hydra_errors.one_run_at_a_time(arguments)
    words = command_line.overrides(arguments)
    with groups.initialized(conf_dir(), flag(arguments, "--config-dir")):
        values, choices = groups.compose(name, words)
        plain = plain_values(values)
        check_complete(schema, plain, name, base)
        with suppress(MissingValue):
            config: Any = resolve(plain, schema)
            if flag(arguments, "--cfg") is None:
                return
            if isinstance(config, TrainConfig):
                check_effects(composition(config, plain, words, choices))
            else:
                groups.refuse_without_effect(config, words)


def check_effects(made: Composition) -> None:
    """Raise ConfigError for a key without effect; say what a file changes of what was typed."""
    for message in made.without_effect().values():
        raise ConfigError(message)
    made.check_files()
    for note in made.overruled():
        print(f"note: {note}", file=sys.stderr, flush=True)


def _print_help(name: str, overrides: list[str]) -> None:
    """The help that conf/<name>.yaml words, with the groups and the composed keys.

    Hydra's own --help also gathers what nobody asked for, and takes twice as long.
    """
    words = OmegaConf.load(conf_dir() / f"{name}.yaml").hydra.help
    options: dict[str, list[str]] = {}
    for path in sorted(conf_dir().glob("*/**/*.yaml")):
        options.setdefault(str(path.parent.relative_to(conf_dir())), []).append(path.stem)
    listed = [f"{group}: {', '.join(names)}" for group, names in sorted(options.items())]
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        keys = OmegaConf.to_yaml(hydra.compose(name, overrides))
    print(Template(words.template).substitute(APP_CONFIG_GROUPS="\n".join(listed), CONFIG=keys))


def plain_values(values: DictConfig) -> dict[str, Any]:
    """`values` as dictionaries and lists; a resume may start from another folder, so the data's
    path is made absolute."""
    content = OmegaConf.to_container(values, resolve=True)
    assert isinstance(content, dict)
    data = content.get("data", {})
    if data.get("path") not in (None, "???"):
        data["path"] = os.path.abspath(data["path"])
    if isinstance(content.get("checkpoint"), str) and content["checkpoint"] != "???":
        content["checkpoint"] = [content["checkpoint"]]  # one need not be written as a list
    return {str(k): v for k, v in content.items()}


def _offer_report(folder: Path) -> None:
    from cherimoya.report.pages import offer_report

    offer_report(folder)
