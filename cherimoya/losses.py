"""The multinomial profile loss, the log count loss, and how the two are weighed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from cherimoya.config import LossConfig
from cherimoya.metrics import multinomial_nll
from cherimoya.network import Cherimoya
from cherimoya.ops.dispatch import route
from cherimoya.ops.loss import training_loss as fused_training_loss


@dataclass(frozen=True)
class LossTerms:
    """The objective and its parts, each part per signal group and averaged over examples."""

    total: Tensor  # ()
    profile: Tensor  # (n_groups,)
    count: Tensor  # (n_groups,)


@dataclass(frozen=True)
class LossWeights:
    """How the losses of each signal group are weighed.

    With `learned`, by 1 / (2 w^2) and, with `penalty`, with log(w)^2 added; else by w itself.
    """

    profile: Tensor  # (n_groups,)
    count: Tensor  # (n_groups,)
    learned: bool
    penalty: bool


def profile_and_count_losses(
    logits: Tensor, log_counts: Tensor, signal: Tensor, signal_groups: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """The two losses per signal group, each averaged over examples.

    Parameters
    ----------
    logits : Tensor (N, sum(signal_groups), L)
        Predicted profile.
    log_counts : Tensor (N, len(signal_groups))
        Predicted log(1 + counts).
    signal : Tensor (N, sum(signal_groups), L)
        Observed counts.

    Returns
    -------
    tuple of Tensor (n_groups,)
        Multinomial negative log-likelihood, with each group's channels and positions flattened
        together, and squared error of log(1 + total count).
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    profile, totals = [], []
    for y, k in zip(
        logits.split(list(signal_groups), dim=1), signal.split(list(signal_groups), 1), strict=True
    ):
        profile.append(multinomial_nll(y.flatten(1), k.flatten(1)).mean())
        totals.append(k.sum(dim=(1, 2), dtype=dtype))
    observed = torch.log1p(torch.stack(totals, dim=1))  # (N, n_groups)
    errors = F.mse_loss(log_counts.to(dtype), observed, reduction="none")
    return torch.stack(profile), errors.mean(dim=0)


class Loss(Protocol):
    """Combines the two losses; may learn its weights from the model's lw0 and lw1."""

    frozen: bool

    def weights(self, model: Cherimoya) -> LossWeights: ...

    def __call__(self, model: Cherimoya, profile: Tensor, count: Tensor) -> Tensor: ...

    def end_epoch(self, model: Cherimoya) -> bool: ...


class KendallLoss:
    """sum(w0 profile) + sum(w1 count) + sum(log(lw0)^2) + sum(log(lw1)^2), w = 1 / (2 lw^2).

    Learned weights after Kendall, Gal and Cipolla (2018), one pair a signal group. When the mean
    |d total / d lw0| of an epoch's last step is below `freeze_below`, both are frozen and the
    penalty is dropped.
    """

    def __init__(self, freeze_below: float) -> None:
        self.freeze_below = freeze_below
        self.frozen = False

    def __call__(self, model: Cherimoya, profile: Tensor, count: Tensor) -> Tensor:
        w0, w1 = 0.5 / model.lw0.square(), 0.5 / model.lw1.square()
        total = (w0 * profile).sum() + (w1 * count).sum()
        if self.frozen:
            return total
        return total + model.lw0.log().square().sum() + model.lw1.log().square().sum()

    def weights(self, model: Cherimoya) -> LossWeights:
        """The model's lw0 and lw1."""
        return LossWeights(model.lw0, model.lw1, learned=True, penalty=not self.frozen)

    def end_epoch(self, model: Cherimoya) -> bool:
        """Freeze the weights if they have settled; returns whether they were frozen just now."""
        if self.frozen or model.lw0.grad is None:
            return False
        if model.lw0.grad.abs().mean().item() >= self.freeze_below:
            return False
        self.freeze(model)
        return True

    def freeze(self, model: Cherimoya) -> None:
        """Keep lw0 and lw1 as they are from now on."""
        self.frozen = True
        for weight in (model.lw0, model.lw1):
            weight.requires_grad_(False)
            weight.grad = None


class FixedLoss:
    """sum(profile_weight * profile) + sum(count_weight * count); lw0 and lw1 stay untouched."""

    frozen = True

    def __init__(self, profile_weight: float, count_weight: float) -> None:
        self.profile_weight = profile_weight
        self.count_weight = count_weight

    def __call__(self, model: Cherimoya, profile: Tensor, count: Tensor) -> Tensor:
        return self.profile_weight * profile.sum() + self.count_weight * count.sum()

    def weights(self, model: Cherimoya) -> LossWeights:
        """The two constants, for every group."""
        profile = torch.full_like(model.lw0, self.profile_weight)
        return LossWeights(
            profile, torch.full_like(profile, self.count_weight), learned=False, penalty=False
        )

    def end_epoch(self, model: Cherimoya) -> bool:
        """Never freezes anything."""
        return False


def training_loss(
    loss: Loss, model: Cherimoya, logits: Tensor, log_counts: Tensor, signal: Tensor
) -> LossTerms:
    """The objective of a batch and its parts; shapes as in `profile_and_count_losses`.

    On a GPU by a few fused kernels, elsewhere as `loss` composes it.
    """
    if route(logits.device, torch.float32).conv_norm:
        w = loss.weights(model)
        total, profile, count = fused_training_loss(
            logits, log_counts, signal, w.profile, w.count, model.signal_groups, w.learned,
            w.penalty,
        )  # fmt: skip
    else:
        profile, count = profile_and_count_losses(logits, log_counts, signal, model.signal_groups)
        total = loss(model, profile, count)
    return LossTerms(total, profile.detach(), count.detach())


def build_loss(config: LossConfig, model: Cherimoya) -> Loss:
    """The loss that `loss=...` chose; a fixed one takes lw0 and lw1 out of the training."""
    if config.name == "kendall":
        return KendallLoss(config.freeze_below)
    model.lw0.requires_grad_(False)
    model.lw1.requires_grad_(False)
    return FixedLoss(config.profile_weight, config.count_weight)
