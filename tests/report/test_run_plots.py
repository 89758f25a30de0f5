"""The charts of a run: what is drawn where, and what a share of the ceiling counts."""

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from cherimoya.records.metrics import share_of_ceiling
from cherimoya.records.per_locus import Examples
from cherimoya.report.plots import runs as plots
from cherimoya.report.plots.theme import OBSERVED, PREDICTED, figure
from cherimoya.training.summary import score_table


def saved(monkeypatch, draw):
    """The figure that `draw` would write, as it is laid out."""
    found = []
    monkeypatch.setattr(plots, "save_png", lambda made, path: found.append(made) or path)
    draw()
    (made,) = found
    made.draw_without_rendering()
    return made


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("n", [40, 50_000])
def test_the_title_and_the_legend_of_the_counts_lie_apart(monkeypatch, tmp_path, groups, n):
    values = np.random.default_rng(0).random((n, groups))
    label = np.arange(n) % 3 > 0

    def draw():
        plots.count_scatter(values, values, label.astype(int), tmp_path / "counts.png")

    made = saved(monkeypatch, draw)
    for axis in made.axes:
        title = axis.title if axis.get_title() else axis._left_title
        assert title.get_text() == ("test loci" if groups == 1 else title.get_text())
        box, names = title.get_window_extent(), axis.get_legend().get_window_extent()
        assert not box.overlaps(names)
        assert box.y0 >= names.y1 - 1
        assert names.y0 >= axis.get_window_extent().y1 - 1
        assert box.y1 <= made.bbox.y1


def examples(tracks: int) -> Examples:
    rng = np.random.default_rng(1)
    return Examples(
        chrom=np.array(["chr1", "chr2"]), start=np.array([500, -1]), end=np.array([1500, -1]),
        observed=rng.poisson(0.5, (2, tracks, 1000)).astype(np.float32),
        expected=rng.random((2, tracks, 1000), np.float32), sign=np.ones(tracks),
        track_names=np.array([f"t{i}" for i in range(tracks)]),
    )  # fmt: skip


@pytest.mark.parametrize("tracks", [1, 2])
def test_observed_points_up_and_predicted_down_in_axes_for_each_track(tracks):
    held = examples(tracks)
    with figure(tracks, 1) as (_, axes):
        plots.example(axes[:, 0], held, 0)
        for track, axis in enumerate(axes[:, 0]):
            heights = {}
            for drawn in axis.collections:
                (path,) = drawn.get_paths()
                colour = tuple(np.round(drawn.get_facecolor()[0][:3] * 255).astype(int))
                heights[f"#{colour[0]:02x}{colour[1]:02x}{colour[2]:02x}"] = path.vertices[:, 1]
            assert heights[OBSERVED].min() == 0
            assert heights[OBSERVED].max() == held.observed[0, track].max()
            assert heights[PREDICTED].max() == 0
            assert heights[PREDICTED].min() == -held.expected[0, track].max()
            assert f"t{track}" in axis.get_ylabel()
        assert axes[0, 0].get_title(loc="left") == "chr1:500-1,500"


def test_the_image_has_a_row_for_each_track_of_each_locus(monkeypatch, tmp_path):
    made = saved(monkeypatch, lambda: plots.example_profiles(examples(2), tmp_path / "p.png"))
    assert [axis.get_title(loc="left") for axis in made.axes] == [
        "chr1:500-1,500", "", "locus 1", "",
    ]  # fmt: skip
    (legend,) = made.legends
    assert [text.get_text() for text in legend.get_texts()] == ["observed, up", "predicted, down"]


@pytest.mark.parametrize(("name", "value", "ceiling", "constant", "share"), [
    ("auroc", 0.75, 1.0, 0.5, 50), ("auroc", 0.5, 1.0, 0.5, None), ("auroc", 0.4, 1.0, 0.5, None),
    ("auprc", 0.9, 1.0, 0.8, 50), ("auprc", 0.9, 1.0, None, None),
    ("auroc", 0.75, 0.5, 0.5, None), ("auroc", float("nan"), 1.0, 0.5, None),
    ("profile_pearson", 0.4, 0.8, 0.15, 50), ("count_pearson", -0.2845, 0.98, None, None),
    ("count_pearson", 0.0, 0.98, float("nan"), None), ("count_spearman", 0.49, 0.98, None, 50),
    ("profile_pearson", 0.88, 0.8, 0.1, 110), ("profile_mnll", 100.0, 90.0, 300.0, None),
    ("profile_jsd", 0.4, 0.3, 0.6, None), ("count_mse", 0.4, 0.3, 0.6, None),
    ("profile_pearson", None, 0.8, None, None), ("profile_pearson", 0.4, None, None, None),
])  # fmt: skip
def test_the_share_of_the_ceiling_counts_from_chance(name, value, ceiling, constant, share):
    found = share_of_ceiling(name, value, ceiling, constant)
    assert found == (None if share is None else pytest.approx(share))


def test_the_table_prints_a_share_where_there_is_one():
    names = ("profile_mnll", "profile_pearson", "profile_spearman", "profile_jsd",
             "count_pearson", "count_spearman", "count_mse", "auroc", "auprc")  # fmt: skip
    columns = {
        "test": dict.fromkeys(names, 0.6) | {"count_pearson": -0.2845},
        "average profile": dict.fromkeys(names, 0.1) | {"auroc": 0.5, "auprc": 0.8},
        "ceiling": dict.fromkeys(names, 0.8) | {"auroc": 1.0},
    }
    rows = {line.split()[0]: line.split() for line in score_table(columns).splitlines()[2:]}
    assert rows["profile_pearson"][-2:] == ["75", "%"]
    assert rows["auroc"][-2:] == ["20", "%"]
    for name in ("count_pearson", "auprc", "profile_mnll", "count_mse"):
        assert "%" not in rows[name]
