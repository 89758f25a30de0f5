"""An optimizer's step within the backward: after its gradients, before what is left."""

import gc
import weakref
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from cherimoya import Cherimoya
from cherimoya.optim.muon import Muon
from cherimoya.training import early
from cherimoya.training.early import EarlyStep, beside_the_stem


class Recorder(torch.optim.SGD):
    """SGD that notes, at each step, which of the network's gradients are there."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network[1].parameters(), lr=0.5)
        self._network, self.seen = network, []

    def step(self, closure=None):
        self.seen.append([n for n, p in self._network.named_parameters() if p.grad is not None])
        super().step(closure)


@pytest.fixture
def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def test_a_step_is_made_once_all_its_gradients_are_there_and_before_those_of_the_stem(network):
    step = EarlyStep(Recorder(network))
    before = network[1].weight.detach().clone()
    step.begin()
    network(torch.ones(5, 3)).sum().backward()
    assert step.optimizer.seen == [["1.weight", "1.bias"]]
    step.end()
    assert len(step.optimizer.seen) == 1
    assert torch.equal(network[1].weight, before - 0.5 * network[1].weight.grad)
    assert network[0].weight.grad is not None


def test_only_the_backward_that_it_was_told_of_makes_a_step(network):
    step = EarlyStep(Recorder(network))
    network(torch.ones(5, 3)).sum().backward()  # a piece of a batch before the last
    assert step.optimizer.seen == []
    step.begin()
    network(torch.ones(5, 3)).sum().backward()
    network(torch.ones(5, 3)).sum().backward()
    assert len(step.optimizer.seen) == 1


def test_a_gradient_that_does_not_come_puts_the_step_after_the_backward(network):
    step = EarlyStep(Recorder(network))
    step.begin()
    (network[0](torch.ones(5, 3)) @ network[1].weight.T).sum().backward()  # without the bias
    assert step.optimizer.seen == []
    step.end()
    step.end()
    assert len(step.optimizer.seen) == 1


def test_it_holds_nothing_once_it_is_gone(network):
    step = EarlyStep(Recorder(network))
    step.begin()
    held = weakref.ref(step.optimizer)
    del step
    gc.collect()
    assert held() is None
    network(torch.ones(5, 3)).sum().backward()


def test_only_an_optimizer_of_the_blocks_that_leaves_most_of_the_gpu_is_early(monkeypatch):
    model = Cherimoya(8, 2, trimming=10)
    matrices = [p for name, p in model.named_parameters() if name.endswith("r1.weight")]
    muon = Muon(matrices, lr=0.1, weight_decay=0.0, momentum=0.9, ns_steps=1)
    routes = {"muon": ["blocks.0.linear1.weight", "blocks.1.linear1.weight"]}
    assert muon.multiprocessors == 0  # on a CPU
    assert beside_the_stem(model, {"muon": muon}, routes) is None

    model.register_parameter("lw0", None)
    object.__setattr__(model, "lw0", SimpleNamespace(device=torch.device("cuda")))
    monkeypatch.setattr(early, "multiprocessors", lambda device: 8)
    for needs, names, expected in (
        (2, routes["muon"], True),
        (0, routes["muon"], False),
        (3, routes["muon"], False),
        (2, ["linear.weight"], False),
    ):
        monkeypatch.setattr(Muon, "multiprocessors", needs)
        found = beside_the_stem(model, {"muon": muon}, {"muon": names})
        assert (found is not None) is expected
        assert model.multiprocessors_taken == (2 if expected else 0)
        model.multiprocessors_taken = 0
