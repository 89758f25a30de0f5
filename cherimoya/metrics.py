"""How well profiles and counts are predicted: per locus and signal group, or over loci.

Profile metrics take predictions and counts of shape (N, sum(signal_groups), L). The channels and
positions of a signal group are flattened together, so the two strands of a stranded pair form one
distribution. They return float64 (N, n_groups), NaN where a locus has no defined value: no counts,
or nothing but one repeated value. The arithmetic is in float64, a block of loci at a time.
"""

from collections.abc import Callable

import torch
from torch import Tensor

BLOCK = 1 << 20  # elements of a flattened signal group worked on at once: bounds the memory


def multinomial_nll(logits: Tensor, counts: Tensor) -> Tensor:
    """Multinomial negative log-likelihood in nats of `counts` (N, K) given `logits` (N, K): (N,).

    -lgamma(n + 1) + sum_k lgamma(c_k + 1) - sum_k c_k log p_k, with n = sum_k c_k and p the softmax
    of the logits (BPNet, Avsec et al. 2021, with the constant terms). 0 without counts. Worked out
    in the dtype of the logits, at least float32; differentiable in the logits.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    counts = counts.to(logits.dtype)
    log_p = logits.log_softmax(dim=-1)
    arrangements = torch.lgamma(counts.sum(-1) + 1) - torch.lgamma(counts + 1).sum(-1)
    return -arrangements - (counts * log_p).sum(-1)


def group_softmax(logits: Tensor, signal_groups: list[int]) -> Tensor:
    """Probabilities (N, sum(signal_groups), L) that add up to 1 over each signal group."""
    _check_shapes(logits, logits, signal_groups)
    parts = logits.split(signal_groups, dim=1)
    return torch.cat([g.flatten(1).softmax(dim=-1).view(g.shape) for g in parts], dim=1)


def profile_mnll(logits: Tensor, counts: Tensor, signal_groups: list[int]) -> Tensor:
    """`multinomial_nll` per locus and signal group, in nats: (N, n_groups). 0 without counts."""
    return _per_group(multinomial_nll, logits, counts, signal_groups)


def profile_pearson(p: Tensor, counts: Tensor, signal_groups: list[int]) -> Tensor:
    """Pearson correlation of probabilities and counts per locus and signal group: (N, n_groups).

    `p` need not add up to 1: expected counts do as well.
    """
    return _per_group(_row_pearson, p, counts, signal_groups)


def profile_spearman(p: Tensor, counts: Tensor, signal_groups: list[int]) -> Tensor:
    """Spearman correlation of probabilities and counts per locus and signal group: (N, n_groups).

    Pearson correlation of the ranks, ties sharing their average rank.
    """
    return _per_group(_row_spearman, p, counts, signal_groups)


def profile_jsd(p: Tensor, counts: Tensor, signal_groups: list[int]) -> Tensor:
    """Jensen-Shannon distance per locus and signal group: (N, n_groups), 0 to sqrt(log 2) = 0.83.

    sqrt((KL(p || m) + KL(q || m)) / 2) with q the normalised counts, m = (p + q) / 2 and natural
    logarithms, as scipy.spatial.distance.jensenshannon. `p` is normalised too.
    """
    return _per_group(_row_jsd, p, counts, signal_groups)


def pearson(x: Tensor, y: Tensor) -> Tensor:
    """Pearson correlation of two vectors (n,): a float64 scalar, NaN when either is constant."""
    x, y = _vectors(x, y)
    return _row_pearson(x[None], y[None])[0]


def spearman(x: Tensor, y: Tensor) -> Tensor:
    """Spearman correlation of two vectors (n,), with average ranks for ties: a float64 scalar."""
    x, y = _vectors(x, y)
    return _row_spearman(x[None], y[None])[0]


def mean_squared_error(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared difference of two vectors (n,), in squared units: a float64 scalar."""
    x, y = _vectors(x, y)
    return (x - y).square().mean()


