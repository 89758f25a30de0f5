"""The console scripts: Hydra composes, the configuration is checked, and the work begins.

torch and wandb are imported only after that, so that --help and --cfg answer at once.
"""

import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from string import Template
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from cherimoya import cli_launchers, cli_search, cli_sweep, launch, search, sweeps
from cherimoya.changes import note_changes
from cherimoya.cli_job import Job, complain
from cherimoya.cli_sweep import Sweep
from cherimoya.config import (
    TrainConfig,
    resolve,
    to_dict,
)
from cherimoya.errors import CherimoyaError, ConfigError, Interrupted
from cherimoya.schema import known_keys, unknown_key

SPEAK_SECONDS = 3.0
USAGE = 2  # the exit code for a command line that is none
RESUME = "trainer.resume"
FREE_ON_RESUME = (
    RESUME,
    "trainer.device",
    "trainer.devices",
    "trainer.checkpoint_minutes",
    "trainer.plots",
    "trainer.profile",
    "trainer.autotune",
    "data.placement",
    "logger.",
)


def conf_dir() -> Path:
    """The configuration files: the packaged copy, else the checkout's."""
    packaged = Path(__file__).parent / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / "conf"


def train() -> None:
    """cherimoya-train."""
    OmegaConf.register_new_resolver(
        "run_id", lambda: secrets.token_hex(3), use_cache=True, replace=True
    )
    cli_launchers.end_with_parent()
    command = _Train()
    main("train", TrainConfig, command.work, command)


def plan_sweep(arguments: list[str]) -> Sweep | None:
    """The sweep that these arguments of cherimoya-train ask for, checked and written down."""
    return _Train().plan(arguments, None)


def main(
    name: str,
    schema: type,
    work: Callable[[DictConfig], None],
    command: "_Train | None" = None,
) -> None:
    """Run `work` on each configuration that Hydra composes; the exit code tells the truth."""
    job, code = Job(work, command), 0
    try:
        launch.read_slurm()
        given, member_of = cli_sweep.without_member_of(sys.argv[1:])
        sys.argv[1:] = list(checked_arguments(given, schema))
        if launch.rank() > 0 and not any(a.startswith("hydra.run.dir=") for a in sys.argv):
            sys.argv.append("hydra.run.dir=.")  # the folder is the first process's
        if {"--help", "-h"} & set(sys.argv[1:]):
            _print_help(name, [a for a in sys.argv[1:] if "=" in a])
            return
        if not command and any(a.startswith("hydra/launcher=") for a in sys.argv):
            raise ConfigError("hydra/launcher is for the sweeps of cherimoya-train. Leave it out.")
        if command and not {"--cfg", "-c", "--info", "-i", cli_search.ONCE} & set(sys.argv[1:]):
            job.sweep = command.plan(sys.argv[1:], member_of)
            sys.argv[1:] = cli_sweep.for_hydra(sys.argv[1:], job.sweep)
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=name)(job)()
    except (CherimoyaError, HydraException) as error:
        complain(error)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        code = 130
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    if job.sweep and not job.sweep.is_member and code != USAGE:
        words, complete = cli_sweep.finished(job.sweep, job.problems)
        print(words, flush=True)
        _offer_report(job.sweep.folder)
        code = code or int(not complete)
    else:
        for label, problem in job.problems:
            print(f"FAILED  {label}: {problem}")
            code = code or 1
    if code:
        raise SystemExit(code)


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


def checked_arguments(arguments: list[str], schema: type) -> Iterator[str]:
    """The command line, with every key known; a resumed run gets its own folder.

    Raises ConfigError for a key that does not exist, also behind + and ++.
    """
    keys = set(known_keys(schema))
    groups = {str(p.relative_to(conf_dir())) for p in conf_dir().rglob("*") if p.is_dir()}
    for argument in arguments:
        yield argument
        if argument.startswith("-") or ("=" not in argument and not argument.startswith("~")):
            continue
        override = _parse(argument)
        key = override.key_or_group
        if key.split(".")[0] == "hydra" or key.split("/")[0] == "hydra":
            continue
        if key not in keys | groups:
            raise ConfigError(unknown_key(key, sorted(keys)))
        if key == RESUME and override.value() is not None:
            yield f"hydra.run.dir={cli_sweep.quoted(_run_folder(str(override.value()), arguments))}"


