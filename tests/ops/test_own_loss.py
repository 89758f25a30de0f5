"""A loss of one's own decides what is trained where the loss kernels run."""

import subprocess
import sys

import pytest
from command_lines import clean_environment

CODE = """
import torch
from cherimoya import Cherimoya
from cherimoya.losses import FixedLoss, KendallLoss, Loss, profile_and_count_losses, training_loss
from cherimoya.ops.dispatch import route

assert route(torch.device("cpu"), torch.float32).conv_norm, "the kernels do not run here"

class Tripled(KendallLoss):
    def objective(self, model, profile, count):
        return 3 * super().objective(model, profile, count)

class Alone(Loss):
    def forward(self, model, logits, log_counts, signal):
        profile, count = profile_and_count_losses(logits, log_counts, signal, model.signal_groups)
        return 3 * (1.5 * profile.sum() + 0.25 * count.sum())

def gradients(loss):
    torch.manual_seed(0)
    model = Cherimoya(n_filters=16, n_layers=1, trimming=10)
    for weight in model.parameters():
        weight.data.add_(0.1 * torch.randn_like(weight))
    X = torch.eye(4)[torch.randint(4, (2, 60))].mT.contiguous()
    signal = torch.poisson(torch.full((2, 1, 40), 2.0))
    terms = training_loss(loss, model, *model(X), signal)
    terms.total.backward()
    return terms.total.item(), model.iconv.weight.grad, model.linear.weight.grad

for ours, own in ((KendallLoss(0.0), Tripled(0.0)), (FixedLoss(1.5, 0.25), Alone())):
    (total, *expected), (own_total, *found) = gradients(ours), gradients(own)
    assert abs(own_total / total - 3) < 1e-5, (total, own_total)
    for a, b in zip(expected, found):
        assert ((3 * a - b).norm() / (3 * a).norm()) < 1e-4
"""


@pytest.mark.slow
def test_it_changes_total_and_gradients_in_the_interpreter():
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=clean_environment() | {"TRITON_INTERPRET": "1"},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
