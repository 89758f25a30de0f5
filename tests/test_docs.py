"""The documentation builds without a warning, and its commands are real."""

import html
import re
import shlex
import subprocess
import sys
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path

import pytest
from page_commands import PAGES, ROOT, shown

from cherimoya.cli import commands
from cherimoya.config import groups
from cherimoya.config.command_line import checked_arguments, one_word_each, overrides, parse
from cherimoya.config.explain import sentences
from cherimoya.config.groups import plain_values
from cherimoya.config.schema import MissingValue, build
from cherimoya.config.train import TrainConfig

SCHEMAS = {n: v.args[1] for n, v in vars(commands).items() if isinstance(v, partial)}
SCHEMAS["train"] = TrainConfig
TOLD = ("--help", "--version", "-sc", "--config-dir=my_lab")  # what no configuration comes of


def commands_of(page: Path) -> dict[str, bool]:
    """Every command of ours that a page shows; whether it is whole, as those in blocks are."""
    return {line: whole for line, whole in shown(page) if line.startswith("cherimoya-")}


SHOWN = [(page, *command) for page in PAGES for command in commands_of(page).items()]


def one_run(words: list[str]) -> list[str]:
    """The words, with the first of several values of a sweep."""
    found = []
    for word in words:
        if parse(word).is_sweep_override():
            key, _, values = word.partition("=")
            word = f"{key}={0.01 if values.startswith('tag') else values.split(',')[0]}"
        found.append(word)
    return found


@pytest.mark.parametrize(
    ("page", "line", "whole"), SHOWN, ids=[f"{page.stem}: {line}" for page, line, _ in SHOWN]
)
def test_what_is_shown_is_a_command(page, line, whole):
    """Every key is known, every value is allowed, and the whole fits together."""
    line = re.sub(r"<[a-z]+>", "x", line)
    name, *words = (w for w in shlex.split(line) if w not in ("...", ">", "sweep.sbatch"))
    words = [word for word in words if not word.endswith("=...")]
    name = name.removeprefix("cherimoya-")
    assert name in {*SCHEMAS, "report", "sweep", "doctor"}, name
    if name not in SCHEMAS or any(word.startswith(TOLD) for word in words):
        return
    schema = SCHEMAS[name]
    words = one_word_each([w for w in words if w != "-m"])
    if name == "train" and any(w.startswith("trainer.resume=") for w in words):
        return
    checked = list(checked_arguments(words, schema, several=True))
    own = [w for w in one_run(overrides(checked)) if not w.startswith("hydra")]
    with groups.initialized():
        values, _ = groups.compose(name, own)
    with nullcontext() if whole else suppress(MissingValue):
        build(schema, plain_values(values))


@pytest.mark.slow
def test_the_reference_says_what_help_says(site):
    """Key by key, sign by sign."""
    shown = html.unescape(re.sub(r"<[^>]+>", "", (site / "configuration.html").read_text()))
    words = " ".join(shown.split())
    said = sentences("train", {"data": "hdf5"})
    for key in ("model.freeze", "optim.lr_scale", "data.keys", "trainer.resume"):
        assert " ".join(said[key].split()) in words, key


def test_there_are_many_commands():
    assert len(SHOWN) > 60
    assert len([p for p in PAGES if commands_of(p)]) > 12


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages, built with warnings as errors."""
    pytest.importorskip("furo")
    pytest.importorskip("myst_parser")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d",
         str(folder / "doctrees"), str(ROOT / "docs"), str(folder / "html")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.mark.slow
def test_the_site_builds_without_a_warning(site):
    reference = (site / "configuration.html").read_text()
    for key in ("model.n_filters", "optim.muon.lr", "data.fold", "trainer.precision", "seed"):
        assert f">{key}<" in reference, key
    every = (site / "commands.html").read_text()
    for name in SCHEMAS:
        assert f"cherimoya-{name}" in every, name
    assert (site / "_images" / "architecture.svg").is_file()
