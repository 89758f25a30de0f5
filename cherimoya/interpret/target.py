"""What is attributed: one number of a prediction."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cherimoya.errors import ConfigError


@dataclass(frozen=True)
class Target:
    """The number that a sequence is scored by.

    counts: the predicted log(1 + counts) of signal group `group`, less those of group `against`, if
    there is one.
    profile: the sum of p x logit over the channels and positions of the group, with the logits
    centred on their mean and p their softmax: how concentrated the profile is, in nats (after
    BPNet, Avsec et al. 2021, but p is no constant: gradients and DeepLIFT go through it too).
    """

    output: str
    group: int = 0
    against: int | None = None

    @property
    def name(self) -> str:
        """counts_0, profile_1, counts_1-0, ..."""
        less = "" if self.against is None else f"-{self.against}"
        return f"{self.output}_{self.group}{less}"

    def of(self, logits: Tensor, log_counts: Tensor, signal_groups: Sequence[int]) -> Tensor:
        """The number for each example (N,), from what the model returned."""
        if self.output == "counts":
            return self.of_counts(_at_least_float(log_counts))
        centred = self.centred_logits(logits, signal_groups)
        return (centred.softmax(dim=1) * centred).sum(dim=1)

    def of_counts(self, log_counts: Tensor) -> Tensor:
        """The number for each example (N,) of log counts (N, groups)."""
        own = log_counts[:, self.group]
        return own if self.against is None else own - log_counts[:, self.against]

    def centred_logits(self, logits: Tensor, signal_groups: Sequence[int]) -> Tensor:
        """The group's logits less their mean (N, channels x positions)."""
        first = sum(signal_groups[: self.group])
        own = _at_least_float(logits[:, first : first + signal_groups[self.group]]).flatten(1)
        return own - own.mean(dim=1, keepdim=True)


def _at_least_float(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def targets_of(
    outputs: Sequence[str], groups: Sequence[int] | None, signal_groups: Sequence[int]
) -> list[Target]:
    """Every output of every group; `groups` None means all that the model has.

    Raises ConfigError for a group that the model does not have.
    """
    chosen = range(len(signal_groups)) if groups is None else groups
    for group in chosen:
        if not 0 <= group < len(signal_groups):
            raise ConfigError(
                f"groups={list(chosen)}: the model has {len(signal_groups)} signal groups, "
                f"0 to {len(signal_groups) - 1} (channels {list(signal_groups)})."
            )
    return [Target(output, group) for output in outputs for group in chosen]


def all_of(
    targets: Sequence[Target], prediction: Sequence[Tensor], signal_groups: Sequence[int]
) -> Tensor:
    """Every target of a prediction (profile logits, log counts): (T, N)."""
    logits, log_counts = prediction
    return torch.stack([t.of(logits, log_counts, signal_groups) for t in targets])
