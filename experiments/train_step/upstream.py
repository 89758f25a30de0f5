"""Upstream's training step and data loading, timed in a process of its own.

    python experiments/train_step/upstream.py --folder UP --device cpu --smoke

UP is the folder of upstream's package, see `upstream_process.py`.

The step is the one that upstream's `fit` runs, `CherimoyaModule.training_step`, with its own
optimizers, schedules and moving average. Lightning's trainer around it is left out, and one batch
stays on the device for all steps: both save upstream time.
"""

import argparse
import gc
import importlib.util
import json
import statistics
import sys
import time
import types
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from largest import largest_batch
from torch import Tensor

sys.path.append(str(Path(__file__).resolve().parents[1]))

from upstream_process import (
    Answer,
    UpstreamProcess,
    bare_package,
    import_upstream,
    placeholders,
    serve,
)

REQUEST_SECONDS = 480.0
WARMUP, GROUPS, EPOCHS = 12, 5, 5
# Its schedules at 100 steps an epoch, 2 of 20 epochs for the warm-up as its defaults say.
LR_WARMUP, LR_DECAY = 200, 1800
JITTER = 128


@dataclass(frozen=True)
class Request:
    """What to do: time a step, time loading batches on the CPU, or find the largest batch."""

    n_filters: int = 128
    precision: str = "bf16"  # or fp32, in which products are TF32
    compiled: bool = True  # upstream's default: torch.compile in mode max-autotune
    batch_size: int = 64
    in_window: int = 2114
    out_window: int = 1000
    n_layers: int = 9
    steps: int = 10  # in each timed group
    warmup: int = WARMUP
    task: str = "step"  # or "data" or "memory"
    num_workers: int = 1  # for "data"; 1 is what `fit` uses, 0 loads in the process itself

    def __post_init__(self) -> None:
        if self.task not in ("step", "data", "memory") or self.precision not in ("bf16", "fp32"):
            raise ValueError(f"no such task or precision: {self.task}, {self.precision}")


class Upstream(UpstreamProcess):
    """Upstream's side of the comparison."""

    def __init__(self, folder: Path, device: str) -> None:
        super().__init__(Path(__file__).resolve(), folder, device)

    def measure(self, request: Request, seconds: float = REQUEST_SECONDS) -> Answer:
        """What `_time_step`, `_time_data` or `_largest_batch` reports. Raises RuntimeError."""
        return self.ask(asdict(request), seconds)


class LightningModule(torch.nn.Module):
    """What upstream's module asks of Lightning for one step on one device."""

    trainer = types.SimpleNamespace(world_size=1)
    global_rank = 0
    device = torch.device("cpu")

    def prepare(self, device: torch.device) -> None:
        """Move to `device` and build the optimizers, as the trainer does before a fit."""
        self.to(device)
        self.device = device
        self._optimizers, self._schedulers = self.configure_optimizers()

    def optimizers(self) -> list[torch.optim.Optimizer]:
        return self._optimizers

    def lr_schedulers(self) -> list[Any]:
        return self._schedulers

    def manual_backward(self, loss: Tensor) -> None:
        self.loss = loss.detach()
        loss.backward()

    def log(self, name: str, value: Tensor, **options: object) -> None:
        """Nothing: the trainer's metrics are no part of the step."""


def multinomial_loss(log_probs: Tensor, counts: Tensor) -> Tensor:
    """Negative log-likelihood of counts (..., L), for where bpnet-lite is not installed."""
    likelihood = torch.lgamma(counts.sum(-1) + 1) - torch.lgamma(counts + 1).sum(-1)
    return -(likelihood + (counts * log_probs).sum(-1))


