"""The flags of a command line, most of them Hydra's, and what is said of those that are none."""

import re
from argparse import ArgumentParser
from collections.abc import Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from cherimoya.cli import level
from cherimoya.config.command_line import SHORT, flag, nearest
from cherimoya.errors import ConfigError

CFG = {
    "job": "the configuration",
    "hydra": "Hydra's own",
    "all": "both",
    "schema": "a JSON schema of the configuration, for editors",
}
SHELLS, COMPLETION = ("bash", "zsh", "fish"), ("install", "uninstall", "query")
HELP = {
    **{name if name == level.QUIET else f"{name} LEVEL": said for name, said in level.HELP.items()},
    "--cfg WHAT": f"show and stop; {', '.join(f'{k}: {v}' for k, v in CFG.items())}",
    "--config-dir FOLDER": "take options of groups, and files for --config-name, from there too",
    "-sc install=bash": f"completion for a shell: {', '.join(SHELLS)}",
    "--version": "show the versions and stop",
}


def check(arguments: Sequence[str]) -> None:
    """Raise ConfigError for a flag that there is not, or a value that it cannot have."""
    shown = flag(arguments, "--cfg")
    if shown is not None and shown not in CFG:
        listed = ", ".join(f"{name} ({said})" for name, said in CFG.items())
        raise ConfigError(f"{f'--cfg {shown}'.strip()}: must be one of {listed}.")
    if flag(arguments, "--shell-completion") is not None:
        asked = [word for word in arguments if not word.startswith("-")]
        steps = [word.partition("=")[::2] for word in asked]
        if not any(step in COMPLETION and shell in SHELLS for step, shell in steps):
            raise ConfigError(
                f"{' '.join(['-sc', *asked])}: must be install or uninstall, and for which shell, "
                f"such as -sc install=bash. Shells: {', '.join(SHELLS)}."
            )
    folders = [w for w in arguments if w.partition("=")[0] in ("--config-dir", "-cd")]
    if len(folders) > 1:
        raise ConfigError("--config-dir is given twice, and one folder is read. Name one.")
    told = ("--help", "--version", "--cfg=schema", "-c=schema")
    parser().parse_intermixed_args(
        [w for w in arguments if not w.startswith(told) and not _is_help(w)]
    )


def _is_help(word: str) -> bool:
    return word.partition("=")[0] == "-h"


def parser() -> ArgumentParser:
    """Hydra's, which raises ConfigError in our words."""

    def refuse(message: str) -> NoReturn:
        raise ConfigError(_in_words(message))

    made: ArgumentParser = get_args_parser()
    made.error = refuse  # type: ignore[method-assign]
    return made


def _in_words(message: str) -> str:
    """What argparse complains about, as we would say it."""
    choice = re.match(
        r"argument (\S+?)(?:/\S+)?: invalid choice: '(.*)' \(choose from (.*)\)", message
    )
    if choice:
        name, value, known = choice.groups()
        return f"{name} {value}: must be one of {known.replace(chr(39), '')}."
    lacks = re.match(r"argument (\S+?)(?:/\S+)?: expected one argument", message)
    if lacks:
        return f"{lacks[1]} needs a value, such as {lacks[1]} <value>."
    unknown = re.match(r"unrecognized arguments: (\S+)", message)
    if unknown:
        known = [*(name.split()[0] for name in HELP), *SHORT.values()]
        near = nearest(unknown[1].partition("=")[0], known)
        fix = near if near.startswith("Did") else "--help lists the flags."
        return f"unknown flag {unknown[1]}. {fix}"
    return message
