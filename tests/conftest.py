"""Fixtures that several test files use."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: pytest's workers share the cores
from toy import Toy

from cherimoya.config.data import SyntheticConfig
from cherimoya.data import hdf5
from cherimoya.data.synthetic import simulate
from cherimoya.util import console

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True, scope="session")
def printed() -> None:
    """Messages are printed, as commands do it."""
    console.print_messages()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with golden numbers and real data, which a user's clone does not have."""
    folder = Path(os.environ.get("CHERIMOYA_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"golden numbers and real data are not at {folder} (set CHERIMOYA_SHARED)")
    return folder


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    """A small genome, two bigWig tracks and the means to prepare them."""
    pytest.importorskip("pybigtools")
    return Toy(tmp_path)


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated experiment of 90 loci, small enough to train on in seconds."""
    config = SyntheticConfig(seed=1, n_chromosomes=4, n_peaks=64, n_background=26, mean_count=200.0)
    path = tmp_path_factory.mktemp("data") / "small.h5"
    return hdf5.write(path, simulate(config, in_window=200, out_window=100, max_jitter=8))


@pytest.fixture
def train_arguments(small_data: Path) -> list[str]:
    """The command line of a run that takes a few seconds."""
    return [
        "data=hdf5",
        f"data.path={small_data}",
        "data.validation_chroms=[sim3]",
        "data.test_chroms=[sim4]",
        "model=tiny",
        "logger=none",
        "trainer.plots=false",
        "trainer.batch_size=4",
        "trainer.max_epochs=3",
        "trainer.threads=1",
        "optim.warmup_epochs=1",
    ]


@pytest.fixture
def cherimoya_train(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs cherimoya-train in an empty folder, as a user would."""

    def run(*arguments: str, timeout: float = 120, **environment: str):
        return subprocess.run(
            [sys.executable, "-c", "from cherimoya.cli.train import train; train()", *arguments],
            cwd=tmp_path,
            env=clean_environment() | environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run


def clean_environment() -> dict[str, str]:
    """This process's environment, without W&B's settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    path = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    return kept | {"NETRC": os.devnull, "PYTHONPATH": path}
