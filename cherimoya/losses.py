"""The multinomial profile loss, the log count loss, and how the two are weighed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor

from cherimoya.config.train import LossConfig
from cherimoya.metrics import multinomial_nll
from cherimoya.network import Cherimoya
from cherimoya.ops.dispatch import route
from cherimoya.ops.loss.op import training_loss as fused_training_loss


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

    def __post_init__(self) -> None:
        if self.penalty and not self.learned:
            raise ValueError("a penalty is on learned weights only")


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
    """Combines the two losses of a batch into the objective; may change between epochs."""

    frozen: bool

    def __call__(self, model: Cherimoya, profile: Tensor, count: Tensor) -> Tensor:
        """The objective () of both losses, (n_groups,) each."""
        ...

    def end_epoch(self, model: Cherimoya) -> bool:
        """Look at an epoch's last gradients; returns whether the loss froze its weights now."""
        ...


class WeightedLoss:
    """A loss that is its `weights` times both losses, which the fused kernels can compute too.

    A subclass says other weights. One with a `__call__` of its own is called, on every device.
    """

    frozen = True

    def weights(self, model: Cherimoya) -> LossWeights:
        """How the losses of each signal group are weighed."""
        raise NotImplementedError

    def __call__(self, model: Cherimoya, profile: Tensor, count: Tensor) -> Tensor:
        """sum(v0 profile) + sum(v1 count), and the penalty of learned weights if there is one."""
        w = self.weights(model)
        v0, v1 = (0.5 / v.square() if w.learned else v for v in (w.profile, w.count))
        total = (v0 * profile).sum() + (v1 * count).sum()
        if not w.penalty:
            return total
        return total + w.profile.log().square().sum() + w.count.log().square().sum()

    def end_epoch(self, model: Cherimoya) -> bool:
        """Never freezes anything."""
        return False


class KendallLoss(WeightedLoss):
    """sum(w0 profile) + sum(w1 count) + sum(log(lw0)^2) + sum(log(lw1)^2), w = 1 / (2 lw^2).

    Learned weights after Kendall, Gal and Cipolla (2018), one pair a signal group. When the mean
    |d total / d lw0| of an epoch's last step is below `freeze_below`, both are frozen and the
    penalty is dropped.
    """

    def __init__(self, freeze_below: float) -> None:
        self.freeze_below = freeze_below
        self.frozen = False

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


class FixedLoss(WeightedLoss):
    """sum(profile_weight * profile) + sum(count_weight * count); lw0 and lw1 stay untouched."""

    def __init__(self, profile_weight: float, count_weight: float) -> None:
        self.profile_weight = profile_weight
        self.count_weight = count_weight

    def weights(self, model: Cherimoya) -> LossWeights:
        """The two constants, for every group."""
        profile = torch.full_like(model.lw0, self.profile_weight)
        return LossWeights(
            profile, torch.full_like(profile, self.count_weight), learned=False, penalty=False
        )


def training_loss(
    loss: Loss, model: Cherimoya, logits: Tensor, log_counts: Tensor, signal: Tensor
) -> LossTerms:
    """The objective of a batch and its parts; shapes as in `profile_and_count_losses`.

    On a GPU by a few fused kernels where they compute what `loss` does, else as it composes it.
    """
    if route(logits.device, torch.float32).conv_norm and _is_weighted(loss):
        w = loss.weights(model)
        total, profile, count = fused_training_loss(
            logits, log_counts, signal, w.profile, w.count, model.signal_groups, w.learned,
            w.penalty,
        )  # fmt: skip
    else:
        profile, count = profile_and_count_losses(logits, log_counts, signal, model.signal_groups)
        total = loss(model, profile, count)
    return LossTerms(total, profile.detach(), count.detach())


def _is_weighted(loss: Loss) -> TypeGuard[WeightedLoss]:
    """Whether the weights say all that the loss does."""
    return type(loss).__call__ is WeightedLoss.__call__


def build_loss(config: LossConfig, model: Cherimoya) -> Loss:
    """The loss that `loss=...` chose; a fixed one takes lw0 and lw1 out of the training."""
    if config.name == "kendall":
        return KendallLoss(config.freeze_below)
    model.lw0.requires_grad_(False)
    model.lw1.requires_grad_(False)
    return FixedLoss(config.profile_weight, config.count_weight)
