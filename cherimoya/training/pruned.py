"""The end of a run that was stopped early: how far it came, and why it went no further."""

from collections.abc import Callable, Mapping
from typing import Any

from cherimoya.loggers.run_log import RunLog
from cherimoya.training.trainer import Trainer
from cherimoya.util import console


def conclude_pruned(
    trainer: Trainer,
    log: RunLog,
    say: Callable[[str], None],
    origin: Mapping[str, Any],
) -> None:
    """Write the summary of a run that its watch stopped, and say so; the test is left alone."""
    state = trainer.state
    log.summary(
        {
            "pruned": {"epoch": state.epoch - 1, "why": state.stopped},
            "best_epoch": state.best_epoch,
            "epochs": state.epoch,
            "steps": state.step,
            "train_seconds": round(state.seconds, 1),
            "speed": trainer.speed(),
            "best_valid_loss": state.best_loss,
            "parameters": sum(p.numel() for p in trainer.step.model.parameters()),
            "provenance": dict(origin),
        }
    )
    say(f"\npruned: {state.stopped}")
    say(f"{state.step:,} steps in {console.duration(state.seconds)}")
    say(f"run          {log.folder}")
