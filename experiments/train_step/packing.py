"""How many training steps a GPU makes in all when several runs share it, and how best to share it.

    python experiments/train_step/packing.py                      # about 3 minutes on a GPU
    python experiments/train_step/packing.py --smoke --device cpu # tiny sizes, to test the program

Ways: "alone", one run after another; "streams", runs of one process in a stream each, as
hydra/launcher=packed does it; "processes", a process for each. Appends to packing.csv.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from ours import Bench
from settings import Setup, append_row, random_data

from cherimoya.data.dataset import Dataset
from cherimoya.training.interrupt import StopRequest
from cherimoya.training.packed import take_turn
from cherimoya.training.trainer import STRIDE, Trainer

HERE = Path(__file__).resolve().parent
COLUMNS = (
    "date", "commit", "gpu", "torch", "window", "n_filters", "batch_size", "precision", "way",
    "members", "steps_per_second", "ratio",
)  # fmt: skip
WARM_STRIDES, STRIDES = 3, 12
SECONDS = 5.0  # that processes are timed for
MEMBERS = (2, 4, 8)


@dataclass(frozen=True)
class Work:
    """What each member trains on."""

    setup: Setup
    in_window: int
    out_window: int


LONG = Work(Setup(n_filters=32), 2114, 1000)
SHORT = Work(Setup(n_filters=32, batch_size=8), 320, 160)  # as the embedded data


def member(bench: Bench, work: Work) -> tuple[Trainer, "torch.cuda.Stream | None"]:
    stream = torch.cuda.Stream() if bench.device.type == "cuda" else None
    with torch.cuda.stream(stream):
        trainer = bench.trainer(work.setup)
    trainer.start(StopRequest())
    return trainer, stream


def together(bench: Bench, work: Work, n: int) -> float:
    """Steps a second of `n` members in all, each in a stream of its own."""
    bench.free()
    lanes = []
    for _ in range(n):
        trainer, stream = member(bench, work)
        lanes.append((trainer, stream))

    def strides(count: int) -> None:
        for _ in range(count):
            for trainer, stream in lanes:
                with torch.cuda.stream(stream):
                    take_turn(trainer)

    strides(WARM_STRIDES)
    bench.sync()
    since = time.perf_counter()
    strides(STRIDES)
    bench.sync()
    return n * STRIDES * STRIDE[bench.device.type] / (time.perf_counter() - since)


def in_processes(bench: Bench, work: Work, n: int) -> float:
    """Steps a second of `n` processes in all, from when every one of them is warm."""
    command = [sys.executable, str(HERE / "packing.py"), "--worker", json.dumps(asdict(work))]
    command += ["--device", bench.args.device, *["--smoke"] * bench.args.smoke]
    environment = {**os.environ, "CHERIMOYA_AUTOTUNE": "0"}
    workers = [
        subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(n)
    ]
    for worker in workers:
        while worker.stdout and worker.stdout.readline() not in ("ready\n", ""):
            pass
    for worker in workers:
        assert worker.stdin is not None
        print("go", file=worker.stdin, flush=True)
    rates = [float(worker.communicate()[0].split()[-1]) for worker in workers]
    return sum(rates)


def worker(bench: Bench, work: Work, seconds: float) -> None:
    """Train when told to, and print the steps a second."""
    trainer, _ = member(bench, work)
    for _ in range(WARM_STRIDES):
        take_turn(trainer)
    bench.sync()
    print("ready", flush=True)
    sys.stdin.readline()
    since, count = time.perf_counter(), 0
    while time.perf_counter() - since < seconds:
        take_turn(trainer)
        bench.sync()
        count += STRIDE[bench.device.type]
    print(count / (time.perf_counter() - since), flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to test this program")
    parser.add_argument("--out", type=Path, default=HERE / "packing.csv")
    parser.add_argument("--commit", default="", help="written to the rows where git is missing")
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def small(work: Work) -> Work:
    """The same at a size that a CPU does at once."""
    setup = replace(work.setup, n_filters=8, batch_size=8, precision="fp32")
    return Work(setup, 240, 100)


def data_of(work: Work, smoke: bool) -> Dataset:
    examples, validation = (512, 32) if smoke else (20_000, 64)
    return random_data(examples, validation, work.in_window, work.out_window)


def main() -> None:
    args = parse_arguments()
    if args.worker:
        values = json.loads(args.worker)
        work = Work(Setup(**values.pop("setup")), **values)
        bench = Bench(args, data_of(work, args.smoke))
        worker(bench, work, 1.0 if args.smoke else SECONDS)
        return
    for work in (LONG, SHORT):
        work = small(work) if args.smoke else work
        bench = Bench(args, data_of(work, args.smoke))
        alone = together(bench, work, 1)
        rows = [("alone", 1, alone)]
        rows += [("streams", n, together(bench, work, n)) for n in MEMBERS]
        rows.append(("processes", MEMBERS[-1], in_processes(bench, work, MEMBERS[-1])))
        for way, members, rate in rows:
            row = {
                **bench.run, "window": work.in_window, "n_filters": work.setup.n_filters,
                "batch_size": work.setup.batch_size, "precision": work.setup.precision,
                "way": way, "members": members, "steps_per_second": round(rate, 1),
                "ratio": round(rate / alone, 3),
            }  # fmt: skip
            append_row(args.out, row, COLUMNS)
            bench.say(
                f"{work.in_window} bp, {work.setup.n_filters} filters, batch "
                f"{work.setup.batch_size}: {members} {way}: {rate:.0f} steps a second in all, "
                f"{rate / alone:.2f} times one alone"
            )


if __name__ == "__main__":
    main()
