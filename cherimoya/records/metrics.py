"""How the metrics are called, in what unit, and which way is better."""

import math
from dataclasses import dataclass

from cherimoya.records.logged import LOWER_IS_BETTER, RANKING_METRICS


@dataclass(frozen=True)
class MetricInfo:
    """How a metric is called in prose and on an axis, and what it measures."""

    label: str
    unit: str = ""
    meaning: str = ""

    @property
    def axis(self) -> str:
        """The label of an axis, with its unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


METRIC_INFO = {
    "loss": MetricInfo("loss", "nats a locus", "profile MNLL + a fixed weight x count error"),
    "profile_mnll": MetricInfo(
        "profile MNLL",
        "nats a locus",
        "multinomial negative log-likelihood of the observed profile",
    ),
    "profile_pearson": MetricInfo(
        "profile Pearson", "r", "observed and predicted profile of a peak, at 1 bp; mean over peaks"
    ),
    "profile_spearman": MetricInfo("profile Spearman", "rho", "the same of ranks"),
    "profile_jsd": MetricInfo(
        "profile JS distance", "0 to 0.83", "Jensen-Shannon distance of the profiles, natural log"
    ),
    "count_pearson": MetricInfo(
        "count Pearson", "r", "observed and predicted log(1 + counts) of the peaks"
    ),
    "count_spearman": MetricInfo("count Spearman", "rho", "the same of ranks"),
    "count_mse": MetricInfo(
        "count error", "squared log counts", "mean squared error of log(1 + counts) of the peaks"
    ),
    "auroc": MetricInfo("AUROC", "0 to 1", "peaks against background, by predicted counts"),
    "auprc": MetricInfo("AUPRC", "0 to 1", "the same, average precision"),
}


def higher_is_better(name: str) -> bool:
    """Whether more of the metric is better."""
    return name not in LOWER_IS_BETTER


def share_of_ceiling(
    name: str, value: float | None, ceiling: float | None, constant: float | None
) -> float | None:
    """The way from chance to the ceiling that was gone, in percent.

    constant: the score of one prediction for all loci, which is chance for a ranking (0.5 for
    AUROC); for a correlation chance is 0

    None for an error, which has no scale, for a score no better than chance, and where a score
    is not known.
    """
    chance = constant if name in RANKING_METRICS else 0.0
    known = [v for v in (value, ceiling, chance) if v is not None and not math.isnan(v)]
    if not higher_is_better(name) or len(known) < 3:
        return None
    value, ceiling, chance = known
    return 100 * (value - chance) / (ceiling - chance) if min(value, ceiling) > chance else None
