"""What is trained in these measurements: a configuration of this package, and random loci."""

import sys
from dataclasses import dataclass
from pathlib import Path

import hydra
import numpy as np
from omegaconf import OmegaConf

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "experiments")]

from rows import append_row as append_row  # noqa: E402

from cherimoya.cli.train import conf_dir  # noqa: E402
from cherimoya.config.schema import build  # noqa: E402
from cherimoya.config.train import TrainConfig  # noqa: E402
from cherimoya.data.dataset import Dataset  # noqa: E402
from cherimoya.data.loci import Loci  # noqa: E402

IN, OUT, JITTER = 2114, 1000, 128
NEGATIVES = 0.1
EPOCHS = 40


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
    return build(TrainConfig, values)


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
