"""The metrics: name, label, unit, meaning, direction; and the keys that a run logs them under."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class MetricInfo:
    """What a metric is called on a page and an axis, what it measures, and which way is better."""

    label: str
    unit: str
    meaning: str
    higher_is_better: bool = True

    @property
    def axis(self) -> str:
        """The label of an axis, with its unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


METRIC_INFO = {
    "loss": MetricInfo(
        "loss", "nats a locus", "profile MNLL + a fixed weight x count error", False
    ),
    "profile_mnll": MetricInfo(
        "profile MNLL",
        "nats a locus",
        "multinomial negative log-likelihood of the observed profile",
        False,
    ),
    "profile_pearson": MetricInfo(
        "profile Pearson", "r", "observed and predicted profile of a peak, at 1 bp; mean over peaks"
    ),
    "profile_spearman": MetricInfo("profile Spearman", "rho", "the same of ranks"),
    "profile_jsd": MetricInfo(
        "profile JS distance",
        "0 to 0.83",
        "Jensen-Shannon distance of the profiles, natural log",
        False,
    ),
    "count_pearson": MetricInfo(
        "count Pearson", "r", "observed and predicted log(1 + counts) of the peaks"
    ),
    "count_spearman": MetricInfo("count Spearman", "rho", "the same of ranks"),
    "count_mse": MetricInfo(
        "count error",
        "squared log counts",
        "mean squared error of log(1 + counts) of the peaks",
        False,
    ),
    "auroc": MetricInfo("AUROC", "0 to 1", "peaks against background, by predicted counts"),
    "auprc": MetricInfo("AUPRC", "0 to 1", "the same, average precision"),
}
VALIDATED = tuple(METRIC_INFO)  # of each epoch; the loss is what picks the best one
METRICS = VALIDATED[1:]
PROFILE_METRICS = tuple(name for name in METRICS if name.startswith("profile_"))
RANKING_METRICS = ("auroc", "auprc")


def metric_info(name: str) -> MetricInfo:
    """What is known of a metric: of the user's own (the group metrics) its name alone."""
    return METRIC_INFO.get(name) or MetricInfo(name, "", "a metric of your own")


LOSSES = ("loss", "profile", "count")  # of training
OPTIMIZERS = ("muon", "adamw", "sgd")  # those of a run have a learning rate
PLOTS = ("learning_curves", "counts", "profiles")

# A row of an epoch has train/<loss>, valid/<metric>, lr/<optimizer>, and loss/<what it says of
# itself>; an image is plots/<plot>.
STEP, EPOCH = "step", "epoch"
PARAMETERS, TRAIN_SECONDS = "parameters", "train_seconds"  # of the summary at the end
STATUS = "status"  # of W&B's summary: running, done, interrupted or failed
LOCI = "test_loci"  # the table of scores by locus, and its file's name


def best_key(name: str) -> str:
    """In W&B's summary: a validation metric of the best epoch, or that epoch's number."""
    return f"best/{name}"


def extreme(name: str) -> str:
    """In W&B's summary: which end of a validation metric is the best one of all epochs."""
    return "max" if METRIC_INFO[name].higher_is_better else "min"


def extreme_key(name: str) -> str:
    """In W&B's summary: the best value of a validation metric over all epochs."""
    return f"valid/{name}.{extreme(name)}"


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
    if not metric_info(name).higher_is_better or len(known) < 3:
        return None
    value, ceiling, chance = known
    return 100 * (value - chance) / (ceiling - chance) if min(value, ceiling) > chance else None
