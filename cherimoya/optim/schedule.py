"""The learning rate at every step: a linear warmup, then a cosine or a constant."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Schedule:
    """Learning rates by step, as torch's LinearLR followed by CosineAnnealingLR.

    `base` is the rate after `warmup_steps`; the first step uses `start * base`; the cosine ends
    at `min_lr` after `total_steps`. With `decays=False` the rate stays at `base` after warmup.
    """

    base: float
    warmup_steps: int
    total_steps: int
    start: float
    min_lr: float
    decays: bool = True

    def __call__(self, step: int) -> float:
        """The rate used at `step`, counted from 0."""
        return float(self.at(np.asarray(step)))

    def at(self, steps: np.ndarray) -> np.ndarray:
        """The rates used at `steps`, float64."""
        warm = self.start + (1 - self.start) * steps / max(self.warmup_steps, 1)
        late = np.full(steps.shape, self.base)
        if self.decays:
            left = max(self.total_steps - self.warmup_steps, 1)
            progress = np.clip((steps - self.warmup_steps) / left, 0, 1)
            cosine = (1 + np.cos(np.pi * progress)) / 2
            late = self.min_lr + (self.base - self.min_lr) * cosine
        return np.where(steps < self.warmup_steps, self.base * warm, late)
