"""Predictions on the loci of a split, and the metrics of training: profile, counts, peaks."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cherimoya import metrics
from cherimoya.data.feed import Source
from cherimoya.distributed.processes import Processes
from cherimoya.evaluation.own_metrics import Metric, own_score
from cherimoya.inference.cuda_graph import CUDAGraphModel
from cherimoya.inference.predictor import evaluating, predict_batch
from cherimoya.network import Cherimoya
from cherimoya.records.metrics import PROFILE_METRICS
from cherimoya.util import console


@dataclass(frozen=True)
class Scores:
    """Per-locus results, from which every metric follows.

    profile: metric name to (n, n_groups) float64, NaN where undefined; log_counts and
    observed_log_counts: (n, n_groups) of log(1 + counts); label: (n,) 1 peak, 0 background.
    """

    profile: dict[str, Tensor]
    log_counts: Tensor
    observed_log_counts: Tensor
    label: Tensor

    def take(self, rows: Tensor) -> "Scores":
        """The scores of the loci at `rows`, a mask or numbers of rows."""
        return self._map(lambda values: values[rows], self.label[rows])

    def group(self, g: int) -> "Scores":
        """The scores of signal group `g` alone."""
        return self._map(lambda values: values[:, g : g + 1], self.label)

    def _map(self, change: Callable[[Tensor], Tensor], label: Tensor) -> "Scores":
        profile = {name: change(values) for name, values in self.profile.items()}
        return Scores(profile, change(self.log_counts), change(self.observed_log_counts), label)

    def metrics(self) -> dict[str, float]:
        """Metrics by name, averaged over signal groups; NaN where undefined.

        Profile metrics are means over peaks that have counts, count metrics are over peaks, and
        AUROC and AUPRC rank peaks against background by the predicted counts of all groups.
        """
        peak = self.label == 1
        result = {
            name: values[peak].nanmean(dim=0).nanmean().item()
            for name, values in self.profile.items()
        }
        x, y = self.log_counts[peak].double(), self.observed_log_counts[peak].double()
        for name, function in (
            ("count_pearson", metrics.pearson),
            ("count_spearman", metrics.spearman),
            ("count_mse", metrics.mean_squared_error),
        ):
            groups = [function(x[:, g], y[:, g]) for g in range(x.shape[1])]
            result[name] = torch.stack(groups).nanmean().item()
        # In fp32 those of equal whole counts are equal, whose logs may differ in their last bits.
        total = torch.expm1(self.log_counts.double()).sum(dim=1).float()
        result["auroc"] = metrics.auroc(total, self.label).item()
        result["auprc"] = metrics.auprc(total, self.label).item()
        return result


def score_profiles(
    p: Tensor, counts: Tensor, signal_groups: list[int], log_counts: Tensor, label: Tensor
) -> Scores:
    """Scores of a prediction without a network: a truth or a baseline.

    p, counts (n, tracks, L): expected and observed signal; log_counts (n, n_groups).
    """
    # A floor far below one read keeps the log-likelihood finite where nothing is expected.
    logits = p.double().clamp(min=1e-12).log()
    return Scores(
        profile=_profile_metrics(logits, p, counts, signal_groups),
        log_counts=log_counts,
        observed_log_counts=log_totals(counts, signal_groups),
        label=label,
    )


@torch.no_grad()
def evaluate(
    predict: CUDAGraphModel,
    source: Source,
    rows: np.ndarray,
    label: np.ndarray,
    batch_size: int,
    precision: str,
    processes: Processes | None = None,
    label_of_progress: str | None = None,
    more: Mapping[str, Metric] | None = None,
) -> Scores:
    """Score a network's predictions of the loci at `rows`: centred windows, forward strand.

    Several processes share the loci; each gets all the scores. The network is left in the mode it
    was in. With a label, progress is shown. `more` are further metrics of the profile.
    """
    more = more or {}
    model: Cherimoya = predict.model  # type: ignore[assignment]
    groups = model.signal_groups
    processes = processes or Processes()
    share = np.array_split(rows, processes.world)[processes.rank]
    own = share if len(share) else rows[:1]  # of which nothing is kept
    parts: list[dict[str, Tensor]] = []
    with evaluating(model):
        starts: Iterable[int] = range(0, len(own), batch_size)
        if label_of_progress:
            starts = console.track(starts, label_of_progress, -(-len(own) // batch_size), "batch")
        for start in starts:
            batch = source.centred(own[start : start + batch_size])
            logits, log_counts = predict_batch(predict, batch.X, batch.control, precision)
            p = metrics.group_softmax(logits, groups)
            scored = _profile_metrics(logits, p, batch.signal, groups)
            scored |= {k: own_score(k, m, p, batch.signal, groups) for k, m in more.items()}
            totals = {"log_counts": log_counts, "observed": log_totals(batch.signal, groups)}
            parts.append(scored | totals)
    kept = slice(len(share))
    joined = {name: torch.cat([part[name] for part in parts])[kept].cpu() for name in parts[0]}
    shares = processes.gathered(joined)
    whole = {name: torch.cat([share[name] for share in shares]) for name in joined}
    return Scores(
        profile={name: whole[name] for name in (*PROFILE_METRICS, *more)},
        log_counts=whole["log_counts"],
        observed_log_counts=whole["observed"],
        label=torch.from_numpy(label[rows].astype(np.int64)),
    )


def _profile_metrics(
    logits: Tensor, p: Tensor, counts: Tensor, groups: list[int]
) -> dict[str, Tensor]:
    return {
        "profile_mnll": metrics.profile_mnll(logits, counts, groups).double(),
        "profile_pearson": metrics.profile_pearson(p, counts, groups),
        "profile_spearman": metrics.profile_spearman(p, counts, groups),
        "profile_jsd": metrics.profile_jsd(p, counts, groups),
    }


def log_totals(counts: Tensor, groups: list[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """log(1 + counts) (n, n_groups) of signal (n, tracks, L)."""
    totals = [k.sum(dim=(1, 2)) for k in counts.split(groups, dim=1)]
    return torch.log1p(torch.stack(totals, dim=1).to(dtype))
