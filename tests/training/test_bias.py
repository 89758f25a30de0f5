"""A bias model beside the network: kept to the bit, added as in ChromBPNet, left out if asked."""

import json
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from command_lines import clean_environment
from configs import composed, made_of
from training_runs import assert_same_run, weights

import cherimoya
from cherimoya.config.interpret import AttributeConfig
from cherimoya.config.predict import EvaluateConfig
from cherimoya.config.schema import build
from cherimoya.config.train import TrainConfig
from cherimoya.data import hdf5
from cherimoya.data.dataset import LEAST_PEAKS, background_alone, load_dataset
from cherimoya.errors import (
    CherimoyaError,
    ConfigError,
    DataError,
    Interrupted,
    InUse,
    OtherRun,
)
from cherimoya.evaluation.evaluate import evaluate_checkpoints
from cherimoya.genome.sequence import one_hot
from cherimoya.inference.checkpoints import find_checkpoint, load_ensemble
from cherimoya.network import Cherimoya
from cherimoya.records import status
from cherimoya.training import bias_training, packed
from cherimoya.training import run as run_module
from cherimoya.training.bias import check_bias_model
from cherimoya.training.bias_training import (
    bias_models_trained,
    choose,
    train_whole_packed,
)
from cherimoya.training.interrupt import StopRequest
from cherimoya.training.run import RunContext, train

BACKGROUND = ["data.background_below=1000", "data.negative_ratio=0"]


def configured(arguments: list[str], **trainer) -> TrainConfig:
    values = composed("train", arguments)
    values["trainer"] |= trainer
    return build(TrainConfig, values)


@pytest.fixture(scope="module")
def bias_run(train_arguments, tmp_path_factory) -> Path:
    """A run on background alone, on windows that are narrower than the network's."""
    folder = tmp_path_factory.mktemp("bias") / "run"
    words = [*BACKGROUND, "data.in_window=180", "model.n_layers=2", "trainer.batch_size=2"]
    train(configured([*train_arguments, *words]), folder)
    return folder


@pytest.fixture
def arguments(train_arguments, bias_run) -> list[str]:
    return [*train_arguments, f"model.bias={bias_run}"]


