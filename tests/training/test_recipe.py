"""What experiment=recommended changes: where counts start, what decays, how loss weights move."""

import json

import numpy as np
import pytest
import torch
from configs import composed, made_of
from torch import nn
from training_runs import assert_same_run

from cherimoya.config.schema import build
from cherimoya.config.train import TrainConfig
from cherimoya.data.dataset import Dataset
from cherimoya.data.loci import Loci
from cherimoya.errors import Interrupted
from cherimoya.optim.optimizers import AdamW
from cherimoya.training.interrupt import StopRequest
from cherimoya.training.run import RunContext, model_for, train

ADAMW = {"lr": 0.1, "weight_decay": 0.5, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}


@pytest.fixture
def recommended(train_arguments):
    tiny = ["model.count_bias=mean", "trainer.validate_steps=null"]
    return ["experiment=recommended", *train_arguments, *tiny]


def configured(arguments: list[str], **trainer) -> TrainConfig:
    values = composed("train", arguments)
    values["trainer"] |= trainer
    return build(TrainConfig, values)


def two_groups(n: int = 6) -> Dataset:
    """A stranded pair and a single track, with jitter of 2, of which one locus is background."""
    random = np.random.default_rng(0)
    signal = random.poisson(3.0, (n, 3, 44)).astype(np.int32)
    label = np.array([1] * (n - 1) + [0], dtype=np.uint8)
    loci = Loci(
        sequence=random.integers(0, 4, (n, 64)).astype(np.uint8), signal=signal, control=None,
        label=label, chrom=np.array(["chr1"] * n), start=np.arange(n), end=np.arange(n) + 60,
        in_window=60, out_window=40, max_jitter=2, track_names=["a", "b", "c"],
        signal_groups=[2, 1], control_names=[], control_groups=[], genome="", provenance={},
    )  # fmt: skip
    return Dataset(loci, {"train": np.arange(2, n)}, None, "")


def test_each_count_head_may_start_at_the_mean_of_its_groups_training_peaks():
    dataset = two_groups()
    model = {
        start: model_for(configured([f"model.count_bias={start}"]), dataset)
        for start in ("zero", "mean")
    }
    window = torch.from_numpy(dataset.loci.signal[2:5, :, 2:42]).double()
    expected = [window[:, tracks].sum((1, 2)).log1p().mean() for tracks in ([0, 1], [2])]
    assert model["mean"].linear.bias.tolist() == pytest.approx([float(e) for e in expected])
    assert model["zero"].linear.bias.tolist() == [0, 0]
    for (name, zero), mean in zip(
        model["zero"].named_parameters(), model["mean"].parameters(), strict=True
    ):
        assert torch.equal(zero, mean) == (name != "linear.bias"), name


@pytest.mark.parametrize("decay_1d", [True, False])
def test_biases_and_loss_weights_decay_if_asked(decay_1d):
    parameters = {
        "weight": nn.Parameter(torch.ones(2, 3)), "taps": nn.Parameter(torch.ones(2, 4, 5)),
        "bias": nn.Parameter(torch.ones(2)), "scale": nn.Parameter(torch.ones(())),
    }  # fmt: skip
    optimizer = AdamW([*parameters.values()], **ADAMW, decay_1d=decay_1d)
    for p in parameters.values():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    left = {name: float(p.detach().mean()) for name, p in parameters.items()}
    decayed = pytest.approx(1 - 0.1 * 0.5)
    flat = decayed if decay_1d else 1.0
    assert left == {"weight": decayed, "taps": decayed, "bias": flat, "scale": flat}


def test_without_decay_of_one_dimension_the_update_is_adamws():
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(s)) for s in ((3, 4), (4,), ())]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    a = AdamW(ours, **ADAMW | {"weight_decay": 0.0}, decay_1d=False)
    b = AdamW(theirs, **ADAMW | {"weight_decay": 0.0})
    for _ in range(3):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        a.step()
        b.step()
    assert all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True))


