"""The trial of a loss of the user's own."""

import torch
from torch import Tensor, nn

from cherimoya import Cherimoya
from cherimoya.config.schema import choose
from cherimoya.losses import Loss
from cherimoya.training.own_loss import check_loss


class Drawn(Loss):
    """It begins with a random number, and looks at the gradients of the network."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(()))

    def begin(self, model) -> None:
        """lw0 is trained."""

    def forward(self, model, logits, log_counts, signal) -> Tensor:
        assert logits.shape == signal.shape == (5, 3, 70)
        return self.scale * (logits.sum() + log_counts.sum()) + model.lw0.sum()

    def logged(self, model) -> dict[str, float]:
        return {"gradient": float(model.iconv.weight.grad.norm())}

    def end_epoch(self, model) -> bool:
        model.lw0.requires_grad_(False).zero_()
        return True


def test_the_trial_leaves_network_and_random_numbers_as_they_were():
    model = Cherimoya(8, 2, signal_groups=[1, 2])
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    before = torch.get_rng_state()
    check_loss(choose("loss", {"name": f"{__name__}:Drawn"}, "loss"), model, 5, 70)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
