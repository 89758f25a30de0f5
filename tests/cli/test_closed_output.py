"""A command whose output is closed early, as by `| head -1`, ends without a word."""

import subprocess
import sys

import pytest
from command_lines import clean_environment

from cherimoya.cli.pipe import CLOSED, quiet_when_closed

COMMANDS = {
    "train": "cli.train:train", "sweep": "cli.sweep:main", "report": "cli.report:report",
    **{name: f"cli.commands:{name}" for name in (
        "prepare", "evaluate", "predict", "dashboard", "attribute", "variants", "marginalize",
        "hits", "design", "export")},
}  # fmt: skip


def closed_early(code: str, *words: str, unbuffered: str = "") -> tuple[int, str]:
    """The exit code and stderr of Python code, whose output is closed before it says anything."""
    with subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=clean_environment() | {"PYTHONUNBUFFERED": unbuffered},
    ) as process:  # fmt: skip
        process.stdout.close()
        said = process.stderr.read()
    return process.returncode, said


@pytest.mark.parametrize("name", COMMANDS)
def test_help_whose_output_is_closed_ends_quietly(name):
    module, _, function = COMMANDS[name].partition(":")
    code, said = closed_early(f"from cherimoya.{module} import {function}; {function}()", "--help")
    assert said == ""
    assert code == CLOSED == 141


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_configuration_whose_output_is_closed_ends_quietly(unbuffered):
    code = "from cherimoya.cli.train import train; train()"
    assert closed_early(code, "--cfg", "job", unbuffered=unbuffered) == (CLOSED, "")


def test_another_pipe_that_breaks_is_told():
    with pytest.raises(BrokenPipeError), quiet_when_closed():
        raise BrokenPipeError
    with pytest.raises(ValueError, match="x"), quiet_when_closed():
        raise ValueError("x")
    with pytest.raises(SystemExit, match="3"), quiet_when_closed():
        raise SystemExit(3)
