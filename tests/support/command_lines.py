"""Commands as users start them, and how they end."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

SUPPORT = Path(__file__).resolve().parent
REPOSITORY = SUPPORT.parents[1]


def program(name: str) -> list[str]:
    """What starts cherimoya-<name>."""
    return [sys.executable, "-c", f"from cherimoya.cli.scripts import {name}; {name}()"]


TRAIN = program("train")


def command(
    name: str, *arguments: str, folder: Path | None = None, timeout: float = 120, **environment: str
) -> subprocess.CompletedProcess[str]:
    """cherimoya-<name> in a folder, as a user types it."""
    return subprocess.run(
        [*program(name), *arguments], cwd=folder, env=clean_environment() | environment,
        capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip


def clean_environment() -> dict[str, str]:
    """This process's environment without W&B's settings, in which these modules are found too."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    paths = [str(REPOSITORY), str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return kept | {"NETRC": os.devnull, "PYTHONPATH": os.pathsep.join(paths)}


def wait_until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def fails(done, *words: str) -> None:
    """One clear message, exit code 1, no traceback, no run begun."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error:") == 1, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    assert "epoch" not in done.stdout


def unprivileged() -> list[str]:
    """The beginning of a command that may not write everywhere, also where root runs the tests."""
    if os.geteuid():
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root may write everywhere, and there is no setpriv to give that up")
    gone = "-dac_override,-dac_read_search"
    return ["setpriv", f"--bounding-set={gone}", f"--inh-caps={gone}"]
