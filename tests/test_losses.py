"""The losses against scipy and against formulas written out."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import multinomial

from cherimoya import Cherimoya
from cherimoya.config.schema import choose
from cherimoya.losses import (
    FixedLoss,
    KendallLoss,
    LossWeights,
    build_loss,
    profile_and_count_losses,
    training_loss,
)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, 10, generator=generator, dtype=torch.float64)
    signal = torch.poisson(torch.full((4, 3, 10), 1.5, dtype=torch.float64), generator=generator)
    return logits, torch.randn(4, 2, generator=generator, dtype=torch.float64), signal


def test_losses_per_group_are_scipys_multinomial_and_squared_log_errors(batch):
    logits, log_counts, signal = batch
    profile, count = profile_and_count_losses(logits, log_counts, signal, [1, 2])
    for g, channels in enumerate([slice(0, 1), slice(1, 3)]):
        expected_profile, expected_count = [], []
        for i in range(4):
            k = signal[i, channels].flatten().numpy()
            z = logits[i, channels].flatten().numpy()
            p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
            expected_profile.append(-multinomial.logpmf(k, k.sum(), p))
            expected_count.append((np.log1p(k.sum()) - log_counts[i, g].item()) ** 2)
        assert profile[g].item() == pytest.approx(np.mean(expected_profile), rel=1e-9)
        assert count[g].item() == pytest.approx(np.mean(expected_count), rel=1e-9)


def test_learned_weights_follow_the_formula_and_freeze_when_settled():
    model = Cherimoya(n_filters=8, n_layers=1, signal_groups=[1, 2])
    model.lw0.data = torch.tensor([1.5, 2.0])
    model.lw1.data = torch.tensor([0.5, 1.0])
    profile, count = torch.tensor([3.0, 5.0]), torch.tensor([0.2, 0.4])
    loss = KendallLoss(freeze_below=1.0)
    total = loss.objective(model, profile, count)
    weighted = 3 / (2 * 1.5**2) + 5 / (2 * 2.0**2) + 0.2 / (2 * 0.5**2) + 0.4 / 2
    penalty = sum(np.log(x) ** 2 for x in (1.5, 2.0, 0.5, 1.0))
    assert total.item() == pytest.approx(weighted + penalty, rel=1e-6)

    model.lw0.grad = torch.tensor([1.5, -0.7])  # mean magnitude 1.1
    assert not loss.end_epoch(model)
    model.lw0.grad = torch.tensor([1.2, -0.7])  # 0.95
    assert loss.end_epoch(model)
    assert not loss.end_epoch(model)  # once
    assert not model.lw0.requires_grad
    assert not model.lw1.requires_grad
    assert loss.objective(model, profile, count).item() == pytest.approx(weighted, rel=1e-6)


FIXED = {"name": "fixed", "profile_weight": 2.0, "count_weight": 10.0}


def test_fixed_weights_leave_the_learned_ones_out():
    model = Cherimoya(n_filters=8, n_layers=1)
    loss = build_loss(choose("loss", FIXED, "loss"), model)
    assert isinstance(loss, FixedLoss)
    assert not model.lw0.requires_grad
    assert loss.objective(model, torch.tensor([3.0]), torch.tensor([0.5])).item() == 11.0
    assert not loss.end_epoch(model)


class OnlyProfile(KendallLoss):
    """Says its objective itself."""

    def objective(self, model, profile, count):
        return 3 * profile.sum()


class CountsTwice(FixedLoss):
    """Says other weights."""

    def weights(self, model):
        w = super().weights(model)
        return LossWeights(w.profile, 2 * w.count, learned=False, penalty=False)


@pytest.fixture
def kernel_calls(monkeypatch):
    """The loss kernels serve every device; what they are called with."""
    calls = []

    def fused(logits, log_counts, signal, w0, w1, groups, learned, penalty):
        calls.append((w0.tolist(), w1.tolist()))
        profile, count = profile_and_count_losses(logits, log_counts, signal, groups)
        return (w0 * profile).sum() + (w1 * count).sum(), profile, count

    monkeypatch.setattr("cherimoya.losses.route", lambda *_: SimpleNamespace(conv_norm=True))
    monkeypatch.setattr("cherimoya.losses.fused_training_loss", fused)
    return calls


def test_a_loss_of_ones_own_decides_where_kernels_run_too(batch, kernel_calls):
    model = Cherimoya(n_filters=8, n_layers=1, signal_groups=[1, 2])
    profile, count = profile_and_count_losses(*batch, [1, 2])
    total = training_loss(OnlyProfile(freeze_below=1.0), model, *batch).total
    assert total.item() == pytest.approx(3 * profile.sum().item(), rel=1e-6)
    assert kernel_calls == []
    total = training_loss(CountsTwice(1.5, 0.25), model, *batch).total
    expected = 1.5 * profile.sum() + 0.5 * count.sum()
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    assert CountsTwice(1.5, 0.25).objective(model, profile, count).item() == pytest.approx(
        expected.item()
    )
    assert kernel_calls == [([1.5, 1.5], [0.5, 0.5])]
