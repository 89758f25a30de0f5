"""This package's training step and epoch, as its trainer runs them."""

import argparse
import datetime
import gc
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from largest import largest_batch
from settings import EPOCHS, IN, OUT, Setup, append_row, configured, random_data

from cherimoya.cli.train import process_wide_switches
from cherimoya.data.dataset import Dataset
from cherimoya.data.feed import place
from cherimoya.network import build_model
from cherimoya.records.provenance import git_commit
from cherimoya.training.checkpoint import Checkpoints
from cherimoya.training.interrupt import StopRequest
from cherimoya.training.packed import take_turn
from cherimoya.training.step import TrainingStep
from cherimoya.training.trainer import Trainer

COLUMNS = (
    "date", "commit", "gpu", "torch", "what", "contender", "precision", "n_filters",
    "profile_kernel", "batch_size", "placement", "graph", "ms", "seconds", "waiting", "peak_MB",
)  # fmt: skip
# Which part of the step a kernel belongs to, by words in its name; the first match counts.
PARTS = (
    ("batch", ("one_hot", "values_kernel", "indexSelect", "index_select")),
    ("stem", ("stem",)),
    ("heads", ("heads", "counts_")),
    ("loss", ("loss",)),
    ("blocks", ("hopper", "block_", "conv_", "sum_rows", "scale_to_half")),
    ("muon", ("muon",)),
    ("cublas", ("gemm", "cutlass", "nvjet", "sm90_xmma", "cublas")),
    ("optimizers_rest", ("",)),
)
EXAMPLES, VALIDATION = 148_608, 10_000
WARMUP, GROUP, GROUPS = 24, 50, 5


def covered(times: list[tuple[float, float]]) -> float:
    """How long at least one of these was going on: starts and ends."""
    total, until = 0.0, -1.0
    for start, end in sorted(times):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


