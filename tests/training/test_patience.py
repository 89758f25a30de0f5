"""An early stopping that cannot act is said before the training."""

import math

import pytest
from command_lines import command

from cherimoya.config.train import TrainerConfig
from cherimoya.training.banner import patience_warnings
from cherimoya.training.state import TrainState
from cherimoya.training.trainer import Trainer


class Settings:
    def __init__(self, patience, validate_steps):
        self.early_stopping, self.validate_steps = patience, validate_steps


def stops_early(patience: int, validate_steps: int | None, per_epoch: int, steps: int) -> bool:
    """Whether a training whose first validation is its best ends before its last epoch."""
    trainer = object.__new__(Trainer)
    trainer.config, trainer.state = type("C", (), {}), TrainState()
    trainer.config.trainer, trainer.say = Settings(patience, validate_steps), lambda _: None
    trainer.epochs, state = math.ceil(steps / per_epoch), trainer.state
    while trainer.goes_on():
        state.step = min(state.step + per_epoch, steps)
        due = state.step - state.validated >= (validate_steps or 1)
        if due or state.epoch + 1 == trainer.epochs:
            state.note_validation(1.0, 0)
        state.epoch += 1
    return state.epoch < trainer.epochs


@pytest.mark.parametrize("per_epoch", [1, 7, 10])
@pytest.mark.parametrize("validate_steps", [None, 1, 10, 15, 30, 1000])
def test_it_warns_where_no_training_could_stop(validate_steps, per_epoch) -> None:
    for patience in (1, 2, 3, 5):
        for steps in (1, 5, 10, 19, 20, 21, 35, 40, 50, 70, 100):
            settings = Settings(patience, validate_steps)
            said = patience_warnings(settings, per_epoch, steps)
            assert bool(said) != stops_early(patience, validate_steps, per_epoch, steps), (
                patience, steps,
            )  # fmt: skip


def test_no_early_stopping_needs_no_warning() -> None:
    assert patience_warnings(Settings(None, 1000), 10, 10) == []
    assert TrainerConfig.__dataclass_fields__["early_stopping"]


@pytest.mark.slow
def test_it_is_said_once(tmp_path) -> None:
    done = command(
        "train", "model=tiny", "logger=none", "trainer.device=cpu", "trainer.max_epochs=2",
        "trainer.plots=false", "optim.warmup_epochs=0", "data.synthetic.n_peaks=60",
        "data.synthetic.n_background=20", "trainer.validate_steps=1000",
        "trainer.early_stopping=1", "hydra.run.dir=r", folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if "trainer.early_stopping=1 does" in line]
    assert len(said) == 1
    assert "(trainer.validate_steps), and the training has 2" in said[0]
    assert done.stdout.index(said[0]) < done.stdout.index("epoch 1")
