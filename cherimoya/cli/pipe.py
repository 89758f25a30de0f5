"""What a command does when nobody reads on: `cherimoya-train --help | head -1`."""

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from cherimoya.util import console

CLOSED = 128 + signal.SIGPIPE  # the exit code of other commands, which that signal ends


@contextmanager
def quiet_when_closed() -> Iterator[None]:
    """Print messages; end without one, with exit code 141, once whoever read them has closed."""
    console.print_messages()
    try:
        try:
            yield
        except SystemExit:
            sys.stdout.flush()  # here, for Python complains where it does so at the end
            raise
        sys.stdout.flush()
    except BrokenPipeError:
        if not _is_closed():
            raise  # of another pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(CLOSED) from None


def _is_closed() -> bool:
    """Whether standard output is a pipe that nobody reads any more."""
    try:
        asked = select.poll()
        asked.register(sys.stdout.fileno(), 0)  # errors are always told
        return bool(asked.poll(0))
    except (OSError, ValueError):  # no file of the system's
        return False