@pytest.fixture(scope="module")
def corrected(train_arguments, bias_run, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corrected") / "run"
    train(configured([*train_arguments, f"model.bias={bias_run}"]), folder)
    return folder


def pair(**other) -> Cherimoya:
    """A network and a bias model whose heads say something, in float32."""
    torch.manual_seed(0)
    bias = Cherimoya(8, 2, trimming=30, signal_groups=[2, 1])
    model = Cherimoya(8, 3, **{"trimming": 40} | other, signal_groups=[2, 1], bias_model=bias)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model


def test_logits_and_counts_add():
    model = pair()
    X = one_hot(torch.randint(0, 4, (3, 120)))
    logits, counts = model(X)
    model.with_bias = False
    own, own_counts = model(X)
    its, its_counts = model.bias_model(X[:, :, 10:-10])
    assert torch.equal(logits, own + its)
    summed = own_counts.double().exp() + its_counts.double().exp()
    torch.testing.assert_close(counts.double().exp(), summed, rtol=1e-5, atol=0)
    assert not torch.equal(own, logits)


def test_gradients_are_those_of_float64():
    model, X = pair(), one_hot(torch.randint(0, 4, (3, 120))).requires_grad_()
    exact, Y = pair().double(), X.detach().double().requires_grad_()
    for one, x in ((model, X), (exact, Y)):
        logits, counts = one(x)
        (logits.square().mean() + counts.sin().sum()).backward()
    torch.testing.assert_close(X.grad.double(), Y.grad, rtol=1e-3, atol=1e-5)
    for (name, p), q in zip(model.trained_parameters(), exact.parameters(), strict=False):
        if p.grad is not None:
            torch.testing.assert_close(p.grad.double(), q.grad, rtol=1e-3, atol=1e-4, msg=name)
    assert all(p.grad is None for p in model.bias_model.parameters())
    # without the bias model the gradient is another: it reads the sequence too
    alone = X.detach().clone().requires_grad_()
    model.with_bias = False
    logits, counts = model(alone)
    (logits.square().mean() + counts.sin().sum()).backward()
    assert not torch.allclose(alone.grad, X.grad)


def test_a_file_answers_corrected_unless_asked(tmp_path):
    model, X = pair(), one_hot(torch.randint(0, 4, (3, 120)))
    model.save(tmp_path / "both.pt")
    with_bias = cherimoya.load(tmp_path / "both.pt", bias=True)(X)
    assert torch.equal(with_bias[0], model(X)[0])
    assert torch.equal(cherimoya.load(tmp_path / "both.pt", bias=None)(X)[0], with_bias[0])
    model.with_bias = False
    assert torch.equal(cherimoya.load(tmp_path / "both.pt")(X)[0], model(X)[0])
    model.bias_model.save(tmp_path / "bias.pt")
    assert not cherimoya.load(tmp_path / "bias.pt", bias=None).with_bias
    with pytest.raises(CherimoyaError, match=r"bias=true, but .* without a bias model"):
        cherimoya.load(tmp_path / "bias.pt", bias=True)


def test_upstream_gets_the_network_alone(tmp_path):
    model = pair(profile_kernel_size=75, trimming=45)
    model.export_upstream(tmp_path / "theirs.pt")
    X = one_hot(torch.randint(0, 4, (3, 140)))
    model.with_bias = False
    assert torch.equal(Cherimoya.from_upstream(tmp_path / "theirs.pt")(X)[0], model(X)[0])


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({"signal_groups": [1]}, "its signal groups are"),
        ({"trimming": 60}, "it needs a longer window"),
        ({"n_control_tracks": 2}, "it reads 2 control tracks"),
    ],
)
def test_one_that_does_not_fit_is_no_bias_model(shape, said):
    bias = Cherimoya(8, 2, **{"trimming": 30, "signal_groups": [2, 1]} | shape)
    with pytest.raises(ValueError, match=said):
        Cherimoya(8, 3, trimming=40, signal_groups=[2, 1], bias_model=bias)


def test_the_bias_model_is_kept_to_the_bit_and_its_counts_moved_once(bias_run, corrected):
    before = weights(bias_run, "best.pt")
    for name in ("best.pt", "final.pt", "last.pt"):
        after = weights(corrected, name)
        own = {k.removeprefix("bias_model."): v for k, v in after.items() if "bias_model" in k}
        assert own.keys() == before.keys(), name
        for key, value in own.items():
            if key != "linear.bias":
                assert torch.equal(value, before[key]), (name, key)
    moved = own["linear.bias"] - before["linear.bias"]
    origin = json.loads((corrected / "summary.json").read_text())["provenance"]["bias"]
    assert origin["moved"] == pytest.approx(moved.tolist(), abs=1e-4)
    assert origin["path"].endswith("best.pt")


def test_its_mean_counts_are_those_of_the_background(corrected, train_arguments):
    dataset = load_dataset(configured(train_arguments).data)
    rows = dataset.rows["train"]
    rows = rows[dataset.loci.label[rows] == 0]
    model, j = cherimoya.load(corrected).bias_model, dataset.loci.max_jitter
    codes = dataset.loci.sequence[rows][:, j + 10 : j + 190]
    said = cherimoya.predict(model, one_hot(codes)).log_counts
    assert said.mean().item() == pytest.approx(np.log1p(dataset.loci.totals(rows)).mean(), abs=1e-4)


def test_a_run_goes_on_to_the_bit_without_the_file(corrected, arguments, bias_run, tmp_path):
    copy = tmp_path / "bias"
    shutil.copytree(bias_run, copy)
    words = [*arguments[:-1], f"model.bias={copy}"]
    stop, run = StopRequest(), tmp_path / "run"

    def after_an_epoch(row):
        stop.signum = 15

    with pytest.raises(Interrupted):
        train(configured(words), run, RunContext(stop=stop, on_epoch=after_an_epoch))
    shutil.rmtree(copy)
    train(configured(words, resume=str(run)), run)
    assert_same_run(corrected, run)