def test_the_recommended_recipe_composes_with_data_of_ones_own(recommended):
    for words in (recommended, [recommended[1], recommended[0], *recommended[2:]]):
        made = made_of(words)
        made.check_files()
        assert not made.without_effect()
        assert made.config.model.count_bias == "mean"
        assert made.config.model.n_filters == 8  # what is typed goes before the recipe's
        assert not made.config.optim.targets["adamw"].settings.decay_1d
        assert ("lw[01]", "sgd") in [(r.pattern, r.optimizer) for r in made.config.optim.routing]


@pytest.mark.parametrize("block", ["cheri", "bpnet", "convnext"])
def test_the_recommended_recipe_takes_any_block(block):
    words = ["experiment=recommended", "data.path=x.h5", "data.fold=0", f"model.blocks={block}"]
    made = made_of(words)
    assert not made.without_effect()
    assert made.config.model.blocks.name == block
    assert made.config.model.n_layers == 10


@pytest.mark.parametrize("words", [[], ["loss.freeze_share=0.9"]])
def test_the_recommended_recipe_goes_on_to_the_bit(words, recommended, tmp_path):
    recommended = [*recommended, *words]
    config = configured(recommended)
    train(config, tmp_path / "whole")
    stop = StopRequest()

    def at_epoch_0(row):
        stop.signum = 15

    with pytest.raises(Interrupted):
        train(config, tmp_path / "cut", RunContext(stop=stop, on_epoch=at_epoch_0))
    train(configured(recommended, resume=str(tmp_path / "cut")), tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.slow
def test_packed_runs_of_the_recommended_recipe_are_as_alone(recommended, cherimoya_train, tmp_path):
    grid = ["-m", *recommended, "trainer.max_epochs=2", "seed=0,1"]
    for folder, packed in (("alone", []), ("packed", ["hydra/launcher=packed"])):
        done = cherimoya_train(*grid, *packed, f"hydra.sweep.dir={folder}")
        assert done.returncode == 0, done.stderr
    for name in ("seed=0", "seed=1"):
        assert_same_run(tmp_path / "alone" / name, tmp_path / "packed" / name)


@pytest.mark.parametrize("words", [["loss.freeze_below=1e9"], ["loss.freeze_share=0.9"]])
def test_rows_and_the_summary_say_what_the_loss_weights_do(words, train_arguments, tmp_path):
    train(configured([*train_arguments, *words]), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(row["loss/lw0"] > 1 for row in rows)
    assert rows[0]["loss/lw0_gradient"] < 0
    frozen = [row["loss/frozen"] for row in rows]
    assert frozen == sorted(frozen)
    if words == ["loss.freeze_below=1e9"]:
        assert frozen == [2, 2, 2]
        assert rows[0]["loss/lw0"] == rows[2]["loss/lw0"]
        assert rows[2]["loss/lw0_gradient"] is None
    last = json.loads((tmp_path / "summary.json").read_text())["loss"]
    assert last["lw1"] == rows[-1]["loss/lw1"]
    assert last["frozen"] == frozen[-1]


@pytest.mark.slow
def test_two_processes_train_the_recommended_recipe_like_one(
    recommended, cherimoya_train, tmp_path
):
    found = {}
    for n in (1, 2):
        words = ["trainer.device=cpu", f"trainer.devices={n}", "loss.freeze_share=0.5"]
        done = cherimoya_train(*recommended, *words, f"hydra.run.dir={n}")
        assert done.returncode == 0, done.stderr
        lines = (tmp_path / str(n) / "metrics.jsonl").read_text().splitlines()
        found[n] = [json.loads(line) for line in lines]
    for one, two in zip(found[1], found[2], strict=True):
        for key in ("train/loss", "valid/profile_mnll", "valid/count_mse", "loss/lw0", "loss/lw1"):
            assert one[key] == pytest.approx(two[key], rel=1e-3), key
        assert one["loss/frozen"] == two["loss/frozen"]
