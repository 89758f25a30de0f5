"""The training loop."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from cherimoya import progress
from cherimoya.config import TrainConfig
from cherimoya.data.batches import Batch, EpochPlan, LociOnDevice, plan_epoch
from cherimoya.data.dataset import Dataset
from cherimoya.errors import CherimoyaError, Interrupted
from cherimoya.losses import LossTerms
from cherimoya.training.checkpoint import BEST, FINAL, Checkpoints
from cherimoya.training.evaluation import evaluate
from cherimoya.training.interrupt import stop_request
from cherimoya.training.run_log import RunLog
from cherimoya.training.step import TrainingStep


@dataclass
class TrainState:
    """Where the run stands; with the step's own state, all that a resume needs."""

    epoch: int = 0
    batch: int = 0  # batches of this epoch already trained on
    step: int = 0  # steps made in all
    best_loss: float = math.inf
    best_epoch: int = -1
    loss_sum: float = 0.0  # sums over this epoch's batches so far
    profile_sum: float = 0.0
    count_sum: float = 0.0
    seconds: float = 0.0  # time spent in all, interruptions left out


class Trainer:
    """Trains, validates and saves, from wherever the state stands to the last epoch."""

    def __init__(
        self,
        config: TrainConfig,
        step: TrainingStep,
        dataset: Dataset,
        loci: LociOnDevice,
        log: RunLog,
        checkpoints: Checkpoints,
        say: Callable[[str], None],
    ) -> None:
        self.config, self.step, self.dataset, self.loci = config, step, dataset, loci
        self.log, self.checkpoints, self.say = log, checkpoints, say
        self.state = TrainState()
        self.label = dataset.loci.label[dataset.rows["train"]]
        self.count_weight = count_weight(dataset)
        self.steps_per_epoch = len(self._plan(0)) // config.trainer.batch_size

    def fit(self) -> None:
        """Train until the last epoch or until the validation loss stops improving.

        Raises Interrupted after Ctrl-C or SIGTERM, and CherimoyaError for a loss that is not
        finite; in both cases last.pt holds a state to continue from.
        """
        state, settings = self.state, self.config.trainer
        left = settings.max_epochs * self.steps_per_epoch - state.step
        estimate = progress.TimeEstimate(left, self.say)
        with stop_request() as stop:
            saved = clock = time.monotonic()
            while state.epoch < settings.max_epochs and not self._patience_over():
                # ------------------------------------------------- one epoch of training steps
                for locus, batch in self._batches():
                    terms = self.step(batch, state.step)
                    self._account(terms, locus)
                    estimate.step_done()
                    now = time.monotonic()
                    state.seconds, clock = state.seconds + now - clock, now
                    if stop.signum is not None or now - saved > 60 * settings.checkpoint_minutes:
                        self.save()
                        saved = now
                    if stop.signum is not None:
                        raise Interrupted(stop.signum)
                # ------------------------------------------------- then validate, log and save
                self._end_epoch()
                now = time.monotonic()
                state.seconds, clock, saved = state.seconds + now - clock, now, now
                self.save()
        with self.step.ema.swapped_in():
            self.checkpoints.save_model(self.step.model, FINAL)

    def save(self) -> None:
        """Write last.pt."""
        try:
            self.checkpoints.save_last(
                {
                    "state": asdict(self.state),
                    "step": self.step.state_dict(),
                    "rng": torch.get_rng_state(),
                    "threads": torch.get_num_threads(),
                    "log_position": self.log.position,
                    "wandb_id": self.log.wandb_id,
                    "fingerprint": self.dataset.fingerprint,
                }
            )
        except (OSError, RuntimeError) as error:
            raise CherimoyaError(
                f"the checkpoint could not be written ({error}). Free some space and continue "
                f"with trainer.resume={self.log.folder}"
            ) from error

    def restore(self, saved: dict[str, Any]) -> None:
        """Continue from what `save` wrote. Raises CherimoyaError if the data changed since."""
        if saved["fingerprint"] != self.dataset.fingerprint:
            raise CherimoyaError(
                f"cannot resume: {self.dataset.path} has changed since the run began (fingerprint "
                f"{saved['fingerprint']}, now {self.dataset.fingerprint}). Restore it, or start a "
                "new run."
            )
        self.state = TrainState(**saved["state"])
        self.step.load_state_dict(saved["step"])
        torch.set_rng_state(saved["rng"])
        self.log.rewind(saved["log_position"])

    def _plan(self, epoch: int) -> EpochPlan:
        data = self.config.data
        return plan_epoch(
            self.config.seed,
            epoch,
            self.label,
            data.negative_ratio,
            self.loci.max_jitter,
            data.reverse_complement,
        )

    def _batches(self) -> Iterator[tuple[np.ndarray, Batch]]:
        """The remaining batches of the epoch, each with its rows in the data file."""
        plan, size = self._plan(self.state.epoch), self.config.trainer.batch_size
        rows = self.dataset.rows["train"][plan.locus]

        def gather() -> Iterator[tuple[np.ndarray, Batch]]:
            for i in range(self.state.batch, self.steps_per_epoch):
                part = slice(i * size, (i + 1) * size)
                yield rows[part], self.loci.batch(rows[part], plan.shift[part], plan.flip[part])

        label, done = f"epoch {self.state.epoch}", self.state.batch
        return progress.shown(gather(), label, self.steps_per_epoch, "step", done)

    def _account(self, terms: LossTerms, rows: np.ndarray) -> None:
        """Add a step's losses to the epoch's sums."""
        state, total = self.state, terms.total.item()
        if not math.isfinite(total):
            listed = ", ".join(str(r) for r in rows[:8])
            raise CherimoyaError(
                f"the loss is {total} at step {state.step} (epoch {state.epoch}, loci {listed}, "
                f"... of {self.dataset.path}). Nothing was changed by it; the last good state is "
                f"in {self.checkpoints.folder}. Lower optim.muon.lr and optim.adamw.lr, or look "
                "at these loci."
            )
        state.batch += 1
        state.step += 1
        state.loss_sum += total
        state.profile_sum += terms.profile.sum().item()
        state.count_sum += terms.count.sum().item()

    def _end_epoch(self) -> None:
        state, n = self.state, self.steps_per_epoch
        if self.step.loss.end_epoch(self.step.model):
            self.say(f"epoch {state.epoch}: the loss weights have settled and are now fixed")
        rows = self.dataset.rows["validation"]
        size = self.config.trainer.eval_batch_size
        with self.step.ema.swapped_in():
            scores = evaluate(self.step.model, self.loci, rows, self.dataset.loci.label, size)
            valid = scores.metrics()
            valid["loss"] = valid["profile_mnll"] + self.count_weight * valid["count_mse"]
            if valid["loss"] < state.best_loss:
                state.best_loss, state.best_epoch = valid["loss"], state.epoch
                self.checkpoints.save_model(self.step.model, BEST)
        train = {"loss": state.loss_sum, "profile": state.profile_sum, "count": state.count_sum}
        row = {
            "step": state.step,
            "epoch": state.epoch,
            **{f"train/{k}": v / n for k, v in train.items()},
            **{f"valid/{k}": v for k, v in valid.items()},
            **{f"lr/{k}": v for k, v in self.step.rates(state.step - 1).items()},
        }
        self.log.row(row)
        self.say(_epoch_line(row, state.best_epoch == state.epoch, self.config.trainer.max_epochs))
        state.epoch, state.batch = state.epoch + 1, 0
        state.loss_sum = state.profile_sum = state.count_sum = 0.0

    def _patience_over(self) -> bool:
        patience, state = self.config.trainer.early_stopping, self.state
        if patience is None or state.epoch - 1 - state.best_epoch < patience:
            return False
        self.say(f"no better validation loss for {patience} epochs: stopping early")
        return True


def count_weight(dataset: Dataset) -> float:
    """The weight of the count error in the validation loss that picks the best epoch.

    Half the mean total count of a training peak, which puts both losses on one scale (BPNet,
    Avsec et al. 2021). Unlike the learned weights it does not change between epochs.
    """
    loci = dataset.loci
    j = loci.max_jitter
    window = loci.signal[dataset.peaks("train")][:, :, j : j + loci.out_window]
    return max(float(window.sum(axis=(1, 2), dtype=np.float64).mean()) / 2, 1.0)


def _epoch_line(row: dict[str, Any], is_best: bool, max_epochs: int) -> str:
    width = len(str(max_epochs))
    return (
        f"epoch {row['epoch']:{width}d}  train loss {row['train/loss']:8.3f}  "
        f"valid MNLL {row['valid/profile_mnll']:9.3f}  "
        f"profile r {row['valid/profile_pearson']:.3f}  count r {row['valid/count_pearson']:.3f}"
        f"{'  best' if is_best else ''}"
    )
