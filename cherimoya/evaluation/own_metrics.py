"""The metrics of the user's own: tried before any work, and those that a finished run had."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cherimoya import metrics
from cherimoya.config.schema import Choice, choose, to_dict
from cherimoya.config.train import TAKEN
from cherimoya.errors import CherimoyaError, OwnError
from cherimoya.inference.checkpoints import Checkpoint
from cherimoya.registry import find
from cherimoya.util.console import say, warning
from cherimoya.util.own_code import code_digest, own_errors

# Of profiles p and counts (N, tracks, L) and the signal groups: (N, n_groups), NaN if undefined.
Metric = Callable[[Tensor, Tensor, list[int]], Tensor]


def own_metrics(
    chosen: Mapping[str, Choice], groups: list[int], length: int, device: torch.device
) -> dict[str, Metric]:
    """The metrics of the user's own, each tried on random values. Raises ConfigError.

    The values are of two loci, with `length` positions.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        p = metrics.group_softmax(torch.randn(2, sum(groups), length, device=device), groups)
        counts = torch.randint(9, p.shape, device=device).float()
        for name, choice in chosen.items():
            own_score(name, choice.make(), p, counts, groups)
    return {name: choice.make() for name, choice in chosen.items()}


def own_score(name: str, metric: Metric, p: Tensor, counts: Tensor, groups: list[int]) -> Tensor:
    """What a metric of the user's own returns: (N, n_groups), float64. Raises OwnError."""
    expected = (len(p), len(groups))
    with own_errors(f"metrics.{name}"):
        values = metric(p.clone(), counts.clone(), [*groups])  # its own, to change in place
    if not isinstance(values, Tensor) or values.shape != expected:
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise OwnError(f"metrics.{name} returned {got}: expected a tensor of shape {expected}.")
    return values.to(p.device).double()


def metrics_of_runs(
    checkpoints: Sequence[Checkpoint], groups: list[int], length: int, device: torch.device
) -> tuple[dict[str, Metric], dict[str, Any]]:
    """The metrics of the user's own that the runs of the checkpoints had; and, for JSON, as
    "metrics", what their values depend on, if there are any.

    Of one name the first counts. Those that cannot be had here are left out, and it is said why.
    """
    configured: dict[str, Any] = {}
    for one in reversed(checkpoints):
        configured |= (one.run.config.get("metrics") or {}) if one.run else {}
    chosen: dict[str, Any] = {}
    found: dict[str, Metric] = {}
    left_out: list[str] = []
    for name in [name for name, values in configured.items() if values and name not in TAKEN]:
        try:
            choice = choose("metrics", configured[name], f"metrics.{name}")
            found |= own_metrics({name: choice}, groups, length, device)
            chosen[name] = {**to_dict(choice), "code": code_digest(find("metrics", choice.name))}
        except CherimoyaError as error:
            left_out.append(str(error))
    if left_out:
        say(warning(f"left out of the run's own metrics: {' '.join(left_out)}"))
    return found, {"metrics": chosen} if chosen else {}
