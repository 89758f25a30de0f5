"""The network: its size, its files, its inputs and its heads."""

import pytest
import torch

from cherimoya import CheriBlock, Cherimoya
from cherimoya.errors import CherimoyaError


def one_hot(n: int, length: int) -> torch.Tensor:
    codes = torch.randint(0, 4, (n, length), generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.one_hot(codes, 4).mT.float()


def randomised(**arguments) -> Cherimoya:
    torch.manual_seed(0)
    model = Cherimoya(n_filters=8, n_layers=3, **arguments)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.4)
    return model


def test_the_default_model():
    model = Cherimoya()
    assert sum(p.numel() for p in model.parameters()) == 342_724
    assert model.trimming == 557
    assert model.receptive_field == 1043
    logits, log_counts = model(one_hot(1, 2114))
    assert logits.shape == (1, 1, 1000)
    assert log_counts.shape == (1, 1)


def test_weights_start_as_the_design_says():
    torch.manual_seed(0)
    model = Cherimoya(n_filters=64, n_layers=2)
    for name, p in model.named_parameters():
        if name.startswith("lw"):
            assert torch.equal(p, torch.ones_like(p))
        elif name.endswith("bias"):
            assert not p.any()
        else:
            assert abs(p.std().item() - 0.02) < 0.004, name
            assert p.abs().max() <= 2, name


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"signal_groups": [1, 2], "n_control_tracks": 2, "profile_kernel_size": 7},
        {"expansion": 3, "residual_scale": 0.5, "trimming": 5},
    ],
)
def test_save_and_load_give_the_same_predictions(tmp_path, arguments):
    model = randomised(**arguments)
    X = one_hot(2, 150)
    control = torch.rand(2, 2, 150) if "n_control_tracks" in arguments else None
    model.save(tmp_path / "model.pt")
    loaded = Cherimoya.load(tmp_path / "model.pt")
    assert loaded.config == model.config
    for a, b in zip(model(X, control), loaded(X, control), strict=True):
        assert torch.equal(a, b)


def test_the_profile_is_convolved_before_it_is_trimmed():
    model = randomised(profile_kernel_size=9)
    X = one_hot(2, 150)
    narrow = model(X)[0]
    model.trimming = 0
    assert torch.allclose(narrow, model(X)[0][:, :, 53:-53], atol=1e-5)


def test_controls_change_both_heads():
    model = randomised(n_control_tracks=1)
    X, control = one_hot(2, 150), torch.zeros(2, 1, 150)
    other = control.clone()
    other[:, :, 70] = 9
    for a, b in zip(model(X, control), model(X, other), strict=True):
        assert not torch.allclose(a, b)


@pytest.mark.parametrize(
    ("X", "control", "message"),
    [
        (torch.zeros(2, 5, 150), None, "expected"),
        (torch.zeros(2, 4, 100), None, "twice the model's trimming"),
        (torch.zeros(2, 4, 150), torch.zeros(2, 1, 150), "has no control tracks"),
    ],
)
def test_wrong_inputs_are_refused(X, control, message):
    with pytest.raises(ValueError, match=message):
        randomised()(X, control)


def test_missing_controls_are_refused():
    with pytest.raises(ValueError, match="needs controls of shape"):
        randomised(n_control_tracks=2)(torch.zeros(2, 4, 150))


@pytest.mark.parametrize(
    "arguments",
    [{"n_layers": 0}, {"signal_groups": []}, {"profile_kernel_size": 4}, {"n_control_tracks": -1}],
)
def test_impossible_models_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Cherimoya(**{"n_filters": 8, "n_layers": 2, **arguments})


def test_impossible_blocks_are_refused():
    with pytest.raises(ValueError, match="dilation=0"):
        CheriBlock(8, 0)


def test_files_that_are_no_checkpoint_are_named(tmp_path):
    with pytest.raises(CherimoyaError, match=r"no checkpoint at .*absent\.pt"):
        Cherimoya.load(tmp_path / "absent.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(CherimoyaError, match=r"text\.pt is not a checkpoint"):
        Cherimoya.load(tmp_path / "text.pt")
    for held in ({"a": 1}, [1], 5, {"config": 1, "state_dict": {}}):
        torch.save(held, tmp_path / "other.pt")
        with pytest.raises(CherimoyaError, match=r"other\.pt is not a model's checkpoint"):
            Cherimoya.load(tmp_path / "other.pt")
    torch.save({"config": {"n_filters": 8}, "state_dict": {}}, tmp_path / "empty.pt")
    with pytest.raises(CherimoyaError, match="does not hold a Cherimoya model"):
        Cherimoya.load(tmp_path / "empty.pt")


def test_export_for_upstream_needs_its_profile_kernel(tmp_path):
    with pytest.raises(ValueError, match="reads only 75"):
        randomised().export_upstream(tmp_path / "model.torch")
    model = randomised(profile_kernel_size=75, signal_groups=[2])
    model.export_upstream(tmp_path / "model.torch")
    content = torch.load(tmp_path / "model.torch", weights_only=True)
    assert "profile_kernel_size" not in content["config"]
    loaded = Cherimoya.load(tmp_path / "model.torch")
    assert torch.equal(loaded(one_hot(1, 150))[0], model(one_hot(1, 150))[0])