def _parse(argument: str) -> Override:
    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException as error:
        raise ConfigError(f"{argument!r} is not key=value: {str(error).splitlines()[0]}") from None


def _run_folder(value: str, arguments: list[str]) -> Path:
    folder = Path(value)
    if {"-m", "--multirun"} & set(arguments) or any(a.startswith("sweep=") for a in arguments):
        raise ConfigError(f"{RESUME}={value}: one run is resumed at a time. Leave out -m, sweep.")
    if not (folder / "config.yaml").is_file():
        raise ConfigError(
            f"{RESUME}={value}: no run there (config.yaml is missing). Name a run folder."
        )
    return folder


class _Train:
    """What cherimoya-train does with each configuration, alone or as a member of a sweep."""

    def __init__(self) -> None:
        self.sweep: Sweep | None = None
        self.at_once = 1  # members that train at once in this process
        self.waiting: list[tuple[TrainConfig, Path]] = []  # for the others, to do so
        self.defaults: TrainConfig  # what a command without arguments would train

    def plan(self, arguments: list[str], member_of: Path | None) -> Sweep | None:
        """The sweep that the command line asks for, each member of it checked; or None."""
        conf = conf_dir()
        OmegaConf.register_new_resolver(
            "member_name", lambda: sweeps.member_name(self._overrides()), replace=True
        )
        if member_of:
            self.sweep = cli_sweep.member(arguments, member_of)
        else:
            self.sweep = cli_search.plan(arguments, conf, "train", _checked) or cli_sweep.plan(
                arguments, conf
            )
        if self.sweep and launch.world() > 1:
            raise ConfigError(
                "a launcher starts the processes of one run, not of several (-m). Leave the "
                "launcher out, and set trainer.devices."
            )
        if self.sweep and not member_of:
            cli_sweep.check(self.sweep, conf, "train", _checked, FREE_ON_RESUME)
            self.sweep.write(arguments)
        with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
            self.defaults = resolve(plain_values(hydra.compose("train")), TrainConfig)
        return self.sweep

    def work(self, values: DictConfig) -> None:
        """Train as the configuration says."""
        folder = Path(HydraConfig.get().runtime.output_dir)
        with suppress(ValueError):
            folder = folder.relative_to(Path.cwd())
        try:
            plain = plain_values(values)
            if self.sweep:
                state = cli_sweep.begin(folder, self._overrides(), _checked(values), FREE_ON_RESUME)
                if state == "done":
                    print(f"done already: {folder}", flush=True)
                    return
                plain["trainer"]["resume"] = str(folder) if state == "resume" else None
                plain["logger"]["group"] = plain["logger"]["group"] or self.sweep.name
            elif plain["trainer"]["resume"] is not None:
                plain = _resumed(plain, folder)
            launch.count_devices(plain["trainer"])
            config = resolve(plain, TrainConfig)
        except CherimoyaError:
            if launch.rank() == 0 and folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
            raise
        if config.trainer.resume is None and launch.rank() == 0:
            OmegaConf.save(OmegaConf.create(to_dict(config)), folder / "config.yaml")
            note_changes(folder, to_dict(config), to_dict(self.defaults))
        if self.at_once > 1:
            self.waiting.append((config, folder))
        elif config.trainer.devices > launch.world():
            launch.start(config, folder)
        else:
            _run(config, folder)

    def train_waiting(self) -> list[tuple[str, str]]:
        """Train the members that wait, `at_once` in turn; the names and errors of failed ones.

        Raises ConfigError when they cannot share a process, and SystemExit after a signal.
        """
        for key in ("devices", "device", "precision", "threads", "autotune"):
            values = sorted({str(getattr(c.trainer, key)) for c, _ in self.waiting})
            if len(values) > 1 or (key == "devices" and values not in ([], ["1"])):
                raise ConfigError(
                    f"trainer.{key} is {' or '.join(values)}, but members that train at once in "
                    "one process need one value, and one device. Use hydra/launcher=processes."
                )
        problems = []
        while self.waiting:
            chosen = [self.waiting.pop(0) for _ in self.waiting[: self.at_once]]
            names = ", ".join(folder.name for _, folder in chosen)
            print(f"\n=== {len(chosen)} at once: {names}", flush=True)
            try:
                failed = _run_packed(chosen)
            except Interrupted as error:
                raise SystemExit(error.exit_code) from None
            problems += [(folder.name, str(error)) for folder, error in failed.items()]
        return problems

    def _overrides(self) -> dict[str, str]:
        """What sets this member of the sweep apart."""
        return self.sweep.overrides_of(HydraConfig.get().overrides.task) if self.sweep else {}


