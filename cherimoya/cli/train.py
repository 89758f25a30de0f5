"""The console scripts: Hydra composes, the configuration is checked, and the work begins.

torch and wandb are imported only after that, so that --help and --cfg answer at once.
"""

import json
import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cherimoya import registry
from cherimoya.cli.app import check_effects, main
from cherimoya.cli.job import Job, print_error
from cherimoya.cli.scripts import ends_at_once
from cherimoya.config import command_line, groups
from cherimoya.config.command_line import conf_dir
from cherimoya.config.diff import Changes, flat, read_changes
from cherimoya.config.groups import composition, plain_values
from cherimoya.config.saved import current
from cherimoya.config.schema import build, to_dict
from cherimoya.config.train import FREE_ON_RESUME, WHERE_DATA_IS, TrainConfig
from cherimoya.distributed import launch
from cherimoya.errors import CherimoyaError, ConfigError, DataError, Interrupted
from cherimoya.records import study
from cherimoya.records import sweep as sweeps
from cherimoya.records.layout import read_config
from cherimoya.records.own_folders import check_sweep_folder
from cherimoya.sweeps import launchers, members, plan, search
from cherimoya.sweeps.plan import Sweep
from cherimoya.util import console
from cherimoya.util.yaml_file import not_deep

__all__ = ["conf_dir", "main", "plan_sweep", "process_wide_switches", "train", "worker"]

SPEAK_SECONDS = 3.0

Run = tuple[TrainConfig, Path, Changes]  # and its folder, and what it changes of the defaults


def train() -> None:
    """cherimoya-train."""
    OmegaConf.register_new_resolver(
        "run_id", lambda: secrets.token_hex(3), use_cache=True, replace=True
    )
    launchers.end_with_parent()
    main("train", TrainConfig, TrainJob())


def plan_sweep(arguments: list[str]) -> Sweep | None:
    """The sweep that these arguments of cherimoya-train ask for, checked and written down.

    Its runs are for other machines, where the data are.
    """
    return TrainJob().plan(arguments, None, here=False)


