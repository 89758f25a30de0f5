"""Upstream's package, timed in a process of its own: both packages are named cherimoya.

`Upstream` starts this file with PYTHONPATH at the folder of upstream's package and sends it one
case a line, as JSON; each answer is a line of JSON too.
"""

import importlib
import importlib.metadata
import json
import os
import queue
import subprocess
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import torch
from cases import RESIDUAL_SCALE, Case
from timing import Forward, Result, autocast, free_memory, in_one_line, measure
from torch import Tensor

HERE = Path(__file__).resolve().parent
START_SECONDS, CASE_SECONDS = 120.0, 120.0


class Upstream:
    """The other process; one that died or was ended is started again at the next case."""

    def __init__(self, folder: Path, device: str) -> None:
        if not (folder / "cherimoya").is_dir():
            raise SystemExit(f"--upstream {folder}: no cherimoya in that folder")
        self.folder, self.device = folder.resolve(), device
        self.process: subprocess.Popen[str] | None = None
        self.lines: queue.Queue[str | None] = queue.Queue()

    def start(self) -> str:
        """Start the process; returns the version of its package."""
        inherited = [
            path
            for path in os.environ.get("PYTHONPATH", "").split(os.pathsep)
            if path and Path(path).resolve() != HERE.parents[1]
        ]
        search = os.pathsep.join([str(self.folder), *inherited])
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "upstream.py"), str(self.folder), self.device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=HERE,
            env={**os.environ, "PYTHONPATH": search},
        )
        self.lines = queue.Queue()
        threading.Thread(target=_read, args=(self.process, self.lines), daemon=True).start()
        return self._answer(START_SECONDS)["version"]

    def measure(self, case: Case, seconds: float) -> Result:
        """As `timing.measure`. Raises RuntimeError when it fails or takes too long."""
        deadline = time.monotonic() + min(seconds, CASE_SECONDS)
        if self.process is None:
            self.start()
        assert self.process is not None
        assert self.process.stdin is not None
        print(json.dumps(case.as_dict()), file=self.process.stdin, flush=True)
        answer = self._answer(deadline - time.monotonic())
        if "failed" in answer:
            raise RuntimeError(answer["failed"])
        return Result(**answer)

    def _answer(self, seconds: float) -> dict[str, Any]:
        try:
            line = self.lines.get(timeout=max(seconds, 0))
        except queue.Empty:
            self.close()
            raise RuntimeError(f"no answer in {seconds:.0f} s, ended") from None
        if line is None:
            self.close()
            raise RuntimeError("its process died")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def _read(process: subprocess.Popen[str], lines: "queue.Queue[str | None]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


def _build(case: Case, weights: list[Tensor]) -> tuple[Forward, list[Tensor]]:
    """Upstream's operation, or its blocks with our weights, under autocast in half precision."""
    from cherimoya.cheri import CheriBlock, fused_dilated_conv_norm

    blocks, parameters = [], weights
    if case.work != "conv_norm":
        blocks = [CheriBlock(case.C, d, residual_scale=RESIDUAL_SCALE) for d in case.dilations]
        blocks = [block.to(weights[0].device) for block in blocks]
        layers = [(b.conv.conv_weight, b.linear1.weight, b.linear2.weight) for b in blocks]
        parameters = [parameter for layer in layers for parameter in layer]
        for parameter, weight in zip(parameters, weights, strict=True):
            parameter.data.copy_(weight.data)

    def forward(x: Tensor) -> Tensor:
        with autocast(x):
            if case.work == "conv_norm":
                return fused_dilated_conv_norm(x, weights[0], case.d).to(x.dtype)
            out = x
            for block in blocks:
                out = block(out)
        return out.to(x.dtype)

    return forward, parameters


def _import_package(folder: Path) -> str:
    """Make upstream's modules importable and return its version.

    Its __init__ is left out: it imports what data and plots need, and the blocks do not.
    """
    package = types.ModuleType("cherimoya")
    package.__path__ = [str(folder / "cherimoya")]
    sys.modules["cherimoya"] = package
    cheri = importlib.import_module("cherimoya.cheri")
    assert Path(cheri.__file__ or "").is_relative_to(folder)
    found = importlib.metadata.distributions(name="cherimoya", path=[str(folder)])
    return next((distribution.version for distribution in found), "of unknown version")


def _serve(folder: Path, device_name: str) -> None:
    """Answer cases until the other side closes; only answers go to stdout."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps({"version": _import_package(folder)}), file=answers, flush=True)
    device = torch.device(device_name)
    for line in sys.stdin:
        case = Case(**json.loads(line))
        try:
            answer = measure(_build, case, device).as_dict()
        except Exception as error:  # the parent says which case failed and goes on
            answer = {"failed": in_one_line(error)}
        free_memory(device)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]).resolve(), sys.argv[2])
