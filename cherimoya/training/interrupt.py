"""Ctrl-C and SIGTERM: finish the step, save, and say how to go on."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether a signal asked the loop to stop; `signum` is that signal, or None."""

    signum: int | None = None


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Catch the first Ctrl-C and the first SIGTERM inside the block; a second stops at once."""
    request = StopRequest()
    before = {s: signal.getsignal(s) for s in STOP_SIGNALS}

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
