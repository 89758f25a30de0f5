"""Saturation mutagenesis and gradients are what their definitions say."""

import sys

import numpy as np
import pytest
import torch

from cherimoya import Cherimoya
from cherimoya.errors import ConfigError, PackageError
from cherimoya.genome.sequence import (
    as_codes,
    decode,
    encode,
    one_hot,
    reverse_complement,
    strand_channels,
)
from cherimoya.interpret.gradients import Explained, deep_lift_shap, input_gradients
from cherimoya.interpret.models import check_effects_precision
from cherimoya.interpret.mutagenesis import centred, saturation_mutagenesis
from cherimoya.interpret.target import Target, targets_of

LENGTH = 60


@pytest.fixture(scope="module")
def model() -> Cherimoya:
    """Two signal groups and weights far from their small beginning, so that effects are large."""
    torch.manual_seed(0)
    made = Cherimoya(8, 3, signal_groups=[1, 2], profile_kernel_size=3, trimming=15)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(10)
    return made


@pytest.fixture(scope="module")
def codes() -> torch.Tensor:
    made = torch.randint(0, 4, (3, LENGTH), generator=torch.Generator().manual_seed(1))
    made[1, 30] = 4
    return made.to(torch.uint8)


def by_hand(model, X, target: Target, controls=None) -> float:
    """The target of one sequence (4, L), from its definition."""
    with torch.no_grad():
        logits, log_counts = model(X[None], controls)
    if target.output == "counts":
        return float(log_counts[0, target.group])
    own = logits[0, :1] if target.group == 0 else logits[0, 1:]
    p = own.flatten().softmax(0).view_as(own)
    return float((p * (own - own.mean())).sum())


def naive(model, X, target, positions, controls=None) -> np.ndarray:
    effects = np.zeros((len(X), 4, len(positions)))
    for n in range(len(X)):
        own = None if controls is None else controls[n : n + 1]
        plain = by_hand(model, X[n], target, own)
        for i, base in np.ndindex(len(positions), 4):
            mutant = X[n].clone()
            mutant[:, positions[i]] = 0
            mutant[base, positions[i]] = 1
            effects[n, base, i] = by_hand(model, mutant, target, own) - plain
    return effects


@pytest.mark.parametrize("batch_size", [7, 512])
def test_mutagenesis_equals_a_loop_over_all_mutants(model, codes, batch_size):
    targets = targets_of(["counts", "profile"], None, model.signal_groups)
    window = slice(28, 32)
    found = saturation_mutagenesis(model, codes, targets, window, batch_size=batch_size)
    assert found.shape == (4, 3, 4, 4)
    for effects, target in zip(found, targets, strict=True):
        expected = naive(model, one_hot(codes), target, range(LENGTH)[window])
        assert np.abs(expected).max() > 0.01
        np.testing.assert_allclose(effects, expected, atol=1e-6 + 1e-5 * np.abs(expected).max())


def test_the_base_that_is_there_has_no_effect(model, codes):
    effects = saturation_mutagenesis(model, codes, window=slice(20, 40))[0]
    X = one_hot(codes)[:, :, 20:40].bool().numpy()
    assert (effects[X] == 0).all()
    assert (effects[1, :, 10] != 0).all()  # an N becomes each of the four
    scores = centred(effects)
    np.testing.assert_allclose(scores.mean(axis=1), 0, atol=1e-6)
    kept = (scores * X).sum(1)
    known = X.any(1)
    np.testing.assert_allclose(kept[known], -effects.sum(1)[known] / 4, atol=1e-5)


def test_mutagenesis_reads_controls():
    torch.manual_seed(2)
    model = Cherimoya(8, 2, n_control_tracks=1, trimming=15)
    codes = torch.randint(0, 4, (2, LENGTH)).to(torch.uint8)
    controls = torch.rand(2, 1, LENGTH) * 5
    found = saturation_mutagenesis(
        model, codes, [Target("profile")], slice(28, 32), controls, batch_size=5
    )
    expected = naive(model, one_hot(codes), Target("profile"), range(28, 32), controls)
    np.testing.assert_allclose(found[0], expected, atol=1e-6)


def test_one_hot_and_codes_give_the_same_and_the_mode_is_left(model, codes):
    model.train()
    one, other = (
        saturation_mutagenesis(model, x, window=slice(30, 33)) for x in (codes, one_hot(codes))
    )
    assert np.array_equal(one, other)
    assert model.training
    assert saturation_mutagenesis(model, codes[:0], window=slice(0, 3)).shape == (1, 0, 4, 3)


def test_groups_that_do_not_exist_are_refused():
    assert [t.name for t in targets_of(["counts"], [1], [1, 2])] == ["counts_1"]
    with pytest.raises(ConfigError, match=r"groups=\[2\]: the model has 2 signal groups, 0 to 1"):
        targets_of(["counts"], [2], [1, 2])