@pytest.mark.slow
def test_a_run_is_scored_with_it_and_asked_without(corrected, tmp_path, capsys):
    scores = {}
    for bias in (None, True, False):
        words = [f"checkpoint=[{corrected}]", f"output={tmp_path / str(bias)}", "bootstrap=0"]
        config = build(EvaluateConfig, {**composed("evaluate", words), "bias": bias})
        evaluate_checkpoints(config)
        scores[bias] = json.loads((tmp_path / str(bias) / "scores.json").read_text())
        said = "corrected, without the bias model" if bias is False else "with the bias model"
        assert f"bias         {said}" in capsys.readouterr().out
    found = {bias: one["model"] for bias, one in scores.items()}
    assert found[None] == found[True] != found[False]
    assert [one["bias"] for one in scores.values()] == [True, True, False]
    assert "corrected, without the bias model" in (tmp_path / "False/report.html").read_text()


def test_deep_lift_explains_the_network_alone():
    words = ["checkpoint=[a.pt]", "output=a.h5", "bias=true", "method=deep_lift_shap"]
    with pytest.raises(ConfigError, match="bias=true: method=deep_lift_shap explains the network"):
        build(AttributeConfig, composed("attribute", words))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.bias=absent.pt"], "model.bias=absent.pt: there is no file or folder absent.pt"),
        (["{bias}", "data.in_window=160"], "on each side of the 100 that are predicted, and data"),
    ],
)
def test_what_cannot_be_is_said_before_training(words, said, train_arguments, bias_run, tmp_path):
    words = [f"model.bias={bias_run}" if word == "{bias}" else word for word in words]
    with pytest.raises(ConfigError, match=said):
        train(configured([*train_arguments, *words]), tmp_path / "run")
    assert not (tmp_path / "run/config.yaml").exists()


def test_chromosomes_that_it_was_trained_on_are_not_tested_on_in_silence(
    train_arguments, bias_run, tmp_path
):
    exchanged = ["data.validation_chroms=[sim3]", "data.test_chroms=[sim1]"]
    words = [*train_arguments, *exchanged, f"model.bias={bias_run}"]
    with pytest.raises(
        ConfigError, match=r"model\.bias=.*was trained on sim1, which this run tests"
    ):
        train(configured(words, max_epochs=1), tmp_path / "refused")
    train(configured([*words, "data.seen=allow"], max_epochs=1), tmp_path / "run")
    origin = json.loads((tmp_path / "run" / "summary.json").read_text())["provenance"]["bias"]
    assert "; trained on sim1, so that the test scores are too good" in origin["words"]
    moved = tmp_path / "moved.pt"  # the file tells it without its run
    moved.write_bytes((tmp_path / "run" / "checkpoints" / "best.pt").read_bytes())
    assert find_checkpoint(str(moved)).trained_on() == {
        "sim1": True, "sim2": True, "sim3": False, "sim4": True
    }  # fmt: skip


def test_background_of_few_counts_takes_the_place_of_peaks(train_arguments):
    dataset = load_dataset(configured(train_arguments).data)
    totals = dataset.loci.totals()
    least = np.quantile(totals[dataset.peaks("train")][:, 0], LEAST_PEAKS)
    background = totals[dataset.loci.label == 0, 0]
    factor = float(np.median(background) / least)
    few = background_alone(dataset, factor)
    kept = np.concatenate([*few.rows.values()])
    assert set(kept) <= set(np.flatnonzero(dataset.loci.label == 0))
    assert len(kept) == (background <= factor * least).sum()
    assert (few.loci.label[kept] == 1).all()
    assert totals[kept].max() <= factor * least
    with pytest.raises(DataError, match=r"data.background_below=1e-09: of \d+ background loci of"):
        background_alone(dataset, 1e-9)


TRAINED = [
    "model.bias=train", "bias_model.n_filters=4", "bias_model.n_layers=2", "trainer.batch_size=2",
    "bias_model.max_epochs=2", "bias_model.background_below=[0.15,1000]",
]  # fmt: skip


def train_whole(config: TrainConfig, folder: Path, context: RunContext | None = None) -> None:
    """As cherimoya-train does."""
    with bias_models_trained(config, folder, context or RunContext()) as known:
        train(config, folder, known)


