"""What a score is to be compared with: the average profile below, the known truth above."""

import numpy as np
import torch
from torch import Tensor

from cherimoya.data.dataset import Dataset
from cherimoya.evaluation.scores import Scores, log_totals, score_profiles


def average_profile(dataset: Dataset, split: str) -> Scores:
    """Every locus predicted to look like the average training peak, with its average count."""
    rows = dataset.rows[split]
    mean, log_count = _average(dataset, dataset.peaks("train"))
    return scored_as(dataset, rows, mean.expand(len(rows), -1, -1), log_count.expand(len(rows), -1))


def average_of_others(dataset: Dataset, split: str) -> Scores | None:
    """Every locus predicted to look like the average peak of the other chromosomes of its split.

    The count is one for all, since counts that differ by what was left out would seem to say
    something. None for a single chromosome on its own.
    """
    rows = dataset.rows[split]
    chrom, is_peak = dataset.loci.chrom[rows], dataset.loci.label[rows] == 1
    names, which = np.unique(chrom, return_inverse=True)
    others = [rows[(chrom != name) & is_peak] for name in names]
    if not all(map(len, others)):
        return None
    averages = zip(*(_average(dataset, peaks) for peaks in others), strict=True)
    means, log_counts = (torch.stack(part)[which] for part in averages)
    return scored_as(dataset, rows, means, log_counts.mean(dim=0).expand_as(log_counts))


def ceiling(dataset: Dataset, split: str) -> Scores | None:
    """The simulation's own truth scored as a prediction: no model can do better on average.

    None for data whose truth is not known.
    """
    if "expected" not in dataset.loci.truth:
        return None
    rows = dataset.rows[split]
    expected = _centre(dataset.loci.truth["expected"], dataset)[rows]
    return scored_as(dataset, rows, expected, log_totals(expected, dataset.loci.signal_groups))


def scored_as(dataset: Dataset, rows: np.ndarray, expected: Tensor, log_counts: Tensor) -> Scores:
    """Expected signal (n, tracks, out_window) and log counts (n, n_groups) of the loci at `rows`
    as a prediction of what was observed there."""
    label = torch.from_numpy(dataset.loci.label[rows].astype(np.int64))
    observed = centred_signal(dataset, rows)
    return score_profiles(expected, observed, dataset.loci.signal_groups, log_counts, label)


def _average(dataset: Dataset, peaks: np.ndarray) -> tuple[Tensor, Tensor]:
    """The mean signal (tracks, out_window) and log counts (n_groups,) of some loci."""
    signal = centred_signal(dataset, peaks)
    return signal.mean(dim=0), log_totals(signal, dataset.loci.signal_groups).mean(dim=0)


def centred_signal(dataset: Dataset, rows: np.ndarray) -> Tensor:
    """The observed signal (len(rows), tracks, out_window) of the loci, without jitter."""
    return _centre(dataset.loci.signal, dataset)[rows]


def _centre(values: np.ndarray, dataset: Dataset) -> Tensor:
    j = dataset.loci.max_jitter
    return torch.from_numpy(values[:, :, j : j + dataset.loci.out_window]).float()
