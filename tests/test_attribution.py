"""Saturation mutagenesis and gradients are what their definitions say."""

import numpy as np
import pytest
import torch

from cherimoya import Cherimoya
from cherimoya.analysis.attribute_target import Target, targets_of
from cherimoya.analysis.ism import centred, saturation_mutagenesis
from cherimoya.analysis.sequences import (
    as_codes,
    decode,
    encode,
    one_hot,
    reverse_complement,
    strand_channels,
)
from cherimoya.errors import ConfigError

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
    window = slice(26, 32)
    found = saturation_mutagenesis(model, codes, targets, window, batch_size=batch_size)
    assert found.shape == (4, 3, 4, 6)
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
