"""The objectives of training, and what one of your own begins with."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cherimoya.config import options
from cherimoya.config.schema import Choice
from cherimoya.errors import OwnError
from cherimoya.metrics import multinomial_nll
from cherimoya.network import Cherimoya
from cherimoya.ops.dispatch import route
from cherimoya.ops.loss.op import training_loss as fused_training_loss
from cherimoya.registry import own_classes


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


class Loss(nn.Module):
    """An objective, with state if it needs some: parameters of its own are trained too.

    A subclass gives `forward`, and its settings, if it has any, as a dataclass `Settings`, whose
    fields are keyword arguments of its `__init__`.
    """

    frozen = False  # whether what it learns is kept as it is from now on

    def begin(self, model: Cherimoya) -> None:
        """Make the model ready for this loss; before the optimizers take its parameters.

        The model's own loss weights `lw0` and `lw1` are not trained unless a loss says so.
        """
        model.lw0.requires_grad_(False)
        model.lw1.requires_grad_(False)

    def forward(
        self, model: Cherimoya, logits: Tensor, log_counts: Tensor, signal: Tensor
    ) -> LossTerms | Tensor:
        """The objective of a batch, and its parts; shapes as in `profile_and_count_losses`.

        The objective () alone will do: its parts are only logged.
        """
        raise NotImplementedError

    def end_epoch(self, model: Cherimoya) -> bool:
        """Look at an epoch's last gradients; returns whether the loss froze its weights now."""
        return False

    def logged(self, model: Cherimoya) -> dict[str, float]:
        """What an epoch's row says of the loss itself, by names that get `loss/` before them."""
        return {}

    def freeze(self, model: Cherimoya) -> None:
        """Keep what it learns as it is from now on."""
        self.frozen = True


class WeightedLoss(Loss):
    """A loss that is its `weights` times both losses, which the fused kernels can compute too.

    A subclass says other weights, or another `objective` of both losses, which then is what
    counts, on every device.
    """

    def weights(self, model: Cherimoya) -> LossWeights:
        """How the losses of each signal group are weighed."""
        raise NotImplementedError

    def objective(self, model: Cherimoya, profile: Tensor, count: Tensor) -> Tensor:
        """sum(v0 profile) + sum(v1 count), and the penalty of learned weights if there is one.

        profile, count (n_groups,) -> ()
        """
        w = self.weights(model)
        v0, v1 = (0.5 / v.square() if w.learned else v for v in (w.profile, w.count))
        total = (v0 * profile).sum() + (v1 * count).sum()
        if not w.penalty:
            return total
        return total + w.profile.log().square().sum() + w.count.log().square().sum()

    def forward(
        self, model: Cherimoya, logits: Tensor, log_counts: Tensor, signal: Tensor
    ) -> LossTerms:
        """By a few fused kernels where they run and compute what `objective` says."""
        kernels = route(logits.device, torch.float32).conv_norm
        if kernels and type(self).objective is WeightedLoss.objective:
            w = self.weights(model)
            total, profile, count = fused_training_loss(
                logits, log_counts, signal, w.profile, w.count, model.signal_groups, w.learned,
                w.penalty,
            )  # fmt: skip
        else:
            groups = model.signal_groups
            profile, count = profile_and_count_losses(logits, log_counts, signal, groups)
            total = self.objective(model, profile, count)
        return LossTerms(total, profile.detach(), count.detach())


class KendallLoss(WeightedLoss):
    """sum(w0 profile) + sum(w1 count) + sum(log(lw0)^2) + sum(log(lw1)^2), w = 1 / (2 lw^2).

    Learned weights after Kendall, Gal and Cipolla (2018), one pair a signal group. When the mean
    |d total / d lw0| of an epoch's last step is below `freeze_below`, both are frozen and the
    penalty is dropped.

    By AdamW with a decay of 0.2 that never comes to pass: the decay keeps lw0 below 1 / 0.2 = 5,
    where the gradient, 2 log(lw0) / lw0 - profile / lw0^3, is below -1 for any profile loss over
    205, and at 0.004 a step it takes a thousand steps to get there. By SGD it does
    within an epoch or two, short of the balance lw0^2 log(lw0) = profile / 2: of a profile loss of
    490 at lw0 = 7 in place of 10.

    `freeze_share` asks each lw0 and lw1 of each group by itself: it is kept as it is once its
    gradient is at most this share of the sum of its two opposing parts. When all are, the penalty
    is dropped.
    """

    Settings = options.Kendall
    kept: Tensor  # (2, n_groups), with `freeze_share`: what is frozen of lw0 and lw1, else NaN

    def __init__(self, freeze_below: float, freeze_share: float | None = None) -> None:
        super().__init__()
        self.freeze_below, self.freeze_share = freeze_below, freeze_share

    def begin(self, model: Cherimoya) -> None:
        """lw0 and lw1 are trained."""
        if self.freeze_share is not None:
            none = torch.full((2, len(model.lw0)), torch.nan, device=model.lw0.device)
            self.register_buffer("kept", none)

    def weights(self, model: Cherimoya) -> LossWeights:
        """The model's lw0 and lw1."""
        w0: Tensor = model.lw0
        w1: Tensor = model.lw1
        if self.freeze_share is not None and not self.frozen:
            w0, w1 = (
                torch.where(kept.isnan(), w, kept)
                for w, kept in zip((w0, w1), self.kept, strict=True)
            )
        return LossWeights(w0, w1, learned=True, penalty=not self.frozen)

    def logged(self, model: Cherimoya) -> dict[str, float]:
        """lw0 and lw1 of each group, their gradients in the last step, and how many are frozen."""
        w = self.weights(model)
        found: dict[str, float] = {}
        for name, values in (("lw0", w.profile), ("lw1", w.count)):
            grad = getattr(model, name).grad
            for g, value in enumerate(values.tolist()):
                key = name if len(values) == 1 else f"{name}_{g}"
                found[key] = value
                found[f"{key}_gradient"] = math.nan if grad is None else float(grad[g])
        if self.freeze_share is not None and not self.frozen:
            return found | {"frozen": int(self.kept.isfinite().sum())}
        return found | {"frozen": 2 * len(model.lw0) * self.frozen}

    def end_epoch(self, model: Cherimoya) -> bool:
        """Freeze the weights if they have settled; returns whether they were frozen just now."""
        if self.frozen or model.lw0.grad is None:
            return False
        if self.freeze_share is not None:
            settled = self._keep_settled(model, self.freeze_share)
        else:
            settled = model.lw0.grad.abs().mean().item() < self.freeze_below
        if settled:
            self.freeze(model)
        return settled

    @torch.no_grad()
    def _keep_settled(self, model: Cherimoya, share: float) -> bool:
        """Keep each weight that has settled; returns whether now all are."""
        w = torch.stack([model.lw0, model.lw1])
        gradient = torch.stack([model.lw0.grad, model.lw1.grad])  # type: ignore[list-item]
        penalty = 2 * w.log() / w
        parts = penalty.abs() + (penalty - gradient).abs()
        settles = self.kept.isnan() & (gradient.abs() <= share * parts)
        self.kept.copy_(torch.where(settles, w, self.kept))
        if self.kept.isnan().any():
            return False
        model.lw0.copy_(self.kept[0])
        model.lw1.copy_(self.kept[1])
        return True

    def freeze(self, model: Cherimoya) -> None:
        """Keep lw0 and lw1 as they are from now on."""
        self.frozen = True
        for weight in (model.lw0, model.lw1):
            weight.requires_grad_(False)
            weight.grad = None