class TrainJob(Job):
    """What cherimoya-train does with each configuration, alone or as a member of a sweep."""

    def __init__(self) -> None:
        super().__init__(self)
        self.at_once = 1  # members that train at once in this process
        self.waiting: list[Run] = []  # for the others, to do so

    def __call__(self, values: DictConfig) -> None:
        """Train as the configuration says, unless that is done, or waits for others."""
        with self.reporting():
            run = self._checked_run(values)
            if run is None:
                return
            config, folder, changes = run
            if self.at_once > 1:
                self.waiting.append(run)
            elif config.trainer.devices > launch.world():
                launch.start(*run)
            else:
                process_wide_switches(config.trainer.precision, config.trainer.autotune)
                with ends_at_once():
                    from cherimoya.training.bias_training import bias_models_trained
                    from cherimoya.training.run import RunContext, train

                context = RunContext(on_epoch=study.watch(folder), command=self.typed)
                with bias_models_trained(config, folder, context, changes) as context:
                    train(config, folder, context, changes)

    def plan(self, arguments: list[str], member_of: Path | None, here: bool = True) -> Sweep | None:
        """The sweep that the command line asks for, each member of it checked; or None.

        here: whether runs that this process starts may read files
        """
        OmegaConf.register_new_resolver(
            "member_name", lambda: sweeps.member_name(self._overrides()), replace=True
        )
        if member_of:
            self.sweep = plan.member(arguments, member_of)
        else:
            self.sweep = search.plan(arguments) or plan.plan(arguments)
        if self.sweep and not here:
            self.sweep = replace(self.sweep, here=False)
        if self.sweep and launch.world() > 1:
            raise ConfigError(
                "a launcher starts the processes of one run, not of several (-m). Leave the "
                "launcher out, and set trainer.devices."
            )
        if not self.sweep:
            _check_one_run(arguments)
        elif not member_of:
            check_sweep_folder(self.sweep.folder)
            members.check(self.sweep, FREE_ON_RESUME)
            self.sweep.write(arguments)
        return self.sweep

    def _checked_run(self, values: DictConfig) -> Run | None:
        """The run that the configuration asks for; None for one that is done already."""
        folder = Path(HydraConfig.get().runtime.output_dir)
        with suppress(ValueError):
            folder = folder.relative_to(Path.cwd())
        plain = plain_values(values)
        if self.sweep:
            wanted = to_dict(build(TrainConfig, plain))
            state = members.begin(folder, self._overrides(), wanted)
            if state == "done":
                console.say(f"done already: {folder}")
                return None
            plain["trainer"]["resume"] = str(folder) if state == "resume" else None
            if wandb := plain["logger"].get("wandb"):
                wandb["group"] = wandb.get("group") or self.sweep.name
        elif plain["trainer"]["resume"] is not None:
            plain = _resumed(plain, folder)
        launch.count_devices(plain["trainer"])
        config = build(TrainConfig, plain)
        known = HydraConfig.get()
        choices = groups.chosen(OmegaConf.to_container(known.runtime.choices))
        made = composition(config, plain, list(known.overrides.task), choices)
        if launch.rank() == 0 and not self.sweep:
            check_effects(made)
            _check_data(config)
        return config, folder, made.changes()

    @contextmanager
    def packing(self, members: int) -> Iterator[None]:
        """The runs of the block wait; after it they train, so many at once."""
        self.at_once = members
        yield
        self.problems += self._train_waiting()

    def _train_waiting(self) -> list[tuple[str, str]]:
        """Train the members that wait, `at_once` in turn; the names and errors of failed ones.

        Raises ConfigError when they cannot share a process, and SystemExit after a signal.
        """
        for key in ("devices", "device", "precision", "threads", "autotune"):
            values = sorted({str(getattr(c.trainer, key)) for c, *_ in self.waiting})
            if len(values) > 1 or (key == "devices" and values not in ([], ["1"])):
                raise ConfigError(
                    f"trainer.{key} is {' or '.join(values)}, but members that train at once in "
                    "one process need one value, and one device. Use hydra/launcher=processes."
                )
        problems = []
        while self.waiting:
            chosen = [self.waiting.pop(0) for _ in self.waiting[: self.at_once]]
            names = ", ".join(folder.name for _, folder, _ in chosen)
            console.say(f"\n=== {len(chosen)} at once: {names}")
            trainer = chosen[0][0].trainer
            try:
                process_wide_switches(trainer.precision, trainer.autotune)
                from cherimoya.training.bias_training import train_whole_packed

                with console.one_of_several():
                    failed = train_whole_packed(chosen)
            except Interrupted as error:
                raise SystemExit(error.exit_code) from None
            problems += [(folder.name, str(error)) for folder, error in failed.items()]
        return problems

    def _overrides(self) -> dict[str, str]:
        """What sets this member of the sweep apart."""
        return self.sweep.overrides_of(HydraConfig.get().overrides.task) if self.sweep else {}


def _check_one_run(arguments: list[str]) -> None:
    """Raise ConfigError for an experiment that asks for several runs, where one is to be made."""
    words = command_line.overrides(arguments)
    experiment = next((word for word in words if word.startswith("experiment=")), None)
    if experiment is None:
        return
    asked = plan.hydra_of([*plan.search_folders(arguments), *words])
    several = {
        "hydra.mode": asked.mode == RunMode.MULTIRUN,
        "hydra.sweeper.params": asked.sweeper.get("params"),
    }
    for key in (key for key, is_set in several.items() if is_set):
        raise ConfigError(
            f"{experiment} sets {key}, which makes several runs, and this is one. Keep it in a "
            "file of the group sweep, chosen by sweep=..., or add -m."
        )


def _check_data(config: TrainConfig) -> None:
    """Raise what is wrong with the data, before there is a run, or before it goes on."""
    from cherimoya.data.dataset import check_file

    resume, path = config.trainer.resume, config.data.path
    if resume is not None and path is not None and not Path(path).is_file():
        raise ConfigError(
            f"cannot resume: data.path={path}, which the run began with, is not there. If it has "
            f"moved, say where it is now: cherimoya-train trainer.resume={resume} data.path=..."
        )
    check_file(config.data)


