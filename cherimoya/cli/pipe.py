"""What a command does whose output goes nowhere: `--help | head -1`, or to a full disk."""

import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cherimoya.errors import STDOUT, OutputClosed, disk_words
from cherimoya.util import console

CLOSED = 128 + signal.SIGPIPE  # the exit code of other commands, which that signal ends


class _Output(io.FileIO):
    """Standard output. It takes no more, and complains no more, once it could not be written."""

    error: OSError | None = None

    @contextmanager
    def forgiven(self) -> Iterator[None]:
        """Where its own error ends the block, and nothing else."""
        try:
            yield
        except OSError as error:
            if error is not self.error:
                raise

    def write(self, data: Any) -> int:
        """As FileIO, but once nobody reads any more the process ends, without a message."""
        try:
            return super().write(data)
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            if isinstance(error, BrokenPipeError):
                raise OutputClosed(CLOSED) from None
            error.filename, self.error = STDOUT, error
            raise


@contextmanager
def quiet_when_closed() -> Iterator[None]:
    """Print messages. Once whoever read them has closed, end without one, with exit code 141;
    where they cannot be written, with a line on stderr and exit code 1.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell: >&-
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - as long as the process
    console.print_messages()
    ended = SystemExit()
    with _watched() as output:
        try:
            with output.forgiven():
                yield
        except SystemExit as error:
            ended = error
        with output.forgiven():
            sys.stdout.flush()  # here, for Python complains where it does so at the end
        if output.error is not None and not ended.code:
            print(f"error: {disk_words(output.error)}", file=sys.stderr)
            raise SystemExit(1)
    if ended.code:
        raise ended


@contextmanager
def _watched() -> Iterator[_Output]:
    """Where sys.stdout writes through an _Output, if it is a file of the system's."""
    plain = sys.stdout
    if type(plain) is not io.TextIOWrapper:
        yield _Output(os.devnull, "w")
        return
    plain.flush()
    output = _Output(plain.fileno(), "w", closefd=False)
    below: Any = output if plain.write_through else io.BufferedWriter(output)
    sys.stdout = io.TextIOWrapper(
        below, plain.encoding, plain.errors, None, plain.line_buffering, plain.write_through
    )
    try:
        yield output
    finally:
        sys.stdout = plain
