"""What a configuration may have Hydra call: our launchers and sweepers, and those it is known for.

Hydra calls whatever a `_target_`, or a logging configuration, names, sets any environment variable
and writes any line of a job's script. In a shared folder of configurations that would be anybody's.
"""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra._internal import hydra as library
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cherimoya.config.bounds import ALLOW, Bounds, Refused
from cherimoya.errors import ConfigError, printable
from cherimoya.util.yaml_file import check_yaml, not_deep

LOAD_FILE = ConfigRepository.load_config
CALLING = ("callbacks", "launcher", "sweeper", "job_logging", "hydra_logging")  # parts of hydra
DEEPEST = 20  # part of these: one that holds itself has no end
ANY, NOTHING = r"(?s).*", r"(?!)"
# What a file may set keys of hydra to, the first pattern of a key alone. Each is the user's own to
# type: it runs commands (lines of a job's script), has other programs do so (LD_PRELOAD, or
# WANDB_BASE_URL, which gets the API key), writes files anywhere, or has files read that name code.
IN_FILES = {
    r"job\.env_set\..+": NOTHING,
    r"output_subdir": r"None|\.?[\w-]+",
    r"(job|hydra)_logging\..*filename": (
        r"(\$\{hydra\.runtime\.output_dir\}/(\$\{hydra\.job\.name\}|[\w-]+)|[\w-]+)\.log"
    ),
    r"sweeper\.storage": r"None|sqlite:///[^$]*",
    r"launcher\.(setup|teardown|srun_args|python|temp_folder)(\..+)?": "None",
    r"launcher\.additional_parameters\.(?!requeue$).+": NOTHING,
    r"launcher\..+": r"[ -~]*",  # no further line of a script
}
KNOWN = {
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
    "hydra_plugins.cherimoya_launchers.Packed",
    "hydra_plugins.cherimoya_launchers.Processes",
    "hydra_plugins.cherimoya_launchers.Slurm",
    "hydra_plugins.cherimoya_search.CheckedSweeper",
    "hydra_plugins.cherimoya_search.OptunaSweeper",
    "logging.FileHandler",
    "logging.NullHandler",
    "logging.StreamHandler",
    "colorlog.ColoredFormatter",
    "ext://sys.stdout",
    "ext://sys.stderr",
}
# Text that is known only while a run goes on, and is a name then.
LATER = re.compile(r"([^$]|\$\{hydra\.(runtime|job|run|sweep)\.\w+\})*")


class _Checked(ConfigLoaderImpl):
    """Hydra's own, whose configurations are checked before anything in them is called."""

    bounds: Bounds | None = None  # none in a process that a launcher starts
    typed: Sequence[str] | None = None  # keys

    def load_configuration(self, *args: Any, **settings: Any) -> DictConfig:
        """As Hydra composes it. Raises ConfigError."""
        if self.bounds:
            self.bounds.begin()
        try:
            config = super().load_configuration(*args, **settings)
        except RecursionError:
            last = f"{self.bounds.last}: " if self.bounds else ""
            raise ConfigError(
                f"{last}the defaults of the configuration lead back to themselves without end. "
                "Remove the one that names its own file, or one that names it."
            ) from None
        check(config)
        return config


def enforce() -> None:
    """Have every configuration that Hydra composes from now on checked, and each file before."""
    _Checked.bounds = Bounds(sys.argv[1:])
    _Checked.typed = [word.partition("=")[0].lstrip("+~") for word in sys.argv[1:] if "=" in word]
    _Checked.bounds.enforce()
    library.ConfigLoaderImpl = _Checked  # type: ignore[misc]
    ConfigRepository.load_config = _load_file  # type: ignore[method-assign]


def _load_file(self: ConfigRepository, config_path: str) -> ConfigResult | None:
    """As Hydra loads a file. Raises ConfigError for one that takes all memory or is no UTF-8."""
    source = self._find_object_source(config_path, ObjectType.CONFIG)
    if source is None or source.scheme() != "file":
        return LOAD_FILE(self, config_path)
    path = Path(source.path, source._normalize_file_name(config_path))
    try:
        check_yaml(path)
        with not_deep(path):
            return LOAD_FILE(self, config_path)
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: no UTF-8. Save it as UTF-8 (iconv does that).") from None
    except ValueError as error:
        if "digits" not in str(error):
            raise
        raise ConfigError(f"{path}: a number has too many digits to be read.") from None


def check(config: DictConfig) -> None:
    """Raise ConfigError, which names the key, for what Hydra would call and is not KNOWN, and for
    a value that a file may not have."""
    if os.environ.get(ALLOW) == "1":
        return
    trust = f"if you trust all of the configuration, set {ALLOW}=1."
    for part in (*CALLING, "output_subdir", "job.env_set"):
        *above, name = part.split(".")
        node = config.hydra[above[0]] if above else config.hydra
        for key, value, is_called in _values(node, name, part):
            if is_called and str(value) not in KNOWN:
                raise ConfigError(
                    f"hydra.{key}={value}: a configuration may not name code that runs here, "
                    "except the launchers and sweepers of Hydra, joblib, submitit and cherimoya. "
                    f"Leave it out, or, {trust}"
                )
            usual = next((u for pattern, u in IN_FILES.items() if re.fullmatch(pattern, key)), ANY)
            if not re.fullmatch(usual, str(value)) and not _is_typed(key):
                raise ConfigError(
                    f"hydra.{key}={printable(str(value))}: what a file says here may run commands, "
                    "write files elsewhere or send data away. Set it on the command line, or leave "
                    f"it out, or, {trust}"
                )


def _is_typed(key: str) -> bool:
    """Whether the command line sets this key of hydra, or the one of who started this process."""
    words = _Checked.typed
    return words is None or any(f"hydra.{key}.".startswith(f"{word}.") for word in words)


def _values(node: Any, name: Any, key: str) -> Iterator[tuple[str, Any, bool]]:
    """The keys below `key`, or itself, each with its value, and whether that is called."""
    try:
        value = node[name]  # with what stands for another value in its place
    except Refused:
        raise
    except OmegaConfBaseException:
        raw: Any = OmegaConf.to_container(node, resolve=False)
        value = raw[name]
        if not LATER.fullmatch(str(value)):
            yield key, value, True
    if isinstance(value, (dict, list)):  # made from text
        value = OmegaConf.create(value)
    named = isinstance(value, str) and value.startswith("ext://")
    if name in ("_target_", "()", "class") or named or key.count(".") > DEEPEST:
        yield key, value, True
    elif isinstance(value, (DictConfig, ListConfig)):
        for below in value if isinstance(value, DictConfig) else range(len(value)):
            yield from _values(value, below, f"{key}.{below!s}")
    else:
        yield key, value, False
