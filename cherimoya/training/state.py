"""Where a run stands."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class TrainState:
    """Where the run stands; with the step's own state, all that a resume needs."""

    epoch: int = 0
    batch: int = 0  # batches of this epoch already trained on
    step: int = 0  # steps made in all
    validated: int = 0  # of these, how many before the last validation
    best_loss: float = math.inf
    best_epoch: int = -1
    plateau_loss: float = math.inf  # the last one that was better by the least improvement
    plateau_epoch: int = -1
    seconds: float = 0.0  # time spent in all, interruptions left out
    timed_steps: int = 0  # steps after each start's first ones, which compile and measure
    timed_seconds: float = 0.0  # and how long they took
    waited_seconds: float = 0.0  # of these, how long for data
    stopped: str | None = None  # why, if the epoch's callback said so

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> "TrainState":
        """The state as it was saved; earlier releases validated after every epoch."""
        state = cls(**saved)
        if "validated" not in saved:
            state.validated = state.step - state.batch
            state.plateau_loss, state.plateau_epoch = state.best_loss, state.best_epoch
        return state

    def note_validation(self, loss: float, least_improvement: float) -> bool:
        """Note the validation loss of this epoch; returns whether it is the best so far.

        A plateau ends where a loss is lower by at least this share of the last one that ended one.
        """
        self.validated = self.step
        if loss < self.plateau_loss * (1 - least_improvement):
            self.plateau_loss, self.plateau_epoch = loss, self.epoch
        if is_best := loss < self.best_loss:
            self.best_loss, self.best_epoch = loss, self.epoch
        return is_best
