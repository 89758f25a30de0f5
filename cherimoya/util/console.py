"""Messages, and how long work shows that it moves: a bar on a terminal, plain lines elsewhere.

Messages go to the logger "cherimoya". Commands print them (`print_messages`), from the level on
that --quiet, --log-level or $CHERIMOYA_LOG_LEVEL says; in a program of a user's own they go where
its `logging` sends them.
"""

import logging
import math
import os
import re
import shlex
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from cherimoya.registry import own_folders

T = TypeVar("T")
Say = Callable[[str], None]

LINE_SECONDS = 30.0  # between two plain lines
TIMED_STEPS = 10  # steps after which the time left is first estimated
WARMUP_STEPS = 2  # steps that the estimate leaves out


LOGGER = logging.getLogger("cherimoya")
RESULT = 25  # what a command leaves: more than information, and no warning
LEVELS = {
    "info": logging.INFO,
    "result": RESULT,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
LEVEL = "CHERIMOYA_LOG_LEVEL"  # the environment variable with one of their names
logging.addLevelName(RESULT, "RESULT")


class Message(str):
    """A message and its level, whoever it is handed to."""

    level: int

    def __new__(cls, text: str, level: int = logging.INFO) -> "Message":
        made = super().__new__(cls, text)
        made.level = level
        return made


def result(text: str) -> Message:
    """A message on what a command leaves, such as a file or a score, which --quiet shows too."""
    return Message(text, RESULT)


def warning(text: str) -> Message:
    """A message on what the user may want to do otherwise."""
    return Message(text, logging.WARNING)


def like(message: str, text: str) -> Message:
    """`text` at the level of `message`."""
    return Message(text, getattr(message, "level", logging.INFO))


class Printer(logging.Handler):
    """Prints messages as they are on standard output, without breaking a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record's message."""
        tqdm.write(record.getMessage(), file=sys.stdout)
        sys.stdout.flush()


def print_messages() -> None:
    """Have this process print its messages, as commands do, and nobody else repeat them."""
    if not _is_printing():
        LOGGER.addHandler(Printer())
        LOGGER.setLevel(LEVELS.get(os.environ.get(LEVEL, ""), logging.INFO))
        LOGGER.propagate = False


def _is_printing() -> bool:
    return any(isinstance(handler, Printer) for handler in LOGGER.handlers)


def say(message: str) -> None:
    """Log a message, by default on the progress of the work, else as `result` or `warning`."""
    if LOGGER.disabled and _is_printing():  # by Hydra's logging, as all that it does not know
        LOGGER.disabled = False
    LOGGER.log(getattr(message, "level", logging.INFO), message)


@cache
def say_once(message: str) -> None:
    """Log, as a warning, what this process has not said yet."""
    say(warning(message))


def note(said: str) -> None:
    """Print a warning on what was typed, on standard error."""
    if LOGGER.getEffectiveLevel() <= logging.WARNING:
        print(f"note: {said}", file=sys.stderr, flush=True)


def is_quiet() -> bool:
    """Whether this process, a command's, was asked for less than all messages."""
    return _is_printing() and LOGGER.level > logging.INFO


@contextmanager
def one_of_several() -> Iterator[None]:
    """Where --quiet leaves out results too: those of one run of several are in its folder."""
    before = LOGGER.level
    if is_quiet():
        LOGGER.setLevel(max(before, logging.WARNING))
    try:
        yield
    finally:
        LOGGER.setLevel(before)


def track(
    items: Iterable[T],
    label: str,
    total: int | None,
    unit: str,
    done: int = 0,
    tell: Say = say,
    bar: bool = True,
) -> Generator[T]:
    """Iterate over `items`, `done` of `total` already dealt with, and show how far it is.

    With a bar on a terminal, unless there is to be none; else `tell` gets a line now and then.
    `total` is None where it is unknown.
    """
    if bar and sys.stderr.isatty() and not is_quiet():
        yield from tqdm(items, desc=label, initial=done, total=total, leave=False, unit=unit)
        return
    last = time.monotonic()
    for i, item in enumerate(items, start=done):
        if time.monotonic() - last > LINE_SECONDS:
            of = "" if total is None else f" of {total:,}"
            tell(f"{label}: {unit} {i:,}{of}")
            last = time.monotonic()
        yield item


@contextmanager
def report_duration(label: str) -> Iterator[None]:
    """Say now and then how long a block has taken that cannot say how far it is."""
    began, over = time.monotonic(), threading.Event()

    def tell() -> None:
        while not over.wait(LINE_SECONDS):
            say(f"{label}: {duration(time.monotonic() - began)} so far")

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


class TimeEstimate:
    """Says once, after the first steps, how long the training will take."""

    def __init__(self, steps_left: int, tell: Say) -> None:
        self._left, self._tell = steps_left, tell
        self._count, self._first, self._since = 0, 0, 0.0
        self._told = False

    def steps_done(self, n: int) -> None:
        """Count `n` steps; tells the estimate after TIMED_STEPS of them."""
        self._count += n
        if self._told or self._count < WARMUP_STEPS:
            return
        if not self._first:
            self._first, self._since = self._count, time.monotonic()
        elif self._count >= TIMED_STEPS:
            ms = 1000 * (time.monotonic() - self._since) / (self._count - self._first)
            seconds = round(ms * max(self._left - self._count, 0) / 1000, 2)
            unit = 1 if seconds < 3600 else 60  # as far as they are told
            left = duration(unit * math.ceil(seconds / unit))
            each = f"{ms:.0f}" if ms >= 10 else f"{ms:.2f}"
            self._tell(f"{each} ms a step: about {left} of training, at most")
            self._told = True


def duration(seconds: float) -> str:
    """Seconds in words: 42 s, 3 min 10 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def resume_command(folder: Path) -> str:
    """The command that continues the run in `folder`, as a shell and Hydra read it."""
    plain = re.fullmatch(r"[\w./:+=,-]+", str(folder))  # as the folders of sweeps
    value = str(folder) if plain else '"{}"'.format(str(folder).replace('"', '\\"'))
    words = [*(f"--config-dir={path}" for path in own_folders()), f"trainer.resume={value}"]
    return f"cherimoya-train {shlex.join(words)}"


def counted(n: int, one: str, many: str = "") -> str:
    """So many of something, in words: 1 locus, 1,200 loci; `many` is `one` with an s by default."""
    return f"{n:,} {one if n == 1 else many or f'{one}s'}"


def table(header: list[str], rows: list[list[str]]) -> str:
    """Aligned columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for first, *others in [header, *rows]:
        cells = [first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(len(line) for line in lines))
    return "\n".join(lines)
