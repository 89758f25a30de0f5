"""Where the kernels of a test run, and with what."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from kernels import MODES, Interpreter, Mode


@pytest.fixture(scope="module")
def interpreter(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Interpreter]:
    """Makes one of the module's CHECKS where Triton's interpreter runs the kernels."""
    pytest.importorskip("triton")
    log = tmp_path_factory.mktemp("interpreter") / "stderr"
    interpreter = Interpreter(request.module.__file__, log)
    yield interpreter
    interpreter.close()


@pytest.fixture
def plain_cpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Neither the interpreter nor a choice of kernels in the environment."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.delenv("CHERIMOYA_KERNELS", raising=False)
    return monkeypatch


@pytest.fixture
def nothing_is_tuned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The default launch options, the default kernels."""
    monkeypatch.setenv("CHERIMOYA_AUTOTUNE", "0")
    monkeypatch.setenv("CHERIMOYA_CACHE", str(tmp_path))
    monkeypatch.delenv("CHERIMOYA_KERNELS", raising=False)


@pytest.fixture
def mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Mode:
    """One of MODES, set in torch; the default kernels."""
    monkeypatch.delenv("CHERIMOYA_KERNELS", raising=False)
    mode = MODES[request.param]
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", mode.tf32)
    return mode


@pytest.fixture
def kernels(request: pytest.FixtureRequest, mode: Mode, monkeypatch: pytest.MonkeyPatch) -> str:
    """A value of CHERIMOYA_KERNELS."""
    monkeypatch.setenv("CHERIMOYA_KERNELS", request.param)
    return request.param


@pytest.fixture
def tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default kernels, where torch may use TF32."""
    monkeypatch.delenv("CHERIMOYA_KERNELS", raising=False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)
