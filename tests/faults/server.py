"""Commands in processes that are forked from this one, which has imported everything already.

    LD_PRELOAD=failing_disk.so python tests/faults/server.py

A line of JSON on stdin asks for one: words (the command and its arguments), folder, environment,
output (where stdout and stderr go), seconds. A line of JSON on stdout says how it ended: the exit
code as a shell has it, or "late".
"""

import ctypes
import importlib
import json
import os
import pkgutil
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

import torch

import cherimoya

LOOK_SECONDS = 0.005


def run(words: list[str]) -> None:
    """What the console script of this name does."""
    name, *sys.argv[1:] = words
    sys.argv[0] = name
    command = name.removeprefix("cherimoya-")
    if command == "train":
        from cherimoya.cli.train import train as work
    elif command == "report":
        from cherimoya.cli.report import report as work
    elif command == "sweep":
        from cherimoya.cli.sweep import main as work
    else:
        from cherimoya.cli import commands

        work = getattr(commands, command)
    work()


def child(asked: dict) -> None:
    """Become the command, in a process group of its own."""
    os.setsid()
    os.chdir(asked["folder"])
    output = os.open(asked["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.environ.update(asked["environment"])
    ctypes.CDLL(None).fault_arm()
    code = 0
    try:
        run(asked["words"])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def answer(asked: dict) -> int | str:
    """How the command ended."""
    pid = os.fork()
    if pid == 0:
        child(asked)
    end = time.monotonic() + asked["seconds"]
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() > end:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return "late"
        time.sleep(LOOK_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # whatever it left behind
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def main() -> None:
    for module in pkgutil.walk_packages(cherimoya.__path__, "cherimoya."):
        if not module.name.endswith("__main__"):
            with suppress(ImportError):  # an extra that is not installed
                importlib.import_module(module.name)
    torch.set_num_threads(1)
    torch.ones(4, 4) @ torch.ones(4, 4)
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    assert Path(cherimoya.__file__).is_file()
    main()