def worker() -> None:
    """One of the processes that `launch.start` began: the configuration and folder as JSON."""
    console.print_messages()
    values, folder, changes = json.loads(sys.argv[1])
    try:
        config = build(TrainConfig, values)
        process_wide_switches(config.trainer.precision, config.trainer.autotune)
        from cherimoya.training.bias_training import bias_models_trained
        from cherimoya.training.run import RunContext, train

        context, made = RunContext(on_epoch=study.watch(Path(folder))), Changes(**changes)
        with bias_models_trained(config, Path(folder), context, made) as context:
            train(config, Path(folder), context, made)
    except CherimoyaError as error:
        print_error(error)
        if launch.rank():  # the first process is ended with this one: let it speak before
            time.sleep(SPEAK_SECONDS)
        raise SystemExit(1) from None
    except Interrupted as error:
        raise SystemExit(error.exit_code) from None


def _resumed(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The configuration the run in `folder` began with, and what may change since.

    Raises ConfigError when the command line asks for another model, data or optimisation.
    """
    saved = _saved_configuration(folder / "config.yaml")
    asked, began = flat(values), flat(saved)
    usual = plain_values(hydra.compose("train"))
    plain = flat(usual)
    typed = {command_line.parse(o).key_or_group for o in HydraConfig.get().overrides.task}
    typed |= {f"{key.replace('/', '.')}.name" for key in typed}  # of groups whose option was typed
    chosen = {k for k in asked if asked[k] != plain.get(k) or k in typed}
    free = {k for k in chosen if k.startswith((*FREE_ON_RESUME, *WHERE_DATA_IS))}
    made = read_changes(folder)
    first = began | dict(made.adapts if made else {})  # with defaults that were then changed to fit
    same = {k for k in chosen if asked[k] in (began.get(k), first.get(k))}
    changed = sorted(chosen - free - same)
    if changed:
        listed = "; ".join(f"{k} was {began.get(k)}, now {asked[k]}" for k in changed)
        raise ConfigError(
            f"cannot resume {folder} with another configuration: {listed}. Leave these out to "
            "continue the run, or start a new one without trainer.resume."
        )
    if launch.world() > 1 and "trainer.devices" not in typed:
        saved["trainer"]["devices"] = launch.world()
    saved["logger"] = _loggers(values, saved, usual, "logger" in typed)
    for key in free:
        node: Any = saved
        *groups, leaf = key.split(".")
        for group in groups:
            node = node.get(group, {})  # a logger that the run has not
        node[leaf] = asked[key]
    return saved


def _loggers(
    values: dict[str, Any], saved: dict[str, Any], usual: dict[str, Any], chosen: bool
) -> dict[str, Any]:
    """The loggers that a run goes on with: those `chosen` now, else its own and what is added."""
    asked, own = values["logger"], saved["logger"]
    names = asked if chosen else [*own, *(n for n in asked if n not in {*usual["logger"], *own})]
    return {name: own.get(name, asked.get(name)) for name in names}


def _saved_configuration(path: Path) -> dict[str, Any]:
    """What a run wrote down of its configuration. Raises ConfigError where it is damaged."""
    fix = "Put back what the run wrote there, or start a new run."
    try:
        read_config(path.parent, fix)
        with not_deep(path):
            saved = OmegaConf.to_container(OmegaConf.load(path))
        return to_dict(build(TrainConfig, current(saved)))
    except (registry.NotFound, DataError) as error:
        raise ConfigError(f"cannot resume: {error}") from None
    except (CherimoyaError, OmegaConfBaseException, YAMLError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"cannot resume: {path} is damaged ({' '.join(str(error).split())[:200]}). {fix}"
        ) from None


def process_wide_switches(precision: str, autotune: bool) -> None:
    """Results that do not depend on the day: deterministic algorithms, and TF32 only if asked."""
    if os.environ.get("CHERIMOYA_AUTOTUNE") != "0":  # whoever starts the run may rule it out
        os.environ["CHERIMOYA_AUTOTUNE"] = str(int(autotune))
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if launch.rank():  # the first process speaks for all
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    with ends_at_once():
        import torch

    # As torch.use_deterministic_algorithms, which would import the whole compiler.
    torch.set_deterministic_debug_mode("error")
    # That also fills each new tensor, which takes a pass over it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
