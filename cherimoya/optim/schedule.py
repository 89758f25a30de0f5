"""The learning rate at every step: a linear warmup, then a cosine, a line or a constant."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Schedule:
    """Learning rates by step, as torch's LinearLR followed by CosineAnnealingLR.

    `base` is the rate after `warmup_steps`; the first step uses `start * base`. After warmup it
    goes to `min_lr`, where it is after `total_steps`, by a cosine or linear, or stays constant.
    """

    base: float
    warmup_steps: int
    total_steps: int
    start: float
    min_lr: float
    shape: str = "cosine"  # cosine, linear, constant

    def __call__(self, step: int) -> float:
        """The rate used at `step`, counted from 0."""
        return float(self.at(np.asarray(step)))

    def at(self, steps: np.ndarray) -> np.ndarray:
        """The rates used at `steps`, float64."""
        warm = self.start + (1 - self.start) * steps / max(self.warmup_steps, 1)
        late = np.full(steps.shape, self.base)
        if self.shape != "constant":
            left = max(self.total_steps - self.warmup_steps, 1)
            progress = np.clip((steps - self.warmup_steps) / left, 0, 1)
            fall = (1 + np.cos(np.pi * progress)) / 2 if self.shape == "cosine" else 1 - progress
            late = self.min_lr + (self.base - self.min_lr) * fall
        return np.where(steps < self.warmup_steps, self.base * warm, late)
