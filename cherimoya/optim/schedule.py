"""The learning rate at every step: a linear warmup, then a cosine or a constant."""

import math
from dataclasses import dataclass


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
        if step < self.warmup_steps:
            return self.base * (self.start + (1 - self.start) * step / self.warmup_steps)
        if not self.decays:
            return self.base
        progress = (step - self.warmup_steps) / max(self.total_steps - self.warmup_steps, 1)
        cosine = (1 + math.cos(math.pi * min(progress, 1.0))) / 2
        return self.min_lr + (self.base - self.min_lr) * cosine
