"""The conda recipe asks for what pyproject.toml asks for."""

import re
import tomllib
from pathlib import Path

import yaml

from cherimoya import __version__

ROOT = Path(__file__).resolve().parents[1]
RECIPE = yaml.safe_load((ROOT / "docs" / "conda" / "recipe.yaml").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETTINGS = PROJECT["project"]
OTHER_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}  # at conda-forge
BROUGHT = {"triton"}  # by pytorch
PIP_ALONE = {"interpret", "design", "dashboards", "docs", "dev"}  # extras: what conda may not have


def needed(words: list[str]) -> dict[str, str]:
    """The packages of pyproject.toml by their names at conda-forge, with their versions."""
    found = {}
    for word in words:
        name, versions = re.match(r"([\w-]+)\s*([^;]*)", word).groups()
        if name not in BROUGHT:
            found[OTHER_NAMES.get(name, name)] = versions.strip()
    return found


def asked(words: list[str]) -> dict[str, str]:
    """The packages of the recipe, with their versions."""
    return {word.partition(" ")[0]: word.partition(" ")[2] for word in words}


def test_what_it_needs_is_what_the_package_needs():
    run = asked(RECIPE["requirements"]["run"])
    assert run.pop("__unix") == ""
    assert run.pop("python") == SETTINGS["requires-python"]
    assert run == needed(SETTINGS["dependencies"])
    host = asked(RECIPE["requirements"]["host"])
    assert host == {
        "python": SETTINGS["requires-python"], "pip": "",
        **needed(PROJECT["build-system"]["requires"]),
    }  # fmt: skip


def test_its_limits_are_those_of_the_extras():
    extras = SETTINGS["optional-dependencies"]
    words = [word for name, own in extras.items() if name not in PIP_ALONE for word in own]
    assert asked(RECIPE["requirements"]["run_constraints"]) == needed(words)


def test_it_is_of_this_version_and_has_every_command():
    assert RECIPE["context"]["version"] == __version__
    assert RECIPE["package"]["name"] == SETTINGS["name"]
    assert RECIPE["about"]["license"] == SETTINGS["license"]
    assert RECIPE["about"]["summary"] == SETTINGS["description"]
    scripts = dict(e.split(" = ") for e in RECIPE["build"]["python"]["entry_points"])
    assert scripts == SETTINGS["scripts"]
