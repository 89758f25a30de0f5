"""Inputs that are chosen by the code they reach find what others do not."""

import random
import tempfile
from pathlib import Path

import pytest
from fuzzing import Outcomes, guided
from hypothesis import given
from hypothesis import strategies as st

from cherimoya.errors import CherimoyaError

SECRET, INPUTS = bytes([19, 1, 14, 6]), 20_000


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
def test_a_planted_bug_is_found(
    good: list[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    atheris = pytest.importorskip("atheris", reason="coverage-guided fuzzing needs atheris")
    outcomes, read = Outcomes("toy"), atheris.instrument_func(parse)

    @given(st.binary(min_size=4, max_size=4))
    def check(data: bytes) -> None:
        outcomes.of(read, data.ljust(4))

    draw = random.Random(0)
    for _ in range(INPUTS):
        check.hypothesis.inner_test(draw.randbytes(4))
    outcomes.read = outcomes.refused = 0
    with pytest.raises(pytest.fail.Exception, match="of toy for the bytes of") as failure:
        guided(check, outcomes, INPUTS, good)
    assert "planted" in capfd.readouterr().out
    with pytest.raises(RuntimeError, match="planted"):
        check.hypothesis.fuzz_one_input(Path(str(failure.value).split()[-1]).read_bytes())
