"""How long a training is on its data, and a warm-up that ends in time."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cherimoya.config.diff import Changes
from cherimoya.config.train import WARMUP, TrainConfig
from cherimoya.data.batches import examples_per_epoch
from cherimoya.data.dataset import Dataset
from cherimoya.errors import ConfigError
from cherimoya.util.console import counted

MOST_STEPS = 10_000_000  # whose learning rates lie ready on the device
SHARE = 0.25  # of the training that a shortened warm-up takes


@dataclass(frozen=True)
class Length:
    """Steps in an epoch, and in all; the last epoch may be cut short."""

    per_epoch: int
    steps: int

    @property
    def epochs(self) -> int:
        """The epochs in all, a short last one among them."""
        return math.ceil(self.steps / self.per_epoch)


def length_of(
    config: TrainConfig, dataset: Dataset, on_gpu: bool, saved: Mapping[str, Any] | None = None
) -> Length:
    """The length of the training that `config` asks for; of a run that goes on, as it was `saved`.

    Raises ConfigError when an epoch has no full batch, or there are too many steps.
    """
    label, batch_size = dataset.loci.label[dataset.rows["train"]], config.trainer.batch_size
    examples = examples_per_epoch(label, config.data.negative_ratio)
    if examples < batch_size:
        raise ConfigError(
            f"trainer.batch_size={batch_size}, but an epoch has {counted(examples, 'example')} and "
            f"only full batches are used. Set trainer.batch_size={max(examples // 4, 1)} or less."
        )
    per_epoch = examples // batch_size
    steps = saved.get("total_steps") if saved else None
    steps = steps or config.trainer.total_steps(per_epoch, on_gpu)
    if steps > MOST_STEPS:
        raise ConfigError(
            f"a training of {steps:,} steps, {per_epoch:,} an epoch (trainer.max_epochs, "
            f"trainer.min_steps), is longer than the {MOST_STEPS:,} that are possible. The "
            "learning rates fall over all of it: lower both, even with trainer.early_stopping."
        )
    return Length(per_epoch, steps)


def with_warmup(
    config: TrainConfig, length: Length, changes: Changes | None
) -> tuple[TrainConfig, dict[str, str]]:
    """`config`, with a quarter of the training as its warm-up where a default one would not end.

    And what the banner says of that, if it was done. changes: what the configuration changes, and
    so whether the warm-up was chosen; one of a run that goes on was not. Raises ConfigError for a
    chosen one that would not end.
    """
    epochs = config.optim.warmup_epochs
    warmup = round(epochs * length.per_epoch)
    if warmup <= length.steps:
        return config, {}
    fits = length.steps * SHARE / length.per_epoch
    if config.trainer.resume is None and WARMUP not in (changes.adapts if changes else {}):
        raise ConfigError(
            f"{WARMUP}={epochs:g} are {warmup} steps of {length.per_epoch} an epoch, longer than "
            f"the training of {length.steps} (trainer.max_steps, trainer.max_epochs). Set "
            f"{WARMUP}={fits:.2g}."
        )
    said = f"{fits:.3g} epochs, a quarter of the training, which is shorter than the default, "
    note = {"warm-up": f"{said}{WARMUP}={epochs:g}"}
    return replace(config, optim=replace(config.optim, warmup_epochs=fits)), note
