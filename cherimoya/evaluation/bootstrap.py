"""How far the scores would move with other loci of the same kind."""

from collections.abc import Callable

import numpy as np
import torch

from cherimoya.evaluation.scores import Scores
from cherimoya.records.metrics import METRICS

Interval = tuple[float, float]


def intervals(
    scores: Scores,
    n: int,
    confidence: float,
    seed: int,
    tick: Callable[[], object] = lambda: None,
) -> dict[str, Interval]:
    """Percentile bootstrap intervals of each metric (Efron 1979): (low, high), NaN if undefined.

    Peaks and background are drawn again with replacement, each as many as there are, `n` times;
    the interval holds the middle `confidence` of the metric's values. It speaks of the loci that
    might have been scored, not of other trainings of the model. `tick` is called after each.
    """
    rng = np.random.default_rng(seed)
    label = scores.label.numpy()
    classes = [np.flatnonzero(label == value) for value in (1, 0)]
    names = [*dict.fromkeys([*METRICS, *scores.profile])]
    drawn = np.full((n, len(names)), np.nan)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sorting this little is slower on several
    try:
        for i in range(n):
            rows = np.concatenate([c[rng.integers(0, len(c), len(c))] for c in classes if len(c)])
            metrics = scores.take(torch.from_numpy(rows)).metrics()
            drawn[i] = [metrics[name] for name in names]
            tick()
    finally:
        torch.set_num_threads(threads)
    return {name: _middle(drawn[:, j], confidence) for j, name in enumerate(names)}


def _middle(values: np.ndarray, confidence: float) -> Interval:
    known = values[np.isfinite(values)]
    if not len(known):
        return np.nan, np.nan
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
