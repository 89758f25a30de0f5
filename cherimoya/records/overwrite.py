"""No command writes over what it reads."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cherimoya.config.schema import joined, to_dict
from cherimoya.errors import ConfigError
from cherimoya.records.layout import CONFIG
from cherimoya.records.run import BEST
from cherimoya.util.marks import OF_FOLDER

BESIDE = ("", f".{OF_FOLDER}", ".fai", ".gzi", ".bai", ".csi", ".tbi")  # of a file that is read


def check_inputs_kept(config: Any, written: Mapping[Path, str]) -> None:
    """Raise ConfigError where what `config` has a command read would be overwritten.

    written: the files and folders that it writes, each with how to do without, where that can be
    """
    for key, named in _texts(to_dict(config)):
        for source in filter(os.path.exists, _read(named)):
            for path, fix in written.items():
                if _falls_on(source, path):
                    raise ConfigError(
                        f"{key}={source} would be overwritten by {path}. Choose another output"
                        f"{fix}."
                    )


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a configuration but its output, any of which may be a path, with its key."""
    if isinstance(value, dict):
        for name, one in value.items():
            if name != "output":
                yield from _texts(one, joined(key, name))
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one, key)
    elif isinstance(value, str):
        yield key, value


def _read(named: str) -> list[str]:
    """What is read where a configuration names a file, or a run's folder."""
    if os.path.isdir(named):
        return [os.path.join(named, "checkpoints", BEST), os.path.join(named, CONFIG)]
    return [named + ending for ending in BESIDE]


def _falls_on(source: str, path: Path) -> bool:
    """Whether `source` is `path` or lies in it, by whatever name."""
    if Path(os.path.realpath(source)).is_relative_to(os.path.realpath(path)):
        return True
    return path.exists() and os.path.samefile(source, path)