def _import_package(folder: Path) -> Answer:
    """Import upstream's modules; returns its version and whose multinomial loss it uses.

    Stand-ins take the places of what its step does not call, but for the loss and the module.
    """
    names = ["lightning", "lightning.pytorch", "lightning.pytorch.callbacks"]
    names += ["lightning.pytorch.plugins", "lightning.pytorch.plugins.io"]
    names += ["sklearn", "sklearn.metrics", "tangermeme", "tangermeme.io", "bpnetlite.logging"]
    found = importlib.util.find_spec("bpnetlite")
    if found is None:
        names += ["bpnetlite", "bpnetlite.losses"]
    elif found.origin is not None:
        bare_package("bpnetlite", Path(found.origin).parent)
    with placeholders(names) as modules:
        modules["lightning"].LightningModule = LightningModule  # type: ignore[attr-defined]
        if found is None:
            modules["bpnetlite.losses"].MNLLLoss = multinomial_loss  # type: ignore[attr-defined]
        version = import_upstream(folder, "training")
    return {"version": version, "mnll": "stand-in" if found is None else "bpnet-lite"}


def _one_hot(n: int, length: int, generator: torch.Generator) -> Tensor:
    """(n, 4, length) int8, the dtype that upstream extracts."""
    codes = torch.randint(0, 4, (n, length), generator=generator)
    one_hot = torch.nn.functional.one_hot(codes, 4).to(torch.int8)
    return one_hot.transpose(1, 2).contiguous()


def _counts(n: int, length: int, generator: torch.Generator) -> Tensor:
    """(n, 1, length) float32."""
    return torch.poisson(torch.ones(n, 1, length), generator=generator)


def _build_step(request: Request, device: torch.device) -> Callable[[], Tensor]:
    """Upstream's training step on one batch that is already there; returns its loss."""
    from cherimoya.cherimoya import EMA, Cherimoya

    from cherimoya.training import CherimoyaModule

    model = Cherimoya(
        n_filters=request.n_filters,
        n_layers=request.n_layers,
        trimming=(request.in_window - request.out_window) // 2,
        compile=request.compiled,
        random_state=0,
    )
    nothing = torch.zeros(1)  # the validation set
    module = CherimoyaModule(
        model, None, nothing, nothing, n_warmup_steps=LR_WARMUP, n_decay_steps=LR_DECAY
    )
    module.prepare(device)
    module.ema = EMA(module.model, decay=module.ema_decay)
    generator = torch.Generator().manual_seed(0)
    n = request.batch_size
    X, y = _one_hot(n, request.in_window, generator), _counts(n, request.out_window, generator)
    batch = (X.to(device), y.to(device), torch.ones(n, dtype=torch.long, device=device))

    # As Lightning's bf16-mixed: the whole step, and nothing kept from one cast to the next.
    autocast = torch.autocast(
        device.type, torch.bfloat16, enabled=request.precision == "bf16", cache_enabled=False
    )

    def step() -> Tensor:
        with autocast:
            module.training_step(batch, 0)
        return module.loss

    return step


def _time_step(request: Request, device: torch.device) -> Answer:
    """Milliseconds a step, the median over groups, and the memory of the device."""
    held = _free_memory(device)
    step = _build_step(request, device)
    first = step().item()
    for _ in range(request.warmup - 1):
        step()
    memory = _peak_memory(step, held, device)
    times = []
    for _ in range(GROUPS):
        _synchronize(device)
        start = time.perf_counter()
        for _ in range(request.steps):
            loss = step()
        _synchronize(device)
        times.append(1e3 * (time.perf_counter() - start) / request.steps)
    return {
        "ms": statistics.median(times),
        "ms_all": times,
        **memory,
        "first_loss": first,
        "final_loss": loss.item(),
    }


def _peak_memory(step: Callable[[], Tensor], held: tuple[int, int], device: torch.device) -> Answer:
    """Of three steps, in MB beyond what was held before the model was built; None off the GPU.

    Allocated memory leaves out what lives inside CUDA graphs (`compiled`), reserved counts it.
    """
    if device.type != "cuda":
        return {"peak_mb": None, "reserved_mb": None}
    _free_memory(device)
    torch.cuda.reset_peak_memory_stats()
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    return {
        "peak_mb": (torch.cuda.max_memory_allocated() - held[0]) / 1e6,
        "reserved_mb": (torch.cuda.max_memory_reserved() - held[1]) / 1e6,
    }


