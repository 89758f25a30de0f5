"""cherimoya-doctor says what is there, what is missing, and how to get it."""

import os
import re
import subprocess
import sys

import pytest

from cherimoya import __version__
from cherimoya.cli import doctor as app
from cherimoya.errors import CherimoyaError


@pytest.fixture
def doctor(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["cherimoya-doctor"])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_MODE", "offline")

    def run() -> tuple[int, dict[str, str]]:
        code = 0
        try:
            app.doctor()
        except SystemExit as error:
            code = int(error.code)
        lines = capsys.readouterr().out.splitlines()
        return code, {line[:13].strip() or "tried": line[13:].strip() for line in lines}

    return run


def test_all_is_well_here(doctor):
    code, said = doctor()
    assert code == 0
    assert said["cherimoya"].startswith(f"{__version__}, ")
    for package in app.CORE:
        assert re.search(rf"\b{package} \d", said["packages"]), package
    assert said["kernels"].startswith(("PyTorch, on the CPU; triton ", "fused blocks"))
    assert said["W&B"] == "offline, in the run folder (as asked)"
    for extra in ("prepare", "plots", "interpret", "optuna", "slurm", "tensorboard"):
        assert f"[{extra}]" in said
    assert "pysam " in said["[prepare]"]
    assert "GiB free" in said["this folder"]
    assert said["result"] == "all that every command needs is there"


def test_what_is_missing_is_named_with_its_fix(doctor, monkeypatch):
    own = app._problem
    monkeypatch.setattr(
        app, "_problem", lambda name: "Gone: x" if name in ("h5py", "pysam") else own(name)
    )
    monkeypatch.setattr(app, "_version", lambda name: "missing" if name == "pysam" else "1")
    code, said = doctor()
    assert code == 1
    assert said["h5py"] == "cannot be used: Gone: x"
    assert said["[prepare]"] == "pysam is missing: pip install 'cherimoya-train[prepare]'"
    assert said["result"] == "see above"


@pytest.mark.slow
@pytest.mark.parametrize("broken", [False, True])
def test_kernels_are_tried_where_they_run(broken, tmp_path):
    pytest.importorskip("triton")
    code = "from cherimoya.cli.doctor import doctor; "
    if broken:
        code += "from cherimoya.network import Cherimoya; Cherimoya.forward = lambda *_: 1 / 0; "
    done = subprocess.run(
        [sys.executable, "-c", f"{code}doctor()"], capture_output=True, text=True,
        env=os.environ | {
            "TRITON_INTERPRET": "1", "WANDB_MODE": "offline", "XDG_CACHE_HOME": str(tmp_path)
        },
    )  # fmt: skip
    assert done.returncode == int(broken), done.stderr
    assert "kernels       fused blocks in float32" in done.stdout
    if broken:
        assert "a kernel fails (ZeroDivisionError: division by zero)" in done.stdout
    else:
        assert re.search(r"a small network by kernels is PyTorch's within \de-0[5-9]", done.stdout)


def test_what_wandb_refuses_is_said(doctor, monkeypatch):
    def refuse(_):
        raise CherimoyaError("a W&B API key is set, but the server cannot be reached")

    monkeypatch.setattr("cherimoya.loggers.wandb_server.wandb_mode", refuse)
    code, said = doctor()
    assert code == 0
    assert said["W&B"].startswith("a W&B API key is set")
