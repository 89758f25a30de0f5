"""What long work shows: lines in a file, the time left, tables."""

import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cherimoya.config.command_line import parse, readable
from cherimoya.config.train import TrainConfig
from cherimoya.util import console


def test_one_of_something_has_no_plural():
    assert console.counted(1, "run") == "1 run"
    assert console.counted(0, "run") == "0 runs"
    assert console.counted(1200, "locus", "loci") == "1,200 loci"
    assert console.counted(1, "locus", "loci") == "1 locus"


def test_lines_elsewhere_than_on_a_terminal_count_from_what_was_done(monkeypatch):
    monkeypatch.setattr(console, "LINE_SECONDS", 0.0)
    told: list[str] = []
    items = list(console.track("abc", "epoch 2", 1005, "step", done=1002, tell=told.append))
    assert items == ["a", "b", "c"]
    assert told[0] == "epoch 2: step 1,002 of 1,005"


def test_quick_work_prints_no_line():
    told: list[str] = []
    assert list(console.track(range(3), "x", 3, "step", tell=told.append)) == [0, 1, 2]
    assert told == []


def test_work_that_cannot_say_how_far_it_is_says_how_long_it_takes(monkeypatch, capsys):
    monkeypatch.setattr(console, "LINE_SECONDS", 0.02)
    with console.report_duration("motifs"):
        time.sleep(0.2)
    said = capsys.readouterr().out
    assert said.startswith("motifs: 0 s so far\n")
    time.sleep(0.06)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("seconds", "words"), [(42.4, "42 s"), (190, "3 min 10 s"), (7500, "2 h 5 min")]
)
def test_durations_in_words(seconds, words):
    assert console.duration(seconds) == words


def test_the_time_left_is_told_once_and_leaves_the_warm_up_out(monkeypatch):
    clock = iter([100.0, 104.0])  # after the second and the tenth step: 0.5 s a step
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    told: list[str] = []
    estimate = console.TimeEstimate(130, told.append)
    for _ in range(20):
        estimate.steps_done(1)
    assert told == ["500 ms a step: about 1 min 0 s of training, at most"]


@pytest.mark.parametrize(
    ("steps", "each", "words"),
    [(403, 0.00626, "3 s"), (30, 0.1, "2 s"), (3761, 1.0, "1 h 3 min")],
)
def test_what_is_left_at_most_is_not_rounded_down(steps, each, words, monkeypatch):
    clock = iter([100.0, 100.0 + 8 * each])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    told: list[str] = []
    estimate = console.TimeEstimate(steps, told.append)
    for _ in range(10):
        estimate.steps_done(1)
    assert f"about {words} of training, at most" in told[0]


@pytest.mark.parametrize("folder", [
    "outputs/a/b_1", "sweep/x=4,y=[0]", "a b/c's", 'say "x"', "sweeps/lr_1/lr=0.1,n=+3",
])  # fmt: skip
def test_the_command_to_continue_is_read_as_it_was_meant(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / folder).mkdir(parents=True)
    said = console.resume_command(Path(folder))
    assert ("'" in said) == (folder not in ("outputs/a/b_1", "sweeps/lr_1/lr=0.1,n=+3"))
    shell = shlex.split(said)
    assert shell[0] == "cherimoya-train"
    override = parse(readable(shell[1], TrainConfig, several=True))
    assert not override.is_sweep_override()
    assert override.key_or_group == "trainer.resume"
    assert override.value() == folder


def spoken(setup: str) -> tuple[str, str]:
    """What a program prints that imports the package, does `setup` and causes two messages."""
    code = (
        "import logging, sys, cherimoya\n"
        "from cherimoya.util import console\n"
        f"{setup}\n"
        "console.say('100% done'); console.say_once('slow'); console.say_once('slow')"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout, done.stderr


def test_commands_print_messages_as_they_are_and_once():
    log = "logging.basicConfig(level=0)"
    hydra = "import logging.config; logging.config.dictConfig({'version': 1})"
    assert spoken(f"console.print_messages(); {hydra}") == ("100% done\nslow\n", "")
    assert spoken(f"{log}; console.print_messages(); console.print_messages()") == (
        "100% done\nslow\n",
        "",
    )


def test_a_user_s_program_hears_warnings_alone():
    assert spoken("") == ("", "slow\n")


def test_a_user_redirects_and_silences_messages():
    log = "logging.basicConfig(level=20, stream=sys.stdout, format='%(levelname)s %(message)s')"
    assert spoken(log) == ("INFO 100% done\nWARNING slow\n", "")
    assert spoken(f"{log}; logging.getLogger('cherimoya').setLevel('ERROR')") == ("", "")
