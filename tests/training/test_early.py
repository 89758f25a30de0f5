"""An optimizer's step within the backward: after its gradients, before what is left."""

import pytest
import torch
from torch import nn

from cherimoya.training.early import EarlyStep


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
    early = EarlyStep(Recorder(network))
    before = network[1].weight.detach().clone()
    early.begin()
    network(torch.ones(5, 3)).sum().backward()
    assert early.optimizer.seen == [["1.weight", "1.bias"]]
    early.end()
    assert len(early.optimizer.seen) == 1
    assert torch.equal(network[1].weight, before - 0.5 * network[1].weight.grad)
    assert network[0].weight.grad is not None


def test_only_the_backward_that_it_was_told_of_makes_a_step(network):
    early = EarlyStep(Recorder(network))
    network(torch.ones(5, 3)).sum().backward()  # a piece of a batch before the last
    assert early.optimizer.seen == []
    early.begin()
    network(torch.ones(5, 3)).sum().backward()
    network(torch.ones(5, 3)).sum().backward()
    assert len(early.optimizer.seen) == 1


def test_a_gradient_that_does_not_come_puts_the_step_after_the_backward(network):
    early = EarlyStep(Recorder(network))
    early.begin()
    (network[0](torch.ones(5, 3)) @ network[1].weight.T).sum().backward()  # without the bias
    assert early.optimizer.seen == []
    early.end()
    early.end()
    assert len(early.optimizer.seen) == 1
