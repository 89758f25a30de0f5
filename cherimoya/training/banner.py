"""The short summary at the start of a run."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from cherimoya import __version__
from cherimoya.config.train import TrainConfig, TrainerConfig
from cherimoya.data.batches import examples_per_epoch
from cherimoya.data.dataset import Dataset
from cherimoya.data.groups import group_labels
from cherimoya.evaluation import baselines
from cherimoya.genome.chrom_names import format_names
from cherimoya.inference.precision import HALF
from cherimoya.ops.dispatch import route
from cherimoya.training.step import TrainingStep
from cherimoya.util.console import counted


def banner(
    config: TrainConfig,
    folder: Path,
    known: Mapping[str, str],
    step: TrainingStep,
    dataset: Dataset,
) -> str:
    """Device and why, the network, the data, the steps, the optimizers, and where it all goes.

    `known` says of device, precision, loci and metrics what only their makers know.
    """
    model, loci = step.model, dataset.loci
    examples = examples_per_epoch(loci.label[dataset.rows["train"]], config.data.negative_ratio)
    held_out = [
        f"{split} {format_names(dict.fromkeys(loci.chrom[dataset.rows[split]].tolist()))}"
        for split in ("validation", "test")
    ]
    size = sum(p.numel() for _, p in model.trained_parameters())
    block = config.model.blocks.name
    kernels = route(step.device, HALF.get(step.precision, torch.float32))
    others = f"; PyTorch in the {block} blocks" if kernels.block and block != "cheri" else ""
    facts = {
        "run": f"{folder}, seed {config.seed}",
        "device": known["device"],
        "precision": known["precision"],
        "kernels": kernels.why + others,
        "model": f"{counted(config.model.n_filters, 'filter')} x "
        f"{counted(config.model.n_layers, 'block' if block == 'cheri' else f'{block} block')}, "
        f"{counted(size, 'parameter')}",
        **{key: known[key] for key in ("bias", "init") if key in known},
        "window": f"{loci.in_window:,} bp in, {loci.out_window:,} bp out, "
        f"receptive field {model.receptive_field:,} bp"
        f"{', wider than the window' if model.receptive_field > loci.in_window else ''}",
        "data": f"{dataset.path} ({dataset.fingerprint})",
        **_groups(config, dataset),
        "loci": "; ".join(
            [*_splits(dataset, config.data.background_below is not None), known["loci"]]
        ),
        "held out": "; ".join(held_out),
        "steps": _length(config.trainer, examples, step.total_steps),
        **{key: known[key] for key in ("warm-up",) if key in known},
        "metrics": known["metrics"],
    }
    facts |= _ceiling(dataset)
    lines = [f"Cherimoya {__version__}"]
    lines += [f"  {name:<9} {value}" for name, value in facts.items()]
    for optimizer, names in step.routes.items():
        numbers = sum(p.numel() for n, p in step.named_parameters() if n in names)
        held = f"{counted(len(names), 'tensor')}, {counted(numbers, 'number')}"
        lines.append(f"  {optimizer:<9} {held}: {_short(names)}")
    return "\n".join(lines)


def banner_warnings(config: TrainConfig, step: TrainingStep, dataset: Dataset) -> Iterator[str]:
    """What of the configuration is of no use on this data, a line each, to stand below the rest."""
    label = dataset.loci.label[dataset.rows["train"]]
    examples = examples_per_epoch(label, config.data.negative_ratio)
    found = window_warnings(config.model.n_layers, dataset.loci.in_window)
    found += patience_warnings(
        config.trainer, examples // config.trainer.batch_size, step.total_steps
    )
    yield from (f"  warning   {line}" for line in found)


def _groups(config: TrainConfig, dataset: Dataset) -> dict[str, str]:
    """The signal groups that are trained on, where they were chosen or have names."""
    if config.data.groups is None and not dataset.loci.group_names:
        return {}
    return {"groups": format_names(group_labels(dataset.loci))}


def _length(settings: TrainerConfig, examples: int, steps: int) -> str:
    """Steps and epochs, in words."""
    size, more = settings.batch_size, settings.gpu_min_steps or 0
    per_epoch = examples // size
    return (
        f"{per_epoch} an epoch of {counted(size, 'example')} ({examples % size} dropped), "
        f"{counted(-(-steps // per_epoch), 'epoch')}, {steps:,} in all"
        f"{f' (a GPU would make {more:,}: trainer.gpu_min_steps)' if more > steps else ''}"
    )


def _splits(dataset: Dataset, of_background: bool) -> list[str]:
    """How many loci each split has, in words."""
    peaks = {split: len(dataset.peaks(split)) for split in dataset.rows}
    if of_background:
        return [f"{split} {n:,}" for split, n in peaks.items()] + ["all background of few counts"]
    return [
        f"{split} {counted(peaks[split], 'peak')} + {len(rows) - peaks[split]:,} background"
        for split, rows in dataset.rows.items()
    ]


def _ceiling(dataset: Dataset) -> dict[str, str]:
    """What the truth of simulated data scores, in words; nothing for other data."""
    truth = baselines.ceiling(dataset, "validation")
    if truth is None:
        return {}
    best = truth.metrics()
    return {
        "ceiling": f"validation MNLL {best['profile_mnll']:.3f}, profile r "
        f"{best['profile_pearson']:.3f}, count r {best['count_pearson']:.3f}: the simulation's "
        "own truth"
    }


def window_warnings(n_layers: int, in_window: int) -> list[str]:
    """Blocks whose dilation is no shorter than the input window: their outer taps read padding."""
    useful = (in_window - 1).bit_length()  # blocks with dilation < in_window
    if n_layers > useful:
        wasted = ", ".join(str(2**i) for i in range(useful, n_layers))
        return [
            f"dilation {wasted} is no shorter than the {in_window} bp window: those blocks read "
            f"only padding beside the centre. Use model.n_layers={useful} or a longer "
            "data.in_window."
        ]
    return []


def patience_warnings(settings: TrainerConfig, per_epoch: int, steps: int) -> list[str]:
    """An early stopping that could end no training of so many steps before its end."""
    patience = settings.early_stopping
    if patience is None:
        return []
    apart = math.ceil((settings.validate_steps or 1) / per_epoch)  # epochs from one to the next
    first = (1 + math.ceil(patience / apart)) * apart  # the first one validated may be the best
    epochs = math.ceil(steps / per_epoch)
    if first < epochs:
        return []
    seldom = f", which are validated every {apart} (trainer.validate_steps)" if apart > 1 else ""
    return [
        f"trainer.early_stopping={patience} does nothing here: it could stop after {first:,} "
        f"epochs at the earliest{seldom}, and the training has {epochs:,}. Lower it"
        f"{', or trainer.validate_steps' if apart > 1 else ''}, or set it to null."
    ]


def _short(names: Sequence[str]) -> str:
    """Parameter names with the blocks' numbers folded: blocks.*.linear1.weight."""
    folded = dict.fromkeys(
        ".".join("*" if part.isdigit() else part for part in name.split(".")) for name in names
    )
    return ", ".join(folded)
