"""Ctrl-C, SIGTERM or a scheduler's warning: a training run saves first, all else stops at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from cherimoya.errors import STOP_SIGNALS, Interrupted


class StopRequest:
    """What a signal does: it is noted as `signum` for a loop that looks, or stops what is done.

    at_once: whether it raises Interrupted wherever the process is
    """

    signum: int | None = None

    def __init__(self, at_once: bool = False) -> None:
        self.at_once = at_once

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Where a signal is noted alone, as who looks for it saves first."""
        before, self.at_once = self.at_once, False
        try:
            yield
        finally:
            self.at_once = before


@contextmanager
def stop_request(at_once: bool = False) -> Iterator[StopRequest]:
    """Catch the first of each signal inside the block; a second one is as without it."""
    request = StopRequest(at_once)
    before = {s: signal.getsignal(s) or signal.SIG_DFL for s in STOP_SIGNALS}

    def note(signum: int, frame: FrameType | None) -> None:
        request.signum = signum
        signal.signal(signum, before[signal.Signals(signum)])
        if request.at_once:
            raise Interrupted(signum)

    for s in STOP_SIGNALS:
        signal.signal(s, note)
    try:
        yield request
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