@pytest.fixture(scope="module")
def whole(train_arguments, tmp_path_factory) -> Path:
    """A run that trained two bias models first."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train_whole(configured([*train_arguments, *TRAINED]), folder)
    return folder


def test_one_command_trains_bias_models_takes_one_and_says_which(whole):
    choice = json.loads((whole / "bias/choice.json").read_text())
    names = ["background_below=0.15", "background_below=1000"]
    assert [one["name"] for one in choice["candidates"]] == names
    taken = whole / "bias" / choice["chosen"]
    bias = weights(taken, "best.pt")
    own = weights(whole, "best.pt")
    for key, value in bias.items():
        if key != "linear.bias":
            assert torch.equal(own[f"bias_model.{key}"], value), key
    origin = json.loads((whole / "summary.json").read_text())["provenance"]["bias"]
    assert origin["choice"] == choice
    assert origin["path"] == str(taken / "checkpoints/best.pt")
    assert cherimoya.load(whole).bias_model.config["n_filters"] == 4
    assert [one["background/loci"] for one in choice["candidates"]] == [6, 6]  # the same for all


@pytest.mark.parametrize("when", ["in a bias model", "as they are scored", "in the network"])
def test_a_run_that_is_stopped_goes_on_to_the_same_bits(
    when, whole, train_arguments, tmp_path, monkeypatch, capsys
):
    stop, run = StopRequest(), tmp_path / "run"
    words = [*train_arguments, *TRAINED]

    def after_an_epoch(row):
        stop.signum = 15

    context = RunContext(stop=stop, on_epoch=after_an_epoch)
    if when == "in a bias model":

        def ready(config, folder, context, changes):
            context = replace(context, on_epoch=after_an_epoch, stop=stop)
            return run_module.ready(config, folder, context, changes)

        monkeypatch.setattr(packed, "ready", ready)
    if when == "as they are scored":
        monkeypatch.setattr(bias_training, "scored", lambda *_: signal.raise_signal(15))
    with pytest.raises(Interrupted):
        train_whole(configured(words), run, context)
    assert status.read(run)["state"] == "interrupted"
    monkeypatch.undo()
    assert f"Continue with: cherimoya-train trainer.resume={run}\n" in capsys.readouterr().out
    assert (run / "bias/choice.json").exists() == (when == "in the network")
    train_whole(configured(words, resume=str(run)), run)
    assert_same_run(whole, run)


def test_while_bias_models_train_the_status_of_the_run_says_running_and_then_failed(
    train_arguments, tmp_path, monkeypatch
):
    run, seen = tmp_path / "run", []

    def scored(*_):
        seen.append(status.read(run)["state"])
        raise CherimoyaError("no scores today")

    monkeypatch.setattr(bias_training, "scored", scored)
    with pytest.raises(CherimoyaError, match="today"):
        train_whole(configured([*train_arguments, *TRAINED]), run)
    found = status.read(run)
    assert (seen, found["state"], found["error"]) == (["running"], "failed", "no scores today")


def test_a_threshold_without_background_is_left_out(train_arguments, tmp_path, capsys):
    words = [*TRAINED[:-1], "bias_model.background_below=[1e-6,1000]", "trainer.max_epochs=1"]
    train_whole(configured([*train_arguments, *words]), tmp_path / "run")
    assert "no bias model of it: data.background_below=1e-06: of" in capsys.readouterr().out
    choice = json.loads((tmp_path / "run/bias/choice.json").read_text())
    assert [one["name"] for one in choice["candidates"]] == ["background_below=1000"]
    words[-2] = "bias_model.background_below=[1e-6]"
    with pytest.raises(ConfigError, match=r"bias_model.background_below=\[1e-06\]: data.back"):
        train_whole(configured([*train_arguments, *words]), tmp_path / "none")


def test_members_that_train_at_once_have_bias_models_too(whole, train_arguments, tmp_path):
    config = configured([*train_arguments, *TRAINED])
    folders = [tmp_path / "a", tmp_path / "b"]
    assert not train_whole_packed([(config, folder, None) for folder in folders])
    for folder in folders:
        assert_same_run(whole, folder)


def test_the_best_of_those_that_know_no_peaks_is_taken():
    def one(name, mnll, r):
        return {"name": name, "background/profile_mnll": mnll, "peaks/count_pearson": r}

    found = [one("a", 3.0, 0.1), one("b", 2.0, -0.2), one("c", 1.0, 0.4)]
    for limit, said in (
        (0.3, ("b", "a", True)),
        (0.5, ("c", "b", True)),
        (0.15, ("a", "b", True)),
        (0.05, ("a", "b", False)),
    ):
        choice = choose(found, limit)
        assert (choice["chosen"], choice["next"], choice["fits"]) == said
        assert ("lowest MNLL" in choice["rule"]) == choice["fits"]
    assert choose(found[:1], 0.3)["next"] is None


def test_settings_of_bias_models_that_are_not_trained_are_refused(train_arguments):
    found = made_of([*train_arguments, "bias_model.n_filters=8"]).without_effect()
    assert found["bias_model.n_filters"].startswith("bias_model.n_filters=8 ")
    assert "model.bias=train" in found["bias_model.n_filters"]
    assert not made_of([*train_arguments, *TRAINED]).without_effect()


def test_python_is_told_where_bias_models_are_trained(train_arguments, tmp_path):
    with pytest.raises(ConfigError, match=r"model\.bias=train is for cherimoya-train"):
        train(configured([*train_arguments, *TRAINED]), tmp_path / "run")


def test_two_processes_do_not_train_the_bias_models_of_one_run(whole, train_arguments, tmp_path):
    config = configured([*train_arguments, *TRAINED])
    run = tmp_path / "run"
    with other_process(run), pytest.raises(InUse):
        train_whole(config, run)
    shutil.copytree(whole / "bias", run / "bias")
    (run / "bias/choice.json").unlink()
    (run / "bias/background_below=1000/summary.json").unlink()
    with other_process(run / "bias/background_below=1000"), pytest.raises(InUse):
        train_whole(config, run)
    assert not (run / "bias/choice.json").exists()


@contextmanager
def other_process(folder: Path):
    """Another process owns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom cherimoya.util.files import lock_folder\n"
        "with lock_folder(Path(sys.argv[1])):\n    print('owned', flush=True)\n    time.sleep(600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, env=clean_environment()
    )
    try:
        assert process.stdout.readline() == b"owned\n"
        yield
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("bias_model.n_filters=6", "model.n_filters was 4, now 6"),
        ("seed=3", "seed was 0, now 3"),
        ("bias_model.background_below=[1000]", "chose among other bias models"),
        ("data.path={other}", "was [0-9a-f]+, now [0-9a-f]+"),
    ],
)
def test_bias_models_of_another_configuration_are_not_taken(
    word, said, whole, train_arguments, small_data, tmp_path
):
    run, other = tmp_path / "run", tmp_path / "other.h5"
    shutil.copytree(whole / "bias", run / "bias")
    shutil.copy(small_data, other)
    with h5py.File(other, "r+") as file:
        file["signal"][0, 0, 0] += 1
    words = [*train_arguments, *TRAINED, word.format(other=other)]
    with pytest.raises(OtherRun, match=f"{said}.*Move {run}/bias away"):
        train_whole(configured(words), run)


