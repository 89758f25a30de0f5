"""The bias model of a run: read, checked, and its counts brought to the level of this data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cherimoya.config.train import TRAIN_BIAS, ModelConfig, TrainConfig
from cherimoya.data.dataset import Dataset
from cherimoya.data.groups import group_labels
from cherimoya.errors import CherimoyaError, ConfigError
from cherimoya.genome.sequence import one_hot
from cherimoya.inference.checkpoints import Checkpoint, find_checkpoint
from cherimoya.inference.predictor import predict
from cherimoya.network import Cherimoya
from cherimoya.training.seen import check_seen
from cherimoya.util.hub import is_address
from cherimoya.util.shapes import Table, read_json

BIAS_MODELS = "bias"  # in a run's folder: where it trains them
CHOICE = "choice.json"  # in that: which one it takes
MOST_LOCI = 4096  # background loci that the level of the counts is taken from


@dataclass(frozen=True)
class BiasModel:
    """A bias model, and where it came from: as JSON-ready values, and in words."""

    model: Cherimoya
    origin: Mapping[str, Any]
    words: str


def bias_model(
    run: TrainConfig,
    folder: Path,
    dataset: Dataset,
    device: torch.device,
    saved: Mapping[str, Any] | None,
) -> BiasModel | None:
    """The bias model that `model.bias` names, on `device`; None if it names none.

    With model.bias=train it is the one of `folder` that was chosen.
    A run that goes on has saved its weights, so only its shape is made again. Raises ConfigError
    for a checkpoint that does not go with the data, or has seen what the run tests on.
    """
    config = run.model
    if config.bias is None:
        return None
    if saved and "bias" in saved:
        origin = saved["bias"]
        return BiasModel(Cherimoya(**origin["network"]), origin, origin["words"])
    made = read_choice(folder) if config.bias == TRAIN_BIAS else {}
    checkpoint = find_bias(config, folder, saved)
    assert checkpoint is not None
    try:
        model = checkpoint.load(device)
    except CherimoyaError as error:
        raise ConfigError(f"model.bias={config.bias}: {error}") from None
    check_bias_model(model, checkpoint.groups, dataset, f"model.bias={config.bias}")
    rows = dataset.rows["train"]
    rows = rows[dataset.loci.label[rows] == 0]
    if not len(rows):
        raise ConfigError(
            f"model.bias needs background loci, to find the level of the enzyme's counts, and "
            f"{dataset.path} has none to train on. Prepare it with background_ratio=1."
        )
    shift, n = move_counts(model, dataset, rows, MOST_LOCI)
    name = model.config.get("block", {}).get("name", "cheri")
    moved = ", ".join(f"{value:+.2f}" for value in shift)
    words = (
        f"{checkpoint.name}, {model.config['n_filters']} filters x {model.config['n_layers']} "
        f"{name} blocks, kept as it is; log counts moved by {moved}, to those of {n:,} background "
        "loci"
    )
    theirs, own = list(checkpoint.groups), group_labels(dataset.loci)
    if theirs and theirs != own:
        words += f"; it learned {', '.join(theirs)} and is taken for {', '.join(own)}"
    known = checkpoint.trained_on()
    if not made:  # one of this run's own was trained on the same chromosomes as it
        seen = check_seen(f"model.bias={config.bias}", known, run, dataset)
        words = "; ".join([words, *seen])
    origin = {
        **checkpoint.described(), "moved": shift, "network": model.config, "trained_on": known,
        "words": words,
    }  # fmt: skip
    origin |= {"choice": made} if made else {}
    return BiasModel(model, origin, words)


def find_bias(
    config: ModelConfig, folder: Path, saved: Mapping[str, Any] | None
) -> Checkpoint | None:
    """The checkpoint of `bias_model`, which reads it; None where none is read.

    Raises ConfigError where it is not there.
    """
    if config.bias is None or (saved and "bias" in saved):
        return None
    made = read_choice(folder) if config.bias == TRAIN_BIAS else {}
    if config.bias == TRAIN_BIAS and not made:
        raise ConfigError("model.bias=train is for cherimoya-train, which trains it before this.")
    named = str(folder / BIAS_MODELS / made["chosen"]) if made else config.bias
    if not is_address(named) and not Path(named).exists():
        raise ConfigError(
            f"model.bias={config.bias}: there is no file or folder {named}. Name a run of "
            "experiment=bias or its checkpoint, train for bias models of this run, or null."
        )
    return find_checkpoint(named, "model.bias")


def read_choice(folder: Path) -> dict[str, Any]:
    """Which of the bias models that the run in `folder` trained it takes; empty before that."""
    return read_json(folder / BIAS_MODELS / CHOICE, Table({"chosen": str}))


def check_bias_model(model: Cherimoya, groups: Sequence[str], dataset: Dataset, named: str) -> None:
    """Raise ConfigError for a bias model that does not go with the data.

    groups: what its signal groups are called, if that is known
    """
    loci = dataset.loci
    trimming = (loci.in_window - loci.out_window) // 2
    if model.bias_model is not None:
        raise ConfigError(f"{named}: it has a bias model itself. Name one trained on background.")
    if model.signal_groups != loci.signal_groups:
        raise ConfigError(
            f"{named}: its signal groups have {model.signal_groups} tracks, but those of "
            f"{dataset.path} {loci.signal_groups}. Train it on this data."
        )
    its, own = list(groups), group_labels(loci)
    if any(a != b and a in own for a, b in zip(its, own, strict=False)):  # none, if not known
        raise ConfigError(
            f"{named}: its signal groups are {', '.join(its)} in this order, but those of "
            f"{dataset.path} {', '.join(own)}. Order them alike (data.groups)."
        )
    if model.n_control_tracks:
        raise ConfigError(
            f"{named}: it reads {model.n_control_tracks} control tracks, as a bias model may not."
        )
    if model.trimming > trimming:
        raise ConfigError(
            f"{named}: it needs {model.trimming} bases on each side of the {loci.out_window:,} "
            f"that are predicted, and data.in_window={loci.in_window} leaves {trimming}. Train it "
            f"with fewer blocks, on windows of data.in_window={loci.in_window} at most."
        )


def move_counts(
    model: Cherimoya,
    dataset: Dataset,
    rows: np.ndarray,
    most: int,
    groups: Sequence[int] | None = None,
) -> tuple[list[float], int]:
    """Move the model's log counts so that their mean over `most` loci at `rows` is as observed.

    Returns by how much, for each signal group, and the number of loci. The profile is left, and
    so are groups that are not among `groups`, if that is given.
    """
    loci = dataset.loci
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(int)]
    width, j = loci.out_window + 2 * model.trimming, loci.max_jitter
    left = j + (loci.in_window - width) // 2
    codes = torch.from_numpy(np.ascontiguousarray(loci.sequence[rows, left : left + width]))
    controls = loci.control[rows, :, left : left + width] if model.n_control_tracks else None  # type: ignore[index]
    predicted = predict(model, one_hot(codes), controls).log_counts.double().mean(dim=0)
    shift = torch.from_numpy(np.log1p(loci.totals(rows)).mean(axis=0)) - predicted
    if groups is not None:
        shift[[number for number in range(len(shift)) if number not in groups]] = 0.0
    with torch.no_grad():
        model.linear.bias.add_(shift.to(model.linear.bias))
    return [round(float(value), 4) for value in shift], len(rows)
