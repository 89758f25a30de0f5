"""How long the kernels of a training step take to compile, one by one and in threads. Needs no GPU.

    python experiments/train_step/compile_threads.py --threads 0 1 2 4 8 16

Each number of threads (0: each kernel at its first launch, without a rehearsal) gets a process and
a fresh cache of Triton. Prints seconds by the clock, processor seconds of this process and of the
others (ptxas), and, without threads, how many by the clock are Triton's own Python, the part that
runs one thread at a time. The process takes itself for one with an H100; what launches a kernel is
not built, so that gcc, which Triton 3.6 calls for each, is not in these times.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BATCH, IN, TRIMMING = 64, 2114, 557


def measure(threads: int, overrides: list[str], precision: str) -> None:
    """Compile in this process, and print a row."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
    from without_gpu import training_step  # before the operations
    import torch  # isort: skip
    from triton import knobs

    from cherimoya.ops import precompile

    torch.set_num_threads(1)
    step, batch = training_step(
        *overrides, n=BATCH, window=IN, trimming=TRIMMING, precision=precision
    )
    precompile.MOST_THREADS = threads
    os.sched_getaffinity = lambda process: range(64)  # as many threads as asked for
    python: list[float] = []
    knobs.compilation.listener = lambda times, **_: python.append(times.ir_initialization / 1e6)
    before, since = os.times(), time.monotonic()
    with precompile.compiled_together(torch.device("cpu")) if threads else nullcontext():
        step(batch())
    seconds, after = time.monotonic() - since, os.times()
    own = after.user + after.system - before.user - before.system
    others = after.children_user + after.children_system
    others -= before.children_user + before.children_system
    row = f"{threads:7d} {len(python):7d} {seconds:8.2f} {own:8.2f} {others:8.2f}"
    print(f"{row} {sum(python):8.2f}" if threads < 2 else row, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[0, 1, 2, 4, 8, 16])
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--overrides", nargs="*", default=[], help="of cherimoya-train")
    parser.add_argument("--here", action="store_true", help="compile in this process")
    args = parser.parse_args()
    if args.here:
        measure(args.threads[0], args.overrides, args.precision)
        return
    print("threads kernels  seconds      own   others   Python", flush=True)
    for threads in args.threads:
        with tempfile.TemporaryDirectory() as cache:
            subprocess.run(
                [sys.executable, __file__, "--here", "--threads", str(threads),
                 "--precision", args.precision, "--overrides", *args.overrides],
                env={**os.environ, "TRITON_CACHE_DIR": cache}, check=True,
            )  # fmt: skip


if __name__ == "__main__":
    main()
