"""Which gradients a kernel may read before the one before it has ended."""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from configs import composed
from kernels import printed_by_the_interpreter
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cherimoya import Cherimoya
from cherimoya.config.schema import build
from cherimoya.config.train import TrainConfig
from cherimoya.data.batches import Batch
from cherimoya.ops.complete import is_complete, note_complete, straight_backward
from cherimoya.training.step import TrainingStep

# What each part of a backward, the last block first, takes the gradient for that reaches it.
TOLD = {
    "a training step": [True, True, True],
    "a straight backward": [True, True, True],
    "a backward outside a training step": [False, False, False],
    "a block that is made again": [True, False, True],
    "without what the forward keeps": [False, False, True],
    "a gradient changed on its way": [True, False, True],
    "a gradient in another's place": [True, False, True],
    "a sum of two gradients": [True, False, True],
    "a gradient of one's own": [False, True, True],
}


def doubled_in_place(gradient: Tensor) -> None:
    gradient.mul_(2.0)


HOOKS: dict[str, Callable[[Tensor], Tensor | None]] = {
    "a gradient changed on its way": doubled_in_place,
    "a gradient in another's place": lambda gradient: 2 * gradient,
}


def told(case: str) -> list[bool]:
    """What the backward of two blocks and of the stem is told in this case."""
    from cherimoya.ops.block import op as block
    from cherimoya.ops.block.weights import OutputGradient
    from cherimoya.ops.stem import op as stem

    found = []
    of = OutputGradient.of

    def of_block(dout: Tensor, complete: bool) -> OutputGradient:
        found.append(complete)
        return of(dout, complete)

    def of_stem(dout: Tensor) -> bool:
        found.append(is_complete(dout))
        return found[-1]

    OutputGradient.of, stem.is_complete = staticmethod(of_block), of_stem
    block.total_memory = lambda device: 0 if case == "without what the forward keeps" else 2**40
    torch.manual_seed(0)
    model = Cherimoya(16, 2, trimming=4)
    first, last = model.blocks
    more = []

    def watched(module: torch.nn.Module, x: tuple[Tensor], out: Tensor) -> None:
        if case in HOOKS:
            out.register_hook(HOOKS[case])
        elif case == "a sum of two gradients":
            more.append(out.sum())

    first.register_forward_hook(watched)
    if case == "a block that is made again":
        made = partial(checkpoint, first.forward, use_reentrant=True)
        first.forward = lambda x: made(x)
    X = torch.nn.functional.one_hot(torch.randint(4, (2, 40)), 4).mT.float()
    if case == "a training step":
        config = build(TrainConfig, composed("train", ["optim=muon_adamw_sgd"]))
        step = TrainingStep(model, config.loss, config.optim, 3, 4)
        step([Batch(X, torch.ones(2, 1, 32), None)])
        return found
    if case == "a gradient of one's own":
        loss = last(first(stem.stem(X, model.iconv.weight, model.iconv.bias))).square().mean()
    else:
        logits, counts = model(X)
        loss = logits.square().mean() + counts.sum() + sum(more)
    with nullcontext() if case == "a backward outside a training step" else straight_backward():
        loss.backward()
    return found


@pytest.mark.parametrize("case", TOLD)
def test_a_backward_knows_which_gradients_are_complete(case):
    pytest.importorskip("triton")
    assert printed_by_the_interpreter(__file__, case) == f"{TOLD[case]}\n"


def test_only_the_memory_noted_last_is_complete_and_while_it_is_unchanged():
    with straight_backward():
        first, second = torch.zeros(3), torch.zeros(3)
        note_complete(first)
        assert is_complete(first)
        assert not is_complete(second)
        first.add_(1.0)
        assert not is_complete(first)
        note_complete(first)
        note_complete(second)
        assert not is_complete(first)
        assert is_complete(second)
        del second
        assert not any(is_complete(torch.zeros(3)) for _ in range(10))
    note_complete(torch.zeros(3))
    assert not is_complete(torch.zeros(3))


if __name__ == "__main__":
    print(told(sys.argv[1]))