def test_sequences_are_read_and_turned():
    assert decode(encode("ACgtRN-")) == "ACGTNNN"
    codes = torch.from_numpy(encode("AACGN"))[None]
    assert decode(reverse_complement(codes)[0].numpy()) == "NCGTT"
    assert torch.equal(as_codes(one_hot(codes)), codes)
    assert strand_channels([1, 2, 3]) == [0, 2, 1, 5, 4, 3]
    with pytest.raises(ValueError, match=r"shape \(1, 3, 5\): expected one-hot"):
        as_codes(torch.zeros(1, 3, 5))
    with pytest.raises(ValueError, match="expected one-hot"):
        as_codes(torch.full((1, 4, 5), 0.25))


@pytest.mark.parametrize("output", ["counts", "profile"])
def test_gradients_are_those_of_the_target(model, codes, output):
    """Against central differences; the profile's softmax is differentiated too."""
    target = Target(output, 1)
    found = input_gradients(model, codes, target, batch_size=2)
    X = one_hot(codes)
    scale = float(np.abs(found).max())
    for n, base, i in ((0, 2, 30), (1, 0, 22), (2, 3, 35)):
        step = torch.zeros_like(X)
        step[n, base, i] = 0.01
        with torch.no_grad():
            both = [
                target.of(*model(x), model.signal_groups)[n].item() for x in (X + step, X - step)
            ]
        assert found[n, base, i] == pytest.approx((both[0] - both[1]) / 0.02, abs=0.02 * scale)


@pytest.mark.parametrize("output", ["counts", "profile"])
def test_deep_lift_adds_up(model, codes, output):
    pytest.importorskip("tangermeme")
    whole = codes[[0, 2]]
    target = Target(output, 1)
    found, deltas = deep_lift_shap(model, whole, target, n_shuffles=4)
    assert np.abs(deltas).max() < 1e-4
    with torch.no_grad():
        X, shuffles = one_hot(whole), dinucleotide_shuffles(whole, 4)
        score = target.of(*model(X), model.signal_groups)
        others = target.of(*model(shuffles.flatten(0, 1)), model.signal_groups)
        change = (score - others.view(2, 4).mean(1)).numpy()
    assert np.abs(change).min() > 0.01
    np.testing.assert_allclose((found * X.numpy()).sum((1, 2)), change, atol=1e-4)


def test_without_its_rule_deep_lift_would_not_add_up(model, codes, monkeypatch):
    pytest.importorskip("tangermeme")
    rule = "cherimoya.interpret.gradients.conv_norm_rule"
    monkeypatch.setattr(rule, lambda module, grad_input, grad_output: grad_input)
    deltas = deep_lift_shap(model, codes[[0, 2]], Target("counts"), n_shuffles=4)[1]
    assert deltas.max() > 1e-3


def test_deep_lift_of_a_model_with_controls(codes):
    pytest.importorskip("tangermeme")
    torch.manual_seed(3)
    model = Cherimoya(8, 2, n_control_tracks=1, trimming=15)
    controls = torch.rand(2, 1, LENGTH) * 5
    deltas = deep_lift_shap(model, codes[[0, 2]], Target("profile"), controls, n_shuffles=3)[1]
    assert np.abs(deltas).max() < 1e-5


def test_what_deep_lift_explains_is_the_model(model, codes):
    pytest.importorskip("tangermeme")
    X = one_hot(codes)
    for target in targets_of(["counts", "profile"], None, model.signal_groups):
        with torch.no_grad():
            expected = target.of(*model(X), model.signal_groups)
            assert torch.allclose(Explained(model, target)(X)[:, 0], expected, atol=1e-5)


def dinucleotide_shuffles(codes, n):
    from tangermeme.ersatz import dinucleotide_shuffle

    return dinucleotide_shuffle(one_hot(codes), n=n, random_state=[0] * len(codes))


def test_a_missing_package_is_named(model, codes, monkeypatch):
    monkeypatch.setitem(sys.modules, "tangermeme.deep_lift_shap", None)
    with pytest.raises(PackageError, match=r"pip install 'cherimoya-train\[interpret\]'"):
        deep_lift_shap(model, codes, Target("counts"))


def test_a_precision_that_rounds_effects_is_said(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    check_effects_precision("fp32", gpu)
    check_effects_precision("fp32", cpu)
    assert capsys.readouterr().out == ""
    for asked in ("tf32", "bf16"):
        check_effects_precision(asked, gpu)
        assert f"precision={asked} rounds effects" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"precision=tf32, but the CPU .* Use precision=fp32"):
        check_effects_precision("tf32", cpu)
