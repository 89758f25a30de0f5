"""Commands in processes forked from this one, which has imported torch already.

A line of JSON on stdin asks for one: code, words (its arguments), folder, environment, output (the
files for stdout and stderr), seconds. A line on stdout says how it ended: the exit code as
subprocess has it, or null where it took too long. When stdin is closed, as when the tests are
killed, all ends. Nothing of cherimoya is imported here, and no Triton, which looks at the
environment then.
"""

import gc
import json
import multiprocessing.process
import os
import select
import signal
import sys
import time

import h5py  # noqa: F401
import hydra.utils  # noqa: F401
import numpy
import omegaconf  # noqa: F401
from torch.utils._triton import has_triton_package

LOOK_SECONDS = 0.005


def import_compiler() -> None:
    """What each optimizer of torch's imports, in which Triton is optional."""
    sys.modules["triton"] = None  # type: ignore[assignment]
    import torch._dynamo  # noqa: F401

    del sys.modules["triton"]
    has_triton_package.cache_clear()


def ended(pid: int, seconds: float) -> int | None:
    """The exit code of a command, which is killed with all it started if it takes too long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if select.select([0], [], [], LOOK_SECONDS)[0]:  # nobody waits any more
            break
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def next_command() -> dict:
    """Answer what is asked for; this returns in each process that is to become a command."""
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            return asked
        os.setpgid(pid, pid)
        print(json.dumps(ended(pid, asked["seconds"])), flush=True)
    sys.exit()


def begin(folder: str, environment: dict, output: list[str], code: str, words: list[str]) -> None:
    """Be as `python -c code words` is when it begins; nothing here has changed a signal handler."""
    os.chdir(folder)
    multiprocessing.process.ORIGINAL_DIR = folder  # where processes that it spawns begin
    for stream, path in enumerate([os.devnull, *output]):
        os.dup2(os.open(path, os.O_RDWR | os.O_APPEND), stream)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv, sys.path[0] = ["-c", *words], ""
    numpy.random.seed()


import_compiler()
gc.freeze()  # or each process would look through all of torch when it ends
asked = next_command()
del asked["seconds"], __file__  # a process that it spawns would run this one
begin(**asked)
exec(asked["code"], {"__name__": "__main__"})
