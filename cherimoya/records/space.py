"""What a search may choose from, for each key."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DIGITS = 4  # of a searched number: more neither matter nor fit into a folder's name


@dataclass(frozen=True)
class Numbers:
    """A range of numbers, its ends included."""

    low: float
    high: float
    step: float | None = None
    log: bool = False
    whole: bool = False

    def corners(self) -> list[str]:
        """The ends, as words of the command line."""
        return list(dict.fromkeys(self.word(value) for value in (self.low, self.high)))

    def rounded(self, value: float) -> float:
        """`value` with few digits, still inside."""
        if self.whole or self.step:
            return value
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    def word(self, value: float) -> str:
        """`value` as a word of the command line."""
        return str(int(value)) if self.whole else repr(float(f"{value:.10g}"))


@dataclass(frozen=True)
class Choices:
    """Words without an order."""

    words: tuple[str, ...]

    def corners(self) -> list[str]:
        """Every word."""
        return list(self.words)

    def word(self, value: str) -> str:
        """The word itself."""
        return value


Space = Mapping[str, Numbers | Choices]


def suggest(trial: Any, key: str, part: Numbers | Choices) -> None:
    """Have one of Optuna's trials choose the value of `key`."""
    if isinstance(part, Choices):
        trial.suggest_categorical(key, part.words)
    elif part.whole:
        step = int(part.step or 1)
        trial.suggest_int(key, int(part.low), int(part.high), step=step, log=part.log)
    else:
        trial.suggest_float(key, part.low, part.high, step=part.step, log=part.log)
