"""How long a run is: in epochs, in steps, and until its validation loss stands still."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import yaml
from configs import composed
from training_runs import assert_same_run

from cherimoya.config.diff import Changes
from cherimoya.config.schema import build
from cherimoya.config.train import TrainConfig, TrainerConfig
from cherimoya.errors import ConfigError, Interrupted
from cherimoya.training.bias_training import of_bias
from cherimoya.training.interrupt import StopRequest
from cherimoya.training.length import Length, with_warmup
from cherimoya.training.run import RunContext, train
from cherimoya.training.state import TrainState


def settings(**trainer) -> TrainerConfig:
    return build(TrainerConfig, composed("train", [])["trainer"] | trainer, "trainer")


def configured(arguments: list[str], **trainer) -> TrainConfig:
    values = composed("train", arguments)
    values["trainer"] |= trainer
    return build(TrainConfig, values)


def rows(run) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("trainer", "cpu", "gpu"),
    [
        ({}, 40, 40),
        ({"min_steps": 40}, 40, 40),
        ({"min_steps": 41}, 50, 50),
        ({"gpu_min_steps": 95}, 40, 100),
        ({"min_steps": 61, "gpu_min_steps": 51}, 70, 70),
        ({"max_steps": 33}, 33, 33),
        ({"max_steps": 400}, 40, 40),
        ({"min_steps": 55, "max_steps": 57}, 57, 57),
    ],
)
def test_steps_of_a_training_of_four_epochs_of_ten(trainer, cpu, gpu):
    chosen = settings(max_epochs=4, **trainer)
    assert chosen.total_steps(10, on_gpu=False) == cpu
    assert chosen.total_steps(10, on_gpu=True) == gpu


@pytest.mark.parametrize("key", ["min_steps", "gpu_min_steps"])
def test_steps_that_contradict_each_other_are_refused(key):
    with pytest.raises(ConfigError, match=f"trainer.{key}=20 is more than trainer.max_steps=19"):
        settings(max_steps=19, **{key: 20})


def test_a_warm_up_must_end_in_time(train_arguments, tmp_path):
    config = configured([*train_arguments, "optim.warmup_epochs=2"], max_steps=7)
    with pytest.raises(ConfigError, match=r"warmup_epochs=2 are \d+ steps.*training of 7.*max_ste"):
        train(config, tmp_path / "run")
    longer = configured([*train_arguments, "optim.warmup_epochs=4"], min_steps=50)
    assert longer.optim.warmup_epochs > longer.trainer.max_epochs


SHORT = {"max_epochs": 2}
ADAPTS = Changes({}, {}, adapts={"optim.warmup_epochs": 5.0})


def rates(run) -> list[float]:
    return [row["lr/muon"] for row in rows(run)]


@pytest.mark.parametrize("trainer", [SHORT, {"max_steps": 13}, SHORT | {"gpu_min_steps": 900}])
def test_a_default_warm_up_is_shortened_to_a_quarter(train_arguments, tmp_path, capsys, trainer):
    """Visibly, in the banner and in config.yaml, and with the numbers of one that was typed."""
    arguments = [word for word in train_arguments if "warmup" not in word]
    config = configured(arguments, **trainer)
    assert config.optim.warmup_epochs == 5
    train(config, tmp_path / "run", changes=ADAPTS)
    said = capsys.readouterr().out
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["optim"]
    steps, per_epoch = rows(tmp_path / "run")[-1]["step"], rows(tmp_path / "run")[0]["step"]
    assert saved["warmup_epochs"] == steps / per_epoch / 4
    assert f"warm-up   {saved['warmup_epochs']:.3g} epochs, a quarter of the training" in said
    typed = configured([*arguments, f"optim.warmup_epochs={saved['warmup_epochs']}"], **trainer)
    train(typed, tmp_path / "typed")
    assert "warm-up" not in capsys.readouterr().out
    assert rates(tmp_path / "typed") == rates(tmp_path / "run")
    assert_same_run(tmp_path / "typed", tmp_path / "run")


@pytest.mark.parametrize("epochs", [5, 6, 20])
def test_a_default_warm_up_that_ends_in_time_stays(train_arguments, epochs):
    config = configured([w for w in train_arguments if "warmup" not in w], max_epochs=epochs)
    assert with_warmup(config, Length(8, 8 * epochs), ADAPTS) == (config, {})


def test_bias_models_of_few_epochs_have_a_warm_up_that_ends(train_arguments):
    config = configured([w for w in train_arguments if "warmup" not in w])
    narrow = SimpleNamespace(loci=SimpleNamespace(in_window=200))
    for epochs, warmup in ((12, 5), (5, 5), (4, 1)):
        settings = replace(config.bias_model, max_epochs=epochs)
        assert of_bias(config, settings, 0.5, narrow).optim.warmup_epochs == warmup


@pytest.mark.slow
def test_a_run_with_a_shortened_warm_up_goes_on(cherimoya_train, train_arguments, tmp_path):
    """Alone, with its options typed again, and as a member of a sweep that is typed again."""
    arguments = [w for w in train_arguments if "warmup" not in w and "max_epochs" not in w]
    swept = ["-m", *arguments, "trainer.max_epochs=2,5", "hydra.sweep.dir=sweep"]
    done = cherimoya_train(*swept)
    assert done.returncode == 0, done.stderr
    runs = [tmp_path / "sweep" / f"max_epochs={n}" for n in (2, 5)]
    saved = [yaml.safe_load((run / "config.yaml").read_text())["optim"] for run in runs]
    assert [optim["warmup_epochs"] for optim in saved] == [0.5, 5]
    assert cherimoya_train(*swept).stdout.count("done already") == 2
    other = cherimoya_train(*swept, "optim.warmup_epochs=1")
    assert other.returncode == 1
    assert "optim.warmup_epochs was 5.0, now 1.0" in other.stderr
    (runs[0] / "summary.json").unlink()
    again = cherimoya_train(*arguments, f'trainer.resume="{runs[0]}"', "trainer.max_epochs=2")
    assert again.returncode == 0, again.stderr
    assert "resumed after 16 steps" in again.stdout


def test_a_warm_up_of_ones_own_is_never_shortened(cherimoya_train, train_arguments, tmp_path):
    arguments = [w for w in train_arguments if "warmup" not in w and "max_epochs" not in w]
    typed = [*arguments, "trainer.max_epochs=2", "optim.warmup_epochs=5"]
    for words in (typed, ["-m", *typed, "seed=0,1"]):  # also one that is the default
        refused = cherimoya_train(*words)
        assert refused.returncode == 1
        assert "optim.warmup_epochs=5 is longer than trainer.max_epochs=2" in refused.stderr
        assert "leave it out: its default is shortened" in refused.stderr
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "long.yaml").write_text(
        "# @package _global_\noptim:\n  warmup_epochs: 4\n"
    )
    own = ["--config-dir=mine", *arguments, "experiment=long", "trainer.max_epochs=2"]
    assert "optim.warmup_epochs=4 is longer" in cherimoya_train(*own).stderr
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("length", [{"max_epochs": 10**8}, {"min_steps": 10**9}])
def test_more_steps_than_have_learning_rates_are_refused(train_arguments, tmp_path, length):
    with pytest.raises(ConfigError, match="longer than the 10,000,000 that are possible"):
        train(configured(train_arguments, **length), tmp_path / "run")


def test_the_schedule_and_the_rows_follow_the_steps(train_arguments, tmp_path, capsys):
    train(configured(train_arguments, max_epochs=1, min_steps=20, max_steps=30), tmp_path / "run")
    made = rows(tmp_path / "run")
    per_epoch = made[0]["step"]
    steps = min(math.ceil(20 / per_epoch) * per_epoch, 30)
    assert [row["step"] for row in made] == [*range(per_epoch, steps, per_epoch), steps]
    last = made[-1]["lr/muon"]  # of a cosine from the warm-up's end to the last step
    share = (steps - 1 - per_epoch) / (steps - per_epoch)
    assert last == pytest.approx(1e-5 + (0.025 - 1e-5) * (1 + math.cos(math.pi * share)) / 2)
    said = capsys.readouterr().out
    assert f"{len(made)} epochs, {steps} in all" in said
    best = min(made, key=lambda row: row["valid/loss"])  # which best is about, and the line shows
    (line,) = [each for each in said.splitlines() if each.startswith(f"epoch {best['epoch']}")]
    assert f"valid loss {best['valid/loss']:9.3f}" in line
    assert line.endswith("  best")


def test_a_short_last_epoch_is_a_beginning_of_the_whole_one(train_arguments, tmp_path):
    constant = [*train_arguments, "optim.muon.schedule=constant", "optim.adamw.schedule=constant"]
    train(configured(constant, max_epochs=2), tmp_path / "whole")
    per_epoch = rows(tmp_path / "whole")[0]["step"]
    train(configured(constant, max_epochs=2, max_steps=per_epoch), tmp_path / "short")
    whole, short = rows(tmp_path / "whole"), rows(tmp_path / "short")
    assert short == whole[:1]


def test_epochs_without_a_validation_change_the_rows_alone(train_arguments, tmp_path):
    arguments = [*train_arguments, "loss.freeze_below=0"]
    train(configured(arguments, max_epochs=5), tmp_path / "each")
    every = rows(tmp_path / "each")
    per_epoch = every[0]["step"]
    config = configured(arguments, max_epochs=5, validate_steps=per_epoch + 1)
    train(config, tmp_path / "fewer")
    some = rows(tmp_path / "fewer")
    assert [row["epoch"] for row in some] == [1, 3, 4]
    for row in some:
        same = every[row["epoch"]]
        assert {k: v for k, v in row.items() if "train/" not in k} == {
            k: v for k, v in same.items() if "train/" not in k
        }
    mean = (every[0]["train/loss"] + every[1]["train/loss"]) / 2
    assert some[0]["train/loss"] == pytest.approx(mean)
    a, b = (
        torch.load(tmp_path / name / "checkpoints" / "final.pt")["state_dict"]
        for name in ("each", "fewer")
    )
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_run_in_steps_goes_on_to_the_bit(train_arguments, tmp_path):
    trainer = {"max_epochs": 1, "min_steps": 70, "max_steps": 75, "validate_steps": 20}
    train(configured(train_arguments, **trainer), tmp_path / "whole")
    stop = StopRequest()

    def at_first_row(row):
        stop.signum = 15

    context = RunContext(stop=stop, on_epoch=at_first_row)
    with pytest.raises(Interrupted):
        train(configured(train_arguments, **trainer), tmp_path / "cut", context)
    train(configured(train_arguments, **trainer, resume=str(tmp_path / "cut")), tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_a_plateau_ends_with_an_improvement_that_is_large_enough():
    state = TrainState()
    best, plateau = [], []
    for epoch, loss in enumerate([100.0, 99.5, 99.1, 98.9, 99.3]):
        state.epoch = epoch
        best.append(state.note_validation(loss, 0.01))
        plateau.append(state.plateau_epoch)
    assert best == [True, True, True, True, False]
    assert plateau == [0, 0, 0, 3, 3]
    assert (state.best_loss, state.best_epoch) == (98.9, 3)


def test_early_stopping_waits_for_improvements_of_a_share(train_arguments, tmp_path, capsys):
    config = configured(train_arguments, max_epochs=9, early_stopping=2, min_improvement=0.9)
    train(config, tmp_path / "run")
    assert [row["epoch"] for row in rows(tmp_path / "run")] == [0, 1, 2]
    assert "no better validation loss for 2 epochs" in capsys.readouterr().out


def test_a_state_of_an_earlier_release_goes_on():
    saved = {"epoch": 3, "batch": 2, "step": 32, "best_loss": 5.0, "best_epoch": 1}
    state = TrainState.of(saved)
    assert (state.validated, state.plateau_loss, state.plateau_epoch) == (30, 5.0, 1)
