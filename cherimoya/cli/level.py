"""--quiet and --log-level, which every command takes: how much it prints."""

import os
from argparse import ArgumentParser
from collections.abc import Sequence

from cherimoya.errors import ConfigError
from cherimoya.util import console

QUIET, LEVEL = "--quiet", "--log-level"
HELP = {
    QUIET: "print results, warnings and errors alone",
    LEVEL: f"one of {', '.join(console.LEVELS)}: print messages from this level on (result: as "
    f"{QUIET}); by default ${console.LEVEL}, or info",
}


def without_level(arguments: Sequence[str]) -> list[str]:
    """The arguments without --quiet and --log-level, which this process and its own then heed.

    Raises ConfigError for a level that is none.
    """
    rest, words = list[str](), list(arguments)
    asked = os.environ.get(console.LEVEL) or "info"
    where = f"{console.LEVEL}={asked}"
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if word == QUIET:
            asked = "result"
        elif name == LEVEL:
            asked = value if equals else words.pop(0) if words else ""
            where = f"{LEVEL}={asked}"
        else:
            rest.append(word)
    if asked not in console.LEVELS:
        raise ConfigError(f"{where}: must be one of {', '.join(console.LEVELS)}.")
    if asked != "info" or console.LEVEL in os.environ:
        os.environ[console.LEVEL] = asked  # for the processes that share a run
    console.LOGGER.setLevel(console.LEVELS[asked])
    return rest


def add_level(parser: ArgumentParser) -> None:
    """Have the help of a command list them; `without_level` has read them."""
    parser.add_argument(QUIET, action="store_true", help=HELP[QUIET])
    parser.add_argument(LEVEL, metavar="LEVEL", help=HELP[LEVEL])
