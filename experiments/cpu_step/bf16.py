"""Does a CPU with AMX train faster when it may multiply in bf16?

    python experiments/cpu_step/bf16.py

The step of bench.py, with torch.set_float32_matmul_precision("highest"), as trainings run, and
"medium", with which oneDNN may multiply fp32 matrices as bf16. In turn, a process each, median over
rounds. `gradient_error`: relative RMS of all gradients of the first step, medium to highest.
Appends to bf16.csv.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]

from bench import TIMED_STEPS, WARMUP_STEPS, make_batch, our_step  # noqa: E402
from rows import append_row, origin  # noqa: E402

from cherimoya.losses import profile_and_count_losses  # noqa: E402
from cherimoya.network import Cherimoya  # noqa: E402

WAYS = ("highest", "medium")


def seconds(way: str, n_filters: int) -> float:
    """Median seconds of a step in this process."""
    torch.set_float32_matmul_precision(way)
    torch.manual_seed(0)
    step, times = our_step(n_filters), []
    for i in range(WARMUP_STEPS + TIMED_STEPS):
        since = time.perf_counter()
        step()
        if i >= WARMUP_STEPS:
            times.append(time.perf_counter() - since)
    return statistics.median(times)


def gradient_error(n_filters: int) -> float:
    """How far bf16's rounding moves the gradients."""
    found = []
    for way in WAYS:
        torch.set_float32_matmul_precision(way)
        torch.manual_seed(0)
        model = Cherimoya(n_filters=n_filters, n_layers=9)
        X, y = make_batch()
        profile, count = profile_and_count_losses(*model(X), y, [1])
        (profile.sum() + count.sum()).backward()
        found.append(
            torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        )
    return float((found[1] - found[0]).norm() / found[0].norm())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", nargs=2, help="way and filters, in this process")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.one:
        print(json.dumps(seconds(args.one[0], int(args.one[1]))))
        return
    amx = "amx_bf16" in Path("/proc/cpuinfo").read_text()
    for n_filters in (32, 96):
        times: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(args.rounds):
            for way in WAYS:
                done = subprocess.run(
                    [sys.executable, __file__, "--threads", str(args.threads),
                     "--one", way, str(n_filters)],
                    env=os.environ, check=True, capture_output=True, text=True,
                )  # fmt: skip
                times[way].append(json.loads(done.stdout.splitlines()[-1]))
        fp32, bf16 = (1000 * statistics.median(times[way]) for way in WAYS)
        row = {"amx": amx, "threads": args.threads, "n_filters": n_filters, "rounds": args.rounds,
               "fp32_ms": round(fp32, 1), "bf16_ms": round(bf16, 1), "ratio": round(fp32 / bf16, 2),
               "gradient_error": f"{gradient_error(n_filters):.1e}"}  # fmt: skip
        print(row)
        append_row(HERE / "bf16.csv", origin() | row)


if __name__ == "__main__":
    main()
