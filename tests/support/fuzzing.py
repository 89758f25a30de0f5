"""What the readers' fuzz tests share: hostile inputs, and the count of how they end.

A reader may read an input or refuse it with one of the package's errors; anything else it raises
fails the test, and so does one that takes too long. How many ended how is printed, and appended to
the CSV file that $CHERIMOYA_FUZZ_COUNTS names.
"""

import csv
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from cherimoya.errors import CherimoyaError

INPUTS = 20_000  # of each format
SECONDS = 20  # that one input may take
TOKENS = [
    b"chrA", b"chrB", b"chrZ", b"A", b"0", b"1", b"7", b"50", b"150", b"3999", b"4000", b"4001",
    b"-1", b"-1001", b"2147483647", b"2147483648", b"9223372036854775807", b"9223372036854775808",
    b"1" * 400, b"1e3", b"1.5", b"nan", b"inf", b"0x10", b"1_0", b"+5", "\u00b2".encode(),
    "\u0663".encode(), b"\xff", b"\xe9", b"\0", b"+", b"-", b".", b"*", b"#", b"track", b"browser ",
    b">", b"@SQ", b"x_peak_1", b"", b" ", b"\t", b"\t\t", b"\n", b"\n\n", b"\r\n", b"\r",
    b"\xef\xbb\xbf", b"ACGT", b"255,0,0", b"10,20,", b"\x1f\x8b",
]  # fmt: skip
SEPARATORS = [b"\t"] * 6 + [b"\n"] * 3 + [b" ", b"", b"\r\n", b"\t\t"]


def fuzz(inputs: int = INPUTS) -> Callable[[Any], Any]:
    """Settings of a test of so many inputs, the same ones at each run."""
    return settings(
        max_examples=inputs, deadline=None, database=None, derandomize=True, print_blob=False,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


class Outcomes:
    """How the inputs of a format ended."""

    def __init__(self, what: str) -> None:
        self.what, self.read, self.refused = what, 0, 0

    def of(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What the function gives; None where it refuses. Raises all else that it raises."""
        try:
            with _within(SECONDS):
                found = function(*arguments)
        except CherimoyaError as error:
            self.refused += bool(str(error).strip())
            return None
        self.read += 1
        return found

    def report(self, inputs: int = INPUTS) -> None:
        """Print and keep the counts, of which there must be `inputs`."""
        total = self.read + self.refused
        print(f"{self.what}: {total:,} inputs, {self.read:,} read, {self.refused:,} refused")
        if path := os.environ.get("CHERIMOYA_FUZZ_COUNTS"):
            with open(path, "a", newline="") as file:
                csv.writer(file).writerow([date.today(), self.what, total, self.read, self.refused])
        assert total >= inputs
        assert self.read
        assert self.refused


def text() -> st.SearchStrategy[bytes]:
    """Lines of columns, right and wrong."""
    pair = st.tuples(st.sampled_from(TOKENS), st.sampled_from(SEPARATORS))
    return st.lists(pair, max_size=24).map(lambda pairs: b"".join(a + b for a, b in pairs))


def lines(*columns: list[bytes], most: int = 6) -> st.SearchStrategy[bytes]:
    """Lines of which each column is one of its values, now and then another token."""
    fields = [
        st.sampled_from([*values] * (40 // len(values) + 1) + TOKENS[:1]) for values in columns
    ]
    odd = st.tuples(st.integers(0, 3 * len(columns)), st.sampled_from(TOKENS))

    def line(parts: tuple[tuple[bytes, ...], tuple[int, bytes]]) -> bytes:
        row = list(parts[0])
        if parts[1][0] < len(row):
            row[parts[1][0]] = parts[1][1]
        return b"\t".join(row)

    plain = st.tuples(*fields).map(b"\t".join)
    some = st.one_of(plain, plain, plain, st.tuples(st.tuples(*fields), odd).map(line))
    return st.lists(some, min_size=1, max_size=most).map(lambda rows: b"\n".join(rows) + b"\n")


def mutated(good: bytes, most: int = 4) -> st.SearchStrategy[bytes]:
    """`good` with up to `most` changes."""
    change = st.tuples(
        st.integers(0, max(len(good) - 1, 0)),
        st.integers(0, 7),
        st.integers(0, 255),
        st.sampled_from(TOKENS),
    )
    return st.lists(change, max_size=most).map(lambda changes: changed(good, changes))


def changed(good: bytes, changes: list[tuple[int, int, int, bytes]]) -> bytes:
    """`good` after each of the changes (place, kind, number, token)."""
    bad = bytearray(good)
    for at, kind, number, token in changes:
        at = min(at, len(bad))
        run = slice(at, at + 1 + number % 40)
        if kind == 0 and at < len(bad):
            bad[at] ^= 1 << number % 8
        elif kind == 1 and at < len(bad):
            bad[at] = number
        elif kind == 2:
            del bad[run]
        elif kind == 3:
            bad[at:at] = bad[run]
        elif kind == 4:
            bad[run] = bytes(run.stop - run.start)
        elif kind == 5:
            bad[at:at] = token
        elif kind == 6:
            bad[at : at + len(token)] = token
        elif number < 64:  # cut off, though not most of the time
            del bad[at:]
    return bytes(bad)


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Raises TimeoutError when the block takes longer."""

    def late(*_: object) -> None:
        raise TimeoutError(f"over {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
