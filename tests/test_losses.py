"""The losses against scipy and against formulas written out."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from configs import composed
from models import sequences
from scipy.stats import multinomial
from torch import nn

from cherimoya import Cherimoya
from cherimoya.config.schema import build, choose
from cherimoya.config.train import TrainConfig
from cherimoya.data.batches import Batch
from cherimoya.losses import (
    FixedLoss,
    KendallLoss,
    Loss,
    LossWeights,
    PoissonLoss,
    build_loss,
    profile_and_count_losses,
    training_loss,
)
from cherimoya.training.step import TrainingStep


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


def test_each_weight_may_freeze_by_itself():
    model = Cherimoya(n_filters=8, n_layers=1, signal_groups=[1, 2])
    model.lw0.data, model.lw1.data = torch.tensor([1.5, 4.0]), torch.tensor([1.2, 1.1])
    loss = KendallLoss(freeze_below=1.0, freeze_share=0.1)
    loss.begin(model)
    # The gradient of w is 2 log(w) / w - part / w^3; these parts are off their balance by as much.
    balance = [2 * w.detach().log() * w.detach() ** 2 for w in (model.lw0, model.lw1)]
    profile, count = balance[0] * torch.tensor([1.0, 3.0]), balance[1] * torch.tensor([1.15, 1.4])
    loss.objective(model, profile, count).backward()
    assert not loss.end_epoch(model)
    assert loss.logged(model)["frozen"] == 2  # of which the second's parts differ by 15 in 215
    with torch.no_grad():
        for weight in (model.lw0, model.lw1):
            weight.add_(1.0)  # as momentum would
    w = loss.weights(model)
    assert w.profile.tolist() == pytest.approx([1.5, 5.0])
    assert w.count.tolist() == pytest.approx([1.2, 2.1])
    model.lw0.grad = model.lw1.grad = None
    loss.objective(model, profile, count).backward()
    assert model.lw0.grad[0] == model.lw1.grad[0] == 0
    assert model.lw0.grad[1] != 0
    balance = [2 * w.detach().log() * w.detach() ** 2 for w in (model.lw0, model.lw1)]
    model.lw0.grad = model.lw1.grad = None
    loss.objective(model, *balance).backward()
    assert loss.end_epoch(model)
    assert model.lw0.tolist() == pytest.approx([1.5, 5.0])
    assert model.lw1.tolist() == pytest.approx([1.2, 2.1])
    assert not loss.weights(model).penalty
    assert loss.logged(model)["frozen"] == 4


def test_the_weights_of_the_loss_are_logged_by_group():
    model = Cherimoya(n_filters=8, n_layers=1, signal_groups=[1, 2])
    model.lw0.grad, model.lw1.grad = torch.tensor([0.5, -0.25]), torch.tensor([2.0, 4.0])
    loss = KendallLoss(freeze_below=0.1)
    assert loss.logged(model) == {
        "lw0_0": 1, "lw0_0_gradient": 0.5, "lw0_1": 1, "lw0_1_gradient": -0.25,
        "lw1_0": 1, "lw1_0_gradient": 2, "lw1_1": 1, "lw1_1_gradient": 4, "frozen": 0,
    }  # fmt: skip
    loss.freeze(model)
    one = KendallLoss(freeze_below=0.1).logged(Cherimoya(n_filters=8, n_layers=1))
    assert set(one) == {"lw0", "lw0_gradient", "lw1", "lw1_gradient", "frozen"}
    assert loss.logged(model)["frozen"] == 4


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


def counts_of(signal, groups):
    """Reads of each signal group (N, n_groups)."""
    return torch.stack([k.sum((1, 2)) for k in signal.split(groups, 1)], 1)


def poissons(logits, log_counts, signal, groups, held: bool):
    """Per-base Poisson losses from torch, and what they have beside the loss: (), ().

    held: the read more that is observed is a constant
    """
    total, beside = 0.0, 0.0
    per_group = zip(logits.split(groups, 1), signal.split(groups, 1), log_counts.T, strict=True)
    for z, k, y in per_group:
        k = k.flatten(1)
        p = z.flatten(1).softmax(1)
        more = p.detach() if held else p
        poisson = torch.distributions.Poisson(p * y.exp()[:, None], validate_args=False)
        total = total - poisson.log_prob(k + more).sum(1).mean()
        entropy = -(p * p.log()).sum(1)
        constants = torch.lgamma(k + p + 1) - torch.lgamma(k + 1)
        beside = beside + (entropy + constants.sum(1)).mean()
    return total, beside


def test_the_poisson_loss_is_that_of_every_base_with_one_read_more(batch):
    logits, log_counts, signal = batch
    log_counts = log_counts + 2
    model = Cherimoya(n_filters=8, n_layers=1, signal_groups=[1, 2])
    loss = build_loss(choose("loss", {"name": "poisson"}, "loss"), model)
    assert isinstance(loss, PoissonLoss)
    assert not model.lw0.requires_grad
    found = training_loss(loss, model, logits, log_counts, signal)
    expected, beside = poissons(logits, log_counts, signal, [1, 2], held=False)
    assert found.total.item() == pytest.approx((expected - beside).item(), rel=1e-12)
    parts = profile_and_count_losses(logits, log_counts, signal, [1, 2])
    for mine, plain in zip((found.profile, found.count), parts, strict=True):
        assert torch.equal(mine, plain)


def test_the_poisson_losss_gradients_are_those_of_every_base(batch):
    logits, log_counts, signal = batch
    model = Cherimoya(n_filters=8, n_layers=1, signal_groups=[1, 2])
    leaves = [logits.requires_grad_(), (log_counts + 2).requires_grad_()]
    found = training_loss(PoissonLoss(), model, *leaves, signal).total
    expected, _ = poissons(*leaves, signal, [1, 2], held=True)
    mine, theirs = torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
        assert a.norm() > 0.1
    # least where the predicted log counts are log(1 + n)
    exact = torch.log1p(counts_of(signal, [1, 2])).requires_grad_()
    (gradient,) = torch.autograd.grad(
        training_loss(PoissonLoss(), model, logits, exact, signal).total, exact
    )
    assert gradient.abs().max() < 1e-9


class Scaled(Loss):
    """The profile loss by a learned scale, as its objective alone."""

    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.full((), 0.5))

    def forward(self, model, logits, log_counts, signal):
        profile, _ = profile_and_count_losses(logits, log_counts, signal, model.signal_groups)
        return (profile / self.log_scale.exp()).sum() + 40 * self.log_scale


def a_step() -> tuple[TrainingStep, Batch]:
    torch.manual_seed(0)
    config = build(TrainConfig, composed("train", [f"loss.name={__name__}:Scaled"]))
    model = Cherimoya(8, 2, signal_groups=[1, 2], trimming=10)
    step = TrainingStep(model, config.loss, config.optim, steps_per_epoch=2, max_epochs=8)
    signal = torch.poisson(torch.ones(3, 3, 40))
    return step, Batch(sequences(3, 60), signal, None)


def test_the_objective_alone_will_do_and_its_parts_are_logged(batch):
    model, loss = Cherimoya(n_filters=8, n_layers=1, signal_groups=[1, 2]), Scaled()
    leaves = [logits.requires_grad_() for logits in batch[:2]]
    terms = training_loss(loss, model, *leaves, batch[2])
    profile, count = profile_and_count_losses(*batch, [1, 2])
    expected = profile.sum().item() / np.exp(0.5) + 20
    assert terms.total.item() == pytest.approx(expected, rel=1e-6)
    assert torch.equal(terms.profile, profile)
    assert torch.equal(terms.count, count)
    assert not terms.profile.requires_grad
    assert not terms.count.requires_grad
    terms.total.backward()
    scale_gradient = 40 - profile.sum().item() / np.exp(0.5)
    assert loss.log_scale.grad.item() == pytest.approx(scale_gradient, rel=1e-6)


def test_a_parameter_of_the_losss_own_is_trained_and_restored():
    step, batch = a_step()
    assert "loss.log_scale" in step.routes["adamw"]
    before = step.model.iconv.weight.detach().clone()
    logits, log_counts = step.model(batch.X)
    profile, count = profile_and_count_losses(logits, log_counts, batch.signal, [1, 2])
    step([batch])
    gradient = 40 - profile.sum().item() / np.exp(0.5)
    assert step.loss.log_scale.grad.item() == pytest.approx(gradient, rel=1e-4)
    adamw = step.optimizers["adamw"].param_groups[0]
    rate = step.rates(0)["adamw"]  # by which Adam's first step goes against the gradient's sign
    decayed = 0.5 * (1 - rate * adamw["weight_decay"])
    expected = decayed - rate * np.sign(gradient)
    assert step.loss.log_scale.item() == pytest.approx(expected, abs=1e-3 * rate)
    assert not torch.equal(step.model.iconv.weight, before)
    sums = step.take_sums()
    assert sums["profile"] == pytest.approx(profile.sum().item(), rel=1e-5)
    assert sums["count"] == pytest.approx(count.sum().item(), rel=1e-5)

    other, _ = a_step()
    other.load_state_dict(copy.deepcopy(step.state_dict()))
    for one in (step, other):
        one([batch])
    assert torch.equal(step.loss.log_scale, other.loss.log_scale)
