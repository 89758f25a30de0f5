"""What a run keeps of single loci: the numbers in its files are those that were scored."""

import json

import numpy as np
import pytest
import torch
from configs import composed

from cherimoya import Cherimoya
from cherimoya.config.schema import build
from cherimoya.config.train import TrainConfig
from cherimoya.data.dataset import load_dataset
from cherimoya.data.feed import Resident
from cherimoya.evaluation import baselines
from cherimoya.evaluation.per_locus import write_scored_loci
from cherimoya.evaluation.scores import Scores, evaluate
from cherimoya.inference.cuda_graph import CUDAGraphModel
from cherimoya.records import per_locus
from cherimoya.training.run import train


@pytest.fixture
def finished(train_arguments, tmp_path):
    """A finished run: its folder, its data, and its best model scored once more."""
    threads = torch.get_num_threads()
    config = build(TrainConfig, composed("train", [*train_arguments, "trainer.max_epochs=1"]))
    train(config, tmp_path)
    torch.set_num_threads(threads)
    dataset = load_dataset(config.data)
    model = Cherimoya.load(tmp_path / "checkpoints" / "best.pt")
    source = Resident(dataset.loci, torch.device("cpu"))
    rows = dataset.rows["test"]
    scores = evaluate(CUDAGraphModel(model), source, rows, dataset.loci.label, 64, "fp32")
    return tmp_path, dataset, scores


def test_scored_loci_are_those_of_the_scores(finished):
    folder, dataset, scores = finished
    loci, rows = dataset.loci, dataset.rows["test"]
    lines = [line.split("\t") for line in (folder / "test_loci.tsv").read_text().splitlines()]
    assert lines[0][:5] == ["chrom", "start", "end", "label", "observed_log_counts"]
    assert len(lines) == 1 + len(rows)
    stored = loci.start[rows[0]] + loci.max_jitter  # 200 bp in, 100 bp out
    assert lines[1][:3] == [loci.chrom[rows[0]], str(stored + 50), str(stored + 150)]
    read = per_locus.read_scored_loci(folder / "test_loci.tsv")
    np.testing.assert_array_equal(read.label, scores.label)
    np.testing.assert_allclose(read.predicted_log_counts, scores.log_counts, rtol=1e-5)
    for name in per_locus.PROFILE_SCORES:
        np.testing.assert_allclose(getattr(read, name), scores.profile[name], rtol=1e-5)
    totals = np.expm1(read.observed_log_counts[:, 0])
    counted = baselines.centred_signal(dataset, rows).sum(dim=(1, 2))
    np.testing.assert_allclose(totals, counted, rtol=1e-4)
    summary = json.loads((folder / "summary.json").read_text())
    peaks = read.label == 1
    mean = np.nanmean(read.profile_pearson[peaks])
    assert mean == pytest.approx(summary["test"]["profile_pearson"], rel=1e-5)


def test_examples_are_peaks_with_their_own_signal(finished):
    folder, dataset, _ = finished
    examples = per_locus.read_examples(folder / "examples.npz")
    signal = baselines.centred_signal(dataset, dataset.peaks("test")).numpy()
    starts, _ = per_locus.output_windows(dataset.loci, dataset.peaks("test"))
    read = per_locus.read_scored_loci(folder / "test_loci.tsv")
    predicted = np.expm1(read.predicted_log_counts[read.label == 1, 0])
    for i, start in enumerate(examples.start):
        (row,) = np.flatnonzero(starts == start)
        np.testing.assert_array_equal(examples.observed[i], signal[row])
        assert examples.expected[i].sum() == pytest.approx(predicted[row], rel=1e-4)
    assert examples.sign.tolist() == [1, -1]
    assert examples.track_names.tolist() == list(dataset.loci.track_names)


def test_undefined_scores_and_several_groups_survive_the_file(finished, tmp_path):
    _, dataset, _ = finished
    rows = np.arange(2)
    profile = {name: torch.tensor([[0.5, torch.nan], [0.25, 1.0]]) for name in
               per_locus.PROFILE_SCORES}  # fmt: skip
    counts = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    scores = Scores(profile, counts, counts + 1, torch.tensor([1, 0]))
    path = write_scored_loci(tmp_path / "x.tsv", scores, dataset.loci, rows)
    assert "profile_jsd_1" in path.read_text().splitlines()[0].split("\t")
    read = per_locus.read_scored_loci(path)
    np.testing.assert_array_equal(read.profile_jsd, [[0.5, np.nan], [0.25, 1.0]])
    np.testing.assert_array_equal(read.observed_log_counts, counts + 1)