class FixedLoss(WeightedLoss):
    """sum(profile_weight * profile) + sum(count_weight * count); lw0 and lw1 stay untouched."""

    Settings = options.Fixed
    frozen = True

    def __init__(self, profile_weight: float, count_weight: float) -> None:
        super().__init__()
        self.profile_weight = profile_weight
        self.count_weight = count_weight

    def weights(self, model: Cherimoya) -> LossWeights:
        """The two constants, for every group."""
        profile = torch.full_like(model.lw0, self.profile_weight)
        return LossWeights(
            profile, torch.full_like(profile, self.count_weight), learned=False, penalty=False
        )


class PoissonLoss(Loss):
    """Negative log-likelihood of a Poisson at every base, in nats: one term, without weights.

    The rate of base i of a signal group is p_i exp(y), with p its profile and y its log(1 +
    counts); the observation is k_i + p_i, one read more in all, spread as p, for y predicts
    log(1 + n) of n reads. Summed over a group, with constants of k alone and without the entropy
    of p: exp(y) - (n + 1) y - sum_i k_i log p_i + sum_i log k_i!.
    """

    frozen = True

    def forward(
        self, model: Cherimoya, logits: Tensor, log_counts: Tensor, signal: Tensor
    ) -> LossTerms:
        """The sum over signal groups of the mean over examples."""
        groups = model.signal_groups
        profile, count = profile_and_count_losses(logits, log_counts, signal, groups)
        y = log_counts.to(profile.dtype)
        totals = [k.sum(dim=(1, 2), dtype=y.dtype) for k in signal.split(list(groups), 1)]
        n = torch.stack(totals, dim=1)  # (N, n_groups)
        # The multinomial has - log n! more than the bases' terms.
        rate = y.exp() - (n + 1) * y + torch.lgamma(n + 1)
        total = (profile + rate.mean(dim=0)).sum()
        return LossTerms(total, profile.detach(), count.detach())


def training_loss(
    loss: Loss, model: Cherimoya, logits: Tensor, log_counts: Tensor, signal: Tensor
) -> LossTerms:
    """The objective of a batch and its parts; shapes as in `profile_and_count_losses`."""
    terms: LossTerms | Tensor = loss(model, logits, log_counts, signal)
    total = terms.total if isinstance(terms, LossTerms) else terms
    if not isinstance(total, Tensor) or total.shape != ():
        got = f"shape {tuple(total.shape)}" if isinstance(total, Tensor) else type(total).__name__
        raise OwnError(
            f"{_named(loss)} returned {got}: expected LossTerms, or the objective as a tensor of "
            "one number."
        )
    if isinstance(terms, LossTerms):
        return terms
    with torch.no_grad():
        parts = profile_and_count_losses(logits, log_counts, signal, model.signal_groups)
    return LossTerms(total, *parts)


def logged_values(loss: Loss, model: Cherimoya) -> dict[str, float]:
    """What `loss` says of itself. Raises OwnError for what are no numbers."""
    values = loss.logged(model)
    found = [*values.values()] if isinstance(values, dict) else [values]
    wrong = [v for v in found if not isinstance(values, dict) or not isinstance(v, (int, float))]
    if wrong:
        raise OwnError(
            f"{_named(loss)}.logged(model) returned {type(wrong[0]).__name__}"
            f"{' among its values' if isinstance(values, dict) else ''}: expected a dict of "
            "numbers, such as float(self.scale)."
        )
    return values


def _named(loss: Loss) -> str:
    kind = type(loss)
    return f"{own_classes.get(kind, 'the loss')}: {kind.__name__}"


def build_loss(chosen: Choice, model: Cherimoya) -> Loss:
    """The loss that `loss=...` chose, and the model made ready for it."""
    loss: Loss = chosen.make()
    loss.begin(model)
    return loss.to(model.lw0.device)
