"""Signal groups as targets, the difference between two, and its interval over models."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from cherimoya.config.group_names import group_number
from cherimoya.config.interpret import InferenceConfig
from cherimoya.errors import ConfigError
from cherimoya.inference.checkpoints import Checkpoint, find_checkpoint
from cherimoya.interpret.target import Target
from cherimoya.util.console import say

OUTPUT = "counts"
CONFIDENCE = 0.95
# 97.5 % of Student's t distribution lie below, for 1, 2, ... degrees of freedom
T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
     2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
     2.052, 2.048, 2.045, 2.042)  # fmt: skip
COLUMNS = ("contrast", "contrast_low", "contrast_high")


def asked_contrast(
    config: InferenceConfig, signal_groups: Sequence[int], unit: str = "in log2"
) -> Target | None:
    """The contrast that `config` asks for, if it does. Raises ConfigError as `contrast_of`."""
    if config.target is None:
        return None
    return contrast_of(config.target, config.checkpoint, signal_groups, unit)


def asked_groups(
    groups: Sequence[str] | None, named: Sequence[str], signal_groups: Sequence[int]
) -> list[int]:
    """The numbers of the `groups` of models named by the checkpoints `named`; None: all.

    Raises ConfigError for one that is not there or is named twice, and where two of the models
    call groups differently.
    """
    n = len(signal_groups)
    if groups is None:
        return list(range(n))
    names = _names([find_checkpoint(one) for one in named])
    found = [
        group_number(one, names if len(names) == n else [], n, f"groups=[{','.join(groups)}]")
        for one in groups
    ]
    if len(set(found)) < len(found):
        raise ConfigError(f"groups=[{','.join(groups)}] names a signal group twice.")
    return found


def counts_target(text: str, named: Sequence[str], signal_groups: Sequence[int]) -> Target:
    """The target that counts, counts:GROUP or counts:B-A means, for models named by the checkpoints
    `named`; it is said.

    Raises ConfigError for what is none of these, for groups that are not there, for counts alone
    where there are several groups, and where two of the models call groups differently.
    """
    names, n = _names([find_checkpoint(one) for one in named]), len(signal_groups)
    names = names if len(names) == n else []
    output, colon, group = text.partition(":")
    if output != OUTPUT:
        raise ConfigError(
            f"target={text}: write counts:GROUP, the log counts of a signal group by name or "
            "number, or counts:B-A, those of B less those of A."
        )
    if not colon and n > 1:
        listed = ", ".join(names or map(str, range(n)))
        raise ConfigError(
            f"target={text}: the model has {n} signal groups, {listed}. Name one: "
            f"target=counts:{names[0] if names else 0}."
        )
    try:
        number = group_number(group.strip(), names, n, f"target={text}") if colon else 0
    except ConfigError:
        if "-" not in group:
            raise
        return contrast_of(text, named, signal_groups, "in natural logarithms")
    say(f"target       log counts of {_said(number, names)}")
    return Target(OUTPUT, number)


def _said(group: int, names: Sequence[str]) -> str:
    return f"{names[group]} (signal group {group})" if names else f"signal group {group}"


def contrast_of(
    text: str, named: Sequence[str], signal_groups: Sequence[int], unit: str = "in log2"
) -> Target:
    """The target that counts:B-A means, for models named by the checkpoints `named`; it is said,
    and the `unit` of what is written of it.

    Raises ConfigError for what is none, for groups that are not there, and where two of the
    models call groups differently.
    """
    names, n = _names([find_checkpoint(one) for one in named]), len(signal_groups)
    names = names if len(names) == n else []
    output, _, groups = text.partition(":")
    parts = groups.split("-")
    pairs = [("-".join(parts[:i]), "-".join(parts[i:])) for i in range(1, len(parts))]
    if output != OUTPUT or not all(pairs[0] if pairs else ("",)):
        raise ConfigError(
            f"target={text}: write counts:B-A, the log counts of signal group B less those of A; "
            "B and A are names or numbers, from 0."
        )
    key, found = f"target={text}", []
    for pair in pairs:  # names may have a - in them
        try:
            found.append([group_number(one.strip(), names, n, key) for one in pair])
        except ConfigError as error:
            if pair == pairs[-1] and not found:
                raise error from None
    if len(found) > 1:
        raise ConfigError(f"{key}: may mean several pairs of groups. Use numbers, from 0.")
    (group, against), = found  # fmt: skip
    if group == against:
        raise ConfigError(f"{key}: a group less itself is nothing. Name two groups.")
    said = [_said(g, names) for g in found[0]]
    say(f"target       log counts of {said[0]} less those of {said[1]}, {unit}")
    return Target(OUTPUT, group, against)


def _names(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """What the models call their groups. Raises ConfigError where they differ in that."""
    known = {one.name: one.groups for one in checkpoints if one.groups}
    first = next(iter(known), None)
    for path, names in known.items():
        if first is not None and names != known[first]:
            raise ConfigError(
                f"{first} has signal groups {', '.join(known[first])}, and {path} has "
                f"{', '.join(names)}. Name models of the same groups, in the same order."
            )
    return [] if first is None else known[first]


def interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the 95 % interval of the mean over the first axis, of K >= 2 models: t_{K-1} times
    the standard error on each side. It is about the seeds of training alone."""
    k = len(values)
    half = T[min(k - 1, len(T)) - 1] * values.std(axis=0, ddof=1) / math.sqrt(k)
    mean = values.mean(axis=0)
    return mean - half, mean + half


def contrast_columns(values: np.ndarray) -> dict[str, np.ndarray]:
    """Mean over K models of `values` (K, ...), and where K is over 1 its interval, by name."""
    ends = interval(values) if len(values) > 1 else ()
    return dict(zip(COLUMNS, (values.mean(axis=0), *ends), strict=False))


def contrast_names(models: int) -> list[str]:
    """What `contrast_statistics` gives of so many models."""
    return [*COLUMNS[: 3 if models > 1 else 1], "contrast_sd"]


def contrast_statistics(
    before: Sequence[torch.Tensor], after: Sequence[torch.Tensor], target: Target
) -> np.ndarray:
    """Of the change of `target` from one prediction of `EnsemblePredictor.apart` to another: its
    mean over backgrounds as `contrast_columns`, and its standard deviation over them, log2."""
    changes = np.stack(
        [
            (target.of_counts(b.double()) - target.of_counts(a.double())).numpy() / math.log(2)
            for a, b in zip(before[2], after[2], strict=True)
        ]
    )  # (K, backgrounds)
    spread = changes.mean(axis=0).std(ddof=min(changes.shape[1] - 1, 1))
    return np.array([*contrast_columns(changes.mean(axis=1)).values(), spread])
