"""Upstream's package in a process of its own, because both packages are named cherimoya.

The one side is `UpstreamProcess`, which starts a script with PYTHONPATH at the folder of upstream's
package (`pip install --no-deps --target UP cherimoya==0.3.1 bpnet-lite tangermeme`) and sends it
requests, one line of JSON each. The other side is that script, which calls `serve`.
"""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 120.0
Answer = dict[str, Any]


class UpstreamProcess:
    """The other process; one that died or was ended is started again at the next request."""

    def __init__(self, script: Path, folder: Path, device: str) -> None:
        if not (folder / "cherimoya" / "training.py").is_file():
            raise SystemExit(f"{folder}: no cherimoya of upstream's in that folder")
        self.script, self.folder, self.device = script, folder.resolve(), device
        self.process: subprocess.Popen[str] | None = None
        self.lines: queue.Queue[str | None] = queue.Queue()

    def start(self) -> Answer:
        """Start the process; returns what it says of itself: versions. Raises RuntimeError."""
        self.close()
        inherited = [
            path
            for path in os.environ.get("PYTHONPATH", "").split(os.pathsep)
            if path and Path(path).resolve() != ROOT
        ]
        search = [str(self.folder), *inherited, str(ROOT / "experiments")]
        self.process = subprocess.Popen(
            [sys.executable, self.script, "--serve", self.folder, self.device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.script.parent,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(search)},
            start_new_session=True,
        )
        self.lines = queue.Queue()
        threading.Thread(target=_read, args=(self.process, self.lines), daemon=True).start()
        return self._answer(START_SECONDS)

    def ask(self, request: dict[str, Any], seconds: float) -> Answer:
        """The answer to `request`. Raises RuntimeError if it failed or took too long."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        assert self.process is not None
        assert self.process.stdin is not None
        print(json.dumps(request), file=self.process.stdin, flush=True)
        answer = self._answer(seconds)
        if "failure" in answer:
            raise RuntimeError(answer["failure"])
        return answer

    def close(self) -> None:
        """End the process and the workers that it started."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def __enter__(self) -> "UpstreamProcess":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _answer(self, seconds: float) -> Answer:
        try:
            line = self.lines.get(timeout=max(seconds, 0))
        except queue.Empty:
            self.close()
            raise RuntimeError(f"no answer in {seconds:.0f} s, ended") from None
        if line is None:
            self.close()
            raise RuntimeError("its process died")
        return json.loads(line)


def _read(process: subprocess.Popen[str], lines: "queue.Queue[str | None]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


def serve(about: Answer, handle: Callable[[Answer], Answer]) -> None:
    """Answer requests until the other side closes; only answers go to stdout."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps(about), file=answers, flush=True)
    for line in sys.stdin:
        try:
            answer = handle(json.loads(line))
        except Exception as error:  # the other side says which request failed and goes on
            first = str(error).strip().partition("\n")[0]
            answer = {"failure": f"{type(error).__name__}: {first[:500]}"}
        print(json.dumps(answer), file=answers, flush=True)


def bare_package(name: str, folder: Path) -> None:
    """Make the modules of a package importable without its __init__, which imports far more."""
    package = types.ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules[name] = package


def import_upstream(folder: Path, module: str, stand_ins: Iterable[str] = ()) -> str:
    """Import `cherimoya.<module>` of upstream's; returns the version of its package.

    stand_ins: modules that are imported there and not called; each is an empty one meanwhile.
    """
    bare_package("cherimoya", folder / "cherimoya")
    with placeholders(stand_ins):
        found = importlib.import_module(f"cherimoya.{module}")
    assert Path(found.__file__ or "").is_relative_to(folder)
    versions = importlib.metadata.distributions(name="cherimoya", path=[str(folder)])
    return next((distribution.version for distribution in versions), "unknown")


class Placeholder(types.ModuleType):
    """A module of which every public name is an empty class, for imports that are not called."""

    __path__: list[str] = []  # noqa: RUF012

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


@contextlib.contextmanager
def placeholders(names: Iterable[str]) -> Iterator[dict[str, types.ModuleType]]:
    """Empty modules of these names while something else is imported."""
    modules: dict[str, types.ModuleType] = {name: Placeholder(name) for name in names}
    sys.modules.update(modules)
    try:
        yield modules
    finally:
        for name in modules:
            del sys.modules[name]
