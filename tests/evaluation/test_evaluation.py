"""Scores of a model, of the average profile and of the truth, on data whose truth is known."""

import numpy as np
import pytest
import torch
from scipy import stats

from cherimoya import Cherimoya, metrics
from cherimoya.config.data import DataConfig
from cherimoya.data.dataset import load_dataset
from cherimoya.data.feed import Resident
from cherimoya.evaluation import baselines
from cherimoya.evaluation.scores import Scores, evaluate, log_totals
from cherimoya.inference.cuda_graph import CUDAGraphModel
from cherimoya.training.banner import window_warnings
from cherimoya.training.summary import score_table
from cherimoya.training.trainer import count_weight


@pytest.fixture(scope="module")
def dataset(small_data):
    return load_dataset(
        DataConfig(
            source="hdf5", placement="auto", path=str(small_data), keys=None, synthetic=None,
            cache_dir=None, in_window=None, out_window=None, max_jitter=None, negative_ratio=0.1,
            reverse_complement=True, train_chroms=None, validation_chroms=["sim3"],
            test_chroms=["sim4"], exclude_chroms=[],
        )
    )  # fmt: skip


def test_metrics_are_those_of_scipy_over_the_peaks(dataset):
    torch.manual_seed(0)
    model = Cherimoya(8, 3, signal_groups=[2], trimming=50)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    model.train()
    loci, rows = Resident(dataset.loci, torch.device("cpu")), dataset.rows["train"]
    scores = evaluate(CUDAGraphModel(model), loci, rows, dataset.loci.label, 7, "fp32")
    assert model.training  # as it was
    found = scores.metrics()

    batch = loci.centred(dataset.peaks("train"))
    with torch.no_grad():
        logits, log_counts = model(batch.X)
    p = logits.flatten(1).softmax(1).numpy()
    k = batch.signal.flatten(1).numpy()
    observed = np.log1p(k.sum(1))
    pearson = [stats.pearsonr(a, b)[0] for a, b in zip(p, k, strict=True)]
    assert found["profile_pearson"] == pytest.approx(np.mean(pearson), abs=1e-5)
    expected = stats.pearsonr(log_counts[:, 0], observed)[0]
    assert found["count_pearson"] == pytest.approx(expected, abs=1e-5)
    expected = np.mean((log_counts[:, 0].numpy() - observed) ** 2)
    assert found["count_mse"] == pytest.approx(expected, rel=1e-5)


def test_a_metric_that_works_in_place_changes_no_other_score(dataset):
    def in_place(p, counts, signal_groups):
        signal_groups.clear()
        return p.zero_().sum((1, 2))[:, None] + counts.zero_().sum((1, 2))[:, None]

    torch.manual_seed(0)
    predict = CUDAGraphModel(Cherimoya(8, 3, signal_groups=[2], trimming=50))
    loci, label = Resident(dataset.loci, torch.device("cpu")), dataset.loci.label
    rows = dataset.rows["validation"]
    alone, beside = (
        evaluate(predict, loci, rows, label, 7, "fp32", more=more).metrics()
        for more in ({}, {"first": in_place, "second": in_place})
    )
    assert beside == alone | {"first": 0, "second": 0}


def test_the_truth_beats_the_average_profile(dataset):
    truth = baselines.ceiling(dataset, "train").metrics()
    average = baselines.average_profile(dataset, "train").metrics()
    for name in ("profile_pearson", "profile_spearman"):
        assert truth[name] > average[name] + 0.2, name
    assert truth["profile_mnll"] < average["profile_mnll"]
    assert truth["count_pearson"] > 0.9
    assert truth["auroc"] > 0.9
    assert np.isnan(average["count_pearson"])


def test_the_count_weight_is_half_the_mean_count_of_a_training_peak(dataset):
    counts = baselines.centred_signal(dataset, dataset.peaks("train")).sum(dim=(1, 2))
    assert count_weight(dataset) == pytest.approx(counts.mean().item() / 2)


def test_the_table_shows_the_share_of_the_ceiling():
    names = ("profile_mnll", "profile_pearson", "profile_spearman", "profile_jsd",
             "count_pearson", "count_spearman", "count_mse", "auroc", "auprc")  # fmt: skip
    test = dict.fromkeys(names, 0.6)
    ceiling = dict.fromkeys(names, 0.8)
    lines = score_table({"test": test, "ceiling": ceiling}).splitlines()
    assert lines[0].split() == ["metric", "test", "ceiling", "of", "ceiling"]
    assert lines[3].split() == ["profile_pearson", "0.6000", "0.8000", "75", "%"]
    assert lines[2].split() == ["profile_mnll", "0.6000", "0.8000"]
    without_background = test | {"auroc": float("nan")}
    table = score_table({"test": without_background, "ceiling": ceiling})
    assert table.splitlines()[9].split() == ["auroc", "-", "0.8000"]


@pytest.mark.parametrize(
    ("n_layers", "in_window", "word"),
    [(9, 2114, None), (9, 257, None), (9, 256, "dilation 256"), (13, 2114, "dilation 4096")],
)
def test_dilations_beyond_the_window_are_warned_of(n_layers, in_window, word):
    warnings = window_warnings(n_layers, in_window)
    assert len(warnings) == (word is not None)
    assert word is None or word in warnings[0]


def test_loci_of_equal_whole_counts_are_ties():
    """As of a replicate of two groups, whose logs differ in the last bits."""
    rng = np.random.default_rng(0)
    signal = torch.from_numpy(rng.integers(0, 12, size=(400, 2, 10))).float()
    label = torch.from_numpy(rng.integers(0, 2, size=400))
    totals = log_totals(signal, [1, 1], torch.float64)
    found = Scores({}, totals, totals, label).metrics()
    exact = signal.sum(dim=(1, 2))
    assert len(exact.unique()) < 100
    assert found["auroc"] == metrics.auroc(exact, label).item()
    assert found["auprc"] == metrics.auprc(exact, label).item()
