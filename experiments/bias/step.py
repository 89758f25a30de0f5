"""How long a training step is with a bias model, beside one without, in one process on a GPU.

python experiments/bias/step.py --to experiments/bias/step.csv
"""

import argparse
import csv
import statistics
import sys
from datetime import date
from pathlib import Path

import hydra
import numpy as np
import torch
from omegaconf import OmegaConf

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))
from cherimoya import Cherimoya  # noqa: E402
from cherimoya.cli.train import conf_dir, process_wide_switches  # noqa: E402
from cherimoya.config.schema import build  # noqa: E402
from cherimoya.config.train import TrainConfig  # noqa: E402
from cherimoya.data.batches import Batch  # noqa: E402
from cherimoya.training.capture import Runner  # noqa: E402
from cherimoya.training.step import TrainingStep  # noqa: E402

N, L, OUT = 64, 2114, 1000
STEPS, ROUNDS = 100, 5


def runner(filters: int, layers: int, with_bias: bool, precision: str) -> Runner:
    torch.manual_seed(0)
    shape = {"trimming": (L - OUT) // 2}
    bias = Cherimoya(64, 4) if with_bias else None
    model = Cherimoya(filters, layers, bias_model=bias, **shape).cuda()
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        values = OmegaConf.to_container(hydra.compose("train", ["logger=none"]), resolve=False)
    values.pop("hydra", None)
    config = build(TrainConfig, values)
    step = TrainingStep(model, config.loss, config.optim, 1000, 1000, precision)
    X = torch.nn.functional.one_hot(torch.randint(4, (N, L)), 4).mT.float().cuda()
    signal = torch.poisson(torch.full((N, 1, OUT), 0.2)).cuda()
    return Runner(step, lambda: [Batch(X, signal, None)], True, print)


def milliseconds(run: Runner) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(STEPS):
        run()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / STEPS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, required=True)
    args = parser.parse_args()
    process_wide_switches("bf16", False)
    rows = []
    for filters, layers in ((96, 9), (128, 10)):
        runs = {bias: runner(filters, layers, bias, "bf16") for bias in (False, True)}
        for run in runs.values():
            for _ in range(20):
                run()
        times = {bias: [] for bias in runs}
        for _ in range(ROUNDS):  # in turn, so that both see the same device
            for bias, run in runs.items():
                times[bias].append(milliseconds(run))
        without, with_bias = (statistics.median(times[bias]) for bias in (False, True))
        rows.append({
            "date": date.today().isoformat(), "machine": torch.cuda.get_device_name(),
            "torch": torch.__version__, "filters": filters, "blocks": layers,
            "ms without": round(without, 3), "ms with": round(with_bias, 3),
            "ratio": round(with_bias / without, 3),
        })  # fmt: skip
        print(rows[-1], flush=True)
        assert np.isfinite(with_bias)
    with args.to.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
