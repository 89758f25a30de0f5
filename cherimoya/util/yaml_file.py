"""YAML files of which a few lines could stand for more than any memory holds, and are refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from cherimoya.errors import ConfigError

MOST_BYTES = 1 << 20
MOST_VALUES = 100_000  # with every alias in full
MOST_INSERTED = 10_000  # ${...}, which take long to read


class TooLarge(yaml.YAMLError, ConfigError):  # noqa: N818 - as MissingValue
    """A file that would become too large."""


def read_yaml(path: Path) -> Any:
    """What the file holds. Raises TooLarge as `check_yaml` does."""
    check_yaml(path)
    with not_deep(path):
        return yaml.safe_load(path.read_text())


def check_yaml(path: Path) -> None:
    """Raise TooLarge for a file of many bytes, or whose aliases multiply or lie deep.

    Raises UnicodeDecodeError where it is no UTF-8.
    """
    with open(path, "rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise TooLarge(f"{path}: more than {MOST_BYTES:,} bytes, too many for a configuration.")
    if content.count(b"${") > MOST_INSERTED:
        raise TooLarge(f"{path}: more than {MOST_INSERTED:,} ${{...}}. Write out what is meant.")
    text = content.decode()
    with not_deep(path):
        root = yaml.compose(text, yaml.SafeLoader) if "*" in text else None
        values = 0 if root is None else _count(root, {})
    if values > MOST_VALUES:
        raise TooLarge(
            f"{path}: its aliases (*name) stand for more than {MOST_VALUES:,} values. Write out "
            "those that are meant."
        )


@contextmanager
def not_deep(path: Path) -> Iterator[None]:
    """Where a file that is nested too deep is TooLarge."""
    try:
        yield
    except RecursionError:
        raise TooLarge(f"{path}: nested too deep for a configuration.") from None


def _count(node: Any, known: dict[int, int]) -> int:
    """The values in a node, each alias counted in full; of one that holds itself, too many."""
    if id(node) not in known:
        known[id(node)] = MOST_VALUES + 1  # until all that is in it was seen
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        each = (part if isinstance(part, tuple) else (part,) for part in parts)
        known[id(node)] = 1 + sum(_count(one, known) for some in each for one in some)
    return known[id(node)]
