"""Errors in code of the user's own, in words: what fails, why, and in which line of it."""

import hashlib
import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from cherimoya.errors import CherimoyaError, OwnError
from cherimoya.registry import own_classes
from cherimoya.util.console import warning

# What nobody's code is to blame for: memory that is full, a device that fails, a closed pipe.
NOBODYS = {"OutOfMemoryError", "AcceleratorError", "MemoryError", "BrokenPipeError"}
LIBRARIES = {"cherimoya", "torch", "builtins", "abc", "typing"}

Frames = list[tuple[FrameType, int]]  # each with its line


@contextmanager
def own_errors(what: str) -> Iterator[None]:
    """Have an error in code of the user's own, and an exit from it, be an OwnError on `what`."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if is_nobodys(error):
            raise
        raise OwnError(f"{what} fails: {said(error)}{_line(error)}.") from error


def code_digest(one: type) -> str:
    """The SHA-256 of the file that a class of the user's own is in."""
    return hashlib.sha256(Path(inspect.getfile(one)).read_bytes()).hexdigest()


def own_digests() -> dict[str, str]:
    """`code_digest` of each class of the user's own, by the setting that names it."""
    found = {}
    for one, named in own_classes.items():
        with suppress(TypeError, OSError):  # a class without a file
            found[named] = code_digest(one)
    return found


def say_changed(
    before: Mapping[str, str], now: Mapping[str, str], say: Callable[[str], None]
) -> None:
    """Say which classes of the user's own are no longer those that a run began with."""
    for named in (n for n, digest in now.items() if before.get(n, digest) != digest):
        say(
            warning(
                f"{named}: its file has changed since the run began. The run goes on with what it "
                "is now"
            )
        )


def own_error(error: BaseException) -> OwnError | None:
    """What is to be said of an error that came up in code of the user's own; None of others."""
    frames = [] if is_nobodys(error) else _own_frames(error)
    if not frames:
        return None
    own = [f for f, _ in frames if _package(f) not in LIBRARIES]
    first = own[0] if own else frames[-1][0]
    its = [words for one, words in own_classes.items() if type(first.f_locals.get("self")) is one]
    its = its or [words for one, words in own_classes.items() if _package(first) in _packages(one)]
    what = f"{' or '.join(its)}: {first.f_code.co_qualname}"
    exits = isinstance(error, SystemExit)
    how = f"ended the program ({said(error)})" if exits else f"fails: {said(error)}"
    return OwnError(f"{what} {how}{_line(error)}.")


def is_nobodys(error: BaseException) -> bool:
    """Whether an error is in words already, or has nothing to do with whose code it came up in."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, CherimoyaError) or bool(kinds & NOBODYS) or "CUDA error" in str(error)


def said(error: BaseException) -> str:
    """The error's kind and message, on one line."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}{': ' if words else ''}{words}"


def is_ours(frame: FrameType) -> bool:
    """Whether a frame is of the package."""
    return _package(frame) == "cherimoya"


def _line(error: BaseException) -> str:
    """The line of the user's own that an error came up in, and the one of ours that it called."""
    frames = _own_frames(error)
    if not frames:
        return ""
    (frame, line), every = frames[-1], _frames(error)
    inner = every[every.index((frame, line)) + 1 :]
    ours = [f" (raised in line {n} of {f.f_code.co_filename})" for f, n in inner if is_ours(f)]
    return f", in line {line} of {frame.f_code.co_filename}{ours[-1] if ours else ''}"


def _own_frames(error: BaseException) -> Frames:
    """The frames of the user's own code that an error came through, the innermost one last.

    Where there is none, those of torch in which a method is that a class of the user's own has
    from there, unless code of ours was called by them.
    """
    every = _frames(error)
    packages = set().union(*map(_packages, own_classes))
    if found := [(f, n) for f, n in every if _package(f) in packages]:
        return found
    last = max((i for i, (f, _) in enumerate(every) if is_ours(f)), default=-1)
    return [(f, n) for f, n in every[last + 1 :] if type(f.f_locals.get("self")) in own_classes]


def _frames(error: BaseException) -> Frames:
    return [*traceback.walk_tb(error.__traceback__)]


def _packages(one: type) -> set[str]:
    """The packages, or modules outside of any, that a class of the user's own comes from."""
    return {base.__module__.partition(".")[0] for base in one.__mro__} - LIBRARIES


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__")).partition(".")[0]
