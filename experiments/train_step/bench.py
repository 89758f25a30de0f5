"""A whole training step and a whole epoch, ours beside upstream 0.3.1, on this GPU.

    python experiments/train_step/bench.py --upstream FOLDER
    python experiments/train_step/bench.py --smoke --device cpu     # the flow, at tiny sizes

FOLDER comes from `pip install --no-deps --target FOLDER cherimoya==0.3.1`. Appends to results.csv
(a row a measurement) and parts.csv (where a step's time goes).
"""

import argparse
import csv
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import hydra
import numpy as np
import torch
from omegaconf import OmegaConf

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from upstream import Request, Upstream  # noqa: E402

from cherimoya.analysis.machine import git_commit  # noqa: E402
from cherimoya.cli import conf_dir, process_wide_switches  # noqa: E402
from cherimoya.config import TrainConfig, resolve  # noqa: E402
from cherimoya.data.dataset import Dataset  # noqa: E402
from cherimoya.data.feed import place  # noqa: E402
from cherimoya.data.hdf5 import write  # noqa: E402
from cherimoya.data.loci import Loci  # noqa: E402
from cherimoya.network import build_model  # noqa: E402
from cherimoya.training.checkpoint import Checkpoints  # noqa: E402
from cherimoya.training.interrupt import StopRequest  # noqa: E402
from cherimoya.training.step import TrainingStep  # noqa: E402
from cherimoya.training.trainer import Trainer  # noqa: E402

COLUMNS = (
    "date", "commit", "gpu", "torch", "what", "contender", "precision", "n_filters",
    "profile_kernel", "batch_size", "placement", "graph", "ms", "seconds", "waiting", "peak_MB",
)  # fmt: skip
# Which part of the step a kernel belongs to, by words in its name; the first match counts.
PARTS = (
    ("batch", ("one_hot", "values_kernel", "indexSelect", "index_select")),
    ("stem", ("stem",)),
    ("heads", ("heads",)),
    ("loss", ("loss",)),
    ("blocks", ("hopper", "block_", "conv_", "sum_rows", "scale_to_half")),
    ("newton_schulz", ("gemm", "cutlass", "nvjet", "sm90_xmma", "cublas")),
    ("optimizers_rest", ("",)),
)
IN, OUT, JITTER = 2114, 1000, 128
EXAMPLES, VALIDATION, NEGATIVES = 148_608, 10_000, 0.1
WARMUP, GROUP, GROUPS = 24, 50, 5
EPOCHS = 40
PRECISIONS = ("bf16", "tf32")
ALL = ("ours", "start", "devices", "epoch", "upstream")


@dataclass(frozen=True)
class Setup:
    """What is trained."""

    n_filters: int = 96
    precision: str = "bf16"
    profile_kernel: int = 1
    placement: str = "resident"
    graph: bool = True
    batch_size: int = 64


def configured(setup: Setup, *more: str) -> TrainConfig:
    overrides = [
        "data=hdf5", "data.path=-", "data.validation_chroms=[v]", "data.test_chroms=[]",
        "logger=none", f"model.n_filters={setup.n_filters}", "optim=muon_adamw_sgd",
        f"model.profile_kernel_size={setup.profile_kernel}",
        f"data.placement={setup.placement}", f"data.negative_ratio={NEGATIVES}",
        f"trainer.precision={setup.precision}", f"trainer.batch_size={setup.batch_size}",
        f"trainer.cuda_graph={setup.graph}", f"trainer.max_epochs={EPOCHS}", *more,
    ]  # fmt: skip
    OmegaConf.register_new_resolver("run_id", lambda: "bench", replace=True)
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        values = OmegaConf.to_container(hydra.compose("train", overrides), resolve=True)
    return resolve(values, TrainConfig)


