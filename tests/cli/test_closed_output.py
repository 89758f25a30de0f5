"""A command whose output is closed early, as by `| head -1`, ends without a word."""

import subprocess
import sys
from pathlib import Path

import pytest
from command_lines import clean_environment
from interpreted import save_model

from cherimoya.cli.pipe import CLOSED, quiet_when_closed
from cherimoya.records import status

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


FULL = Path("/dev/full")
SAID = "error: standard output: No space left on device. Free space where it goes, or send it"


@pytest.mark.slow
@pytest.mark.skipif(not FULL.exists(), reason="no device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [
    ("train", "--help"), ("train", "--cfg", "job"), ("train", "--version"), ("sweep", "--help"),
    ("report", "--help"), ("train", "-sc", "install=bash"), ("predict", "checkpoint=m.pt",
    "fasta=toy.fa", "output=out", "in_window=200", "device=cpu"),
])  # fmt: skip
def test_an_output_that_is_full_is_told_in_a_line(words, unbuffered, toy):
    name, *rest = words
    save_model(toy.folder / "m.pt")
    module, _, function = COMMANDS[name].partition(":")
    with open(FULL, "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", f"from cherimoya.{module} import {function} as x; x()", *rest],
            stdout=full, stderr=subprocess.PIPE, text=True, cwd=toy.folder,
            env=clean_environment() | {"PYTHONUNBUFFERED": unbuffered},
        )  # fmt: skip
    assert done.stderr == f"{SAID} elsewhere.\n"
    assert done.returncode == 1


def test_a_pipe_that_closes_in_the_midst_of_work_ends_it_quietly(toy):
    save_model(toy.folder / "m.pt")
    code = f"import os; os.chdir({str(toy.folder)!r})\nfrom cherimoya.cli.commands import predict"
    words = ("checkpoint=m.pt", "fasta=toy.fa", "output=out", "in_window=200", "device=cpu")
    assert closed_early(f"{code}; predict()", *words) == (CLOSED, "")


@pytest.mark.slow
def test_a_training_whose_reader_goes_away_is_interrupted(train_arguments, tmp_path):
    code = "from cherimoya.cli.train import train; train()"
    with subprocess.Popen(
        [sys.executable, "-c", code, *train_arguments, "hydra.run.dir=run"], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environment(), cwd=tmp_path,
    ) as process:  # fmt: skip
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (CLOSED, "")
    assert status.read(tmp_path / "run")["state"] == "interrupted"


def test_no_output_at_all_is_no_error():
    code = "from cherimoya.cli.train import train; train()"
    shell = f"{sys.executable} -c '{code}' --help >&- 2>&-"
    assert subprocess.run(shell, shell=True, env=clean_environment()).returncode == 0


def test_another_pipe_that_breaks_is_told():
    with pytest.raises(BrokenPipeError), quiet_when_closed():
        raise BrokenPipeError
    with pytest.raises(ValueError, match="x"), quiet_when_closed():
        raise ValueError("x")
    with pytest.raises(SystemExit, match="3"), quiet_when_closed():
        raise SystemExit(3)
