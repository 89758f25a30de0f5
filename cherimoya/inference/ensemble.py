"""Several models, and both strands of the sequence, as one model."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cherimoya.genome.sequence import reverse_complement_tracks
from cherimoya.network import Cherimoya


class Ensemble(nn.Module):
    """One prediction from several models of the same shape, and from both strands if asked.

    Probabilities are averaged, and log counts. The mean of the probabilities is a mixture, whose
    log-likelihood is never below the mean of its members' (Jensen); counts are trained and scored
    by the squared error of log(1 + counts), which the mean of the log counts minimises. One model
    on one strand predicts what it does alone, to the bit.

    Parameters
    ----------
    models : sequence of Cherimoya
        With equal signal groups, control tracks and trimming.
    reverse_complement : bool
        Also predict the reverse complement, turn that back (positions and, within each group,
        channels reversed) and average.
    control_groups : sequence of int, optional
        Channels of each group of control tracks, which swap within it when the strand does; by
        default each track stays itself.

    Raises
    ------
    ValueError
        For no model, models that differ in shape, or in whether they answer with a bias model.
    """

    def __init__(
        self,
        models: Sequence[Cherimoya],
        reverse_complement: bool = False,
        control_groups: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if not models:
            raise ValueError("models is empty: an ensemble has at least one")
        for name in ("signal_groups", "n_control_tracks", "trimming"):
            values = [getattr(model, name) for model in models]
            if any(value != values[0] for value in values):
                raise ValueError(f"the models differ in {name}: {values}")
        if len({m.with_bias for m in models if m.bias_model is not None}) > 1:
            raise ValueError("some of the models answer with their bias model, some without")
        self.models = nn.ModuleList(models)
        self.signal_groups = list(models[0].signal_groups)
        self.n_control_tracks = models[0].n_control_tracks
        self.trimming = models[0].trimming
        self.reverse_complement = reverse_complement
        self.control_groups = list(control_groups or [1] * self.n_control_tracks)
        if sum(self.control_groups) != self.n_control_tracks:
            raise ValueError(
                f"control_groups={self.control_groups} add up to {sum(self.control_groups)}, but "
                f"the models have {self.n_control_tracks} control tracks"
            )

    @property
    def n_parameters(self) -> int:
        """Numbers that were trained, without bias models."""
        members: list[Cherimoya] = list(self.models)  # type: ignore[arg-type]
        return sum(p.numel() for one in members for _, p in one.trained_parameters())

    @property
    def with_bias(self) -> bool | None:
        """Whether the models answer with their bias models; None where they have none."""
        having = [model for model in self.models if model.bias_model is not None]
        return any(model.with_bias for model in having) if having else None

    def forward(self, X: Tensor, X_ctl: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Profile logits (N, tracks, out) and log counts (N, groups), as Cherimoya's.

        The logits of several predictions are logarithms of their mean probabilities.
        """
        predictions = [model(X, X_ctl) for model in self.models]
        if self.reverse_complement:
            X = X.flip(1, 2)  # A C G T reversed is T G C A
            X_ctl = None if X_ctl is None else reverse_complement_tracks(X_ctl, self.control_groups)
            for model in self.models:
                logits, log_counts = model(X, X_ctl)
                predictions.append(
                    (reverse_complement_tracks(logits, self.signal_groups), log_counts)
                )
        if len(predictions) == 1:
            return predictions[0]
        log_p = torch.stack([log_probabilities(f[0], self.signal_groups) for f in predictions])
        log_counts = torch.stack([f[1].float() for f in predictions]).mean(dim=0)
        return log_p.logsumexp(dim=0) - math.log(len(predictions)), log_counts


def log_probabilities(logits: Tensor, groups: Sequence[int]) -> Tensor:
    """The log-softmax of (N, tracks, L) over the channels and positions of each group, fp32."""
    parts = logits.float().split(list(groups), dim=1)
    return torch.cat([g.flatten(1).log_softmax(dim=-1).view(g.shape) for g in parts], dim=1)
