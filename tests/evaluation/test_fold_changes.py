"""How well differences between signal groups are predicted, their depths made equal."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from configs import composed
from grouped_data import DEPTHS, NAMES, grouped_loci, run_on

from cherimoya.config.predict import EvaluateConfig
from cherimoya.config.schema import build
from cherimoya.data import hdf5
from cherimoya.evaluation.evaluate import evaluate_checkpoints
from cherimoya.evaluation.fold_changes import depths_of, fold_change_scores, fold_changes
from cherimoya.evaluation.scores import Scores, log_totals
from cherimoya.report.pages import write_report


def test_of_two_groups_it_is_the_log_ratio_at_one_depth() -> None:
    counts, depths = np.array([[30.0, 10], [0, 7], [5, 5]]), np.array([3000.0, 1000])
    found = fold_changes(torch.from_numpy(counts).log1p(), torch.from_numpy(depths))
    scaled = counts * 2000 / depths
    ratio = np.log2(1 + scaled[:, 0]) - np.log2(1 + scaled[:, 1])
    np.testing.assert_allclose(found.numpy(), np.stack([ratio, -ratio], 1), atol=1e-12)
    assert found[0].tolist() == [0, 0]  # three times the counts at three times the depth


def test_a_group_is_set_against_the_mean_of_the_others() -> None:
    rng = np.random.default_rng(0)
    logs = torch.from_numpy(rng.random((5, 4)))
    found = fold_changes(logs, torch.full((4,), 10.0))
    values = logs.numpy() / np.log(2)
    for g in range(4):
        others = np.delete(values, g, axis=1).mean(axis=1)
        np.testing.assert_allclose(found[:, g].numpy(), values[:, g] - others, atol=1e-12)


def test_depths_are_noted_ones_or_those_of_the_loci() -> None:
    loci = grouped_loci()
    depths, where = depths_of(loci)
    assert (depths.tolist(), where) == (DEPTHS, "genome")
    depths, where = depths_of(replace(loci, group_depths=[], signal_groups=[2, 1]))
    assert where == "loci"
    windows = loci.signal[:, :, 8:108]  # what lies in the margins for the jitter does not count
    assert depths.tolist() == [windows[:, :2].sum(), windows[:, 2].sum()]
    assert depths.sum() < loci.signal.sum()


def test_a_perfect_prediction_and_one_without_differences() -> None:
    loci = grouped_loci()
    observed = log_totals(torch.from_numpy(loci.signal[:, :, 8:108]).float(), [1, 1, 1])
    label = torch.from_numpy(loci.label.astype(np.int64))
    best = fold_change_scores(Scores({}, observed, observed, label), loci)
    flat = torch.from_numpy(np.log1p(np.full(observed.shape, 50.0) * DEPTHS))
    none = fold_change_scores(Scores({}, flat, observed, label), loci)
    for name, good, bad in zip(NAMES, best["groups"], none["groups"], strict=True):
        assert good["name"] == name
        assert good["pearson"] == pytest.approx(1)
        assert good["rmse"] == pytest.approx(0, abs=1e-6)
        assert bad["rmse"] >= bad["observed_sd"] > 0


@pytest.mark.slow
def test_an_evaluation_names_groups_and_tells_their_differences(tmp_path, capsys) -> None:
    path = hdf5.write(tmp_path / "all.h5", grouped_loci())
    run = run_on(path, tmp_path / "run")
    given = [f"checkpoint={run}", "split=all", "bootstrap=0", f"output={tmp_path / 'scores'}"]
    values = composed("evaluate", given)
    values["checkpoint"] = [values["checkpoint"]]
    folder = evaluate_checkpoints(build(EvaluateConfig, values))
    said = capsys.readouterr().out
    found = json.loads((folder / "scores.json").read_text())
    assert [group["name"] for group in found["groups"]] == NAMES
    assert [row["depth"] for row in found["fold_changes"]["groups"]] == DEPTHS
    assert "signal group  depth  profile Pearson  count Pearson  fold change Pearson" in said
    pytest.importorskip("matplotlib")
    text = write_report(folder).read_text()
    assert "How signal groups differ" in text
    assert "its counts\non the whole genome" in text
    assert f"{found['fold_changes']['groups'][1]['rmse']:.4f}</td>" in text
    assert "calibration of the counts, T cell" in text
    assert "profile Pearson of each peak, T cell" in write_report(run).read_text()
    assert "signal group 1" not in text
