"""One CPU training step, ours against upstream 0.3.1, measured in turn on the same machine.

    python experiments/cpu_step/bench.py --upstream-python UP/bin/python

UP is an environment with `pip install torch==2.13.0 cherimoya==0.3.1`. Each round starts one
process per contender; a step is forward, learned-weight loss, backward, Muon + AdamW + SGD and
the moving average, with upstream's profile kernel of 75 on both sides. Appends to results.csv.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))

from rows import append_row  # noqa: E402

ROOT = HERE.parents[1]
CONTENDERS = ("ours", "upstream", "upstream_compiled")
N, L, OUT, LAYERS = 8, 2114, 1000, 9
WARMUP_STEPS, TIMED_STEPS = 3, 8
OPTIONS = ["optim=muon_adamw_sgd", "logger=none", "trainer.max_epochs=20"]


def make_batch() -> tuple:
    """One-hot sequence (N, 4, L) and counts (N, 1, OUT)."""
    import torch

    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 4, (N, L), generator=generator)
    X = torch.nn.functional.one_hot(codes, 4).float().transpose(1, 2).contiguous()
    return X, torch.poisson(torch.ones(N, 1, OUT), generator=generator)


def our_step(n_filters: int) -> Callable[[], float]:
    """The training step of this package, as its trainer runs it."""
    import hydra
    from omegaconf import OmegaConf

    from cherimoya.config.command_line import conf_dir
    from cherimoya.config.schema import build
    from cherimoya.config.train import TrainConfig
    from cherimoya.data.batches import Batch
    from cherimoya.network import Cherimoya
    from cherimoya.training.step import TrainingStep

    OmegaConf.register_new_resolver("run_id", lambda: "bench", replace=True)
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        values = OmegaConf.to_container(hydra.compose("train", OPTIONS), resolve=True)
    config = build(TrainConfig, values)
    model = Cherimoya(n_filters=n_filters, n_layers=LAYERS, profile_kernel_size=75)
    train = TrainingStep(model, config.loss, config.optim, steps_per_epoch=100, max_epochs=20)
    X, y = make_batch()
    batch = Batch(X, y, None)

    def step() -> float:
        train([batch])
        return train.take_sums()["loss"]

    return step


def upstream_step(n_filters: int, compiled: bool) -> Callable[[], float]:
    """Upstream's model, losses and moving average, with the optimizers its documentation names."""
    import torch

    from cherimoya import EMA, Cherimoya
    from cherimoya.losses import _mixture_loss
    from cherimoya.training import _split_parameters

    model = Cherimoya(n_filters=n_filters, n_layers=LAYERS, compile=compiled)
    muon, adamw, loss_weights = _split_parameters(model)
    optimizers = (
        torch.optim.Muon(muon, lr=0.025, weight_decay=0.03),
        torch.optim.AdamW(adamw, lr=0.001, weight_decay=0.0),
        torch.optim.SGD(loss_weights, lr=0.001, momentum=0.9),
    )
    ema = EMA(model, decay=0.999)
    X, y = make_batch()

    def step() -> float:
        for optimizer in optimizers:
            optimizer.zero_grad()
        profile, count = _mixture_loss(y, *model(X), signal_groups=[1])
        total = (0.5 / model.lw0**2 * profile).sum() + (0.5 / model.lw1**2 * count).sum()
        total = total + (model.lw0.log() ** 2).sum() + (model.lw1.log() ** 2).sum()
        total.backward()
        for optimizer in optimizers:
            optimizer.step()
        ema.update(model)
        return total.item()

    return step


def time_contender(name: str, n_filters: int, threads: int) -> dict[str, object]:
    """Median seconds per step in this process, after the warm-up."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    step = our_step(n_filters) if name == "ours" else upstream_step(n_filters, "_" in name)
    losses = [step() for _ in range(WARMUP_STEPS)]
    times = []
    for _ in range(TIMED_STEPS):
        start = time.perf_counter()
        losses.append(step())
        times.append(time.perf_counter() - start)
    assert losses[-1] < losses[0], f"{name} does not learn: {losses}"
    return {"seconds": statistics.median(times), "best": min(times), "torch": torch.__version__}


def run_contender(name: str, n_filters: int, args: argparse.Namespace) -> dict[str, object]:
    """`time_contender` in a process of its own, with the right interpreter and package."""
    python = sys.executable if name == "ours" else args.upstream_python
    path = {"PYTHONPATH": str(ROOT)} if name == "ours" else {}
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | path
    command = [python, str(HERE / "bench.py"), "--contender", name, "--filters", str(n_filters)]
    command += ["--threads", str(args.threads)]
    done = subprocess.run(command, env=environment, cwd=HERE, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(n_filters: int, args: argparse.Namespace) -> dict[str, object]:
    """Rounds of every contender in turn; each time is the median over rounds."""
    from cherimoya.records.provenance import cpu_name

    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for i in range(args.rounds):
        for name in CONTENDERS:
            result = run_contender(name, n_filters, args)
            seconds[name].append(result["seconds"])
            print(f"C={n_filters} round {i} {name}: {1e3 * result['seconds']:.0f} ms", flush=True)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    rival = min(median["upstream"], median["upstream_compiled"])
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{cpu_name()}, {args.threads} threads",
        "torch": result["torch"],
        "n_filters": n_filters,
        "rounds": args.rounds,
        **{f"{name}_ms": round(1e3 * time, 1) for name, time in median.items()},
        "ratio": round(rival / median["ours"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--upstream-python", help="interpreter that has cherimoya 0.3.1")
    parser.add_argument("--filters", type=int, nargs="+", default=[32, 96])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--output", type=Path, default=HERE / "results.csv")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contender:
        print(json.dumps(time_contender(args.contender, args.filters[0], args.threads)))
        return
    if not args.upstream_python:
        parser.error("--upstream-python is required")
    for n_filters in args.filters:
        row = compare(n_filters, args)
        append_row(args.output, row)
        print(row)


if __name__ == "__main__":
    main()
