"""The learning rate of every step: a straight warm-up, then half a cosine."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Learning rates over `steps` steps, of which `warmup` rise; it ends at `final` (Loshchilov 2017)."""

    lr: float
    final: float
    warmup: int
    steps: int

    def at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0 over all epochs."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.final + (self.lr - self.final) * (1 + math.cos(math.pi * min(1.0, done))) / 2
