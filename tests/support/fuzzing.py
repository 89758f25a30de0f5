"""What the readers' fuzz tests share: hostile inputs, and the count of how they end.

A reader may read an input or refuse it with one of the package's errors; anything else it raises
fails the test, and so does one that takes too long. How many ended how is printed, and appended to
the CSV file that $CHERIMOYA_FUZZ_COUNTS names. Hypothesis makes the inputs, or turns bytes into
them that atheris chooses by the code they reach, $CHERIMOYA_FUZZ_GUIDED inputs of each format.
"""

import csv
import faulthandler
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from cherimoya.errors import CherimoyaError

INPUTS = 5_000  # of each format; `make test-long` has more, guided by coverage
GUIDED = int(os.environ.get("CHERIMOYA_FUZZ_GUIDED", "0"))  # of each format, guided by coverage
SECONDS = 20  # that one input may take
FEW = 100  # guided inputs, which may all end in one way
TOKENS = [
    b"chrA", b"chrB", b"chrZ", b"A", b"0", b"1", b"7", b"50", b"150", b"3999", b"4000", b"4001",
    b"-1", b"-1001", b"2147483647", b"2147483648", b"9223372036854775807", b"9223372036854775808",
    b"1" * 400, b"1e3", b"1.5", b"nan", b"inf", b"0x10", b"1_0", b"+5", "\u00b2".encode(),
    "\u0663".encode(), b"\xff", b"\xe9", b"\0", b"+", b"-", b".", b"*", b"#", b"track", b"browser ",
    b">", b"@SQ", b"x_peak_1", b"", b" ", b"\t", b"\t\t", b"\n", b"\n\n", b"\r\n", b"\r",
    b"\xef\xbb\xbf", b"ACGT", b"255,0,0", b"10,20,", b"\x1f\x8b",
]  # fmt: skip
SEPARATORS = [b"\t"] * 6 + [b"\n"] * 3 + [b" ", b"", b"\r\n", b"\t\t"]


def fuzz(
    check: Any,
    outcomes: "Outcomes",
    inputs: int = INPUTS,
    cost: int = 1,
    good: Sequence[bytes] = (),
) -> None:
    """Try a test of Hypothesis on so many inputs, the same ones at each run, and count their ends.

    Guided ones are as many as was asked for, less by the cost of one, and grow from the `good`.
    """
    quiet = settings(
        max_examples=inputs, deadline=None, database=None, derandomize=True, print_blob=False,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    if GUIDED:
        inputs = GUIDED // cost
        guided(quiet(check), outcomes, inputs, good)
    else:
        quiet(check)()
    outcomes.report(inputs)


def guided(check: Any, outcomes: "Outcomes", inputs: int, good: Sequence[bytes] = ()) -> None:
    """Try the test in a process of its own on different inputs that reach ever more of the code.

    They are the bytes of a file where some `good` ones are known, else what Hypothesis draws from.
    """
    atheris = pytest.importorskip("atheris", reason="coverage-guided fuzzing needs atheris")
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    last, corpus = folder / "input", folder / "corpus"
    corpus.mkdir()
    seeds = good or [random.Random(size).randbytes(size) for size in (8, 32, 128, 512)]
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)
    tokens = ["".join(map("\\x{:02x}".format, token)) for token in TOKENS if token]
    (folder / "tokens").write_text("".join(f'"{token}"\n' for token in tokens))
    options = [
        f"-max_len={2 * max(map(len, seeds))}", f"-dict={folder}/tokens", "-len_control=0",
        "-timeout=99999", "-rss_limit_mb=4096", "-seed=1", f"-artifact_prefix={folder}/",
    ]  # fmt: skip
    processes = multiprocessing.get_context("fork")
    ends, tried = processes.Array("q", 2), set()
    one = check.hypothesis.inner_test if good else check.hypothesis.fuzz_one_input
    filler = random.Random(0).randbytes(4096)  # where Hypothesis draws on
    drawn: set[int] = set()  # how many bytes Hypothesis drew

    def attempt(data: bytes) -> None:
        if not good:
            data += filler[len(data) :]
        if not tried.isdisjoint(hash(data[:many]) for many in ([len(data)] if good else drawn)):
            return
        faulthandler.dump_traceback_later(3 * SECONDS, exit=True)  # ends a loop outside Python too
        last.write_bytes(data)
        many = len(one(data) or data)
        drawn.add(many)
        tried.add(hash(data[:many]))
        ends[:] = outcomes.read, outcomes.refused
        if sum(ends) >= inputs:
            os._exit(0)

    def explore() -> None:
        atheris.Setup(["", *options, str(corpus)], attempt)
        atheris.Fuzz()

    process = processes.Process(target=explore)
    process.start()
    process.join()
    outcomes.read, outcomes.refused = ends
    if process.exitcode:
        pytest.fail(f"exit code {process.exitcode} of {outcomes.what} for the bytes of {last}")
    shutil.rmtree(folder)


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
            if not str(error).strip():
                raise AssertionError("refused without a word") from error
            self.refused += 1
            return None
        self.read += 1
        return found

    def report(self, inputs: int) -> None:
        """Print and keep the counts, of which there must be `inputs`."""
        total = self.read + self.refused
        print(f"{self.what}: {total:,} inputs, {self.read:,} read, {self.refused:,} refused")
        if path := os.environ.get("CHERIMOYA_FUZZ_COUNTS"):
            git = ["git", "rev-parse", "--short=9", "HEAD"]
            commit = subprocess.check_output(git, cwd=Path(__file__).parent, text=True).strip()
            how = [date.today(), commit, "yes" if GUIDED else "no"]
            with open(path, "a", newline="") as file:
                rows = csv.writer(file, lineterminator="\n")
                rows.writerow([*how, self.what, total, self.read, self.refused])
        assert total >= inputs
        if not GUIDED or total >= FEW:
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
