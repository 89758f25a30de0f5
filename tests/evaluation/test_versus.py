"""The scores that compare us with upstream are those of our own evaluation, without its code."""

import gzip
import importlib.util
import sys

import numpy as np
import pytest
import torch
from command_lines import REPOSITORY

from cherimoya import metrics
from cherimoya.data import hdf5
from cherimoya.data.feed import place
from cherimoya.data.loci import crop


def script(name):
    path = REPOSITORY / f"experiments/versus/{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # run.py imports score.py by its name
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def versus(monkeypatch):
    monkeypatch.setitem(sys.modules, "score", None)
    monkeypatch.setitem(sys.modules, "run", None)
    return script("score"), script("run")


@pytest.fixture
def made(versus):
    """300 loci of two tracks, a good prediction and one that is noise."""
    score, _ = versus
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(60, 0.3), size=300).reshape(300, 2, 30)
    depth = rng.gamma(3, 40, size=300)
    signal = rng.poisson(p * depth[:, None, None])
    label = (np.arange(300) < 200).astype(np.uint8)
    good = score.Prediction(p.astype("float32"), np.log1p(depth) + rng.normal(0, 0.1, 300))
    noise = score.Prediction(rng.permutation(p), rng.normal(5, 1, 300))
    return signal, label, good, noise


def test_scores_are_those_of_the_package(versus, made):
    score, _ = versus
    signal, label, good, _ = made
    found = score.scores(good, signal, label)
    peak = label == 1
    p, y = torch.from_numpy(good.p[peak]), torch.from_numpy(signal[peak]).float()
    counts = torch.from_numpy(good.log_counts[peak])
    observed = torch.from_numpy(np.log1p(signal[peak].sum(axis=(1, 2))))
    profile = metrics.profile_pearson(p, y, [2]).nanmean().item()
    assert found["profile_pearson"] == pytest.approx(profile, abs=1e-6)
    assert found["count_pearson"] == pytest.approx(metrics.pearson(counts, observed).item())
    mse = metrics.mean_squared_error(counts, observed).item()
    assert found["count_mse"] == pytest.approx(mse)
    area = metrics.auroc(torch.from_numpy(good.log_counts), torch.from_numpy(label)).item()
    assert found["auroc"] == pytest.approx(area)


def test_a_difference_has_an_interval_that_knows_noise_from_gain(versus, made):
    score, _ = versus
    signal, label, good, noise = made
    gains = score.differences([good, good], [noise], signal, label)
    for gain, low, high in gains.values():
        assert 0 < low < gain < high
    one, other = score.scores(good, signal, label), score.scores(noise, signal, label)
    for name, (gain, _, _) in gains.items():
        assert gain == pytest.approx(one[name] - other[name])
    for gain, low, high in score.differences([good], [good], signal, label).values():
        assert gain == low == high == 0
    mean = score.mean_of([good, noise])
    assert mean.p == pytest.approx((good.p + noise.p) / 2)


def test_upstream_gets_the_loci_that_we_train_and_are_scored_on(
    versus, small_data, tmp_path, monkeypatch
):
    _, run = versus
    for name, value in (("IN_WINDOW", 200), ("OUT_WINDOW", 100), ("TEST", ["sim4"])):
        monkeypatch.setattr(run, name, value)
    monkeypatch.setattr(run, "VALIDATION", ["sim3"])
    genome = tmp_path / "genome.fa.gz"
    genome.write_bytes(gzip.compress(b">sim1\nACGT\n"))
    assert run.write_loci(small_data, genome, tmp_path) == ["sim1", "sim2"]
    assert (tmp_path / "genome.fa").read_text() == ">sim1\nACGT\n"
    loci = hdf5.read(small_data)
    chrom = loci.chrom.astype(str)
    for name, label in (("peaks", 1), ("background", 0)):
        lines = (tmp_path / f"{name}.bed").read_text().splitlines()
        rows = zip(chrom, loci.start, loci.end, loci.label, strict=True)
        assert lines == [f"{c}\t{s}\t{e}" for c, s, e, which in rows if which == label]
    test = np.load(tmp_path / "test.npz")
    rows = np.flatnonzero(chrom == "sim4")
    source, _ = place(crop(loci, 200, 100, 0), torch.device("cpu"), "auto")
    batch = source.centred(rows)
    assert np.array_equal(test["X"], batch.X.numpy())
    assert np.array_equal(test["signal"], batch.signal.numpy())
    assert np.array_equal(test["label"], loci.label[rows])
