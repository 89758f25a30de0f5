"""Inputs that are chosen by the code they reach find what others do not."""

import os
import random
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fuzzing
import pytest
from fuzzing import Outcomes, guided
from hypothesis import given
from hypothesis import strategies as st

from cherimoya.errors import CherimoyaError

atheris = pytest.importorskip("atheris", reason="coverage-guided fuzzing needs atheris")
SECRET, INPUTS = bytes([19, 1, 14, 6]), 20_000


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An input that failed is kept in the test's folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def checked(read: Callable[[bytes], None]) -> tuple[Any, Outcomes]:
    outcomes = Outcomes("toy")

    @given(st.binary(min_size=4, max_size=4))
    def check(data: bytes) -> None:
        outcomes.of(read, data.ljust(4))

    return check, outcomes


def failed(check: Any, outcomes: Outcomes, good: Sequence[bytes]) -> bytes:
    """The input that the guided ones fail with."""
    with pytest.raises(pytest.fail.Exception, match="of toy for the bytes of") as failure:
        guided(check, outcomes, INPUTS, good)
    return Path(str(failure.value).split()[-1]).read_bytes()


def parse(data: bytes) -> None:
    """Falls over one start of a file in 32**4, which it comes to byte by byte."""
    if data[0] % 32 != SECRET[0]:
        raise CherimoyaError("refused")
    if data[1] % 32 != SECRET[1]:
        raise CherimoyaError("refused")
    if data[2] % 32 != SECRET[2]:
        raise CherimoyaError("refused")
    if data[3] % 32 == SECRET[3]:
        raise RuntimeError("planted")


@pytest.mark.parametrize(
    "good", [[b"good"], pytest.param([], marks=pytest.mark.slow)], ids=["bytes", "drawn"]
)
def test_a_planted_bug_is_found(good: list[bytes], capfd: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(0)
    for _ in range(INPUTS):
        with pytest.raises(CherimoyaError):
            parse(draw.randbytes(4))
    check, outcomes = checked(atheris.instrument_func(parse))
    bad = failed(check, outcomes, good)
    assert "RuntimeError: planted" in capfd.readouterr().out
    with pytest.raises(RuntimeError, match="planted"):
        (check.hypothesis.inner_test if good else check.hypothesis.fuzz_one_input)(bad)


@pytest.mark.parametrize(
    "end",
    [
        lambda: re.match("(a*)*b", "a" * 64),
        lambda: os.kill(os.getpid(), signal.SIGKILL),
        lambda: sys.exit(0),
    ],
    ids=["loop", "signal", "exit"],
)
def test_a_loop_or_an_end_fails(end: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzzing, "SECONDS", 0.2)
    assert failed(*checked(lambda data: end() if data[0] == 1 else None), [b"\1x"]) == b"\1x"
