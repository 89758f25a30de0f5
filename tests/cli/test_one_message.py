"""What is typed, or where it points, and cannot work: one message, before anything begins."""

import errno
import os
import subprocess
from pathlib import Path

import pytest
from command_lines import TRAIN, clean_environment, command, fails, unprivileged

from cherimoya.config.command_line import conf_dir
from cherimoya.config.schema import unknown_key
from cherimoya.errors import disk_words

DIGITS = "1" * 5000


def lab(folder: Path, text: str) -> None:
    (folder / "lab" / "experiment").mkdir(parents=True)
    (folder / "lab" / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{text}\n")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("hydra: {mode: MULTIRUN}", "hydra.mode"),
        ("hydra: {sweeper: {params: {seed: '1,2'}}}", "hydra.sweeper.params"),
    ],
)
def test_an_experiment_that_asks_for_several_runs(tmp_path: Path, text, key) -> None:
    lab(tmp_path, text)
    done = command("train", "--config-dir=lab", "experiment=mine", folder=tmp_path)
    fails(done, f"experiment=mine sets {key}", "file of the group sweep", "add -m")
    assert [path.name for path in tmp_path.iterdir()] == ["lab"]


@pytest.mark.parametrize(
    "words", [[f"seed={DIGITS}"], [f"seed=1,{DIGITS}", "-m"], [f"optim.routing=[{DIGITS}]"]]
)
def test_numbers_of_too_many_digits(tmp_path: Path, words) -> None:
    fails(command("train", *words, folder=tmp_path), "...: a number has too many digits")


def test_a_file_with_a_number_of_too_many_digits(tmp_path: Path) -> None:
    lab(tmp_path, f"seed: {DIGITS}")
    done = command("train", "--config-dir=lab", "experiment=mine", folder=tmp_path)
    fails(done, "experiment/mine.yaml: a number has too many digits")


@pytest.mark.parametrize(
    "words", [["--config-dir=gone"], ["--config-dir", "gone", "seeed=1"], ["-cd", "gone", "--help"]]
)
def test_a_folder_of_configurations_that_is_not_there(tmp_path: Path, words) -> None:
    done = command("train", *words, folder=tmp_path)
    fails(done, "--config-dir=gone: gone cannot be read (No such file or directory)")


def test_an_option_of_ones_own_that_ours_would_hide(tmp_path: Path) -> None:
    lab(tmp_path, "seed: 7")
    hidden = tmp_path / "lab" / "experiment" / "recommended.yaml"
    (tmp_path / "lab" / "experiment" / "mine.yaml").rename(hidden)
    words = ["--config-dir=lab", "experiment=recommended"]
    done = command("train", *words, folder=tmp_path)
    fails(done, "recommended.yaml: cherimoya has an option of that name", "my_recommended.yaml")
    hidden.write_bytes((conf_dir() / "experiment" / "recommended.yaml").read_bytes())
    fails(command("train", *words, folder=tmp_path), "data.path")  # which that recipe asks for


@pytest.mark.parametrize("closed", ["lab", "lab/loss"])
@pytest.mark.parametrize("mode", [0o000, 0o444, 0o311])
def test_a_folder_of_configurations_that_may_not_be_read(tmp_path: Path, closed, mode) -> None:
    (tmp_path / "lab" / "loss").mkdir(parents=True)
    (tmp_path / closed).chmod(mode)
    words = [*unprivileged(), *TRAIN, "--config-dir=lab", "seeed=1"]
    try:
        done = subprocess.run(
            words, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, timeout=60
        )
    finally:
        (tmp_path / closed).chmod(0o755)
    fails(done, f"--config-dir=lab: {closed} cannot be read (Permission denied)")


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EACCES, "Ask its owner (chmod), or choose another output."),
        (errno.ENOTDIR, "A part of its path is a file: move that away, or choose another output."),
        (errno.ENAMETOOLONG, "Give it a shorter name, or choose another output."),
        (errno.EISDIR, "Move it away, or choose another output."),
        (errno.ENOSPC, "Free space there, or choose another output."),
        (errno.EROFS, "Choose another output."),
    ],
)
def test_advice_is_of_the_fault(number, advice) -> None:
    said = str(disk_words(OSError(number, os.strerror(number), "x/y")))
    assert said == f"x/y: {os.strerror(number)}. {advice}"


def test_a_key_where_there_are_none() -> None:
    said = unknown_key("metrics.top.q", [])
    assert said == "unknown key metrics.top.q: metrics.top takes no keys. Leave it out."
