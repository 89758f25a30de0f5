"""Ctrl-C, SIGTERM or a scheduler's warning: finish the step, save, and say how to go on."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from cherimoya.errors import STOP_SIGNALS


class StopRequest:
    """Whether a signal asked the loop to stop; `signum` is that signal, or None."""

    signum: int | None = None


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Catch the first of each signal inside the block; a second one stops at once."""
    request = StopRequest()
    before = {s: signal.getsignal(s) or signal.SIG_DFL for s in STOP_SIGNALS}

    def note(signum: int, frame: FrameType | None) -> None:
        request.signum = signum
        signal.signal(signum, before[signal.Signals(signum)])

    for s in STOP_SIGNALS:
        signal.signal(s, note)
    try:
        yield request
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