class Bench:
    """One run: its budget, what it trains on, and where the rows go."""

    def __init__(self, args: argparse.Namespace, data: Dataset | None = None) -> None:
        self.args, self.start = args, time.monotonic()
        self.device = torch.device(args.device)
        cuda = self.device.type == "cuda"
        self.run = {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "commit": args.commit or git_commit() or "",
            "gpu": torch.cuda.get_device_name() if cuda else "cpu",
            "torch": torch.__version__,
        }
        window = (240, 100) if args.smoke else (IN, OUT)
        sizes = (256, 32) if args.smoke else (EXAMPLES, VALIDATION)
        self.data = data or random_data(*sizes, *window)
        self.say(f"{self.run}; {len(self.data.loci):,} loci made")

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.start:4.0f} s] {text}", flush=True)

    def left(self) -> float:
        return self.start + self.args.budget - time.monotonic()

    def row(self, what: str, contender: str, setup: Setup, **values: object) -> None:
        row = {
            **self.run, "what": what, "contender": contender, "precision": setup.precision,
            "n_filters": setup.n_filters, "profile_kernel": setup.profile_kernel,
            "batch_size": setup.batch_size, "placement": setup.placement,
            "graph": int(setup.graph), **values,
        }  # fmt: skip
        append_row(self.args.out, row, COLUMNS)
        shown = {k: v for k, v in row.items() if k not in self.run}
        self.say(" ".join(f"{k}={v}" for k, v in shown.items()))

    def trainer(self, setup: Setup) -> Trainer:
        """Everything of a run but its records, as `cherimoya-train` builds it."""
        small = ["model.n_layers=4"] if self.args.smoke else []
        config = configured(setup, *small)
        process_wide_switches(config.trainer.precision, config.trainer.autotune)
        torch.manual_seed(0)
        loci = self.data.loci
        trimming = (loci.in_window - loci.out_window) // 2
        model = build_model(config.model, [1], 0, trimming).to(self.device)
        steps = len(self.data.rows["train"]) // setup.batch_size
        epochs = config.trainer.max_epochs
        step = TrainingStep(
            model, config.loss, config.optim, steps, epochs, config.trainer.precision
        )
        source, _ = place(loci, self.device, setup.placement)
        folder = Path(tempfile.mkdtemp())
        return Trainer(config, step, self.data, source, None, Checkpoints(folder), self.say)

    def time_step(self, setup: Setup) -> float:
        """Median milliseconds of a step in replayed groups, everything included."""
        self.free()
        trainer = self.trainer(setup)
        began = time.monotonic()
        trainer.begin_epoch()
        batches = iter(range(10**9))
        self.make(trainer, WARMUP, batches)
        self.sync()
        first = time.monotonic() - began
        times = []
        for _ in range(GROUPS):
            since = time.perf_counter()
            self.make(trainer, GROUP if self.device.type == "cuda" else 2, batches)
            self.sync()
            times.append(
                (time.perf_counter() - since) / (GROUP if self.device.type == "cuda" else 2)
            )
        assert not trainer.step.watch.failed_by_now(), "the loss is not finite"
        ms = 1000 * statistics.median(times)
        self.row(
            "step", "ours", setup, ms=round(ms, 4), peak_MB=self.peak(), seconds=round(first, 1)
        )
        if setup.n_filters == 96 and setup.graph and self.device.type == "cuda":
            self.parts(trainer, setup, batches)
        trainer.source.close()
        return ms

    def make(self, trainer: Trainer, n: int, batches: Iterator[int]) -> None:
        for _ in range(n):
            trainer.feed.source.prepare(next(batches) % trainer.steps_per_epoch)
            trainer.runner()

    def parts(self, trainer: Trainer, setup: Setup, batches: Iterator[int]) -> None:
        """Time of each part of a step in which kernels of it run, by the names of the kernels."""
        activities = [torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profile:
            self.make(trainer, 20, batches)
            self.sync()
        times: dict[str, list[tuple[float, float]]] = {}
        for event in profile.events():
            if event.device_type == torch.autograd.DeviceType.CUDA:
                name, at = event.name.lower(), event.time_range
                part = next(p for p, words in PARTS if any(w.lower() in name for w in words))
                for one in (part, *(["all_but_blocks"] if part != "blocks" else [])):
                    times.setdefault(one, []).append((at.start, at.end))
        for part, found in times.items():
            us, launches = covered(found) / 20, len(found) / 20
            row = {**self.run, "precision": setup.precision, "n_filters": setup.n_filters,
                   "profile_kernel": setup.profile_kernel,
                   "part": part, "us": round(us, 1), "launches": round(launches, 1)}  # fmt: skip
            append_row(self.args.out.with_name("parts.csv"), row)
            where = f"{setup.precision}, profile kernel {setup.profile_kernel}"
            self.say(f"{where}, {part}: {us:.1f} us in {launches:.0f} kernels")
        table = profile.key_averages().table(
            sort_by="self_cuda_time_total", row_limit=60, max_name_column_width=70
        )
        name = f"kernels_{setup.precision}_{setup.profile_kernel}.txt"
        (self.args.out.parent / name).write_text(table)

    def time_epoch(self, setup: Setup) -> None:
        """Seconds of the second epoch of a run, validation included."""
        self.free()
        trainer = self.trainer(setup)
        ends: list[float] = []
        trainer.say = lambda _: ends.append(time.monotonic())
        trainer.state.epoch = EPOCHS - 2  # the first of the two warms up
        trainer.start(StopRequest())
        while take_turn(trainer):
            pass
        epochs = [t for t in ends][-2:]
        speed = trainer.speed()
        self.row(
            "epoch", "ours", setup, seconds=round(epochs[1] - epochs[0], 3),
            ms=round(speed["ms_per_step"] or 0, 4),
            waiting=round(speed["waiting_for_data"] or 0, 5), peak_MB=self.peak(),
        )  # fmt: skip

    def find_largest_batch(self, setup: Setup) -> None:
        """The largest batch whose captured training steps fit the memory beside the loci."""

        def fits(n: int) -> bool:
            self.free()
            try:
                trainer = self.trainer(replace(setup, batch_size=n))
                trainer.begin_epoch()
                self.make(trainer, WARMUP, iter(range(10**9)))
                self.sync()
                trainer.source.close()
            except torch.OutOfMemoryError:
                return False
            return True

        found = 8 if self.device.type != "cuda" and fits(8) else largest_batch(fits)
        self.row("largest batch", "ours", replace(setup, batch_size=found))
        self.free()

    def sync(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def free(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> float | str:
        """MB, the resident loci included."""
        if self.device.type != "cuda":
            return ""
        return round(torch.cuda.max_memory_allocated() / 1e6, 1)
