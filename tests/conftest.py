"""Fixtures that several test files use."""

import os
from pathlib import Path

import pytest
from toy import Toy

REPOSITORY = Path(__file__).resolve().parents[1]


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