def test_a_run_with_a_state_needs_its_bias_models_no_more(whole, train_arguments, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(run / "bias")
    (run / "summary.json").unlink()
    train_whole(configured([*train_arguments, *TRAINED], resume=str(run)), run)
    assert not (run / "bias").exists()
    assert_same_run(whole, run)


def test_a_bias_model_that_saved_no_state_starts_over(whole, train_arguments, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole / "bias", run / "bias")
    (run / "bias/choice.json").unlink()
    for name in ("background_below=1000", "background_below=0.15"):
        (run / "bias" / name / "summary.json").unlink()
        (run / "bias" / name / "checkpoints/last.pt").unlink()
        (run / "bias" / name / "checkpoints/previous.pt").unlink(missing_ok=True)
    train_whole(configured([*train_arguments, *TRAINED]), run)
    assert_same_run(whole, run)


def test_controls_are_for_the_network_alone(small_data, train_arguments, tmp_path):
    path = tmp_path / "controls.h5"
    loci = hdf5.read(small_data)
    control = np.random.default_rng(0).poisson(2.0, (len(loci), 1, loci.sequence.shape[1]))
    named = {"control_names": ["input"], "control_groups": [1]}
    hdf5.write(path, replace(loci, control=control.astype(np.uint8), **named))
    words = [*train_arguments, *TRAINED, f"data.path={path}", "trainer.max_epochs=1"]
    train_whole(configured(words), tmp_path / "run")
    model = cherimoya.load(tmp_path / "run", bias=True)
    assert (model.n_control_tracks, model.bias_model.n_control_tracks) == (1, 0)


def test_models_of_two_kinds_are_no_ensemble(corrected, tmp_path):
    plain = tmp_path / "plain.pt"
    model = cherimoya.load(corrected)
    Cherimoya(**{k: v for k, v in model.config.items() if k != "bias_model"}).save(plain)
    found = [find_checkpoint(str(corrected)), find_checkpoint(str(plain))]
    with pytest.raises(CherimoyaError, match=r"has a bias model and .*plain.pt has none"):
        load_ensemble(found, torch.device("cpu"))


def test_signal_groups_in_another_order_are_refused():
    loci = SimpleNamespace(
        in_window=120, out_window=40, signal_groups=[1, 1], group_names=["B", "A"]
    )
    dataset = SimpleNamespace(loci=loci, path="x.h5")
    model = Cherimoya(8, 2, trimming=30, signal_groups=[1, 1])
    with pytest.raises(ConfigError, match=r"are A, B in this order, but those of x\.h5 B, A"):
        check_bias_model(model, ["A", "B"], dataset, "model.bias=a")
    check_bias_model(model, ["C", "D"], dataset, "model.bias=a")
    check_bias_model(model, ["B", "C"], dataset, "model.bias=a")
    for its in (["A", "C"], ["C", "B"]):  # one of them is another group here
        with pytest.raises(ConfigError, match="Order them alike"):
            check_bias_model(model, its, dataset, "model.bias=a")


def test_a_bias_model_that_is_not_there_or_damaged_is_named_by_its_key(train_arguments, tmp_path):
    damaged = tmp_path / "damaged.pt"
    damaged.write_bytes(b"no model")
    for named, said in (
        ("tarin", "there is no file or folder tarin. Name a run of exp"),
        (damaged, "is damaged"),
    ):
        with pytest.raises(ConfigError, match=f"model.bias={named}: .*{said}"):
            train(configured([*train_arguments, f"model.bias={named}"]), tmp_path / "run")


def test_models_that_answer_with_and_without_are_no_ensemble():
    one, other = pair(), pair()
    cherimoya.Ensemble([one, other])
    other.with_bias = False
    with pytest.raises(ValueError, match="some of the models answer with their bias model"):
        cherimoya.Ensemble([one, other])


def test_bias_is_true_false_or_none(corrected):
    for wrong in ("false", 0, 1):
        with pytest.raises(TypeError, match="expected True, False or None"):
            cherimoya.load(corrected, bias=wrong)


def test_background_without_counts_is_refused(train_arguments):
    dataset = load_dataset(configured(train_arguments).data)
    signal = dataset.loci.signal.copy()
    signal[dataset.loci.label == 0] = 0
    empty = replace(dataset, loci=replace(dataset.loci, signal=signal))
    with pytest.raises(DataError, match="has no counts at all in"):
        background_alone(empty, 1000)
    empty = replace(dataset, loci=replace(dataset.loci, signal=0 * dataset.loci.signal))
    with pytest.raises(DataError, match=r"peaks of .* have no counts in .* Leave that gr"):
        background_alone(empty, 1000)


def test_bias_models_need_their_settings(train_arguments):
    with pytest.raises(ConfigError, match=r"model\.bias=train needs bias_model, which is null"):
        configured([*train_arguments, "model.bias=train", "~bias_model"])
