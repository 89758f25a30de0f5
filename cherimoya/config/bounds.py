"""What ${...} and the defaults of a configuration may come to.

A few lines of a shared file could take all memory, or hand on what only the environment has.
"""

import os
import re
from collections.abc import Sequence
from typing import Any

from hydra._internal.config_repository import CachingConfigRepository
from hydra.plugins.config_source import ConfigResult
from omegaconf import Container, Node
from omegaconf.errors import InterpolationResolutionError

from cherimoya.errors import ConfigError

ALLOW = "CHERIMOYA_ALLOW_TARGETS"  # in the environment: 1 for whoever trusts the configuration
MOST = 1_000_000  # letters that a configuration's ${...} are, and stand for, each in full
STEP = 50  # letters that each counts for besides
DEEPEST = 20  # one that stands for another one, which stands for another one
MOST_FILES = 1000  # that defaults name, each as often as it is named
PLAIN = ("HOME", "USER", "LOGNAME", "HOSTNAME", "PWD", "TMPDIR", "SCRATCH")  # variables
TYPED = re.compile(r"oc\.env:\s*['\"]?(\w+)")

RESOLVE = Container._maybe_resolve_interpolation
SELECT = Container._resolve_node_interpolation
CALL = Container._evaluate_custom_resolver
LOAD = CachingConfigRepository.load_config


class Refused(InterpolationResolutionError):  # noqa: N818 - a ${...}
    """A ${...} that stands for too much, or for what no file may ask for."""


class Bounds:
    """What the configuration that is composed may still come to."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.variables = {*PLAIN, *TYPED.findall(" ".join(arguments))}
        self.begin()

    def begin(self) -> None:
        """Another configuration is composed from now on."""
        self.letters, self.depth, self.files = MOST, 0, MOST_FILES
        self.last = ""  # file that was read

    def enforce(self) -> None:
        """Count what OmegaConf puts in the place of each ${...}, and the files that Hydra reads."""

        def resolve(box: Container, *, value: Node, **settings: Any) -> Node | None:
            if not value._is_interpolation():
                return RESOLVE(box, value=value, **settings)
            self.depth += 1
            try:
                self.spend(value)
                return RESOLVE(box, value=value, **settings)
            finally:
                self.depth -= 1

        def select(box: Container, **settings: Any) -> Node:
            found = SELECT(box, **settings)
            self.spend(found)
            return found

        def call(box: Container, *, inter_type: str, inter_args: Any, **settings: Any) -> Any:
            self.spend(*inter_args)
            if inter_type == "oc.env":
                self.check_variable(inter_args[:1])
            found = CALL(box, inter_type=inter_type, inter_args=inter_args, **settings)
            self.spend(found)
            return found

        def load(repository: CachingConfigRepository, config_path: str) -> ConfigResult | None:
            self.files, self.last = self.files - 1, config_path
            if self.files < 0:
                raise ConfigError(
                    f"{config_path}: the defaults of the configuration name more than "
                    f"{MOST_FILES:,} files, each as often as it is named. Name each once."
                )
            return LOAD(repository, config_path)

        for function, owner, name in (
            (resolve, Container, "_maybe_resolve_interpolation"),
            (select, Container, "_resolve_node_interpolation"),
            (call, Container, "_evaluate_custom_resolver"),
            (load, CachingConfigRepository, "load_config"),
        ):
            setattr(owner, name, function)

    def spend(self, *values: Any) -> None:
        """Count the values. Raises Refused for what no configuration needs."""
        for value in values:
            self.letters -= STEP + _size(value, self.letters)
        if self.letters < 0 or self.depth > DEEPEST:
            raise Refused(
                f"${{...}} come to more than {MOST:,} letters with all that they stand for, or lie "
                f"more than {DEEPEST} deep. Write out what is meant."
            )

    def check_variable(self, names: Sequence[Any]) -> None:
        """Raise Refused for a variable that only a file asks for: it may hold a secret."""
        if not set(names) <= self.variables and os.environ.get(ALLOW) != "1":
            raise Refused(
                f"a file asks for the environment variable {names[0]}, which may be a secret, and "
                "what it holds would be in the run's files and in W&B. Name it on the command "
                f"line (key='${{oc.env:{names[0]}}}'), or, if you trust the file, set {ALLOW}=1."
            )


def _size(value: Any, most: int) -> int:
    """The letters and values in a value, as it is written; a little more than `most` if more."""
    total, waiting = 0, [value]
    while waiting and total <= most:
        one = waiting.pop()
        one = one.__dict__.get("_content") if isinstance(one, Container) else one
        one = one._value() if isinstance(one, Node) else one
        total += len(one) if isinstance(one, (str, bytes, list, dict)) else 1
        waiting += one if isinstance(one, list) else one.values() if isinstance(one, dict) else ()
    return total
