"""Ensembles, both strands, and models with one tensor out: numbers, gradients and symmetry."""

import numpy as np
import pytest
import torch
from models import GROUPS, model, sequences

from cherimoya.inference.ensemble import Ensemble, reverse_complement_tracks
from cherimoya.inference.wrappers import (
    ControlWrapper,
    ExpectedCountsWrapper,
    LogCountWrapper,
    ProfileWrapper,
    expected_counts,
)
from cherimoya.interpret.gradients import input_gradients
from cherimoya.interpret.target import Target
from cherimoya.metrics import group_softmax


def test_one_model_on_one_strand_is_itself_to_the_bit():
    alone, X = model(), sequences()
    for mine, own in zip(Ensemble([alone])(X), alone(X), strict=True):
        assert torch.equal(mine, own)


def test_an_ensemble_averages_probabilities_and_log_counts():
    models, X = [model(s) for s in range(3)], sequences()
    logits, log_counts = Ensemble(models)(X)
    p = torch.stack([group_softmax(m(X)[0], GROUPS) for m in models]).mean(0)
    torch.testing.assert_close(logits.exp(), p, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(log_counts, torch.stack([m(X)[1] for m in models]).mean(0))


def test_both_strands_give_one_answer_whichever_is_shown():
    both, X = Ensemble([model(controls=3)], True, control_groups=[1, 2]), sequences()
    X_ctl = torch.rand(3, 3, 100)
    logits, log_counts = both(X, X_ctl)
    turned = torch.stack([X_ctl[:, 0].flip(-1), X_ctl[:, 2].flip(-1), X_ctl[:, 1].flip(-1)], dim=1)
    of_other, counts_of_other = both(X.flip(1, 2), turned)
    p, q = logits.exp(), of_other.exp()
    torch.testing.assert_close(log_counts, counts_of_other)
    torch.testing.assert_close(p[:, 0], q[:, 0].flip(-1))  # unstranded: itself, turned
    torch.testing.assert_close(p[:, 1], q[:, 2].flip(-1))  # stranded: plus and minus swap
    own = group_softmax(model(controls=3)(X, X_ctl)[0], GROUPS)
    assert (p - own).abs().max() > 1e-4  # one strand alone says something else


def test_strands_swap_within_a_group_alone():
    values = torch.arange(12.0).view(1, 4, 3)
    turned = reverse_complement_tracks(values, [1, 2, 1])
    assert turned[0, :, 0].tolist() == [2, 8, 5, 11]
    assert torch.equal(reverse_complement_tracks(turned, [1, 2, 1]), values)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([],), "at least one"),
        (([model(), model(groups=[3])],), "differ in signal_groups"),
        (([model(controls=2)], False, [3]), "control_groups=\\[3\\]"),
    ],
)
def test_an_ensemble_that_cannot_be(arguments, words):
    with pytest.raises(ValueError, match=words):
        Ensemble(*arguments)


@pytest.mark.parametrize("detach", [True, False])
def test_the_profile_as_a_number_and_its_gradient(detach):
    net, X = model(), sequences().requires_grad_()
    found = ProfileWrapper(net, detach)(X)
    assert found.shape == (3, 2)
    logits = net(X)[0]
    for g, z in enumerate(logits.split(GROUPS, dim=1)):
        z = z.flatten(1) - z.flatten(1).mean(1, keepdim=True)
        w = torch.exp(z) / torch.exp(z).sum(1, keepdim=True)
        torch.testing.assert_close(found[:, g], (w * z).sum(1))
        # d/dz_k of sum w z, less its mean for the centring: w_k, and with the softmax's own
        # derivative also w_k (z_k - sum w z)
        slope = w.detach() if detach else w * (1 + z - (w * z).sum(1, keepdim=True))
        slope = (slope - slope.mean(1, keepdim=True)).detach()
        (mine,) = torch.autograd.grad(found[:, g].sum(), X, retain_graph=True)
        part = logits.split(GROUPS, dim=1)[g].flatten(1)
        (expected,) = torch.autograd.grad((slope * part).sum(), X, retain_graph=True)
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-6)


def test_a_wrapper_and_cherimoya_attribute_explain_the_same_number():
    net, X = model(), sequences().requires_grad_()
    for wrapper, output in ((ProfileWrapper(net), "profile"), (LogCountWrapper(net), "counts")):
        found = wrapper(X)
        for group in range(len(GROUPS)):
            (mine,) = torch.autograd.grad(found[:, group].sum(), X, retain_graph=True)
            theirs = input_gradients(net, X.detach(), Target(output, group), bar=False)
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)


def test_the_profile_number_ignores_an_offset_of_the_logits():
    net, X = model(groups=[2]), sequences()
    before = ProfileWrapper(net)(X)
    with torch.no_grad():
        net.fconv.bias += 7.0
    torch.testing.assert_close(ProfileWrapper(net)(X), before, rtol=1e-4, atol=1e-4)


def test_log_counts_and_expected_counts():
    net, X = model(), sequences()
    logits, log_counts = net(X)
    assert torch.equal(LogCountWrapper(net)(X), log_counts)
    found = ExpectedCountsWrapper(net)(X)
    assert found.shape == logits.shape
    totals = torch.stack([found[:, :1].sum((1, 2)), found[:, 1:].sum((1, 2))], dim=1)
    torch.testing.assert_close(totals, torch.expm1(log_counts), rtol=1e-4, atol=1e-5)
    ratio = found[:, 1, 3] / found[:, 2, 5]
    torch.testing.assert_close(ratio, torch.exp(logits[:, 1, 3] - logits[:, 2, 5]))
    assert torch.equal(expected_counts(logits, log_counts, GROUPS), found)


def test_controls_of_zeros_where_none_are_given():
    net, X = model(controls=2), sequences()
    with pytest.raises(ValueError, match="needs controls"):
        LogCountWrapper(net)(X)
    zeros, ones = torch.zeros(3, 2, 100), torch.ones(3, 2, 100)
    wrapped = LogCountWrapper(ControlWrapper(net))
    assert torch.equal(wrapped(X), net(X, zeros)[1])
    assert torch.equal(wrapped(X, ones), net(X, ones)[1])
    assert not torch.equal(wrapped(X), wrapped(X, ones))
    assert torch.equal(ControlWrapper(model())(X)[1], model()(X)[1])


def test_wrappers_take_an_ensemble():
    both = Ensemble([model(0), model(1)], reverse_complement=True)
    X = sequences()
    found = ExpectedCountsWrapper(ControlWrapper(both))(X)
    turned = reverse_complement_tracks(ExpectedCountsWrapper(both)(X.flip(1, 2)), GROUPS)
    torch.testing.assert_close(found, turned)
