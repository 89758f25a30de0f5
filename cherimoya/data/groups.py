"""Some of the signal groups that a file holds, chosen by name or number."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from cherimoya.config.group_names import group_number
from cherimoya.data.loci import Described, Loci
from cherimoya.errors import ConfigError

D = TypeVar("D", bound=Described)


def group_labels(held: Described) -> list[str]:
    """What each signal group is called: by its name, else by its tracks."""
    if held.group_names:
        return held.group_names
    names = iter(held.track_names)
    return [", ".join(next(names) for _ in range(size)) for size in held.signal_groups]


def with_groups(held: D, asked: Sequence[str] | None, where: str) -> D:
    """`held` with the signal groups that are `asked` for alone, in that order; None: as it is.

    asked: names or numbers, from 0

    Raises ConfigError, which names `where`, for a group that is not there, or asked for twice.
    """
    if asked is None:
        return held
    labels, sizes = group_labels(held), held.signal_groups
    key = f"data.groups=[{','.join(asked)}], {where}"
    numbers = [group_number(one, labels, len(sizes), key) for one in asked]
    if len(set(numbers)) < len(numbers):
        raise ConfigError(f"{key}: one group is named twice. Name each once.")
    first = np.cumsum([0, *sizes])
    tracks = np.concatenate([np.arange(first[n], first[n + 1]) for n in numbers])
    changed: dict[str, object] = {
        "signal_groups": [sizes[n] for n in numbers],
        "track_names": [held.track_names[track] for track in tracks],
    }
    for name in ("group_names", "group_depths"):
        if values := getattr(held, name):
            changed[name] = [values[n] for n in numbers]
    if isinstance(held, Loci):
        changed["signal"] = held.signal[:, tracks]
        changed["truth"] = {
            name: values[:, tracks if values.ndim == 3 else numbers]
            if name in ("expected", "log_count")
            else values
            for name, values in held.truth.items()
        }
    return replace(held, **changed)  # type: ignore[arg-type]