def _largest_batch(request: Request, device: torch.device) -> Answer:
    """The largest batch whose training steps fit the memory."""

    def fits(n: int) -> bool:
        try:
            _free_memory(device)
            step = _build_step(replace(request, batch_size=n), device)
            for _ in range(2):
                step()
            _synchronize(device)
        except torch.OutOfMemoryError:
            return False
        return True

    return {"largest": largest_batch(fits) if device.type == "cuda" else int(fits(2)) * 2}


def _time_data(request: Request, device: torch.device) -> Answer:
    """Milliseconds in which upstream's loader makes one batch of arrays in memory.

    Four peaks to one negative as in its defaults, 10 batches an epoch, jitter and reverse
    complement on; pinned for a GPU, and not copied there.
    """
    from cherimoya.io import PeakNegativeSampler, channel_permutation_from_groups

    from cherimoya.training import CherimoyaModule

    generator = torch.Generator().manual_seed(0)
    peaks, negatives = 8 * request.batch_size, 2 * request.batch_size
    data = PeakNegativeSampler(
        peak_sequences=_one_hot(peaks, request.in_window + 2 * JITTER, generator),
        peak_signals=_counts(peaks, request.out_window + 2 * JITTER, generator),
        negative_sequences=_one_hot(negatives, request.in_window, generator),
        negative_signals=_counts(negatives, request.out_window, generator),
        negative_ratio=0.25,
        in_window=request.in_window,
        out_window=request.out_window,
        max_jitter=JITTER,
        reverse_complement=True,
        random_state=0,
        signal_perm=channel_permutation_from_groups([1]),
    )
    nothing = torch.zeros(1)
    module = CherimoyaModule(
        torch.nn.Identity(), data, nothing, nothing,
        batch_size=request.batch_size, num_workers=request.num_workers,
    )  # fmt: skip
    module.device = device
    loader = module.train_dataloader()
    times = []
    for epoch in range(1 + EPOCHS):
        loader.sampler.set_epoch(epoch)
        start = time.perf_counter()
        batches = sum(1 for _ in loader)
        times.append(1e3 * (time.perf_counter() - start) / batches)
    return {"data_ms": statistics.median(times[1:]), "data_ms_all": times[1:], "batches": batches}


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _free_memory(device: torch.device) -> tuple[int, int]:
    """Give back what nothing holds; returns the bytes still allocated and reserved."""
    gc.collect()
    if device.type != "cuda":
        return 0, 0
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()


def _serve(folder: Path, device: torch.device) -> None:
    tasks = {"step": _time_step, "data": _time_data, "memory": _largest_batch}
    about = {**_import_package(folder), "torch": torch.__version__}

    def handle(values: Answer) -> Answer:
        request = Request(**values)
        try:
            return tasks[request.task](request, device) | about
        finally:
            torch._dynamo.reset()

    serve(about, handle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where upstream's cherimoya is")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--smoke", action="store_true", help="tiny requests, and print the answers")
    parser.add_argument("--compiled", action="store_true", help="a tiny compiled request as well")
    args = parser.parse_args()
    tiny = {"n_filters": 8, "n_layers": 4, "batch_size": 2, "steps": 2, "warmup": 2}
    requests = [Request(precision=name, compiled=False, **tiny) for name in ("fp32", "bf16")]
    requests += [Request(compiled=True, **tiny)] if args.compiled else []
    requests += [Request(task="data", num_workers=workers) for workers in (0, 1)]
    with Upstream(args.folder, args.device) as upstream:
        for request in requests:
            print(json.dumps(upstream.measure(request)), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        _serve(Path(sys.argv[2]).resolve(), torch.device(sys.argv[3]))
    else:
        main()
