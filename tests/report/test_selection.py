"""What a sweep is said to have shown, on cases whose answer is known."""

import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from cherimoya.records.sweep import Member, configurations
from cherimoya.report import selection
from cherimoya.report.plots import runs as plots


def member(loss=300.0, parameters=1000, state="done", pearson=0.5, **overrides):
    summary = {
        "best_valid_loss": loss, "parameters": parameters, "train_seconds": 90.0,
        "scored_split": "validation", "validation": {"profile_pearson": pearson},
    }  # fmt: skip
    words = {k: str(v) for k, v in overrides.items()}
    return Member(Path("x"), words, state, summary if state == "done" else {})


def seeds(losses, **overrides):
    return [member(loss, seed=i, **overrides) for i, loss in enumerate(losses)]


def test_seeds_are_folded_into_mean_and_spread():
    found = configurations([*seeds([4.0, 6.0], width=8), *seeds([1.0, 3.0], width=16)])
    assert [c.values for c in found] == [{"width": "16"}, {"width": "8"}]  # the best first
    assert found[1].mean("loss") == 5.0
    assert found[1].spread("loss") == pytest.approx(math.sqrt(2))
    assert found[0].mean("minutes") == 1.5
    assert found[0].mean("profile_pearson") == 0.5  # of whichever split was scored


def test_the_smallest_within_one_standard_error_is_recommended():
    members = [
        *seeds([299.0, 300.0, 301.0], width=32, parameters=4000),  # 300, standard error 0.577
        *seeds([300.4, 300.5, 300.6], width=16, parameters=2000),  # within
        *seeds([300.7, 300.7, 300.7], width=8, parameters=1000),  # not any more
    ]
    choice = selection.recommend(configurations(members))
    assert choice.chosen.values == {"width": "16"}
    assert "300.50 nats with 2,000 parameters, while width=32 reaches 300.00" in choice.reason
    assert "300.00 + 0.577 = 300.58" in choice.reason


def test_the_best_is_recommended_when_none_is_near_or_smaller():
    members = [*seeds([300.0, 300.2], width=8), *seeds([310.0, 310.2], width=4, parameters=10)]
    choice = selection.recommend(configurations(members))
    assert choice.chosen.values == {"width": "8"}
    assert "no other comes within" in choice.reason
    members += seeds([300.1, 300.2], width=16, parameters=5000)
    choice = selection.recommend(configurations(members))
    assert choice.chosen.values == {"width": "8"}
    assert "of the 1 others" in choice.reason


@pytest.mark.parametrize(
    ("best", "words"),
    [
        (32, " Of the best, width=32 is the largest tried: a better one may lie beyond."),
        (8, " Of the best, width=8 is the smallest tried: a better one may lie beyond."),
        (16, ""),
    ],
)
def test_a_best_at_the_edge_of_what_was_tried_is_said_to_be(best, words):
    losses = {width: 300.0 + 10 * (width != best) for width in (8, 16, 32)}
    members = [m for width, loss in losses.items() for m in seeds([loss, loss + 1], width=width)]
    choice = selection.recommend(configurations(members))
    assert choice.chosen.values == {"width": str(best)}
    assert choice.reason.partition(" nats.")[2] == words
    alone = selection.recommend(configurations(members[:1]))
    assert "tried" not in alone.reason


def test_one_seed_is_said_to_be_one():
    members = [member(300.0, width=32, parameters=9000), member(300.1, width=8)]
    choice = selection.recommend(configurations(members))
    assert choice.chosen.values == {"width": "32"}
    assert "Only one seed" in choice.reason
    assert "the only one that finished" in selection.recommend(
        configurations([members[0], member(state="failed", width=4)])
    ).reason  # fmt: skip
    failed = configurations([member(state="failed", width=4)])
    assert selection.recommend(failed) is None


def test_the_pareto_front():
    points = [(1, 5), (2, 3), (2, 4), (3, 3), (4, 1), (5, 2), (1, 5), (math.nan, 0)]
    assert selection.front(points, higher=False) == [0, 1, 4]
    assert selection.front([(c, -s) for c, s in points], higher=True) == [0, 1, 4]
    assert selection.front([], higher=True) == []


def test_marginal_means_are_over_the_other_keys():
    members = [
        member(10.0, width=8, depth=1), member(20.0, width=8, depth=2),
        member(30.0, width=16, depth=1), member(state="failed", width=16, depth=2),
        member(1.0, width=128, depth=2),
    ]  # fmt: skip
    found = configurations(members)
    levels = selection.effect(found, "width", "loss")
    assert [v.value for v in levels] == ["8", "16", "128"]  # by size, not by letter
    assert [v.mean for v in levels] == [15.0, 30.0, 1.0]
    assert levels[0].spread == pytest.approx(math.sqrt(50))
    assert levels[1].spread == 0.0


def test_numeric_keys_put_depth_and_width_first():
    members = [
        member(a_key=a, n_filters=f, n_layers=d, optim=o)
        for a, f, d, o in [(1, 8, 3, "muon"), (2, 16, 5, "adamw")]
    ]
    found = configurations(members)
    assert selection.numeric_keys(found) == ["n_layers", "n_filters", "a_key"]


def test_calibration_is_of_loci_that_were_predicted_alike():
    predicted = np.repeat([1.0, 2.0, 3.0], 8)
    observed = predicted * 2 + np.tile([-0.5, 0.5], 12)
    axis = Figure().subplots()
    plots.calibration(axis, observed, predicted)
    (mean,) = [line for line in axis.lines if line.get_label() == "mean"]
    np.testing.assert_allclose(mean.get_xdata(), [1, 2, 3])
    np.testing.assert_allclose(mean.get_ydata(), [2, 4, 6])
    ends = np.array([segment[:, 1] for segment in axis.collections[0].get_segments()])
    np.testing.assert_allclose(ends, [[1.5, 2.5], [3.5, 4.5], [5.5, 6.5]])
