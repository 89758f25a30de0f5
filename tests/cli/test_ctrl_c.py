"""Ctrl-C in the first seconds of a command, most of which it spends importing."""

import random
import signal
import subprocess
import sys
import time

import pytest
from command_lines import clean_environment, program

WORDS = {
    "train": ("model=tiny", "trainer.device=cpu", "logger=none", "hydra.run.dir=run"),
    "sweep": ("status", "."),
    "report": (".",),
    "predict": ("checkpoint=absent.pt", "fasta=absent.fa", "output=out"),
    "prepare": ("--help",),
}
SWALLOWS = """
import signal, sys
from cherimoya.cli import report, scripts
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background ignores

def work():
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise AttributeError from None

class Lost:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

report.report = work if sys.argv[1] == "changed" else Lost
scripts.report()
print("went on")
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", WORDS)
def test_no_traceback_in_the_first_seconds(name, tmp_path):
    draw = random.Random(name)
    for _ in range(8):
        process = subprocess.Popen(
            [*program(name), *WORDS[name]], cwd=tmp_path, env=clean_environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        time.sleep(draw.uniform(0.3, 3))  # Python itself begins in less
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert "Traceback" not in said
        assert "ignored" not in said
        assert process.returncode in (0, 1, -signal.SIGINT, 128 + signal.SIGINT)


@pytest.mark.parametrize("how", ["changed", "lost"])
def test_what_a_library_makes_of_ctrl_c(how):
    done = subprocess.run(
        [sys.executable, "-c", SWALLOWS, how], env=clean_environment(), capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 128 + signal.SIGINT, done.stderr
    assert not done.stdout
    assert not done.stderr
