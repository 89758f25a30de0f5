"""The console scripts, which Ctrl-C ends without a traceback from their first import on."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import FrameType

from cherimoya.errors import Interrupted


@contextmanager
def ends_at_once() -> Iterator[None]:
    """Where Ctrl-C ends the process, as in imports, in which some catch whatever is raised."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:  # as in the background of a shell
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)


def _lost(error: "sys.UnraisableHookArgs") -> None:
    """End the process where a signal's exception cannot be raised, as when an object goes."""
    if issubclass(error.exc_type, (KeyboardInterrupt, Interrupted, SystemExit)):
        os._exit(128 + signal.SIGINT)
    sys.__unraisablehook__(error)


def _script(module: str, name: str) -> Callable[[], None]:
    """What runs the function `name` of cherimoya.cli.<module>."""

    def script() -> None:
        pressed = False

        def note(signum: int, frame: FrameType | None) -> None:
            nonlocal pressed
            pressed = True
            signal.default_int_handler(signum, frame)

        with ends_at_once():
            work = getattr(import_module(f"cherimoya.cli.{module}"), name)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, note)
        sys.unraisablehook = _lost
        try:
            work()
        except (Exception, KeyboardInterrupt):
            if not pressed:  # whatever became of it on its way
                raise
            raise SystemExit(128 + signal.SIGINT) from None

    return script


train = _script("train", "train")
report = _script("report", "report")
sweep = _script("sweep", "main")
doctor = _script("doctor", "doctor")
prepare = _script("commands", "prepare")
dashboard = _script("commands", "dashboard")
evaluate = _script("commands", "evaluate")
predict = _script("commands", "predict")
attribute = _script("commands", "attribute")
variants = _script("commands", "variants")
marginalize = _script("commands", "marginalize")
hits = _script("commands", "hits")
design = _script("commands", "design")
export = _script("commands", "export")
