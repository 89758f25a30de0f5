"""The quality control of a bias model at the end of its run, on disk and on the page."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from configs import composed
from run_files import make_run

from cherimoya.config.schema import build
from cherimoya.config.train import TrainConfig
from cherimoya.data.dataset import load_dataset
from cherimoya.data.feed import place
from cherimoya.interpret.bias_quality import bias_quality
from cherimoya.network import Cherimoya
from cherimoya.records.run import read_run
from cherimoya.report.pages import write_report
from cherimoya.training import summary
from cherimoya.training.run import train


@pytest.fixture
def config(train_arguments, tmp_path) -> TrainConfig:
    torch.manual_seed(0)
    Cherimoya(8, 2, trimming=40, signal_groups=[2]).save(tmp_path / "bias.pt")
    words = [*train_arguments, f"model.bias={tmp_path / 'bias.pt'}", "trainer.max_epochs=1"]
    return build(TrainConfig, composed("train", words))


@pytest.mark.slow
def test_a_run_leaves_its_quality_control_and_shows_it(config, tmp_path, capsys):
    folder = tmp_path / "run"
    train(config, folder)
    said = capsys.readouterr().out
    assert "quality of the bias model:" in said
    assert "RED    Its profiles of background" in said or "green  Its profiles of" in said
    values = read_run(folder).bias_quality
    assert [check["name"] for check in values["checks"]] == [
        "footprints", "profiles", "counts", "motif",
    ]  # fmt: skip
    assert values["limits"] == [3 / 200]
    pytest.importorskip("matplotlib")
    page = write_report(folder).read_text()
    assert 'href="#bias"' in page
    assert "Quality control of the bias model" in page
    captions = re.findall(r"<figcaption>(.*): corrected 0\.\d+, limit 0.01500<", page)
    assert len(captions) == 7  # of each motif, and without one
    assert captions[-2:] == ["DNase I, TTTACAAGTCCA", "no motif"]
    for check in values["checks"]:
        assert check["why"].replace("'", "&#39;") in page


def test_it_is_told_the_limit_of_counts_and_which_bias_model_comes_next(
    config, tmp_path, monkeypatch
):
    told, chosen = {}, {"next": "background_below=0.5"}

    def noted(*arguments, **options):
        told.update(options)
        return {"checks": []}

    monkeypatch.setattr(summary, "bias_quality", noted)
    settings = replace(config.bias_model, max_count_pearson=0.6)
    trainer = SimpleNamespace(
        config=replace(config, bias_model=settings),
        began_with={"bias": {"choice": chosen}},
        step=SimpleNamespace(precision="fp32"), dataset=None, source=None,
    )  # fmt: skip
    model = SimpleNamespace(bias_model=True)
    summary._tried_quality(trainer, model, tmp_path)
    following = str(tmp_path / "bias/background_below=0.5")
    assert told == {"most_counts": 0.6, "next_best": following}


def test_one_that_fails_leaves_the_run_done(config, tmp_path, capsys, monkeypatch):
    def broken(*arguments, **options):
        raise ValueError("no luck")

    monkeypatch.setattr("cherimoya.training.summary.bias_quality", broken)
    train(config, tmp_path / "run")
    assert "no quality control of the bias model: ValueError('no luck')" in capsys.readouterr().out
    assert json.loads((tmp_path / "run/status.json").read_text())["state"] == "done"
    assert read_run(tmp_path / "run").bias_quality == {}


def test_the_page_has_all_bias_models_that_were_tried(tmp_path):
    pytest.importorskip("matplotlib")
    names = ("background/profile_mnll", "background/profile_pearson", "peaks/count_pearson")
    found = {"few": (70.5, 0.21, 0.11), "many": (69.25, 0.23, None)}
    candidates = [{"name": k, **dict(zip(names, v, strict=True))} for k, v in found.items()]
    choice = {"chosen": "few", "rule": "the <best>", "candidates": candidates}
    make_run(tmp_path / "run", provenance={"bias": {"choice": choice}})
    page = write_report(tmp_path / "run").read_text()
    table = page[page.index('id="bias-models"') :]
    rows = re.findall(r"<tr(.*?)><td>(.*?)</td><td data-sort=.*?>(.*?)</td>", table)
    assert rows[:2] == [(' class="chosen"', "few", "70.5000"), ("", "many", "69.2500")]
    assert "was taken: the &lt;best&gt;." in page
    assert "Footprints" not in page


def test_a_damaged_one_is_said_on_the_page(config, tmp_path):
    pytest.importorskip("matplotlib")
    train(config, tmp_path / "run")
    Path(tmp_path / "run/bias_quality.json").write_text('{"enzyme": 7}')
    page = write_report(tmp_path / "run").read_text()
    assert "bias_quality.json is damaged" in page
    assert 'href="#bias"' not in page


@pytest.mark.gpu
def test_a_gpu_says_the_same(config, tmp_path):
    train(config, tmp_path / "run")
    here = read_run(tmp_path / "run").bias_quality
    dataset = load_dataset(config.data)
    source, _ = place(dataset.loci, torch.device("cpu"), "auto")
    model = Cherimoya.load(tmp_path / "run/checkpoints/best.pt", bias=None)
    there = bias_quality(model, dataset, source)
    for one, other in zip(here["footprints"], there["footprints"], strict=True):
        for kind, values in one["largest"].items():
            assert values == pytest.approx(other["largest"][kind], rel=0.05), one["motif"]
