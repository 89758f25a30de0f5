"""Configurations that earlier releases saved mean what they meant."""

import copy
import signal
import subprocess
from dataclasses import replace

import pytest
import torch
import yaml
from command_lines import TRAIN, clean_environment, wait_until
from configs import composed
from training_runs import assert_same_run

from cherimoya.config.diff import differences
from cherimoya.config.saved import current
from cherimoya.config.schema import build, to_dict
from cherimoya.config.train import TrainConfig

BEFORE_0_3 = yaml.safe_load("""
model:
  blocks: {expansion: 2, residual_scale: 0.15}
  n_filters: 96
  n_layers: 9
  profile_kernel_size: 1
  signal_groups: null
  n_control_tracks: null
  trimming: null
loss:
  name: kendall
  freeze_below: 1.0
  profile_weight: 1.0
  count_weight: 1.0
optim:
  routing:
  - {pattern: "blocks.*.linear[12].weight", optimizer: muon}
  - {pattern: "*", optimizer: adamw}
  muon: {lr: 0.025, weight_decay: 0.01, momentum: 0.95, ns_steps: 5}
  adamw: {lr: 0.004, weight_decay: 0.2, beta1: 0.9, beta2: 0.999, eps: 1.0e-08}
  sgd: null
  warmup_epochs: 1.0
  warmup_start: 0.01
  min_lr: 1.0e-05
  ema_decay: 0.999
  ema_warmup: true
data:
  source: synthetic
  placement: auto
  path: null
  keys: null
  synthetic: {seed: 0, n_chromosomes: 10, n_peaks: 1200, n_background: 300, mean_count: 150.0}
  cache_dir: null
  in_window: 320
  out_window: 160
  max_jitter: 16
  negative_ratio: 0.25
  reverse_complement: true
  train_chroms: null
  validation_chroms: [sim8]
  test_chroms: [sim9, sim10]
  exclude_chroms: []
  fold: null
  leave_out: null
trainer:
  max_epochs: 8
  batch_size: 8
  eval_batch_size: 64
  device: auto
  devices: 1
  precision: auto
  accumulate: 1
  cuda_graph: true
  threads: null
  early_stopping: null
  checkpoint_minutes: 5.0
  plots: true
  profile: false
  autotune: true
  resume: null
logger:
  name: wandb
  project: cherimoya
  mode: auto
  run_name: null
  group: null
  tags: []
  log_model: none
seed: 0
""")
WITH_SGD = {
    "routing": [
        {"pattern": "blocks.*.linear[12].weight", "optimizer": "muon"},
        {"pattern": "lw[01]", "optimizer": "sgd"},
        {"pattern": "*", "optimizer": "adamw"},
    ],
    "muon": BEFORE_0_3["optim"]["muon"] | {"weight_decay": 0.03},
    "adamw": BEFORE_0_3["optim"]["adamw"] | {"lr": 0.001, "weight_decay": 0.0},
    "sgd": {"lr": 0.001, "momentum": 0.9},
}
ADAMW_ALONE = {
    "routing": [{"pattern": "*", "optimizer": "adamw"}],
    "muon": None,
    "adamw": BEFORE_0_3["optim"]["adamw"] | {"weight_decay": 0.01},
}


def before(**changed: dict) -> dict:
    """What an earlier release saved, with changes of its groups."""
    values = copy.deepcopy(BEFORE_0_3)
    return values | {group: values[group] | keys for group, keys in changed.items()}


@pytest.mark.parametrize(
    ("saved", "words"),
    [
        (before(), []),
        (
            before(loss={"name": "fixed", "count_weight": 100.0}, logger={"name": "none"}),
            ["loss=fixed", "logger=none"],
        ),
        (before(optim=WITH_SGD), ["optim=muon_adamw_sgd", "optim.warmup_epochs=1"]),
        (before(optim=ADAMW_ALONE), ["optim=adamw"]),
        (
            before(
                logger={"mode": "offline", "tags": ["a"]},
                model={"blocks": {"expansion": 4, "residual_scale": 0.3}},
            ),
            ["logger.wandb.mode=offline", "logger.wandb.tags=[a]", "model.blocks.expansion=4",
             "model.blocks.residual_scale=0.3"],
        ),
    ],
    ids=["default", "fixed", "sgd", "adamw", "settings"],
)  # fmt: skip
def test_what_an_earlier_release_saved_is_what_the_same_words_mean_today(saved, words):
    today = build(TrainConfig, composed("train", words))
    untouched = copy.deepcopy(saved)
    then = replace(today, bias_model=None)  # which no earlier release trained
    assert build(TrainConfig, current(saved)) == then
    assert saved == untouched
    assert differences(current(saved), to_dict(today)) == []
    other = build(TrainConfig, composed("train", [*words, "optim.adamw.lr=0.02"]))
    (change,) = differences(current(saved), to_dict(other))
    assert change.startswith("optim.adamw.lr was 0.00")


@pytest.mark.parametrize(
    "words",
    [[], ["optim=muon_adamw_sgd", "loss=poisson", "logger=[csv,wandb]"],
     ["optim=adamw", "model/blocks=bpnet", "logger=none"]],
    ids=" ".join,
)  # fmt: skip
def test_what_is_saved_today_stays_as_it_is(words):
    today = to_dict(build(TrainConfig, composed("train", words)))
    assert current(today) == today


@pytest.mark.slow
def test_a_run_of_an_earlier_release_goes_on_to_the_bit(cherimoya_train, train_arguments, tmp_path):
    """Its folder is written here as that release wrote it."""
    done = cherimoya_train(*train_arguments, "hydra.run.dir=whole")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "killed"
    command = [*TRAIN, *train_arguments, f"hydra.run.dir={run}", "trainer.checkpoint_minutes=1e-4"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=clean_environment(), stdout=subprocess.DEVNULL
    )
    rows = run / "metrics.jsonl"
    wait_until(lambda: rows.exists() and rows.stat().st_size > 0)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM

    config = yaml.safe_load((run / "config.yaml").read_text())
    earlier = as_before(config)
    (run / "config.yaml").write_text(yaml.safe_dump(earlier, sort_keys=False))
    for path in (run / "checkpoints").glob("*.pt"):
        state = torch.load(path, weights_only=True)
        if "step" in state:
            state["config"] = as_before(state["config"])
            state["wandb_id"] = state.pop("logger_ids").get("wandb")
            del state["step"]["loss"]
            torch.save(state, path)
    resumed = cherimoya_train("trainer.resume=killed", "trainer.checkpoint_minutes=5")
    assert "resumed after" in resumed.stdout, resumed.stderr
    assert_same_run(tmp_path / "whole", run)


def as_before(config: dict) -> dict:
    """A configuration of today, with the loss and logger of the default, as it was saved once."""
    values = copy.deepcopy(config)
    del values["metrics"], values["data"]["options"], values["model"]["blocks"]["name"]
    for name in ("muon", "adamw"):
        del values["optim"][name]["name"], values["optim"][name]["schedule"]
    values["optim"] |= {"routing": BEFORE_0_3["optim"]["routing"], "sgd": None}
    values["loss"] |= {"profile_weight": 1.0, "count_weight": 1.0}
    values["logger"] = BEFORE_0_3["logger"] | {"name": "none"}
    return values
