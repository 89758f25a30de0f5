"""Upstream's saturation mutagenesis, in a process of its own: what its `attribute` command runs."""

import importlib
import importlib.metadata
import importlib.util
import sys
import time
import types
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))

from upstream_process import Answer, UpstreamProcess, import_upstream, placeholders, serve

# What tangermeme imports at its top and mutagenesis does not call.
NOT_CALLED = ("numba", "pandas", "figwig", "pyfaidx", "memelite", "memelite.io")


@dataclass(frozen=True)
class Request:
    """Files in and out, and the arguments of upstream's command."""

    model: str
    sequences: str  # of torch.save: one-hot (N, 4, L) int8
    answer: str  # where the effects (N, 4, end - start) go
    start: int
    end: int
    output: str  # logcounts or profile
    dtype: str
    batch_size: int


class Upstream(UpstreamProcess):
    """Upstream's side of the comparison."""

    def __init__(self, folder: Path, device: str) -> None:
        super().__init__(Path(__file__).resolve(), folder, device)

    def measure(self, request: Request, seconds: float) -> Answer:
        """Seconds that it took. Raises RuntimeError when it fails or takes too long."""
        return self.ask(asdict(request), seconds)


def _mutagenesis(request: Request, device: str) -> Answer:
    """As upstream's command does it once its model and loci are loaded."""
    from cherimoya.cherimoya import Cherimoya
    from cherimoya.wrappers import ControlWrapper, LogCountWrapper, ProfileWrapper
    from tangermeme.saturation_mutagenesis import saturation_mutagenesis

    model = ControlWrapper(Cherimoya.load(request.model, device=device, compile=False))
    wrap = LogCountWrapper if request.output == "logcounts" else ProfileWrapper
    wrapper, X = wrap(model, group=0), torch.load(request.sequences)
    began = time.perf_counter()
    effects = saturation_mutagenesis(
        wrapper, X, dtype=request.dtype, device=device, batch_size=request.batch_size,
        hypothetical=True, start=request.start, end=request.end,
    )  # fmt: skip
    seconds = time.perf_counter() - began  # the effects lie on the CPU: the device is done
    torch.save(effects.float(), request.answer)
    return {"seconds": seconds}


class _Signature:
    """A type of numba's, or a signature made of them: said, and not looked at."""

    def __call__(self, *given: object, **options: object) -> "_Signature":
        return self

    def __getitem__(self, shape: object) -> "_Signature":
        return self

    def __getattr__(self, name: str) -> "_Signature":
        return self


class _Numba(types.ModuleType):
    """numba where it is not installed: mutagenesis calls nothing that it decorates."""

    def __getattr__(self, name: str) -> object:
        if name in ("njit", "jit"):
            return _as_it_is
        return _Signature()


def _as_it_is(*given: Any, **options: object) -> Any:
    """The function given, or a decorator that leaves it."""
    if given and isinstance(given[0], types.FunctionType):
        return given[0]
    return lambda function: function


def _import(folder: Path) -> Answer:
    """Import what `_mutagenesis` calls; returns the versions."""
    missing = [name for name in NOT_CALLED if importlib.util.find_spec(name.split(".")[0]) is None]
    with placeholders(missing):
        if "numba" in missing:
            sys.modules["numba"] = _Numba("numba")
        import tangermeme.saturation_mutagenesis  # noqa: F401

        version = import_upstream(folder, "wrappers")
        importlib.import_module("cherimoya.cherimoya")
    return {"version": version, "tangermeme": importlib.metadata.version("tangermeme")}


if __name__ == "__main__":
    about = _import(Path(sys.argv[2]).resolve())
    serve(about, lambda values: _mutagenesis(Request(**values), sys.argv[3]))
