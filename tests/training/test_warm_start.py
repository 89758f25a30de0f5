"""A run that starts from a trained model: which weights it takes, and which stay as they are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from configs import composed
from grouped_data import grouped_loci, run_on
from training_runs import assert_same_run, weights

from cherimoya.config.schema import build, unused_keys
from cherimoya.config.train import TrainConfig
from cherimoya.data import hdf5
from cherimoya.data.dataset import load_dataset
from cherimoya.errors import ConfigError, Interrupted
from cherimoya.inference.checkpoints import find_checkpoint
from cherimoya.network import Cherimoya
from cherimoya.records.status import read_json
from cherimoya.training import run as run_module
from cherimoya.training.run import RunContext, model_for, train
from cherimoya.training.warm_start import begin_from, read_start


def configured(arguments: list[str], **trainer) -> TrainConfig:
    values = composed("train", arguments)
    values["trainer"] |= trainer
    return build(TrainConfig, values)


def begun(arguments: list[str]) -> tuple[Cherimoya, dict]:
    """The network as a run with these arguments begins, and what is noted."""
    config = configured(arguments)
    dataset = load_dataset(config.data)
    start = read_start(config.model, None)
    model = model_for(config, dataset)
    return model, begin_from(start, config, model, dataset)["init"]


@pytest.fixture(scope="module")
def source(train_arguments, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "run"
    train(configured(train_arguments), folder)
    return folder


@pytest.fixture(scope="module")
def grouped(tmp_path_factory) -> tuple[Path, Path]:
    """A file of the groups A, T cell and B, and a run on B and A."""
    folder = tmp_path_factory.mktemp("grouped")
    path = hdf5.write(folder / "cells.h5", grouped_loci())
    return path, run_on(path, folder / "run", "data.groups=[B,A]")


def test_every_weight_is_the_trained_model_s(train_arguments, source):
    model, noted = begun([*train_arguments, f"model.init={source}"])
    trained = weights(source, "best.pt")
    assert trained.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, trained[name]), name
    assert "stem and 4 blocks taken; heads taken" in noted["words"]
    assert noted["sha256"] == find_checkpoint(str(source)).described()["sha256"]


def test_it_goes_on_from_there_and_frozen_weights_stay_to_the_bit(
    train_arguments, source, tmp_path
):
    words = [f"model.init={source}", "model.freeze=[iconv.*,'blocks.[01].*']"]
    train(configured([*train_arguments, *words], max_epochs=1), tmp_path / "run")
    trained, after = weights(source, "best.pt"), weights(tmp_path / "run", "final.pt")
    kept = {n for n in after if n.startswith(("iconv.", "blocks.0.", "blocks.1."))}
    assert len(kept) == 8
    for name, value in after.items():
        assert torch.equal(value, trained[name]) == (name in kept), name
    summary = read_json(tmp_path / "run" / "summary.json")
    assert "8 tensors of" in summary["provenance"]["init"]["words"]


def test_an_interrupted_one_ends_as_one_left_alone_without_its_source(
    train_arguments, source, tmp_path, monkeypatch
):
    copied = tmp_path / "source.pt"
    copied.write_bytes((source / "checkpoints" / "best.pt").read_bytes())
    words = [
        *train_arguments, f"model.init={copied}", "model.freeze=[iconv.*]",
        "optim.lr_scale={blocks.0.*:0.1}",
    ]  # fmt: skip
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(configured(words), whole)

    def stops(row):
        if row["epoch"]:  # the first one is saved
            raise Interrupted(2)

    with pytest.raises(Interrupted):
        train(configured(words), broken, RunContext(on_epoch=stops))
    copied.unlink()
    train(configured(words, resume=str(broken)), broken)
    assert_same_run(whole, broken)
    told = torch.load(broken / "checkpoints" / "best.pt", weights_only=True)
    assert told["trained_on"] == {"sim1": True, "sim2": True, "sim3": False, "sim4": False}


def test_test_chromosomes_that_it_was_trained_on_are_refused(train_arguments, source, tmp_path):
    exchanged = ["data.validation_chroms=[sim1]", "data.test_chroms=[sim2]"]
    words = [*train_arguments, *exchanged, f"model.init={source}"]
    with pytest.raises(
        ConfigError, match=r"was trained on sim2, which this run tests on.*data\.seen"
    ):
        begun(words)
    _, noted = begun([*words, "data.seen=allow"])
    assert "trained on sim2, so that the test scores are too good" in noted["words"]
    assert "trained on sim1, so that validation says less" in noted["words"]


def test_what_an_earlier_start_was_trained_on_counts_too(train_arguments, source, tmp_path):
    """sim1 and sim2, then sim3 and sim4: after that nothing is left to test on."""
    words = [
        *train_arguments, "data.train_chroms=[sim3]", "data.validation_chroms=[sim4]",
        "data.test_chroms=[sim1]", "data.exclude_chroms=[sim2]", f"model.init={source}",
    ]  # fmt: skip
    train(configured([*words, "data.seen=allow"], max_epochs=1), tmp_path / "second")
    moved = tmp_path / "moved.pt"  # the file tells it without its run
    moved.write_bytes((tmp_path / "second" / "checkpoints" / "best.pt").read_bytes())
    assert find_checkpoint(str(moved)).trained_on() == {
        "sim1": True, "sim2": True, "sim3": True, "sim4": False
    }  # fmt: skip
    third = [*train_arguments, f"model.init={moved}"]
    with pytest.raises(ConfigError, match="was trained on sim2"):
        begun([*third, "data.validation_chroms=[sim1]", "data.test_chroms=[sim2]"])


def test_of_a_file_that_tells_nothing_that_is_said(train_arguments, source, tmp_path):
    content = torch.load(source / "checkpoints" / "best.pt", weights_only=True)
    del content["trained_on"]
    torch.save(content, tmp_path / "old.pt")
    _, noted = begun([*train_arguments, f"model.init={tmp_path / 'old.pt'}"])
    assert "nothing tells what it was trained on" in noted["words"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.n_filters=16"], r"trained with model\.n_filters=8, and .* set model\.n_filters=8"),
        (["model.n_layers=5"], r"set model\.n_layers=4"),
        (["model/blocks=convnext"], r"set model\.blocks=cheri"),
        (["model.blocks.expansion=3"], r"set model\.blocks\.expansion=2"),
        (["model.freeze=[icon.*]"], r"'icon\.\*' matches no parameter\. There are lw0"),
        (["model.freeze=['*']"], "leaves nothing to train"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_fix(words, said, train_arguments, source):
    with pytest.raises(ConfigError, match=said):
        begun([*train_arguments, f"model.init={source}", *words])


def test_keys_without_their_partner_are_refused(train_arguments):
    with pytest.raises(ConfigError, match=r"keep random weights.*model\.init"):
        configured([*train_arguments, "model.freeze=[iconv.*]"])
    with pytest.raises(ConfigError, match=r"model\.init=nowhere"):
        read_start(configured([*train_arguments, "model.init=nowhere"]).model, None)
    assert "data.seen" in unused_keys(configured([*train_arguments, "data.seen=allow"]))


def test_heads_go_by_the_names_of_signal_groups(train_arguments, grouped):
    path, run = grouped
    named = [*train_arguments, f"data.path={path}", f"model.init={run}"]
    model, noted = begun([*named, "data.groups=[A,T cell,B]"])
    trained, own = weights(run, "best.pt"), model.state_dict()
    for key in ("fconv.weight", "fconv.bias", "linear.weight", "linear.bias", "lw0", "lw1"):
        assert torch.equal(own[key][0], trained[key][1]), key
        assert torch.equal(own[key][2], trained[key][0]), key
    assert own["linear.bias"][1] == 0
    assert noted["heads"] == {"A": True, "T cell": False, "B": True}
    assert "heads of T cell made anew" in noted["words"]


def test_heads_of_other_experiments_are_taken_in_their_order(train_arguments, grouped):
    path, run = grouped
    both = [*train_arguments, f"data.path={path}"]
    train(configured([*both, "data.groups=[T cell]"], max_epochs=1), run.parent / "one")
    model, noted = begun([*both, "data.groups=[B]", f"model.init={run.parent / 'one'}"])
    assert torch.equal(model.fconv.weight, weights(run.parent / "one", "best.pt")["fconv.weight"])
    assert noted["heads"] == {"B": True}


def test_a_wider_profile_head_predicts_the_same_at_first(train_arguments, source):
    model, _ = begun([*train_arguments, f"model.init={source}", "model.profile_kernel_size=7"])
    before = Cherimoya.load(source / "checkpoints" / "best.pt")
    X = torch.nn.functional.one_hot(torch.randint(0, 4, (2, 200)), 4).mT.float()
    with torch.no_grad():
        for one, other in zip(model(X), before(X), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    model.save(source.parent / "wide.pt")
    _, noted = begun([*train_arguments, f"model.init={source.parent / 'wide.pt'}"])
    assert "both heads made anew, as its profile head reads 7 bases" in noted["words"]


def test_counts_start_at_the_level_of_the_data(train_arguments, source, small_data, tmp_path):
    """Four times the depth: log counts rise by log 4 or so, and their mean is the data's."""
    deep = tmp_path / "deep.h5"
    loci = hdf5.read(small_data)
    hdf5.write(deep, replace(loci, signal=4 * loci.signal, truth={}))
    words = [*train_arguments, f"data.path={deep}", f"model.init={source}"]
    plain, _ = begun(words)
    moved, noted = begun([*words, "model.count_bias=mean"])
    dataset = load_dataset(configured(words).data)
    rows, j = dataset.peaks("train"), dataset.loci.max_jitter
    codes = torch.from_numpy(dataset.loci.sequence[rows, j : j + dataset.loci.in_window])
    X = torch.nn.functional.one_hot(codes.long(), 5)[..., :4].mT.float()
    with torch.no_grad():
        predicted = moved(X)[1].mean().item()
        change = predicted - plain(X)[1].mean().item()
    assert predicted == pytest.approx(np.log1p(dataset.loci.totals(rows)).mean(), abs=1e-4)
    assert f"log counts moved by {change:+.2f}" in noted["words"]


