"""Fixtures that several test files use."""

import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: pytest's workers share the cores
pytest.register_assert_rewrite("command_lines", "kernels", "toy", "training_runs")
if int(os.environ.get("CHERIMOYA_FUZZ_GUIDED", "0")):
    with suppress(ModuleNotFoundError):
        import atheris

        atheris.instrument_imports(include=["cherimoya"]).__enter__()  # from here on
import torch
from command_lines import REPOSITORY, command
from toy import FRAGMENTS, LENGTHS, Toy

from cherimoya.config.data import SyntheticConfig
from cherimoya.data import hdf5
from cherimoya.data.synthetic import simulate
from cherimoya.prepare import parts
from cherimoya.util import console


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked gpu are skipped where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="torch sees no GPU"))


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


@pytest.fixture(scope="session")
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
        return command("train", *arguments, folder=tmp_path, timeout=timeout, **environment)

    return run


@pytest.fixture
def many(toy: Toy, monkeypatch) -> Toy:
    """A toy with peaks, and room for background, on each chromosome, which is a part each."""
    monkeypatch.setattr(parts, "PART", (1, 100))
    rng = np.random.default_rng(0)
    toy.bed(
        *(f"{c}\t{at}\t{at + 1}" for c, n in LENGTHS.items() for at in rng.integers(40, n // 3, 25))
    )
    toy.write("cuts.tsv", "\n".join(FRAGMENTS))
    return toy
