"""A training that starts from a trained model (model.init), and weights that stay as they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch

from cherimoya.config.schema import to_dict
from cherimoya.config.train import ModelConfig, TrainConfig
from cherimoya.data.dataset import Dataset
from cherimoya.errors import CherimoyaError, ConfigError
from cherimoya.genome.chrom_names import format_names
from cherimoya.inference.checkpoints import find_checkpoint
from cherimoya.network import Cherimoya
from cherimoya.training.bias import move_counts
from cherimoya.training.seen import check_seen
from cherimoya.util.console import counted

MOST_LOCI = 512  # peaks that the level of the counts is taken from
HEADS = ("fconv.", "linear.", "lw0", "lw1", "bias_model.")  # how names begin that are not the body


@dataclass(frozen=True, eq=False)
class Start:
    """The trained model that a run starts from; none where the run goes on, which has it already.

    origin: where it came from, as JSON-ready values; groups: what its signal groups are called
    """

    model: Cherimoya | None
    origin: dict[str, Any]
    groups: Sequence[str] = ()


def read_start(config: ModelConfig, saved: Mapping[str, Any] | None) -> Start | None:
    """What `model.init` names; None if it names none.

    saved: the state of a run that goes on

    Raises ConfigError for a checkpoint whose stem or blocks are not those of `config`.
    """
    if config.init is None:
        return None
    if saved is not None:
        return Start(None, dict(saved["init"]))
    checkpoint = find_checkpoint(config.init, "model.init")
    try:
        model = checkpoint.load()
    except CherimoyaError as error:
        raise ConfigError(f"model.init={config.init}: {error}") from None
    _check_body(config, model, checkpoint.name)
    origin = {
        **checkpoint.described(), "network": model.config, "window": list(checkpoint.window),
        "trained_on": checkpoint.trained_on(),
    }  # fmt: skip
    return Start(model, origin, checkpoint.groups)


def _check_body(config: ModelConfig, model: Cherimoya, source: str) -> None:
    """Raise ConfigError unless the stem and the blocks have the same shape and settings."""
    its = model.config
    block = its.get("block") or {
        "name": "cheri", **{k: its[k] for k in ("expansion", "residual_scale") if k in its}
    }  # fmt: skip
    own = {"model.n_filters": config.n_filters, "model.n_layers": config.n_layers}
    theirs = {"model.n_filters": its["n_filters"], "model.n_layers": its["n_layers"]}
    for name, value in to_dict(config.blocks).items():
        own[f"model.blocks.{name}"] = value
    for name, value in block.items():
        theirs[f"model.blocks.{name}"] = value
    other = {k: v for k, v in theirs.items() if own.get(k) != v}
    if "model.blocks.name" in other:
        other = {k: v for k, v in other.items() if not k.startswith("model.blocks.")}
        other["model.blocks"] = block["name"]
    if not other:
        return
    said = " ".join(f"{key}={own.get(key, config.blocks.name)}" for key in other)
    fix = " ".join(f"{key}={value}" for key, value in other.items())
    raise ConfigError(
        f"model.init={config.init}: {source} was trained with {fix}, and this run has {said}. Stem "
        f"and blocks must be alike: set {fix}"
    )


def begin_from(
    start: Start | None, config: TrainConfig, model: Cherimoya, dataset: Dataset
) -> dict[str, Any]:
    """Give `model`, which is on the CPU, the weights that the run starts from, and freeze some.

    Returns what is to be noted of it under "init", with a text as its "words"; nothing where there
    is no start.
    Raises ConfigError if the test loci lie on chromosomes that it was trained on, unless
    data.seen=allow, and for a pattern of model.freeze that names no parameter.
    """
    if start is None:
        return {}
    origin = start.origin
    if start.model is not None:
        origin |= _taken(start, config, model, dataset)
    frozen = _freeze(config.model.freeze or [], model)
    if start.model is not None and frozen:
        origin["words"] += f"; {frozen} kept as they are (model.freeze)"
    return {"init": origin}


def _taken(start: Start, config: TrainConfig, model: Cherimoya, dataset: Dataset) -> dict[str, Any]:
    """Copy what fits, see `begin_from`; what is to be noted of it."""
    source = start.model
    assert source is not None
    named, known = f"model.init={config.model.init}", start.origin["trained_on"]
    seen = check_seen(named, known, config, dataset)
    words = [str(start.origin["path"]), f"stem and {counted(len(model.blocks), 'block')} taken"]
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in source.named_parameters():
            if not name.startswith(HEADS):
                own[name].copy_(value)
    names = dataset.loci.group_names
    pairs = _matching(source.signal_groups, start.groups, model.signal_groups, names)
    labels = names or [str(number) for number in range(len(model.signal_groups))]
    narrower = source.config["profile_kernel_size"] > model.config["profile_kernel_size"]
    if narrower:
        pairs = {}
        words.append(
            f"both heads made anew, as its profile head reads "
            f"{source.config['profile_kernel_size']} bases (model.profile_kernel_size)"
        )
    _copy_heads(source, model, pairs)
    anew = [label for number, label in enumerate(labels) if number not in pairs]
    if pairs:
        of = f" of {format_names(labels[own] for own in pairs)}" if names else ""
        words.append(f"heads{of} taken")
    if pairs and config.model.count_bias == "mean":
        words.append(_level(model, dataset, list(pairs)))
    if anew and not narrower:
        words.append(f"heads of {format_names(anew)} made anew: it has no such signal group")
    if source.bias_model is not None and model.bias_model is None:
        words.append("its bias model is left out (model.bias)")
    if source.n_control_tracks != model.n_control_tracks:
        words.append(
            f"it reads {counted(source.n_control_tracks, 'control track')}, this run "
            f"{model.n_control_tracks}: what controls do is learnt anew"
        )
    width = start.origin["window"][0]
    if width is not None and width != dataset.loci.in_window:
        words.append(f"it was trained on windows of {width:,} bases")
    return {
        "words": "; ".join([*words, *seen]),
        "heads": {labels[n]: n in pairs for n in range(len(labels))},
    }


def _matching(
    theirs: Sequence[int], their_names: Sequence[str], own: Sequence[int], names: Sequence[str]
) -> dict[int, int]:
    """Which of their signal groups, of so many tracks, gives each of ours its heads.

    By name, where names agree; else in their order, where all have as many tracks.
    """
    by_name = {name: number for number, name in enumerate(their_names)}
    pairs = {
        number: by_name[name]
        for number, name in enumerate(names)
        if name in by_name and theirs[by_name[name]] == own[number]
    }
    if not pairs and list(theirs) == list(own) and not set(names) & set(by_name):
        return {number: number for number in range(len(own))}
    return pairs


def _copy_heads(source: Cherimoya, model: Cherimoya, pairs: Mapping[int, int]) -> None:
    """Copy the heads of signal groups, own number -> theirs; a wider profile head gets zeros."""
    filters = model.config["n_filters"]
    wider = model.config["profile_kernel_size"] - source.config["profile_kernel_size"]
    controls = source.n_control_tracks == model.n_control_tracks
    first = [np.cumsum([0, *one.signal_groups]) for one in (model, source)]
    with torch.no_grad():
        for own, its in pairs.items():
            to = slice(first[0][own], first[0][own + 1])
            of = slice(first[1][its], first[1][its + 1])
            read = slice(None) if controls else slice(filters)
            kernel = torch.nn.functional.pad(source.fconv.weight[of, read], (wider // 2,) * 2)
            model.fconv.weight[to, read] = kernel
            model.fconv.bias[to] = source.fconv.bias[of]  # type: ignore[index]
            model.linear.weight[own, read if controls else slice(filters)] = source.linear.weight[
                its, read if controls else slice(filters)
            ]
            model.linear.bias[own] = source.linear.bias[its]
            for weight in ("lw0", "lw1"):
                getattr(model, weight)[own] = getattr(source, weight)[its]


def _level(model: Cherimoya, dataset: Dataset, taken: list[int]) -> str:
    """Move the log counts of groups whose heads were taken to the level of this data's peaks."""
    shift, n = move_counts(model, dataset, dataset.peaks("train"), MOST_LOCI, taken)
    moved = ", ".join(f"{shift[own]:+.2f}" for own in taken)
    return f"log counts moved by {moved}, to those of {n:,} peaks"


def _freeze(patterns: Sequence[str], model: Cherimoya) -> str:
    """Freeze the parameters whose names match; what they are, in words.

    Raises ConfigError for a pattern that matches none, or where none is left to train.
    """
    parameters = dict(model.trained_parameters())
    frozen: dict[str, int] = {}
    for pattern in patterns:
        found = [name for name in parameters if fnmatchcase(name, pattern)]
        if not found:
            listed = ", ".join(dict.fromkeys(_folded(name) for name in parameters))
            raise ConfigError(
                f"model.freeze: {pattern!r} matches no parameter. There are {listed}; blocks are "
                "numbered from 0: \"model.freeze=['blocks.[0-3].*']\" freezes the first four."
            )
        frozen |= {name: parameters[name].numel() for name in found}
    if len(frozen) == len(parameters):
        raise ConfigError("model.freeze leaves nothing to train. Leave some parameters out of it.")
    for name in frozen:
        parameters[name].requires_grad_(False)
    if not frozen:
        return ""
    numbers = sum(frozen.values())
    return f"{counted(len(frozen), 'tensor')} of {counted(numbers, 'number')}"


def _folded(name: str) -> str:
    return ".".join("*" if part.isdigit() else part for part in name.split("."))