def auroc(scores: Tensor, labels: Tensor) -> Tensor:
    """Area under the ROC curve of `scores` (n,) for 0/1 `labels` (n,): a float64 scalar.

    The Mann-Whitney statistic: the chance that a positive scores above a negative, ties counting
    one half. NaN when a class is missing.
    """
    scores, labels = _vectors(scores, labels)
    positive = labels > 0
    n_positive = positive.sum().double()
    n_negative = len(labels) - n_positive
    rank_sum = average_ranks(scores[None])[0][positive].sum()
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def auprc(scores: Tensor, labels: Tensor) -> Tensor:
    """Area under the precision-recall curve of `scores` (n,) for 0/1 `labels` (n,): a scalar.

    Average precision, sum_i (recall_i - recall_(i-1)) precision_i over distinct thresholds, as
    sklearn.metrics.average_precision_score. NaN when a class is missing, or a score is NaN.
    """
    scores, labels = _vectors(scores, labels)
    scores, order = scores.sort(descending=True)
    hits = (labels[order] > 0).double()
    n_positive = hits.sum()
    if n_positive == 0 or n_positive == len(hits) or scores.isnan().any():
        return scores.new_tensor(torch.nan)
    last_of_tie = torch.ones_like(hits, dtype=torch.bool)
    last_of_tie[:-1] = scores[:-1] != scores[1:]
    called = torch.arange(1, len(hits) + 1, device=hits.device)[last_of_tie]
    true_positives = hits.cumsum(0)[last_of_tie]
    gained = true_positives.diff(prepend=true_positives.new_zeros(1))
    return (gained * true_positives / called).sum() / n_positive


def average_ranks(x: Tensor) -> Tensor:
    """Ranks from 1 within each row of `x` (N, K), ties sharing their average: float64 (N, K).

    A row that holds a NaN has NaN ranks.
    """
    values, order = x.sort(dim=-1)
    below = torch.searchsorted(values, values)
    up_to = torch.searchsorted(values, values, right=True)
    ranks = torch.empty(x.shape, dtype=torch.float64, device=x.device)
    ranks.scatter_(-1, order, (below + up_to + 1).double() / 2)
    return ranks.masked_fill_(x.isnan().any(-1, keepdim=True), torch.nan)


@torch.no_grad()
def _per_group(
    measure: Callable[[Tensor, Tensor], Tensor],
    prediction: Tensor,
    counts: Tensor,
    signal_groups: list[int],
) -> Tensor:
    """`measure` of the flattened rows of every signal group, a block of loci at a time."""
    _check_shapes(prediction, counts, signal_groups)
    n, _, length = counts.shape
    out = torch.empty(n, len(signal_groups), dtype=torch.float64, device=counts.device)
    start = 0
    for g, channels in enumerate(signal_groups):
        group = slice(start, start + channels)
        rows = max(1, BLOCK // max(1, channels * length))
        for i in range(0, n, rows):
            x = prediction[i : i + rows, group].flatten(1).double()
            y = counts[i : i + rows, group].flatten(1).double()
            out[i : i + rows, g] = measure(x, y)
        start += channels
    return out


def _row_pearson(x: Tensor, y: Tensor) -> Tensor:
    """Pearson correlation of matching rows, (N, K) and (N, K) to (N,). NaN for a constant row."""
    constant = (x == x[:, :1]).all(-1) | (y == y[:, :1]).all(-1)
    x = x - x.mean(-1, keepdim=True)
    y = y - y.mean(-1, keepdim=True)
    x = x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    y = y / torch.linalg.vector_norm(y, dim=-1, keepdim=True)
    return (x * y).sum(-1).clamp(-1, 1).masked_fill(constant, torch.nan)


def _row_spearman(x: Tensor, y: Tensor) -> Tensor:
    return _row_pearson(average_ranks(x), average_ranks(y))


def _row_jsd(p: Tensor, counts: Tensor) -> Tensor:
    """Jensen-Shannon distance of matching rows, (N, K) and (N, K) to (N,)."""
    p = p / p.sum(-1, keepdim=True)
    q = counts / counts.sum(-1, keepdim=True)
    m = ((p + q) / 2).clamp_min(torch.finfo(p.dtype).tiny)  # where p = q = 0, the terms are 0
    divergence = torch.special.xlogy(p, p / m).sum(-1) + torch.special.xlogy(q, q / m).sum(-1)
    return (divergence / 2).clamp_min(0).sqrt()


def _vectors(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"expected two vectors of one length, got {x.shape} and {y.shape}")
    return x.detach().double(), y.detach().double()


def _check_shapes(prediction: Tensor, counts: Tensor, signal_groups: list[int]) -> None:
    if prediction.shape != counts.shape or prediction.ndim != 3:
        raise ValueError(
            "expected predictions and counts of one shape (N, tracks, L), got "
            f"{tuple(prediction.shape)} and {tuple(counts.shape)}"
        )
    if prediction.shape[1] != sum(signal_groups):
        raise ValueError(
            f"signal_groups={signal_groups} describe {sum(signal_groups)} tracks, but there are "
            f"{prediction.shape[1]}"
        )