def random_data(examples: int, validation: int, window: int = IN, out: int = OUT) -> Dataset:
    """Loci of random bases and counts: `examples` an epoch, all in memory."""
    rng = np.random.default_rng(0)
    peaks = round(examples / (1 + NEGATIVES))
    while peaks + int(peaks * NEGATIVES) < examples:
        peaks += 1
    train = peaks + int(peaks * NEGATIVES)
    n, jitter = train + validation, min(JITTER, window // 8)
    label = np.ones(n, np.uint8)
    label[peaks:train] = 0
    loci = Loci(
        sequence=rng.integers(0, 4, (n, window + 2 * jitter), np.uint8),
        signal=rng.poisson(0.2, (n, 1, out + 2 * jitter)).astype(np.uint8), control=None,
        label=label, chrom=np.array(["t"] * train + ["v"] * validation),
        start=np.zeros(n, np.int64), end=np.zeros(n, np.int64), in_window=window,
        out_window=out, max_jitter=jitter, track_names=["t"], control_names=[],
        signal_groups=[1], control_groups=[], genome="", provenance={},
    )  # fmt: skip
    rows = {"train": np.arange(train), "validation": np.arange(train, n), "test": np.arange(0)}
    return Dataset(loci, rows, Path("random"), "random")


class Bench:
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
        append(self.args.out, COLUMNS, row)
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

    def make(self, trainer: Trainer, n: int, batches: "object") -> None:
        for _ in range(n):
            trainer.feed.prepare(next(batches) % trainer.steps_per_epoch)  # type: ignore
            trainer.runner()

    def parts(self, trainer: Trainer, setup: Setup, batches: object) -> None:
        """Kernel time of each part of a step, by the names of the kernels."""
        activities = [torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profile:
            self.make(trainer, 20, batches)
            self.sync()
        sums: dict[str, list[float]] = {}
        for event in profile.key_averages():
            name = event.key.lower()
            part = next(p for p, words in PARTS if any(w.lower() in name for w in words))
            found = sums.setdefault(part, [0.0, 0.0])
            found[0] += event.self_device_time_total / 20
            found[1] += event.count / 20
        for part, (us, launches) in sums.items():
            row = {**self.run, "precision": setup.precision, "n_filters": setup.n_filters,
                   "profile_kernel": setup.profile_kernel,
                   "part": part, "us": round(us, 1), "launches": round(launches, 1)}  # fmt: skip
            append(self.args.out.with_name("parts.csv"), tuple(row), row)
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
        for _ in trainer.train(StopRequest()):
            pass
        epochs = [t for t in ends][-2:]
        speed = trainer.speed()
        self.row(
            "epoch", "ours", setup, seconds=round(epochs[1] - epochs[0], 3),
            ms=round(speed["ms_per_step"] or 0, 4),
            waiting=round(speed["waiting_for_data"] or 0, 5), peak_MB=self.peak(),
        )  # fmt: skip

    def loci_file(self, folder: Path, most: int) -> Path:
        """An HDF5 file of up to `most` of the training loci, and some to validate."""
        loci, count = self.data.loci, len(self.data.loci)
        chosen = np.r_[0 : min(most, count - 32), count - 16 : count]
        names = ("sequence", "signal", "label", "chrom", "start", "end")
        small = replace(loci, **{name: getattr(loci, name)[chosen] for name in names})
        return write(folder / "loci.h5", small)

    def command(self, setup: Setup, path: Path, *more: str) -> list[str]:
        """`cherimoya-train` on `path`, without plots."""
        return [
            sys.executable, "-c", "from cherimoya.cli import train; train()", "data=hdf5",
            f"data.path={path}", "data.validation_chroms=[v]", "data.test_chroms=[]",
            "logger=none", f"model.n_filters={setup.n_filters}", "trainer.plots=false",
            f"trainer.precision={setup.precision}", f"trainer.device={self.args.device}", *more,
        ]  # fmt: skip

    def time_start(self, setup: Setup) -> None:
        """Seconds from the command until the time left is told, after some steps."""
        folder = Path(tempfile.mkdtemp())
        path = self.loci_file(folder, 4096)
        command = self.command(setup, path, "trainer.autotune=false")
        environment = {**os.environ, "TRITON_CACHE_DIR": str(folder / "cache")}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
        environment["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        imports = "import cherimoya.analysis.run, triton.compiler, triton.experimental.gluon"
        subprocess.run([sys.executable, "-c", imports], env=environment, check=True)
        for cache in ("cold", "warm"):
            since = time.monotonic()
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
            )
            assert process.stdout is not None
            told = "never told"
            for line in process.stdout:
                self.say(f"after {time.monotonic() - since:.1f} s: {line.rstrip()}")
                if "ms a step" in line:
                    told = line
                    break
            seconds = time.monotonic() - since
            process.kill()
            process.wait()
            self.say(f"start with a {cache} cache: {seconds:.1f} s, then {told.strip()}")
            self.row(f"start, {cache} cache", "ours", setup, seconds=round(seconds, 2))

    def time_devices(self, setup: Setup) -> None:
        """Milliseconds of a step with 64 sequences for each of 1, 2, 4 and 8 devices."""
        cuda = self.device.type == "cuda"
        found = torch.cuda.device_count() if cuda else 2
        folder = Path(tempfile.mkdtemp())
        path = self.loci_file(folder, 25_600)
        environment = {**os.environ}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
        for devices in (n for n in (1, 2, 4, 8) if n <= found):
            batch = (64 if cuda else 8) * devices
            more = [f"trainer.devices={devices}", f"trainer.batch_size={batch}"]
            more += ["trainer.max_epochs=3", "optim.warmup_epochs=1", f"hydra.run.dir=run{devices}"]
            subprocess.run(
                self.command(setup, path, *more), cwd=folder, env=environment, check=True,
                stdout=subprocess.DEVNULL,
            )  # fmt: skip
            speed = json.loads((folder / f"run{devices}" / "summary.json").read_text())["speed"]
            self.row(
                f"{devices} devices", "ours", replace(setup, batch_size=batch),
                ms=round(speed["ms_per_step"], 4), waiting=round(speed["waiting_for_data"], 5),
                peak_MB=speed["peak_memory_mb"],
            )  # fmt: skip

    def upstream(self, rival: Upstream, setup: Setup, compiled: bool) -> None:
        request = Request(
            n_filters=setup.n_filters, precision=setup.precision.replace("tf32", "fp32"),
            compiled=compiled, batch_size=setup.batch_size,
        )  # fmt: skip
        if self.args.smoke:
            request = replace(request, in_window=600, out_window=100, n_layers=2, batch_size=2)
        try:
            reply = rival.measure(request, seconds=max(self.left(), 1))
        except Exception as error:
            self.say(f"upstream {request}: {error}")
            return
        if "failure" in reply:
            self.say(f"upstream {request}: {reply['failure']}")
            return
        name = "upstream compiled" if compiled else "upstream"
        peak = reply.get("reserved_mb") if compiled else reply.get("peak_mb")
        self.row(
            "step", name, replace(setup, graph=compiled), ms=round(reply["ms"], 4),
            peak_MB=round(peak or 0, 1),
        )  # fmt: skip

    def sync(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def free(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> float | str:
        """MB, the resident loci included."""
        if self.device.type != "cuda":
            return ""
        return round(torch.cuda.max_memory_allocated() / 1e6, 1)


def append(path: Path, columns: tuple[str, ...], row: dict[str, object]) -> None:
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as handle:
        writer = csv.DictWriter(handle, columns)
        if new:
            writer.writeheader()
        writer.writerow(row)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--upstream", type=Path, help="folder that holds upstream's cherimoya")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to test this program")
    parser.add_argument("--budget", type=float, default=420, help="seconds for everything")
    parser.add_argument("--only", nargs="+", default=ALL, choices=ALL)
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--out", type=Path, default=HERE / "results.csv")
    parser.add_argument("--commit", default="", help="written to the rows where git is missing")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    bench = Bench(args)
    precisions = args.precisions if args.device == "cuda" else ("fp32",)
    n = 8 if args.smoke else 96
    ours = [Setup(n, p) for p in precisions]
    # Upstream's profile head has a kernel of 75.
    rivals = [Setup(m, p, 75) for m in (n, n if args.smoke else 128) for p in precisions]
    tries: list[Callable[[], object]] = []
    if "ours" in args.only:
        extra = [Setup(n, precisions[0], graph=False)]
        extra += [Setup(n, p) for p in ("fp16", "fp32") if args.device == "cuda"]
        extra = extra if len(precisions) > 1 else []
        tries += [lambda s=s: bench.time_step(s) for s in dict.fromkeys([*ours, *rivals, *extra])]
    if "start" in args.only:
        tries.append(lambda: bench.time_start(Setup(n, precisions[0])))
    if "devices" in args.only:
        tries.append(lambda: bench.time_devices(Setup(n, precisions[0])))
    if "epoch" in args.only:
        tries += [
            lambda p=p: bench.time_epoch(Setup(n, precisions[0], placement=p))
            for p in ("resident", "stream")
        ]
    for attempt in tries:
        try:
            attempt()
        except Exception as error:  # the other rows still count
            bench.say(f"failed: {type(error).__name__}: {str(error)[:600]}")
            import traceback

            traceback.print_exc()
    if args.upstream and "upstream" in args.only:
        with Upstream(args.upstream, args.device) as rival:
            for compiled in (True, False):
                for setup in dict.fromkeys(rivals):
                    if bench.left() > 20:
                        bench.upstream(rival, setup, compiled)


if __name__ == "__main__":
    main()
