"""What a score is to be compared with: the average profile below, the known truth above."""

import numpy as np
import torch
from torch import Tensor

from cherimoya.data.dataset import Dataset
from cherimoya.evaluation.scores import Scores, log_totals, score_profiles


def average_profile(dataset: Dataset, split: str) -> Scores:
    """Every locus predicted to look like the average training peak, with its average count."""
    groups = dataset.loci.signal_groups
    train = centred_signal(dataset, dataset.peaks("train"))
    mean = train.mean(dim=0)  # (tracks, out_window)
    log_count = log_totals(train, groups).mean(dim=0)  # (n_groups,)
    rows = dataset.rows[split]
    observed = centred_signal(dataset, rows)
    return score_profiles(
        mean.expand(observed.shape),
        observed,
        groups,
        log_count.expand(len(rows), -1),
        _label(dataset, rows),
    )


def ceiling(dataset: Dataset, split: str) -> Scores | None:
    """The simulation's own truth scored as a prediction: no model can do better on average.

    None for data whose truth is not known.
    """
    if "expected" not in dataset.loci.truth:
        return None
    groups, rows = dataset.loci.signal_groups, dataset.rows[split]
    expected = _centre(dataset.loci.truth["expected"], dataset)[rows]
    return score_profiles(
        expected,
        centred_signal(dataset, rows),
        groups,
        log_totals(expected, groups),
        _label(dataset, rows),
    )


def centred_signal(dataset: Dataset, rows: np.ndarray) -> Tensor:
    """The observed signal (len(rows), tracks, out_window) of the loci, without jitter."""
    return _centre(dataset.loci.signal, dataset)[rows]


def _centre(values: np.ndarray, dataset: Dataset) -> Tensor:
    j = dataset.loci.max_jitter
    return torch.from_numpy(values[:, :, j : j + dataset.loci.out_window]).float()


def _label(dataset: Dataset, rows: np.ndarray) -> Tensor:
    return torch.from_numpy(dataset.loci.label[rows].astype(np.int64))
