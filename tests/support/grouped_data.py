"""A simulated experiment of three cell types, and runs on some of them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from configs import composed

from cherimoya.config.data import SyntheticConfig
from cherimoya.config.schema import build
from cherimoya.config.train import TrainConfig
from cherimoya.data import hdf5
from cherimoya.data.synthetic import simulate
from cherimoya.training.run import train

NAMES, DEPTHS = ["A", "T cell", "B"], [4000, 1000, 2000]


def grouped_loci() -> hdf5.Loci:
    """90 loci with the plus strand's counts, a quarter of both strands', and the minus strand's."""
    config = SyntheticConfig(seed=1, n_chromosomes=4, n_peaks=64, n_background=26, mean_count=200.0)
    loci = simulate(config, in_window=200, out_window=100, max_jitter=8)
    plus, minus = loci.signal[:, 0], loci.signal[:, 1]
    few = np.random.default_rng(0).binomial(plus + minus, 0.25).astype(plus.dtype)
    return replace(
        loci,
        signal=np.stack([plus, few, minus], axis=1),
        signal_groups=[1, 1, 1],
        track_names=["a", "t", "b"],
        group_names=NAMES,
        group_depths=DEPTHS,
        truth={},
    )


def run_on(path: Path, folder: Path, *arguments: str) -> Path:
    """The folder of a short run on the file at `path`."""
    threads = torch.get_num_threads()
    values = composed("train", [
        "data=hdf5", f"data.path={path}", "data.validation_chroms=[sim3]",
        "data.test_chroms=[sim4]", "model=tiny", "logger=none", "trainer.plots=false",
        "trainer.batch_size=4", "trainer.max_epochs=1", "trainer.threads=1",
        "optim.warmup_epochs=1", *arguments,
    ])  # fmt: skip
    folder.mkdir()
    (folder / "config.yaml").write_text(json.dumps(values))  # as the command line does
    train(build(TrainConfig, values), folder)
    torch.set_num_threads(threads)
    return folder
