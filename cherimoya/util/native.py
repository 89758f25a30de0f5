"""Native libraries at work in a process of their own, whose death becomes a message."""

import atexit
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from cherimoya.errors import CherimoyaError, DataError, ProcessError


class LibraryError(Exception):
    """What a library said of a file that it cannot read."""


def call(
    function: Callable[..., Any], path: Path, *arguments: Any, limit: float | None = None
) -> Any:
    """function(path, *arguments), of the top level of a module, in the other process.

    Raises LibraryError for what it raises, the package's own errors as they are, DataError when
    the process crashes over the file at `path`, ProcessError when it is killed, and TimeoutError
    after `limit` seconds.
    """
    if _library().process.poll() is not None:  # it has ended since the call before
        _library().end()
    library = _library()
    try:
        done, result = library.ask((function, path, *arguments), limit)
    except EOFError:
        raise _died(library.end(), path) from None
    except BaseException:  # its answer would be taken for the next one's
        library.end()
        raise
    if done:
        return result
    raise result


class _Library:
    """The other process: it answers one request after the other, and ends with this one."""

    def __init__(self) -> None:
        paths = os.pathsep.join(path for path in sys.path if path)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "cherimoya.util.native"],  # nothing of the working folder
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what is wrong is said here
            env=os.environ | {"PYTHONPATH": paths},
            start_new_session=True,
        )
        self._lock = threading.Lock()
        atexit.register(self.end)

    def ask(self, request: tuple[Any, ...], limit: float | None) -> tuple[bool, Any]:
        """Whether the request was met, and its result or the error. EOFError: the process died."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with self._lock:
            try:
                pickle.dump(request, self.process.stdin)
                self.process.stdin.flush()
                if not select.select([self.process.stdout], [], [], limit)[0]:
                    raise TimeoutError
                return pickle.load(self.process.stdout)
            except (BrokenPipeError, pickle.UnpicklingError):
                raise EOFError from None

    def end(self) -> int:
        """End the process; its exit status."""
        _library.cache_clear()
        atexit.unregister(self.end)
        if self.process.poll() is None:
            self.process.kill()
            for pipe in (self.process.stdin, self.process.stdout):
                with suppress(OSError):  # what it has not taken
                    pipe.close()  # type: ignore[union-attr]
        return self.process.wait()


@cache
def _library() -> _Library:
    return _Library()


def _died(status: int, path: Path) -> CherimoyaError:
    how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    if status == -signal.SIGKILL:
        return ProcessError(
            f"{path}: the process that read it was killed ({how}), probably out of memory. "
            "Use fewer processes at once: processes=1."
        )
    return DataError(
        f"{path}: the library that reads it broke down ({how}), so the file is damaged. Copy it "
        "again, or make it again."
    )


def main() -> None:
    """Answer requests until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process answers it
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints is no answer
    while True:
        try:
            function, *arguments = pickle.load(requests)
        except EOFError:
            return
        try:
            answer = (True, function(*arguments))
        except CherimoyaError as error:
            answer = (False, error)
        except BaseException as error:  # some libraries' panics are no Exception
            answer = (False, LibraryError(str(error).strip() or type(error).__name__))
        pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
        answers.flush()


if __name__ == "__main__":
    from cherimoya.util import native  # so that its errors are those of the first process

    native.main()