def test_controls_are_learnt_anew(train_arguments, source, small_data, tmp_path):
    loci = hdf5.read(small_data)
    controls = np.zeros((len(loci), 2, loci.sequence.shape[1]), np.float32)
    with_controls = replace(
        loci, control=controls, control_names=["p", "m"], control_groups=[2], truth={}
    )
    path = hdf5.write(tmp_path / "controls.h5", with_controls)
    model, noted = begun([*train_arguments, f"data.path={path}", f"model.init={source}"])
    trained = weights(source, "best.pt")
    assert torch.equal(model.fconv.weight[:, :8], trained["fconv.weight"])
    assert torch.equal(model.linear.weight[:, :8], trained["linear.weight"])
    assert model.fconv.weight[:, 8:].abs().min() > 0
    assert "what controls do is learnt anew" in noted["words"]


def test_learning_rates_of_parts_are_scaled(train_arguments, source, tmp_path, monkeypatch):
    words = [f"model.init={source}", "optim.lr_scale={blocks.0.*:0.1,iconv.*:0.5}"]
    kept = {}

    def watched(trainer, *_):
        kept["step"] = trainer.step

    monkeypatch.setattr(run_module, "write_summary", watched)
    train(configured([*train_arguments, *words], max_epochs=1), tmp_path / "run")
    step = kept["step"]
    assert step.routes["muon_x0.1"] == ["blocks.0.linear1.weight", "blocks.0.linear2.weight"]
    assert step.routes["adamw_x0.1"] == ["blocks.0.conv_weight"]
    assert step.routes["adamw_x0.5"] == ["iconv.weight", "iconv.bias"]
    rates = step.rates(2)
    assert rates["muon_x0.1"] == pytest.approx(0.1 * rates["muon"])
    assert rates["adamw_x0.5"] == pytest.approx(0.5 * rates["adamw"])
    with pytest.raises(ConfigError, match=r"lr_scale pattern 'fcon' is the first match of no"):
        train(configured([*train_arguments, "optim.lr_scale={fcon:0.1}"]), tmp_path / "other")
    with pytest.raises(ConfigError, match=r"optim\.lr_scale\.lw0=0: must be above 0"):
        configured([*train_arguments, "optim.lr_scale={lw0:0}"])


def test_upstream_s_checkpoint_is_a_start(train_arguments, source, tmp_path):
    """One group, upstream's profile head of 75 bases, and no word of what it was trained on."""
    torch.manual_seed(1)
    theirs = Cherimoya(8, 4, signal_groups=[2], profile_kernel_size=75)
    theirs.export_upstream(tmp_path / "theirs.torch")
    words = [*train_arguments, f"model.init={tmp_path / 'theirs.torch'}"]
    model, noted = begun([*words, "model.profile_kernel_size=75"])
    assert torch.equal(model.fconv.weight, theirs.fconv.weight)
    assert torch.equal(model.blocks[3].linear1.weight, theirs.blocks[3].linear1.weight)
    assert "nothing tells what it was trained on" in noted["words"]
