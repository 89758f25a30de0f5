"""What the tests of cherimoya-variants share."""

from pathlib import Path

import pytest
from interpreted import configured, save_model
from toy import Toy
from toy_variants import LENGTH

from cherimoya.config.interpret import VariantsConfig


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "a.pt", signal_groups=[1, 2])


@pytest.fixture
def asked(toy: Toy, model: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(
        "XDG_CACHE_HOME", str(toy.folder / "cache")
    )  # no effect is known from before

    def make(**values) -> VariantsConfig:
        given = {
            "checkpoint": [str(model)], "variants": str(toy.folder / "v.vcf"), "in_window": LENGTH,
            "fasta": str(toy.folder / "toy.fa"), "output": str(toy.folder / "out.tsv"),
            "random_variants": 0, "page": False,
        }  # fmt: skip
        return configured("variants", VariantsConfig, **(given | values))

    return make
