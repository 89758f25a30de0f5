"""The names of what a run records, and the command that sends what W&B recorded offline."""

import shlex
from pathlib import Path

PROFILE_METRICS = ("profile_mnll", "profile_pearson", "profile_spearman", "profile_jsd")
COUNT_METRICS = ("count_pearson", "count_spearman", "count_mse")
RANKING_METRICS = ("auroc", "auprc")
METRICS = PROFILE_METRICS + COUNT_METRICS + RANKING_METRICS
VALIDATED = ("loss", *METRICS)  # of each epoch; the loss is what picks the best one
LOWER_IS_BETTER = ("loss", "profile_mnll", "profile_jsd", "count_mse")

LOSSES = ("loss", "profile", "count")  # of training
OPTIMIZERS = ("muon", "adamw", "sgd")  # those of a run have a learning rate
PLOTS = ("learning_curves", "counts", "profiles")

STEP, EPOCH = "step", "epoch"
PARAMETERS, TRAIN_SECONDS = "parameters", "train_seconds"  # of the summary at the end
STATUS = "status"  # of W&B's summary: running, done, interrupted or failed
LOCI = "test_loci"  # the table of scores by locus, and its file's name


def train(name: str) -> str:
    """A training loss."""
    return f"train/{name}"


def valid(name: str) -> str:
    """A validation metric of an epoch."""
    return f"valid/{name}"


def rate(optimizer: str) -> str:
    """A learning rate."""
    return f"lr/{optimizer}"


def best(name: str) -> str:
    """In W&B's summary: a validation metric of the best epoch, or that epoch's number."""
    return f"best/{name}"


def extreme(name: str) -> str:
    """In W&B's summary: which end of a validation metric is the best one of all epochs."""
    return "min" if name in LOWER_IS_BETTER else "max"


def best_of(name: str) -> str:
    """In W&B's summary: the best value of a validation metric over all epochs."""
    return f"{valid(name)}.{extreme(name)}"


def plot(name: str) -> str:
    """An image at the end."""
    return f"plots/{name}"


def sync_command(folder: Path, members: bool = False) -> str | None:
    """The command that sends the offline W&B runs in a run's or, with `members`, a sweep's folder.

    None if there is nothing to send. The parts of a run that was resumed arrive as one.
    """
    below = "*/wandb" if members else "wandb"
    runs = [path.parent for path in folder.glob(f"{below}/offline-run-*/*.wandb")]
    if all(list(run.glob("*.wandb.synced")) for run in runs):
        return None
    return f"wandb sync {shlex.quote(str(folder))}/{below}"
