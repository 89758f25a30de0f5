"""What every command does with its words: read them, compose and check, run, and tell the truth."""

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import Any

from hydra._internal.utils import _run_hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobRuntime
from omegaconf import DictConfig

from cherimoya.cli import flags, hydra_errors
from cherimoya.cli.help import help_text
from cherimoya.cli.job import Job, print_error
from cherimoya.cli.level import without_level
from cherimoya.cli.pipe import quiet_when_closed
from cherimoya.cli.version import version_text
from cherimoya.config import command_line, groups, targets
from cherimoya.config.command_line import checked_arguments, conf_dir, flag
from cherimoya.config.groups import Composition, composition, plain_values
from cherimoya.config.json_schema import json_schema
from cherimoya.config.schema import MissingValue, build, check_complete
from cherimoya.config.train import TrainConfig
from cherimoya.distributed import launch
from cherimoya.errors import CherimoyaError, ConfigError
from cherimoya.records import sweep as sweeps
from cherimoya.sweeps import members, plan, search
from cherimoya.util import console

USAGE = 2  # the exit code for a command line that is none


def _may_sweep(arguments: list[str]) -> bool:
    """Whether a sweep may begin: runs are not only told about, nor is it one member by itself."""
    told = ("--info", "--shell-completion", "--hydra-help", "--version")
    return search.ONCE not in arguments and all(flag(arguments, name) is None for name in told)


def _check_one_run(name: str, arguments: list[str]) -> None:
    """Refuse a sweep over a configuration of the user's own."""
    if command_line.several_runs(arguments):
        raise ConfigError(
            f"--config-name={name} is for one run. For a sweep keep what differs in a file "
            f"experiment/{name}.yaml that begins with '# @package _global_', and add "
            f"experiment={name}"
        )


@quiet_when_closed()
def main(name: str, schema: type, work: Callable[[DictConfig], None]) -> None:
    """Run `work` on each configuration that Hydra composes; the exit code tells the truth.

    work: a Job where the arguments may ask for several runs
    """
    base, arguments = name, sys.argv[1:]
    in_words = partial(hydra_errors.in_words, name=name, arguments=arguments, schema=schema)
    sweeps_too = isinstance(work, Job)
    job, code = work if isinstance(work, Job) else Job(work), 0
    job.in_words = in_words
    targets.enforce()
    try:
        _check_folder()
        launch.read_slurm()
        given, member_of = plan.without_member_of(without_level(arguments))
        arguments = command_line.one_word_each(given)
        flags.check(arguments)
        name = flag(arguments, "--config-name") or name
        if flag(arguments, "--shell-completion") is None:
            arguments = list(checked_arguments(arguments, schema, several=sweeps_too))
        if launch.rank() > 0 and not any(a.startswith("hydra.run.dir=") for a in arguments):
            arguments.append("hydra.run.dir=.")  # the folder is the first process's
        if told := _told(name, base, schema, arguments):
            print(told)
            return
        if not sweeps_too and any(a.startswith("hydra/launcher=") for a in arguments):
            raise ConfigError("hydra/launcher is for the sweeps of cherimoya-train. Leave it out.")
        if name != base:
            _check_one_run(name, arguments)
        if flag(arguments, "--cfg") is not None or name != base:
            _check_composed(name, arguments, schema, base)
        elif sweeps_too and _may_sweep(arguments):
            job.sweep = job.plan(arguments, member_of)
            arguments = plan.for_hydra(arguments, job.sweep)
        leads = job.sweep if job.sweep and not job.sweep.is_member else None
        at_work = sweeps.at_work(leads.folder) if leads else nullcontext()
        with at_work, _hydra(arguments, leads is not None) as (hydra_run, overrides):
            hydra_run(config_name=name, task_function=job, overrides=overrides)
    except (CherimoyaError, *hydra_errors.COMPOSING, OSError) as error:
        said = in_words(error)
        if said is None:
            raise
        print_error(said)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        code = 130
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    code = _conclude(job, code)
    if code:
        raise SystemExit(code)


def _check_folder() -> None:
    """Raise ConfigError where the working folder is gone."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise ConfigError("the working folder was removed. cd to one that is there.") from None


def _told(name: str, base: str, schema: type, arguments: list[str]) -> str:
    """What the flags ask to be told; nothing where they ask for work, or for Hydra to tell."""
    if flag(arguments, "--version") is not None:
        return version_text(f"cherimoya-{base}")
    if flag(arguments, "--cfg") == "schema":
        return json.dumps(json_schema(base, schema), indent=1)
    asked = flag(arguments, "--help")
    words = command_line.overrides(arguments)
    return "" if asked is None else help_text(name, schema, words, asked)


@contextmanager
def _hydra(arguments: list[str], several: bool) -> Iterator[tuple[Callable[..., Any], list[str]]]:
    """What of Hydra runs a task for the arguments, and their overrides; nothing is composed yet.

    Hydra's own decorator would compose once more to find out whether there are several runs.
    """
    parser = flags.parser()
    args = parser.parse_intermixed_args(arguments)
    tells = args.cfg or args.info or args.hydra_help or args.shell_completion
    if tells or args.resolve or args.config_path or args.experimental_rerun:
        yield partial(_told_by_hydra, args, parser), args.overrides
        return
    with groups.initialized(args.config_dir and os.path.abspath(args.config_dir)):
        JobRuntime.instance().set("name", "job")
        own = GlobalHydra.instance().hydra
        assert own is not None
        if several or args.multirun:
            yield own.multirun, [*args.overrides, "hydra.mode=MULTIRUN"]
        else:
            yield own.run, [*args.overrides, "hydra.mode=RUN"]


def _told_by_hydra(
    args: Namespace, parser: ArgumentParser, config_name: str, task_function: Job, overrides: object
) -> None:
    """Have Hydra tell what the flags ask for."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that errors come here, to be put into words
    _run_hydra(
        args=args, args_parser=parser, task_function=task_function,
        config_path=str(conf_dir()), config_name=config_name,
    )  # fmt: skip


def _conclude(job: Job, code: int) -> int:
    """Say how the runs of a sweep ended; the exit code of all."""
    if job.sweep and not job.sweep.is_member and code != USAGE:
        try:
            words, complete = members.finished(job.sweep, job.problems)
        except OSError as error:  # a full disk, on which not even a journal can be locked
            if (said := job.in_words(error)) is None:
                raise
            print_error(said)
            return code or 1
        console.say(console.result(words))
        from cherimoya.report.pages import offer_report

        offer_report(job.sweep.folder)
        return code or int(not complete)
    for label, problem in job.problems:
        print(f"FAILED  {label}: {problem}")
    return code or int(bool(job.problems))


def _check_composed(name: str, arguments: list[str], schema: type, base: str) -> None:
    """Raise ConfigError where --cfg would show a configuration that cannot be.

    What has no value yet may be missing there. A file of the user's own, in the place of `base`,
    needs all groups.
    """
    shown = flag(arguments, "--cfg") is not None
    if shown and flag(arguments, "--multirun") is not None:
        raise ConfigError(
            "--cfg shows the configuration of one run. Leave -m out, and give each key one value."
        )
    words = command_line.overrides(arguments)
    with groups.initialized(flag(arguments, "--config-dir")):
        values, choices = groups.compose(name, words)
        plain = plain_values(values)
        check_complete(schema, plain, name, base)
        with suppress(MissingValue):
            config: Any = build(schema, plain)
            if not shown:
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
        console.note(note)
