"""Scores of predictions, by numpy alone, and how sure a difference between two of them is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000


@dataclass(frozen=True)
class Prediction:
    """p (n, tracks, L), probabilities of the whole locus; log_counts (n,), log(1 + reads)."""

    p: np.ndarray
    log_counts: np.ndarray


def mean_of(predictions: Sequence[Prediction]) -> Prediction:
    """The prediction of an ensemble: mean probabilities and mean log counts."""
    return Prediction(
        np.mean([one.p for one in predictions], axis=0),
        np.mean([one.log_counts for one in predictions], axis=0),
    )


def pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's r over the last axis; NaN where one of them does not vary."""
    x = x - x.mean(axis=-1, keepdims=True)
    y = y - y.mean(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (x * y).sum(-1) / np.sqrt((x * x).sum(-1) * (y * y).sum(-1))


def profile_pearson(p: np.ndarray, signal: np.ndarray) -> np.ndarray:
    """(n,) Pearson's r at 1 bp over all tracks of a locus together."""
    return pearson(p.reshape(len(p), -1).astype(float), signal.reshape(len(p), -1).astype(float))


def auroc(score: np.ndarray, label: np.ndarray) -> float:
    """Chance that a peak has a higher score than background; ties count half."""
    order = np.sort(score[label == 0])
    peaks = score[label == 1]
    below = np.searchsorted(order, peaks, "left") + np.searchsorted(order, peaks, "right")
    return float(below.mean() / 2 / len(order))


def scores(prediction: Prediction, signal: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """Profile and counts over peaks alone, AUROC of peaks against background."""
    peak = label == 1
    y = np.log1p(signal[peak].sum(axis=(1, 2)))
    x = prediction.log_counts[peak].astype(float)
    return {
        "profile_pearson": float(np.nanmean(profile_pearson(prediction.p[peak], signal[peak]))),
        "count_pearson": float(pearson(x, y)),
        "count_mse": float(((x - y) ** 2).mean()),
        "auroc": auroc(prediction.log_counts, label),
    }


def differences(
    ours: Sequence[Prediction], theirs: Sequence[Prediction], signal: np.ndarray, label: np.ndarray
) -> dict[str, tuple[float, float, float]]:
    """Mean score of ours less that of theirs, with the 95 % interval of a bootstrap over peaks.

    The scores of each model are those of the same peaks in every resample.
    """
    peak = label == 1
    y = np.log1p(signal[peak].sum(axis=(1, 2)))
    rows = np.random.default_rng(0).integers(len(y), size=(RESAMPLES, len(y)))

    def of(models: Sequence[Prediction], score: Callable[[Prediction], np.ndarray]) -> np.ndarray:
        return np.mean([score(model) for model in models], axis=0)

    def profile(model: Prediction) -> np.ndarray:
        r = profile_pearson(model.p[peak], signal[peak])
        return np.append(np.nanmean(r), np.nanmean(r[rows], axis=1))

    def counts(model: Prediction) -> np.ndarray:
        x = model.log_counts[peak].astype(float)
        return np.append(pearson(x, y), pearson(x[rows], y[rows]))

    result = {}
    for name, score in (("profile_pearson", profile), ("count_pearson", counts)):
        gain = of(ours, score) - of(theirs, score)
        low, high = np.quantile(gain[1:], [0.025, 0.975])
        result[name] = float(gain[0]), float(low), float(high)
    return result
