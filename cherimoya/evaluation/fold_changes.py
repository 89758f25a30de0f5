"""How signal groups differ at each locus, once their depths are made equal."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cherimoya import metrics
from cherimoya.data.groups import group_labels
from cherimoya.data.loci import Loci
from cherimoya.evaluation.scores import Scores
from cherimoya.report.format import score
from cherimoya.util.console import table

GENOME, LOCI = "genome", "loci"  # where the depth of a group was counted


def depths_of(loci: Loci) -> tuple[Tensor, str]:
    """How deep each signal group was sequenced, (G,) counts, and where they were counted.

    On the whole genome, where its preparation noted that, else in the windows of all loci.
    """
    if loci.group_depths:
        return torch.tensor(loci.group_depths, dtype=torch.float64), GENOME
    return torch.from_numpy(loci.totals().sum(axis=0)), LOCI


def fold_changes(log_counts: Tensor, depths: Tensor) -> Tensor:
    """log2 fold change of each group's counts against the other groups: (n, G) float64.

    log_counts (n, G): log(1 + counts). Counts are scaled to the mean of `depths` (G,), so that a
    group that was sequenced deeper is not higher everywhere; then log2 of counts + 1, less the mean
    of that over the other groups. Of two groups, it is the log2 ratio of one and the other.
    """
    counts = torch.expm1(log_counts.double()).clamp_min(0)
    scaled = torch.log1p(counts * (depths.mean() / depths.clamp_min(1))) / math.log(2)
    n = scaled.shape[1]
    return (scaled - scaled.mean(dim=1, keepdim=True)) * (n / (n - 1))


def fold_change_scores(scores: Scores, loci: Loci) -> dict[str, Any]:
    """Observed and predicted fold changes over the peaks, by group, as JSON-ready values.

    pearson: their correlation; rmse: root mean square error, in log2 units; observed_sd: of the
    observed ones, which is the rmse of a prediction without differences between groups, about
    """
    depths, where = depths_of(loci)
    peak = scores.label == 1
    observed = fold_changes(scores.observed_log_counts[peak], depths)
    predicted = fold_changes(scores.log_counts[peak], depths)
    rows = [
        {
            "name": name,
            "depth": depths[g].item(),
            "pearson": metrics.pearson(predicted[:, g], observed[:, g]).item(),
            "rmse": metrics.mean_squared_error(predicted[:, g], observed[:, g]).sqrt().item(),
            "observed_sd": observed[:, g].std(correction=0).item(),
        }
        for g, name in enumerate(group_labels(loci))
    ]
    return {"depth_of": where, "groups": rows}


def group_table(values: Mapping[str, Any]) -> str:
    """The scores of each signal group, and of how it differs from the others."""
    header = ["signal group", "depth", "profile Pearson", "count Pearson", "fold change Pearson"]
    rows = [
        [
            differs["name"],
            f"{differs['depth']:,.0f}",
            *(score(scored["model"][name]) for name in ("profile_pearson", "count_pearson")),
            score(differs["pearson"]),
        ]
        for scored, differs in zip(values["groups"], values["fold_changes"]["groups"], strict=True)
    ]
    return table(header, rows)
