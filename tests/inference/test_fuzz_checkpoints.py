"""A checkpoint with any bytes changed is refused, or is the model that was saved."""

from pathlib import Path

import pytest
import torch
from fuzzing import Outcomes, fuzz, mutated
from hypothesis import given

from cherimoya import Cherimoya
from cherimoya.records.run import LAST
from cherimoya.training.checkpoint import Checkpoints
from cherimoya.util.model_file import write_safetensors

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", ["checkpoint", "safetensors"])
def test_models(tmp_path: Path, kind: str) -> None:
    model = Cherimoya(n_filters=4, n_layers=1)
    path, outcomes = tmp_path / "best.pt", Outcomes(f"model {kind}")
    if kind == "safetensors":
        write_safetensors(path, model.state_dict(), {"config": model.config})
    else:
        model.save(path)

    @given(mutated(path.read_bytes(), 3))
    def any_bytes(content: bytes) -> None:
        path.write_bytes(content)
        found = outcomes.of(Cherimoya.load, path)
        if found is not None:
            assert found.config == model.config
            for name, value in model.state_dict().items():
                assert torch.equal(found.state_dict()[name], value), name

    fuzz(any_bytes, outcomes)


def test_training_states(tmp_path: Path) -> None:
    checkpoints, outcomes = Checkpoints(tmp_path), Outcomes("training state")
    weights = torch.randn(100)
    checkpoints.save_last({"step": {"model": weights}, "config": {"seed": 3}})

    @given(mutated((tmp_path / LAST).read_bytes(), 3))
    def any_bytes(content: bytes) -> None:
        (tmp_path / LAST).write_bytes(content)
        found = outcomes.of(checkpoints.load_last, lambda _: None)
        if found is not None:
            assert found["config"] == {"seed": 3}
            assert torch.equal(found["step"]["model"], weights)

    fuzz(any_bytes, outcomes)
