"""Values of the wrong kind are named with the form that works."""

from dataclasses import dataclass

import pytest

from cherimoya.config.schema import build, checked
from cherimoya.errors import ConfigError


@dataclass(frozen=True)
class Some:
    """Fields of several kinds."""

    files: list[list[str]] | dict[str, list[str]] = checked(default=None)
    names: str | list[str] = checked(default="a")
    maybe: list[str] | None = checked(default=None)
    change: float | None = checked(at_least=-50, at_most=50, default=None)
    count: int = checked(at_least=0, default=0)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("files", None, r"files=null: expected a list, such as files=\[\.\.\.\]"),
        ("files", ["a", "b"], r"files\[0\]='a': expected a list, such as files=\[\[\.\.\.\]\]"),
        ("names", None, r"names=null: expected text"),
        ("change", float("nan"), "change=nan: must be a finite number"),
        ("change", float("inf"), "change=inf: must be a finite number"),
        ("change", 51, "change=51.0: must be at most 50"),
        ("change", 10**20, f"change={10**20}: must be at most 50"),
        ("count", 10**20, f"count={10**20}: must be at most {2**63 - 1}$"),
        ("count", -(10**20), f"count=-{10**20}: must be at least 0"),
        ("count", 1e9, "expected a whole number, without e and point: 1000000000$"),
        ("count", 1.5, "count=1.5: expected a whole number$"),
    ],
)
def test_it_is_refused(key, value, message):
    with pytest.raises(ConfigError, match=message):
        build(Some, {key: value})


@pytest.mark.parametrize(("key", "value"), [("maybe", None), ("change", None), ("names", "b")])
def test_it_is_taken(key, value):
    assert getattr(build(Some, {key: value}), key) == value
