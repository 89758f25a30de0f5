"""One training step: what it changes, what a failed one leaves alone, pieces, scales."""

import copy

import numpy as np
import pytest
import torch
from configs import composed
from torch import nn
from training_runs import state_of

from cherimoya import Cherimoya
from cherimoya.config.schema import build
from cherimoya.config.train import TrainConfig
from cherimoya.data.batches import Batch
from cherimoya.errors import ConfigError
from cherimoya.inference import precision
from cherimoya.inference.precision import LossScale, choose_precision, computing_in
from cherimoya.optim.muon import Muon
from cherimoya.training.ema import ema_decay
from cherimoya.training.step import TrainingStep

STEPS_PER_EPOCH, EPOCHS = 3, 4


def a_step(*overrides: str, parts: int = 1) -> TrainingStep:
    torch.manual_seed(0)
    more = ["optim.warmup_epochs=1", f"trainer.max_epochs={EPOCHS}"]
    config = build(TrainConfig, composed("train", ["optim=muon_adamw_sgd", *more, *overrides]))
    model = Cherimoya(8, 2, signal_groups=[2], trimming=10)
    return TrainingStep(
        model, config.loss, config.optim, STEPS_PER_EPOCH, EPOCHS, "fp32", parts
    )  # fmt: skip


def a_batch(n: int = 4, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 4, (n, 60), generator=generator)
    X = nn.functional.one_hot(codes, 4).mT.float()
    return Batch(X, torch.poisson(torch.ones(n, 2, 40), generator=generator), None)


def test_a_step_uses_the_rates_of_its_number():
    step = a_step()
    for number in range(4):
        step([a_batch(seed=number)])
        expected = list(step.rates(number).values())
        for optimizer, rate in zip(step.optimizers.values(), expected, strict=True):
            assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(rate, rel=1e-6)
        decay = ema_decay(np.array(number), 0.999, True)
        assert float(step._now[0, -1]) == pytest.approx(float(decay), rel=1e-6)
        assert int(step.count) == number + 1


def test_sums_are_of_the_epochs_losses():
    step = a_step()
    losses = []
    for seed in range(3):
        before = copy.deepcopy(step.model)
        step([a_batch(seed=seed)])
        batch = a_batch(seed=seed)
        _, log_counts = before(batch.X)
        observed = torch.log1p(batch.signal.sum((1, 2)))
        losses.append((log_counts[:, 0] - observed).square().mean().item())
    sums = step.take_sums()
    assert sums["count"] == pytest.approx(sum(losses), rel=1e-5)
    assert step.take_sums() == {"loss": 0.0, "profile": 0.0, "count": 0.0}


def test_a_loss_that_is_not_finite_changes_nothing_nor_does_any_step_after_it():
    step = a_step()
    for seed in range(2):
        step([a_batch(seed=seed)])
    before = state_of(step)
    assert len(before) > 30
    broken = a_batch()
    broken.X[1, 2, 30] = torch.nan
    for batch in (broken, a_batch(seed=5), a_batch(seed=6)):
        step([batch])
        assert step.watch.failed()
        after = state_of(step)
        assert [k for k in before if not torch.equal(before[k], after[k])] == []
    assert int(step.count) == 2


def test_pieces_of_a_batch_are_the_batch():
    whole, pieces = a_step(), a_step(parts=2)
    for seed in range(3):
        batch = a_batch(8, seed)
        whole([batch])
        halves = zip(batch.X.chunk(2), batch.signal.chunk(2), strict=True)
        pieces(Batch(X, signal, None) for X, signal in halves)
    for (name, a), b in zip(whole.model.named_parameters(), pieces.model.parameters(), strict=True):
        assert (a - b).norm() <= 1e-4 * a.norm() + 1e-7, name
    assert whole.take_sums() == pytest.approx(pieces.take_sums(), rel=1e-5)


def test_a_restored_step_goes_on_to_the_bit():
    step = a_step()
    for seed in range(2):
        step([a_batch(seed=seed)])
    other = a_step()
    other.load_state_dict(copy.deepcopy(step.state_dict()))
    for seed in range(2, 5):
        step([a_batch(seed=seed)])
        other([a_batch(seed=seed)])
    a, b = state_of(step), state_of(other)
    assert [k for k in a if not torch.equal(a[k], b[k])] == []


def test_muon_leaves_everything_alone_where_a_gradient_is_not_finite():
    torch.manual_seed(0)
    params = [nn.Parameter(torch.randn(s)) for s in [(6, 3), (3, 6), (6, 3)]]
    rate = torch.tensor(0.1)
    muon = Muon(params, lr=rate, weight_decay=0.1, momentum=0.9, ns_steps=5)
    muon.found_inf = torch.tensor(0.0)
    for p in params:
        p.grad = torch.randn_like(p)
    muon.step()
    before = [p.detach().clone() for p in params]
    momentum = [muon.state[p]["momentum_buffer"].clone() for p in params]
    for p in params:
        p.grad = torch.full_like(p, torch.inf)
    muon.found_inf.fill_(1.0)
    muon.step()
    for p, old, buffer in zip(params, before, momentum, strict=True):
        assert torch.equal(p, old)
        assert torch.equal(muon.state[p]["momentum_buffer"], buffer)


def test_the_loss_scale_halves_at_an_overflow_and_doubles_after_good_steps(monkeypatch):
    monkeypatch.setattr(precision, "GROWTH_STEPS", 2)
    scale, yes = LossScale(torch.device("cpu")), torch.tensor(True)
    first = scale.scale.item()
    grads = [torch.full((3,), first), torch.ones(2)]
    assert scale.unscale(grads)
    assert torch.equal(grads[0], torch.ones(3))
    assert not scale.unscale([torch.tensor([1.0, torch.inf])])
    found = []
    for finite in (True, True, True, False, True, True):
        scale.update(torch.tensor(finite), yes)
        found.append(scale.scale.item() / first)
    assert found == [1, 2, 2, 1, 1, 2]
    scale.update(torch.tensor(False), torch.tensor(False))  # a step that changes nothing
    assert scale.scale.item() == 2 * first


@pytest.mark.parametrize("precision", ["bf16", "tf32", "fp32"])
def test_a_precision_holds_for_its_block_whatever_torch_is_set_to(precision, monkeypatch):
    def settings():
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    for before in (("highest", True), ("high", False)):
        torch.set_float32_matmul_precision(before[0])
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", before[1])
        with computing_in(precision, torch.device("cpu")):
            assert settings() == (("high", True) if precision == "tf32" else ("highest", False))
            product = torch.ones(1, 1) @ torch.ones(1, 1)
            assert product.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)
        assert settings() == before
    torch.set_float32_matmul_precision("highest")


def test_precision_on_a_cpu():
    cpu = torch.device("cpu")
    assert choose_precision("auto", cpu) == choose_precision("fp32", cpu) == "fp32"
    for asked in ("bf16", "fp16", "tf32"):
        with pytest.raises(ConfigError, match=f"trainer.precision={asked}, but the CPU"):
            choose_precision(asked, cpu)