def worker() -> None:
    """One of the processes that `launch.start` began: the configuration and folder as JSON."""
    values, folder = json.loads(sys.argv[1])
    try:
        _run(resolve(values, TrainConfig), Path(folder))
    except CherimoyaError as error:
        complain(error)
        if launch.rank():  # the first process is ended with this one: let it speak before
            time.sleep(SPEAK_SECONDS)
        raise SystemExit(1) from None
    except Interrupted as error:
        raise SystemExit(error.exit_code) from None


def _run(config: TrainConfig, folder: Path) -> None:
    process_wide_switches(config.trainer.precision, config.trainer.autotune)
    from cherimoya.analysis.run import run

    run(config, folder, search.watch(folder))


def _run_packed(members: list[tuple[TrainConfig, Path]]) -> dict[Path, Exception]:
    trainer = members[0][0].trainer
    process_wide_switches(trainer.precision, trainer.autotune)
    from cherimoya.analysis.pack import run_packed

    return run_packed(members)


def _checked(values: DictConfig) -> dict[str, Any]:
    """The composed `values` as a checked configuration. Raises ConfigError."""
    return to_dict(resolve(plain_values(values), TrainConfig))


def _offer_report(folder: Path) -> None:
    from cherimoya.analysis.report.pages import offer_report

    offer_report(folder)


def plain_values(values: DictConfig) -> dict[str, Any]:
    """`values` as dictionaries and lists; a resume may start from another folder, so the data's
    path is made absolute."""
    content = OmegaConf.to_container(values, resolve=True)
    assert isinstance(content, dict)
    data = content.get("data", {})
    if data.get("path") not in (None, "???"):
        data["path"] = os.path.abspath(data["path"])
    return {str(k): v for k, v in content.items()}


def _resumed(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The configuration the run in `folder` began with, and what may change since.

    Raises ConfigError when the command line asks for another model, data or optimisation.
    """
    saved: dict[str, Any] = OmegaConf.to_container(  # type: ignore[assignment]
        OmegaConf.load(folder / "config.yaml")
    )
    asked, began = cli_sweep.flat(values), cli_sweep.flat(saved)
    plain = cli_sweep.flat(plain_values(hydra.compose("train")))
    typed = {_parse(o).key_or_group for o in HydraConfig.get().overrides.task}
    chosen = {k for k in asked if asked[k] != plain.get(k) or k in typed}
    free = {k for k in chosen if k.startswith(FREE_ON_RESUME)}
    changed = [k for k in sorted(chosen - free) if asked[k] != began.get(k)]
    if changed:
        listed = "; ".join(f"{k} was {began.get(k)}, now {asked[k]}" for k in changed)
        raise ConfigError(
            f"cannot resume {folder} with another configuration: {listed}. Leave these out to "
            "continue the run, or start a new one without trainer.resume."
        )
    if launch.world() > 1 and "trainer.devices" not in typed:
        saved["trainer"]["devices"] = launch.world()
    for key in free:
        node = saved
        *groups, leaf = key.split(".")
        for group in groups:
            node = node[group]
        node[leaf] = asked[key]
    return saved


def process_wide_switches(precision: str, autotune: bool) -> None:
    """Results that do not depend on the day: deterministic algorithms, and TF32 only if asked."""
    if os.environ.get("CHERIMOYA_AUTOTUNE") != "0":  # whoever starts the run may rule it out
        os.environ["CHERIMOYA_AUTOTUNE"] = str(int(autotune))
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if launch.rank():  # the first process speaks for all
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    import torch

    # As torch.use_deterministic_algorithms, which would import the whole compiler.
    torch.set_deterministic_debug_mode("error")
    # That also fills each new tensor, which takes a pass over it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")


if __name__ == "__main__":
    train()
