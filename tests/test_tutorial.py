"""The tutorial runs, and what it claims holds."""

import subprocess
import sys

import pytest
from command_lines import REPOSITORY, clean_environment


@pytest.mark.slow
def test_the_tutorial_holds(tmp_path):
    pytest.importorskip("pybigtools")
    done = subprocess.run(
        [sys.executable, REPOSITORY / "experiments" / "tutorial" / "tutorial.py"],
        cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("done\n")
