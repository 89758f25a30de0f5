"""What Hydra, OmegaConf and the disk complain about, in the words of a command line."""

import errno
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress

import hydra
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException
from yaml import YAMLError

from cherimoya.config.bounds import Refused
from cherimoya.config.command_line import conf_dir, nearest, overrides, quotable
from cherimoya.config.groups import does_nothing, initialized
from cherimoya.config.keys import known_keys
from cherimoya.config.schema import build, unknown_key, unused_keys
from cherimoya.errors import FAULTY, FULL, CherimoyaError, ConfigError, DiskError, disk_words
from cherimoya.registry import own_folders
from cherimoya.util.own_code import own_error

REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)
RUN_FOLDER = (
    "another folder for the run: hydra.run.dir=<folder>, or for a sweep hydra.sweep.dir=<folder>"
)
COMPOSING = (HydraException, OmegaConfBaseException, YAMLError)


def in_words(
    error: Exception, name: str, arguments: Sequence[str], schema: type
) -> CherimoyaError | None:
    """The error as one that a user can act on; None for what nobody has foreseen.

    name: of the configuration that `arguments` change
    """
    if isinstance(error, CherimoyaError):
        return error
    if isinstance(error, MissingConfigException):
        return ConfigError(_no_file(error))
    if isinstance(error, ConfigCompositionException) and isinstance(error.__cause__, Refused):
        error = error.__cause__
    if isinstance(error, InterpolationResolutionError):
        return ConfigError(_not_inserted(error, arguments))
    if isinstance(error, YAMLError):
        return ConfigError(f"a configuration file is no YAML: {' '.join(str(error).split())}")
    if isinstance(error, COMPOSING):
        absent = re.match(r"Could not override '([\w./]+)'", str(error))
        if absent:
            return ConfigError(_absent(absent[1], name, arguments, schema))
        said = re.sub(r"See https://\S+.*|full_key:.*", "", str(error), flags=re.DOTALL)
        return ConfigError(" ".join(said.split()))
    return (refused(error) if isinstance(error, OSError) else None) or own_error(error)


def refused(error: OSError) -> DiskError | None:
    """What the disk would not read or write, and what to do; None for another error."""
    if not isinstance(error.filename, str) or error.errno not in (*REFUSED, *FULL, *FAULTY):
        return None
    return disk_words(error, RUN_FOLDER)


def _no_file(error: MissingConfigException) -> str:
    """An option that its group does not have, or no configuration of the name."""
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    if not group:
        return (
            f"--config-name={option}: there is no {option}.yaml. Name its folder too: "
            "--config-dir=<folder>"
        )
    own = " One of your own needs --config-dir=<folder>." if not own_folders() else ""
    return f"{group}={option}: there is no such option. {nearest(option, error.options or [])}{own}"


def _not_inserted(error: InterpolationResolutionError, arguments: Sequence[str]) -> str:
    """A ${...} for which there is nothing to put in its place."""
    key = error.full_key or ""
    words = [w for w in overrides(arguments) if w.partition("=")[0].lstrip("+") == key]
    value = words[-1].partition("=")[2] if words else None
    where = f"{key}={value}" if value else key
    variable = re.search(r"Environment variable '(.+?)' not found", str(error))
    variable = variable or re.search(
        r"Interpolation key '([A-Z_][A-Z0-9_]*)' not found", str(error)
    )
    if variable:
        return (
            f"{where}: the environment variable {variable[1]} is not set. Set it (export "
            f"{variable[1]}=...), or write what it stands for."
        )
    said = str(error).splitlines()[0]
    if isinstance(error, Refused):
        return f"{where}: {said}"
    literal = value and quotable(key, re.sub(r"\\?\$\{", "${", value.strip("'\"")))
    return f"{where}: ${{...}} stands for another key's value, and here for none ({said})." + (
        f" For a name that has these letters: {literal}" if literal else " Correct it."
    )


def _absent(key: str, name: str, arguments: Sequence[str], schema: type) -> str:
    """A key that only other options of its group have, or a group that is null."""
    words = [w for w in overrides(arguments) if w.partition("=")[0] == key]
    word, parent = (words or [key])[-1], key.rpartition(".")[0]
    others = [w for w in overrides(arguments) if w != word]
    if why := _unused(parent, word, name, others, schema):
        return why
    options = list(_options_with(key, word, name))
    if options:
        return (
            f"{word}: there is no {key} with the options that are chosen. Set "
            f"{' or '.join(options)} too, or leave it out."
        )
    inside = [k for k in known_keys(schema) if k.startswith(f"{parent or key}.")]
    if not parent:
        return f"{word}: {key} is a group here. Write one of its keys: {', '.join(inside[:4])}, ..."
    if known := list(_keys_beside(parent, name, others)):
        return unknown_key(key, known)
    listed = ", ".join(f"{k.removeprefix(f'{parent}.')}: ..." for k in inside)
    whole = f"{parent}={{{listed}}}"
    return f"{word}: {parent} is null here. Give all of it: {shlex.quote(whole)}"


def _unused(parent: str, word: str, name: str, others: Sequence[str], schema: type) -> str | None:
    """Why the group `parent` of a key has no effect beside the `others`; None if it might."""
    with suppress(CherimoyaError, *COMPOSING), initialized():
        values = OmegaConf.to_container(hydra.compose(name, list(others)), resolve=True)
        for key, used in unused_keys(build(schema, values)).items():
            if key == parent or parent.startswith(f"{key}."):
                return does_nothing(word, used)
    return None


def _keys_beside(parent: str, name: str, others: Sequence[str]) -> Iterator[str]:
    """The dotted keys that the group `parent` has as it is composed of the `others`."""
    with suppress(*COMPOSING), initialized():
        inside = OmegaConf.select(hydra.compose(name, list(others)), parent)
        if isinstance(inside, DictConfig):
            yield from (f"{parent}.{key!s}" for key in inside)


def _options_with(key: str, word: str, name: str) -> Iterator[str]:
    """The options of the key's groups, such as optim=muon_adamw_sgd, with which `word` composes."""
    parts = key.split(".")[:-1]
    for group in ("/".join(parts[:i]) for i in range(len(parts), 0, -1)):
        for path in sorted((conf_dir() / group).glob("*.yaml")):
            try:
                with initialized():
                    hydra.compose(name, [f"{group}={path.stem}", word])
            except COMPOSING:
                continue
            yield f"{group}={path.stem}"
