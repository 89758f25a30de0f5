"""What a sweep says: the best trade-offs, each key's effect, and what to choose."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from cherimoya.records.sweep import LOSS, Configuration

SCORES = ("profile_mnll", "profile_pearson", "profile_jsd", "count_pearson")  # on test loci


def front(points: Sequence[tuple[float, float]], higher: bool) -> list[int]:
    """The Pareto front of (cost, score) points, by rising cost.

    A point is on it when no other costs no more and scores no worse, one of the two strictly.
    NaNs are never on it; of equal points the first is.
    """
    sign = -1 if higher else 1
    known = [i for i, point in enumerate(points) if not any(map(math.isnan, point))]
    best: list[int] = []
    for i in sorted(known, key=lambda i: (points[i][0], sign * points[i][1])):
        if not best or sign * points[i][1] < sign * points[best[-1]][1]:
            best.append(i)
    return best


@dataclass(frozen=True)
class Level:
    """What the configurations with one value of a key reached: each one's mean, and of these."""

    value: str
    each: list[float]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.each)

    @property
    def spread(self) -> float:
        """The standard deviation between configurations; 0 for one alone."""
        return statistics.stdev(self.each) if len(self.each) > 1 else 0.0


def effect(configurations: Sequence[Configuration], key: str, measure: str) -> list[Level]:
    """The marginal means of a measure over everything but `key`, by value of the key."""
    levels = [
        Level(value, [m for m in means if not math.isnan(m)])
        for value in levels_of(configurations, key)
        for means in [[c.mean(measure) for c in configurations if c.values.get(key) == value]]
    ]
    return [level for level in levels if level.each]


def levels_of(configurations: Sequence[Configuration], key: str) -> list[str]:
    """The values of a key: numbers by size, before other words."""
    values = {c.values[key] for c in configurations if key in c.values}
    return sorted(values, key=lambda value: (math.isnan(number(value)), number(value), value))


def number(text: str) -> float:
    """The text as a number; NaN when it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def numeric_keys(configurations: Sequence[Configuration]) -> list[str]:
    """Swept keys with two or more values, all numbers; depth and width first."""
    keys = {key for c in configurations for key in c.values}
    numeric = [
        key for key in sorted(keys)
        if len(levels_of(configurations, key)) > 1
        and not any(math.isnan(number(value)) for value in levels_of(configurations, key))
    ]  # fmt: skip
    first = {"n_layers": -2, "n_filters": -1}
    return sorted(numeric, key=lambda key: first.get(key, 0))


@dataclass(frozen=True)
class Choice:
    """The recommended configuration, and why."""

    chosen: Configuration
    reason: str


def recommend(configurations: Sequence[Configuration]) -> Choice | None:
    """The smallest model whose mean validation loss is within one standard error of the best.

    The one-standard-error rule (Breiman et al. 1984), with the standard error of the best
    configuration's mean over its seeds. With one seed of it there is no such error, and the best
    is taken. None when nothing finished with a loss.
    """
    scored = [c for c in configurations if not math.isnan(c.mean(LOSS))]
    if not scored:
        return None
    best = min(scored, key=lambda c: c.mean(LOSS))
    n, low = len(best.all(LOSS)), best.mean(LOSS)
    beyond = _at_the_edge(scored, best)
    if n == 1:
        return Choice(best, _alone(best, len(scored)) + beyond)
    error = best.spread(LOSS) / math.sqrt(n)
    within = [c for c in scored if c.mean(LOSS) <= low + error]
    chosen = min(within, key=lambda c: (c.mean("parameters"), c.mean(LOSS)))
    limit = f"{_nats(low)} + {_nats(error)} = {_nats(low + error)} nats"
    if chosen is best and len(within) == 1:
        why = (
            f"It has the lowest mean validation loss, {_nats(low)} nats over {n} seeds, and no "
            f"other comes within its standard error of {_nats(error)} nats."
        )
    elif chosen is best:
        why = (
            f"It has the lowest mean validation loss, {_nats(low)} nats over {n} seeds, and none "
            f"of the {len(within) - 1} others within its standard error (up to {limit}) is smaller."
        )
    else:
        why = (
            f"It is the smallest of the {len(within)} whose mean validation loss is within one "
            f"standard error of the best: {_nats(chosen.mean(LOSS))} nats with "
            f"{chosen.mean('parameters'):,.0f} parameters, while {best.name} reaches {_nats(low)} "
            f"with {best.mean('parameters'):,.0f}; the limit is {limit}, from the {n} seeds of "
            "the best."
        )
    return Choice(chosen, why + beyond)


def _at_the_edge(configurations: Sequence[Configuration], best: Configuration) -> str:
    """A sentence on swept numbers of which the best has the largest or smallest one tried."""
    ends = []
    for key in numeric_keys(configurations):
        levels = levels_of(configurations, key)
        if best.values.get(key) in (levels[0], levels[-1]):
            end = "largest" if best.values[key] == levels[-1] else "smallest"
            ends.append(f"{key}={best.values[key]} is the {end} tried")
    if not ends:
        return ""
    return f" Of the best, {' and '.join(ends)}: a better one may lie beyond."


def _alone(best: Configuration, among: int) -> str:
    if among == 1:
        return "It is the only one that finished, so there is nothing to compare it with."
    return (
        f"It has the lowest validation loss, {_nats(best.mean(LOSS))} nats. Only one seed of it "
        "finished, so how much of its lead is chance is not known, and a smaller model that is as "
        "good may be missed: sweep seed=0,1,2 as well to find out."
    )


def _nats(loss: float) -> str:
    return f"{loss:.2f}" if abs(loss) >= 1 else f"{loss:.3g}"
