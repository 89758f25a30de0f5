"""Agreement with numbers that upstream Cherimoya 0.1.0 and 0.3.1 produced."""

import pytest
import torch
from torch import Tensor

from cherimoya import Cherimoya
from cherimoya.config.schema import build
from cherimoya.config.train import OptimConfig
from cherimoya.losses import KendallLoss, profile_and_count_losses
from cherimoya.optim.routing import build_optimizers, build_schedules
from cherimoya.training.ema import EMA

TOLERANCE = 1e-4  # relative RMS, float32 on the CPU
TRAJECTORY_TOLERANCE = 1e-3

CASES = [
    "v010_default_shape",
    "v010_expansion4_scale05_controls",
    "v031_default_shape",
    "v031_groups_controls",
]


def relative_rms(actual: Tensor, expected: Tensor) -> float:
    actual = actual.detach()
    error = (actual.double() - expected.double()).square().mean().sqrt()
    return float(error / expected.double().square().mean().sqrt().clamp(min=1e-30))


def one_hot(codes: Tensor) -> Tensor:
    return (codes[:, None] == torch.arange(4)[None, :, None]).float()  # (N, 4, L)


@pytest.fixture(params=CASES)
def case(request, shared):
    folder = shared / "parity"
    golden = torch.load(folder / f"{request.param}.pt", weights_only=True)
    return Cherimoya.load(folder / f"{request.param}.torch"), golden


def test_outputs_losses_and_gradients(case):
    model, golden = case
    X = one_hot(golden["sequence_codes"]).requires_grad_()
    logits, log_counts = model(X, golden["controls"])
    assert relative_rms(logits, golden["profile_logits"]) < TOLERANCE
    assert relative_rms(log_counts, golden["log_counts"]) < TOLERANCE

    profile, count = profile_and_count_losses(
        logits, log_counts, golden["counts"], model.signal_groups
    )
    total = KendallLoss(freeze_below=1.0).objective(model, profile, count)
    assert relative_rms(profile, golden["profile_loss"].reshape(-1)) < TOLERANCE
    assert relative_rms(count, golden["count_loss"].reshape(-1)) < TOLERANCE
    assert relative_rms(total, golden["loss"]) < TOLERANCE

    total.backward()
    assert relative_rms(X.grad, golden["grad_input"]) < TOLERANCE
    gradients = dict(model.named_parameters())
    names = {name.replace(".conv.conv_weight", ".conv_weight"): name for name in golden["grads"]}
    assert set(names) == set(gradients)
    for name, upstream_name in names.items():
        expected = golden["grads"][upstream_name]
        if name == "fconv.bias":  # a bias common to a softmax group has gradient 0, up to rounding
            scale = golden["grads"]["fconv.weight"].abs().max()
            assert (gradients[name].grad - expected).abs().max() < TOLERANCE * scale, name
        else:
            assert relative_rms(gradients[name].grad, expected) < TOLERANCE, name


def test_trajectory_of_twelve_training_steps(shared):
    golden = torch.load(shared / "parity" / "v010_trajectory.pt", weights_only=True)
    model = Cherimoya.load(shared / "parity" / "v010_trajectory.init.torch")
    o = golden["optim"]
    values = {
        "routing": [
            {"pattern": "blocks.*.linear[12].weight", "optimizer": "muon"},
            {"pattern": "*", "optimizer": "adamw"},
        ],
        "muon": {
            "lr": o["muon_lr"], "weight_decay": o["muon_weight_decay"], "momentum": 0.95,
            "ns_steps": 5,
        },
        "adamw": {
            "lr": o["adamw_lr"], "weight_decay": o["adamw_weight_decay"], "beta1": 0.9,
            "beta2": 0.999, "eps": 1e-8,
        },
        "warmup_epochs": golden["warmup_steps"],
        "warmup_start": o["start_factor"],
        "min_lr": o["eta_min"],
        "ema_decay": o["ema_decay"],
        "ema_warmup": False,
    }  # fmt: skip
    config = build(OptimConfig, values, "optim")
    optimizers, _ = build_optimizers(dict(model.named_parameters()), config)
    schedules = build_schedules(config, optimizers, 1, golden["steps"])
    loss, ema = KendallLoss(freeze_below=0.0), EMA(model.named_parameters())
    for step in range(golden["steps"]):
        for name, optimizer in optimizers.items():
            rate = schedules[name](step)
            assert torch.tensor(rate) == golden[f"lr_{name}"][step], (name, step)
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
        logits, log_counts = model(one_hot(golden["sequence_codes"][step]))
        profile, count = profile_and_count_losses(
            logits, log_counts, golden["counts"][step], model.signal_groups
        )
        total = loss.objective(model, profile, count)
        total.backward()
        for optimizer in optimizers.values():
            optimizer.step()
        ema.update(torch.tensor(o["ema_decay"]), torch.tensor(0.0))
        for name, value in {"profile": profile, "count": count, "loss": total}.items():
            expected = golden[name][step]
            assert relative_rms(value.reshape(()), expected) < TRAJECTORY_TOLERANCE, (name, step)
    check_adamw_parameters(model, golden["final"], 1e-2)
    with ema.swapped_in():
        check_adamw_parameters(model, golden["ema"], TRAJECTORY_TOLERANCE)


def check_adamw_parameters(model: Cherimoya, expected: dict[str, Tensor], tolerance: float) -> None:
    """Muon's matrices are left out: twelve bfloat16 Newton-Schulz updates are chaotic to 10 %,
    for torch.optim.Muon too (test_optim.py compares single updates); so is the profile's bias,
    whose gradient is rounding alone."""
    for name, parameter in model.named_parameters():
        if ".linear" not in name and name != "fconv.bias":
            assert relative_rms(parameter.detach(), expected[name]) < tolerance, name
