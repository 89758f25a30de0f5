"""Commands as users start them, and how they end."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import pytest
import torch

SUPPORT = Path(__file__).resolve().parent
REPOSITORY = SUPPORT.parents[1]
READ_AT_START = (
    "PYTHON", "LC_", "LANG", "LD_", "TZ", "OMP_", "KMP_", "MKL_", "GOMP_", "OPENBLAS_", "NPY_",
    "HDF5_", "TORCH", "PYTORCH", "TRITON", "CUDA",
)  # fmt: skip


def program(name: str) -> list[str]:
    """What starts cherimoya-<name>."""
    return [sys.executable, "-c", f"from cherimoya.cli.scripts import {name}; {name}()"]


TRAIN = program("train")


def command(
    name: str, *arguments: str, folder: Path | None = None, timeout: float = 120, **environment: str
) -> subprocess.CompletedProcess[str]:
    """cherimoya-<name> in a folder, as a user types it."""
    return python(program(name)[2], *arguments, folder=folder, timeout=timeout, **environment)


def python(
    code: str, *arguments: str, folder: Path | None = None, timeout: float = 120, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`python -c code`, but its process has imported torch already, which takes 3 s.

    A test that looks at imports, signals, kills or a terminal starts a process of its own, and so
    does every one where there is a GPU, which processes cannot share with what they forked from.
    """
    given = clean_environment() | environment
    words = [sys.executable, "-c", code, *arguments]
    server = None if torch.cuda.is_available() else _preloaded()
    if server is None or _at_start(given) != _at_start(server.environment):
        return subprocess.run(
            words, cwd=folder, env=given, capture_output=True, text=True, timeout=timeout
        )
    with tempfile.TemporaryDirectory() as held:
        stdout, stderr = Path(held, "stdout"), Path(held, "stderr")
        stdout.touch()
        stderr.touch()
        ended = server.ask(
            code=code, words=arguments, folder=os.path.abspath(folder or "."), environment=given,
            output=[str(stdout), str(stderr)], seconds=timeout,
        )  # fmt: skip
        if ended is None:
            raise subprocess.TimeoutExpired(
                words, timeout, stdout.read_bytes(), stderr.read_bytes()
            )
        return subprocess.CompletedProcess(words, ended, stdout.read_text(), stderr.read_text())


class _Preloaded:
    """preloaded.py at work for this process, with which it ends."""

    def __init__(self) -> None:
        self.environment = clean_environment()
        self.process = subprocess.Popen(
            [sys.executable, str(SUPPORT / "preloaded.py")], env=self.environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def ask(self, **asked) -> int | None:
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


_preloaded = cache(_Preloaded)


def _at_start(environment: dict[str, str]) -> dict[str, str]:
    """What Python, torch and the libraries below them read of an environment when they start."""
    return {k: v for k, v in environment.items() if k.startswith(READ_AT_START)}


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
