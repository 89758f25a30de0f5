"""Muon against torch's own, the schedule against torch's, routing, and the EMA."""

import numpy as np
import pytest
import torch
from torch import nn

from cherimoya import Cherimoya
from cherimoya.config.train import RouteConfig
from cherimoya.errors import ConfigError
from cherimoya.optim.muon import Muon, orthogonalize
from cherimoya.optim.routing import block_matrices, route
from cherimoya.optim.schedule import Schedule
from cherimoya.training.ema import EMA, ema_decay

MUON = RouteConfig("blocks.*.linear[12].weight", "muon")
REST = RouteConfig("*", "adamw")


def test_muon_follows_torch_within_its_bfloat16_rounding():
    torch.manual_seed(0)
    shapes = [(32, 16), (16, 32), (32, 16), (24, 24)]
    ours = [nn.Parameter(torch.randn(s)) for s in shapes]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    a = Muon(ours, lr=0.1, weight_decay=0.3, momentum=0.95, ns_steps=5)
    b = torch.optim.Muon(theirs, lr=0.1, weight_decay=0.3, momentum=0.95, nesterov=True)
    for _ in range(4):
        before = [p.detach().clone() for p in ours]
        for p, q in zip(ours, theirs, strict=True):
            q.data.copy_(p.data)
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        a.step()
        b.step()
        for p, q, start in zip(ours, theirs, before, strict=True):
            update, expected = p.detach() - start, q.detach() - start
            assert (update - expected).norm() < 0.02 * expected.norm()


def test_orthogonalize_is_the_quintic_iteration_in_float64():
    torch.manual_seed(1)
    matrices = torch.randn(3, 8, 20)
    result = orthogonalize(matrices, 5)
    for m, r in zip(matrices.double(), result, strict=True):
        u, s, vt = torch.linalg.svd(m / m.norm(), full_matrices=False)
        for _ in range(5):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        expected = u @ torch.diag(s) @ vt
        assert (r.double() - expected).norm() < 1e-5 * expected.norm()


def test_schedule_is_torchs_linear_warmup_then_cosine():
    base, warmup, total, start, low = 0.025, 7, 40, 0.01, 1e-5
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=base)
    expected = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, start, total_iters=warmup),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total - warmup, eta_min=low),
        ],
        milestones=[warmup],
    )
    schedule = Schedule(base, warmup, total, start, low)
    for step in range(total):
        assert schedule(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9), step
        optimizer.step()
        expected.step()


def test_schedule_without_warmup_starts_at_base_and_constant_stays():
    assert Schedule(0.1, 0, 10, 0.01, 0.0)(0) == 0.1
    constant = Schedule(0.1, 2, 10, 0.01, 0.0, "constant")
    assert [constant(s) for s in (2, 5, 9)] == [0.1] * 3


def test_linear_schedule_falls_evenly_to_its_least():
    line = Schedule(0.1, 2, 10, 0.01, 0.02, "linear")
    assert [line(s) for s in (2, 6, 10)] == pytest.approx([0.1, 0.06, 0.02])


def test_routing_sends_projections_to_muon_and_the_rest_to_adamw():
    model = Cherimoya(n_filters=8, n_layers=2)
    table = route(model.named_parameters(), [MUON, REST])
    assert table["muon"] == [
        f"blocks.{i}.{name}.weight" for i in range(2) for name in ("linear1", "linear2")
    ]
    everything = {name for name, _ in model.named_parameters()}
    assert set(table["muon"]) | set(table["adamw"]) == everything
    assert "linear.weight" in table["adamw"]  # the count head is not a projection of a block


@pytest.mark.parametrize(
    ("block", "matrices"),
    [
        ({"name": "cheri", "expansion": 2, "residual_scale": 0.1}, ["linear1", "linear2"]),
        ({"name": "convnext", "expansion": 2, "residual_scale": 0.1}, ["linear1", "linear2"]),
        ({"name": "bpnet"}, ["weight"]),
    ],
)
def test_blocks_say_what_their_matrices_are(block, matrices):
    model = Cherimoya(n_filters=8, n_layers=2, block=block)
    names = block_matrices(model)
    table = route(model.named_parameters(), [RouteConfig("matrices", "muon"), REST], names)
    ends = [name if name == "weight" else f"{name}.weight" for name in matrices]
    assert table["muon"] == [f"blocks.{i}.{end}" for i in range(2) for end in ends]
    assert all(dict(model.named_parameters())[name].ndim == 2 for name in table["muon"])


def test_a_block_without_matrices_leaves_its_optimizer_idle():
    model = nn.Linear(2, 2)
    table = route(model.named_parameters(), [RouteConfig("matrices", "muon"), REST])
    assert table == {"adamw": ["weight", "bias"]}


def test_routing_leaves_out_parameters_without_gradient():
    model = Cherimoya(n_filters=8, n_layers=1)
    model.lw0.requires_grad_(False)
    table = route(model.named_parameters(), [RouteConfig("lw?", "sgd"), REST])
    assert table["sgd"] == ["lw1"]


@pytest.mark.parametrize(
    ("routes", "message"),
    [
        ([RouteConfig("blocks.*.linear3.weight", "muon"), REST], "linear3.* is the first match"),
        ([REST, MUON], "is the first match of no parameter"),
        ([MUON], "claims no optimizer for parameter lw0"),
    ],
)
def test_routing_refuses_idle_patterns_and_unclaimed_parameters(routes, message):
    with pytest.raises(ConfigError, match=message):
        route(Cherimoya(n_filters=8, n_layers=1).named_parameters(), routes)


def test_ema_follows_its_formula_and_swaps_back():
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    ema = EMA(model.named_parameters())
    expected = 0.0
    for step in range(20):
        model.weight.data.fill_(float(step))
        decay = float(ema_decay(np.array(step), 0.999, warmup=True))
        assert decay == min(0.999, (1 + step) / (10 + step))
        ema.update(torch.tensor(decay), torch.tensor(0.0))
        ema.update(torch.tensor(decay), torch.tensor(1.0))  # a step that does not count
        expected = decay * expected + (1 - decay) * step
    with ema.swapped_in():
        assert model.weight.item() == pytest.approx(expected, rel=1e-6)
    assert model.weight.item() == 19.0
