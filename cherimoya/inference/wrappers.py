"""A model as a module with one tensor out, as attribution and design tools take it.

tangermeme, captum and the like call `model(X)` and differentiate or compare what comes back. The
names and numbers are those of bpnet-lite and upstream; where there are several signal groups, each
has its own distribution here, as in the loss, and a column of its own.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cherimoya.metrics import group_softmax


class _Wrapper(nn.Module):
    """Knows what it wraps: a Cherimoya, an Ensemble or a ControlWrapper."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    @property
    def signal_groups(self) -> list[int]:
        """Channels of each signal group."""
        return list(self.model.signal_groups)


class ControlWrapper(_Wrapper):
    """Gives the model control tracks of zeros where it needs some and none are given.

    What it returns is the model's own pair, so it goes inside one of the other wrappers, as in
    bpnet-lite: `LogCountWrapper(ControlWrapper(model))`.
    """

    @property
    def n_control_tracks(self) -> int:
        """Control tracks of the model."""
        return int(self.model.n_control_tracks)

    def forward(self, X: Tensor, X_ctl: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Profile logits and log counts of X (N, 4, L), with zeros for an X_ctl that is missing."""
        if X_ctl is None and self.n_control_tracks:
            X_ctl = X.new_zeros(X.shape[0], self.n_control_tracks, X.shape[2])
        return self.model(X, X_ctl)


class WeightedLogits(nn.Module):
    """logits (N, K) times their softmax: the one non-linear step of ProfileWrapper.

    A module of its own, so that a tool that replaces gradients by rules of its own, such as
    DeepLIFT in tangermeme, can be told of it: `additional_nonlinear_ops={WeightedLogits: ...}`.
    """

    def __init__(self, detach: bool) -> None:
        super().__init__()
        self.detach = detach

    def forward(self, logits: Tensor) -> Tensor:
        """(N, K)."""
        weights = logits.softmax(dim=-1)
        return logits * (weights.detach() if self.detach else weights)


class ProfileWrapper(_Wrapper):
    """The profile as one number for each signal group: what its attributions explain is the shape.

    sum_k softmax(z)_k z_k, where z are the logits of all channels and positions of the group less
    their mean, so that nothing depends on an offset that the softmax does not see. Its gradient is
    that of the number, softmax and all, as in bpnet-lite, upstream and cherimoya-attribute;
    `detach=True` takes the softmax for a constant, as BPNet did (Avsec et al. 2021, Methods,
    "profile contribution scores"), and leaves the number as it is. For one signal group it is
    upstream's; upstream has one softmax over all groups.

    Parameters
    ----------
    model : nn.Module
        A Cherimoya, an Ensemble or a ControlWrapper.
    detach : bool
        Whether the weights are constants for gradients.
    """

    def __init__(self, model: nn.Module, detach: bool = False) -> None:
        super().__init__(model)
        self.weighted = WeightedLogits(detach)

    def forward(self, X: Tensor, X_ctl: Tensor | None = None) -> Tensor:
        """(N, n_groups)."""
        logits, _ = self.model(X, X_ctl)
        columns = []
        for group in logits.float().split(self.signal_groups, dim=1):
            z = group.flatten(1)
            columns.append(self.weighted(z - z.mean(dim=-1, keepdim=True)).sum(dim=-1))
        return torch.stack(columns, dim=1)


class LogCountWrapper(_Wrapper):
    """The predicted log(1 + counts) of each signal group."""

    def forward(self, X: Tensor, X_ctl: Tensor | None = None) -> Tensor:
        """(N, n_groups)."""
        return self.model(X, X_ctl)[1]


class ExpectedCountsWrapper(_Wrapper):
    """The expected counts at each base: see `expected_counts`."""

    def forward(self, X: Tensor, X_ctl: Tensor | None = None) -> Tensor:
        """(N, tracks, out_window)."""
        logits, log_counts = self.model(X, X_ctl)
        return expected_counts(logits, log_counts, self.signal_groups)


def expected_counts(logits: Tensor, log_counts: Tensor, signal_groups: Sequence[int]) -> Tensor:
    """Expected counts (N, tracks, L), which add up to each group's predicted counts.

    exp(log_counts) - 1, since counts are predicted as log(1 + counts), times the softmax over the
    channels and positions of the group; below zero where the log counts are, as upstream's.
    logits (N, tracks, L), log_counts (N, n_groups).
    """
    groups = list(signal_groups)
    sizes = torch.tensor(groups, device=log_counts.device)
    counts = torch.expm1(log_counts.float())
    counts = counts.repeat_interleave(sizes, dim=1, output_size=sum(groups))
    return group_softmax(logits.float(), groups) * counts[:, :, None]
