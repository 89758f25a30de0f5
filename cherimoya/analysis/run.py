"""One run, from its configuration to its scores and plots."""

import os
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from cherimoya import progress
from cherimoya.analysis.banner import banner
from cherimoya.analysis.conclusion import conclude
from cherimoya.analysis.machine import (
    choose_device,
    cpu_name,
    describe_device,
    git_commit,
    versions,
)
from cherimoya.config import TrainConfig, check_trimming, to_dict
from cherimoya.data.batches import LociOnDevice, examples_per_epoch
from cherimoya.data.dataset import Dataset, load_dataset
from cherimoya.errors import CherimoyaError, ConfigError, Interrupted
from cherimoya.network import Cherimoya, build_model
from cherimoya.training.checkpoint import Checkpoints, locked
from cherimoya.training.run_log import RunLog
from cherimoya.training.step import TrainingStep
from cherimoya.training.trainer import Trainer


def run(config: TrainConfig, folder: Path) -> None:
    """Train as `config` says, in `folder`, and leave scores and plots there.

    With `config.trainer.resume` the run in `folder` goes on. Raises CherimoyaError for anything
    the user can mend, Interrupted after Ctrl-C or SIGTERM.
    """
    say = progress.say
    with locked(folder), RunLog(folder, config.logger) as log:
        log.check_wandb()
        device = choose_device(config.trainer.device)
        checkpoints = Checkpoints(folder / "checkpoints")
        saved = checkpoints.load_last(say) if config.trainer.resume else None
        threads = saved["threads"] if saved else config.trainer.threads
        torch.set_num_threads(threads or torch.get_num_threads())
        dataset = load_dataset(config.data)
        model = model_for(config, dataset).to(device)
        step = training_step(config, model, dataset)
        loci = LociOnDevice(dataset.loci, device)
        trainer = Trainer(config, step, dataset, loci, log, checkpoints, say)
        if saved:
            trainer.restore(saved)
        origin = provenance(dataset)
        log.start_wandb(
            {**to_dict(config), "network": model.config, **origin},
            saved["wandb_id"] if saved else None,
        )
        about_device = describe_device(device, config.trainer.device)
        say(banner(config, folder, about_device, model, dataset, step.routes, log.where))
        if saved:
            say(f"resumed after {trainer.state.step:,} steps, in epoch {trainer.state.epoch}")
        try:
            trainer.fit()
        except Interrupted:
            say(f"saved. Continue with: cherimoya-train trainer.resume={shlex.quote(str(folder))}")
            raise
        except torch.OutOfMemoryError as error:
            raise CherimoyaError(out_of_memory(config, folder)) from error
        conclude(config, trainer, log, say, origin)


def model_for(config: TrainConfig, dataset: Dataset) -> Cherimoya:
    """The network, with heads and trimming that fit the data, initialised from the seed."""
    loci = dataset.loci
    controls = 0 if loci.control is None else loci.control.shape[1]
    wanted = {
        "model.signal_groups": (config.model.signal_groups, loci.signal_groups),
        "model.n_control_tracks": (config.model.n_control_tracks, controls),
    }
    for key, (asked, held) in wanted.items():
        if asked is not None and asked != held:
            raise ConfigError(
                f"{key}={asked}, but {dataset.path} has {held}. Leave {key}=null to take it from "
                "the file."
            )
    check_trimming(config.model.trimming, loci.in_window, loci.out_window)
    torch.manual_seed(config.seed)
    trimming = (loci.in_window - loci.out_window) // 2
    return build_model(config.model, loci.signal_groups, controls, trimming)


def out_of_memory(config: TrainConfig, folder: Path) -> str:
    """What to say when the device's memory is full."""
    smaller = max(config.trainer.batch_size // 2, 1)
    return (
        f"out of memory on the device with trainer.batch_size={config.trainer.batch_size}. Try "
        f"trainer.batch_size={smaller} in a new run ({folder} keeps what was saved)."
    )


def training_step(config: TrainConfig, model: Cherimoya, dataset: Dataset) -> TrainingStep:
    """The training step for this data. Raises ConfigError when an epoch has no full batch."""
    label = dataset.loci.label[dataset.rows["train"]]
    examples = examples_per_epoch(label, config.data.negative_ratio)
    batch_size = config.trainer.batch_size
    if examples < batch_size:
        raise ConfigError(
            f"trainer.batch_size={batch_size}, but an epoch has {examples} examples and only full "
            f"batches are used. Set trainer.batch_size={max(examples // 4, 1)} or less."
        )
    return TrainingStep(
        model, config.loss, config.optim, examples // batch_size, config.trainer.max_epochs
    )


def provenance(dataset: Dataset) -> dict[str, Any]:
    """What the numbers of this run depend on besides its configuration, as of now."""
    return {
        "data_fingerprint": dataset.fingerprint,
        "git_commit": git_commit(),
        "command": shlex.join(sys.argv),
        "versions": versions(),
        "cpu": f"{cpu_name()}, {os.cpu_count()} cores",
    }
