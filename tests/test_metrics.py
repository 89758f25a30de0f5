"""Metrics against scipy and sklearn, with ties, empty loci and constant predictions."""

import time

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import average_precision_score, roc_auc_score

from cherimoya import metrics

GROUPS = [1, 2]
N, L = 12, 40


@pytest.fixture
def loci() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and counts (12, 3, 40): locus 3 has no counts, locus 5 constant predictions."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(N, 3, L)).round(1)
    counts = rng.poisson(np.exp(logits))
    counts[3] = 0
    logits[5] = 1.25
    return torch.from_numpy(logits), torch.from_numpy(counts)


def flat(x: torch.Tensor, group: int) -> np.ndarray:
    """The rows of signal group `group` of [1, 2]."""
    return (x[:, :1] if group == 0 else x[:, 1:]).flatten(1).double().numpy()


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::scipy.stats.ConstantInputWarning")
@pytest.mark.parametrize(
    ("ours", "oracle", "undefined"),
    [
        (metrics.profile_pearson, lambda p, k: stats.pearsonr(p, k).statistic, {3, 5}),
        (metrics.profile_spearman, lambda p, k: stats.spearmanr(p, k).statistic, {3, 5}),
        (metrics.profile_jsd, jensenshannon, {3}),
    ],
)
def test_profile_metrics_match_scipy(loci, ours, oracle, undefined):
    logits, counts = loci
    p = metrics.group_softmax(logits, GROUPS)
    values = ours(p, counts, GROUPS)
    assert values.shape == (N, 2)
    for g in range(2):
        expected = [oracle(a, b) for a, b in zip(flat(p, g), flat(counts, g), strict=True)]
        np.testing.assert_allclose(values[:, g], expected, rtol=0, atol=1e-12)
        assert set(values[:, g].isnan().nonzero().flatten().tolist()) == undefined


def test_mnll_matches_scipy(loci):
    logits, counts = loci
    p = metrics.group_softmax(logits, GROUPS)
    values = metrics.profile_mnll(logits, counts, GROUPS)
    for g in range(2):
        k = flat(counts, g)
        expected = -stats.multinomial.logpmf(k, k.sum(-1), flat(p, g))
        np.testing.assert_allclose(values[:, g], expected, rtol=1e-10, atol=1e-10)
    assert values[3].tolist() == [0, 0]


def test_softmax_adds_up_to_one_over_both_strands(loci):
    p = metrics.group_softmax(loci[0], GROUPS)
    torch.testing.assert_close(p[:, 0].sum(-1), torch.ones(N, dtype=torch.float64))
    torch.testing.assert_close(p[:, 1:].sum((1, 2)), torch.ones(N, dtype=torch.float64))


def test_mnll_gradient_is_expected_minus_observed(loci):
    logits, counts = loci
    x, k = logits[:, 1:].flatten(1).float().requires_grad_(), counts[:, 1:].flatten(1)
    metrics.multinomial_nll(x, k).sum().backward()
    expected = k.sum(-1, keepdim=True) * x.detach().softmax(-1) - k
    torch.testing.assert_close(x.grad, expected, rtol=1e-5, atol=1e-5)


def test_mnll_computes_low_precision_logits_in_float32(loci):
    x, k = loci[0].flatten(1).bfloat16(), loci[1].flatten(1)
    low, high = metrics.multinomial_nll(x, k), metrics.multinomial_nll(x.double(), k)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low.double(), high, rtol=1e-5, atol=1e-3)


def test_unnormalised_expectations_do_as_predictions(loci):
    logits, counts = loci
    p = metrics.group_softmax(logits, GROUPS)
    for measure in (metrics.profile_pearson, metrics.profile_spearman, metrics.profile_jsd):
        torch.testing.assert_close(
            measure(p * 300, counts, GROUPS), measure(p, counts, GROUPS), equal_nan=True
        )


def test_blocks_do_not_change_the_answer(loci, monkeypatch):
    logits, counts = loci
    whole = metrics.profile_spearman(logits, counts, GROUPS)
    monkeypatch.setattr(metrics, "BLOCK", 5 * L)
    assert torch.equal(
        metrics.profile_spearman(logits, counts, GROUPS).nan_to_num(9), whole.nan_to_num(9)
    )


def test_nan_stays_in_its_locus(loci):
    logits, counts = loci
    spoiled = logits.clone()
    spoiled[7, :, 4] = torch.nan
    for measure in (metrics.profile_pearson, metrics.profile_spearman, metrics.profile_jsd):
        clean = measure(logits.exp(), counts, GROUPS)
        values = measure(spoiled.exp(), counts, GROUPS)
        assert values[7].isnan().all()
        others = [i for i in range(N) if i != 7]
        assert torch.equal(values[others].nan_to_num(9), clean[others].nan_to_num(9))


def test_no_loci_give_no_values():
    empty = torch.zeros(0, 3, L)
    for name in ("profile_mnll", "profile_pearson", "profile_spearman", "profile_jsd"):
        assert getattr(metrics, name)(empty, empty, GROUPS).shape == (0, 2)


def test_shapes_that_disagree_are_refused(loci):
    logits, counts = loci
    with pytest.raises(ValueError, match="one shape"):
        metrics.profile_jsd(logits, counts[:, :2], GROUPS)
    with pytest.raises(ValueError, match="describe 2 tracks, but there are 3"):
        metrics.profile_mnll(logits, counts, [2])
    with pytest.raises(ValueError, match="one length"):
        metrics.pearson(torch.zeros(3), torch.zeros(4))


@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_scalars_match_scipy_and_sklearn(decimals):
    rng = np.random.default_rng(decimals)
    x = rng.normal(size=300).round(decimals)
    y = (x + rng.normal(size=300)).round(decimals)
    labels = (rng.random(300) < 0.3).astype(np.uint8)
    x_, y_, labels_ = (torch.from_numpy(v) for v in (x, y, labels))
    pairs = [
        (metrics.pearson(x_, y_), stats.pearsonr(x, y).statistic),
        (metrics.spearman(x_, y_), stats.spearmanr(x, y).statistic),
        (metrics.mean_squared_error(x_, y_), ((x - y) ** 2).mean()),
        (metrics.auroc(x_, labels_), roc_auc_score(labels, x)),
        (metrics.auprc(x_, labels_), average_precision_score(labels, x)),
    ]
    for ours, theirs in pairs:
        assert ours.item() == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("label", [0, 1])
def test_a_missing_class_has_no_area(label):
    scores, labels = torch.arange(4.0), torch.full((4,), label)
    assert metrics.auroc(scores, labels).isnan()
    assert metrics.auprc(scores, labels).isnan()


def test_constant_or_nan_vectors_have_no_correlation():
    constant, rising = torch.full((5,), 0.1), torch.arange(5.0)
    spoiled = torch.tensor([0.0, 1.0, torch.nan, 3.0, 4.0])
    for measure in (metrics.pearson, metrics.spearman):
        assert measure(constant, rising).isnan()
        assert measure(rising, spoiled).isnan()
    assert metrics.auroc(spoiled, rising > 2).isnan()
    assert metrics.auprc(spoiled, rising > 2).isnan()


def test_many_loci_are_ranked_within_seconds():
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(1000, 2, 1000, generator=generator)
    counts = torch.poisson(p, generator=generator)
    start = time.perf_counter()
    metrics.profile_spearman(p, counts, [2])
    assert time.perf_counter() - start < 10  # measured: 0.8 s on two cores
