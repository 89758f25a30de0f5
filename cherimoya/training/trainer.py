"""The training loop."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from cherimoya.config.schema import to_dict
from cherimoya.config.train import TrainConfig
from cherimoya.data.batches import EpochPlan, plan_epoch
from cherimoya.data.dataset import Dataset
from cherimoya.data.feed import Feed, Source
from cherimoya.errors import CherimoyaError, Interrupted
from cherimoya.evaluation.own_metrics import own_metrics
from cherimoya.evaluation.scores import evaluate
from cherimoya.inference.cuda_graph import CUDAGraphModel
from cherimoya.loggers.run_log import RunLog
from cherimoya.losses import logged_values
from cherimoya.records import metrics
from cherimoya.records.run import BEST, FINAL
from cherimoya.training.capture import Runner
from cherimoya.training.checkpoint import STATE_FORMAT, Checkpoints, check_state, of_training
from cherimoya.training.interrupt import StopRequest
from cherimoya.training.profiler import Profile
from cherimoya.training.state import TrainState
from cherimoya.training.step import TrainingStep
from cherimoya.util import console
from cherimoya.util.own_code import own_digests, say_changed

# Steps that are asked of a GPU before the loop looks whether earlier ones went well: it never
# runs dry while Python looks, and a signal is answered within a fraction of a second.
STRIDE = {"cuda": 16, "cpu": 1}
SAVE = 1  # what a process may want at a look, besides to stop for a signal, whose number is larger

# Sees each epoch's row but the last one's, in the first process, and may say why to stop there.
EpochCallback = Callable[[dict[str, Any]], str | None]


class Trainer:
    """Trains, validates and saves, from wherever the state stands to the last epoch.

    Without a log it is one of several processes, and leaves writing to the first.
    """

    def __init__(
        self,
        config: TrainConfig,
        step: TrainingStep,
        dataset: Dataset,
        source: Source,
        log: RunLog | None,
        checkpoints: Checkpoints,
        say: Callable[[str], None],
        bar: bool = True,
        on_epoch: EpochCallback | None = None,
        began_with: Mapping[str, Any] | None = None,
    ) -> None:
        self.config, self.step, self.dataset, self.source = config, step, dataset, source
        self.log, self.checkpoints, self.say = log, checkpoints, say
        self.bar, self.on_epoch = bar, on_epoch
        self.began_with = dict(began_with or {})  # bias: its bias model; init: what it started from
        self.state, self.in_epoch = TrainState(), False
        self.count_weight = count_weight(dataset)
        self.told, self.own_code = of_training(dataset, self.began_with), own_digests()
        settings, processes, groups = config.trainer, step.processes, step.model.signal_groups
        out_window = dataset.loci.out_window
        self.metrics = own_metrics(config.metrics, groups, out_window, step.device)
        self.steps_per_epoch = len(self._plan(0)) // settings.batch_size
        self.epochs = -(-step.total_steps // self.steps_per_epoch)
        self.feed = Feed(
            source, settings.batch_size, self.steps_per_epoch, settings.accumulate,
            processes.rank, processes.world,
        )  # fmt: skip
        self.runner = Runner(step, lambda: self.feed.batch(step.count), settings.cuda_graph, say)
        self.predict = CUDAGraphModel(step.model, settings.cuda_graph)
        self.profile: Profile | None = None
        if settings.profile and log:
            self.profile = Profile(checkpoints.folder.parent, step.device, say)

    def start(self, stop: StopRequest) -> None:
        """From here on time counts, and a signal that `stop` noted is heeded."""
        left = self.step.total_steps - self.state.step
        self._stop, self._estimate = stop, console.TimeEstimate(left, self.say)
        self._clock = self._saved = time.monotonic()
        self._polled, self._unsure = self.state.step, 0

    def goes_on(self) -> bool:
        """Whether there is another epoch: it may be the last one's, or stopped, or no use."""
        more = self.state.epoch < self.epochs and not self.state.stopped
        return more and not self._patience_over()

    def begin_epoch(self) -> None:
        """Have the feed follow the plan of this epoch, from the next batch on."""
        plan = self._plan(self.state.epoch)
        rows = self.dataset.rows["train"][plan.locus]
        self.feed.begin_epoch(plan, rows, self.state.batch)
        self._batches, self.in_epoch = self._progress(), True

    def train_stride(self) -> None:
        """Make the epoch's steps up to the next look at the device, and save if it is time.

        Raises Interrupted after a signal, and CherimoyaError for a loss that is not finite; in
        both cases last.pt holds a state to continue from.
        """
        state, stride = self.state, STRIDE[self.step.device.type]
        for batch in self._batches:
            self.feed.source.prepare(batch)
            self.runner()
            state.batch += 1
            state.step += 1
            if state.batch % stride == 0 and self.batches_left:
                break
        self._estimate.steps_done(self._poll_device())
        if self.batches_left:
            self._save_or_stop()

    @property
    def batches_left(self) -> bool:
        """Whether this epoch has more steps, of which the last one may have fewer."""
        return self.state.batch < self.steps_per_epoch and self.state.step < self.step.total_steps

    def end_epoch(self) -> None:
        """Validate, log and save, if it is time."""
        state = self.state
        due = state.step - state.validated >= (self.config.trainer.validate_steps or 1)
        due = due or state.epoch + 1 == self.epochs
        of_loss = logged_values(self.step.loss, self.step.model) if due else {}
        if self.step.end_epoch():
            self.runner.forget()
            self.say(f"epoch {state.epoch}: the loss weights have settled and are now fixed")
        if due:
            now = logged_values(self.step.loss, self.step.model).items()
            self._end_part(of_loss | {key: value for key, value in now if not math.isnan(value)})
        state.epoch, state.batch = state.epoch + 1, 0
        self.in_epoch = False
        self._count_time(steps=0)
        self._save_or_stop(due)

    def _end_part(self, of_loss: dict[str, float]) -> None:
        """Validate and log the epoch, with those before it that were not validated."""
        state, steps = self.state, self.state.step - self.state.validated
        row = self._row(self._validate(), steps)
        row |= {f"loss/{key}": value for key, value in of_loss.items()}
        if self.log:
            self.log.row(row)
            self.log.progress(
                epoch=state.epoch + 1, epochs=self.epochs, best_epoch=state.best_epoch,
                train_seconds=state.seconds, ms_per_step=self.speed().get("ms_per_step"),
            )  # fmt: skip
        if self.on_epoch and state.epoch + 1 < self.epochs:
            why = self.on_epoch(row) if self.log else None
            state.stopped = self.step.processes.gathered(why)[0]
        self.say(_epoch_line(row, state.best_epoch == state.epoch, self.epochs))

    def finish(self) -> None:
        """Save the final model."""
        if self.profile:
            self.profile.close()
        if self.log:
            with self.step.ema.swapped_in():
                self.checkpoints.save_model(self.step.model, FINAL, self.told)

    def _progress(self) -> Iterator[int]:
        """The remaining batches of the epoch, by number, with progress shown by one process."""
        state, total = self.state, self.step.total_steps
        steps = min(self.steps_per_epoch, total - state.step + state.batch)
        remaining = range(state.batch, steps)
        if not self.log:
            return iter(remaining)
        label, done = f"epoch {self.state.epoch}", self.state.batch
        return console.track(remaining, label, steps, "step", done, self.say, self.bar)

    def _poll_device(self) -> int:
        """See whether steps went well; returns how many more of them are done for certain.

        Those are the ones up to the look before: a GPU may not have come further.
        """
        last = not self.batches_left  # whose time is not to be missed
        if self.step.watch.failed() or (last and self.step.watch.failed_by_now()):
            self._raise_nonfinite()
        steps, self._polled = self.state.step - self._polled, self.state.step
        self._count_time(steps)
        if self.profile:
            self.profile.look(steps)
        done, self._unsure = self._unsure, steps
        return done

    def _save_or_stop(self, due: bool = False) -> None:
        """Save if it is `due`, or if time or a signal has it so in some process; then stop."""
        passed = time.monotonic() - self._saved
        due = due or passed > 60 * self.config.trainer.checkpoint_minutes
        wanted = max(self.step.processes.gathered(self._stop.signum or (SAVE if due else 0)))
        if wanted:
            self.save()
        if wanted > SAVE:
            raise Interrupted(wanted)

    def _count_time(self, steps: int) -> None:
        """Add the time since the last call; to the timed steps if this process is warm."""
        state, now = self.state, time.monotonic()
        passed, self._clock = now - self._clock, now
        state.seconds += passed
        if steps and self.step.watch.looks > 1:
            state.timed_steps += steps
            state.timed_seconds += passed
            state.waited_seconds += self.source.waited
        self.source.waited = 0.0

    def _raise_nonfinite(self, what: str = "the loss") -> None:
        """Raise the CherimoyaError of a loss, or a weight, that is not finite."""
        step, size = int(self.step.count), self.config.trainer.batch_size
        first = step % self.steps_per_epoch * size
        rows = self.dataset.rows["train"][self._plan(self.state.epoch).locus]
        listed = ", ".join(str(r) for r in rows[first : first + min(size, 8)])
        more = ", ..." if size > 8 else ""
        raise CherimoyaError(
            f"{what} is not finite at step {step} (epoch {self.state.epoch}, loci {listed}{more} "
            f"of {self.dataset.path}). What {self.checkpoints.folder} holds is from before it. "
            f"Lower {' and '.join(f'optim.{o}.lr' for o in self.config.optim.targets)}, or look at "
            "them."
        )

    def save(self) -> None:
        """Write last.pt, in the first process. Raises CherimoyaError after a failed step."""
        if self.step.watch.failed_by_now():
            self._raise_nonfinite()
        if not self.step.is_finite():
            self._raise_nonfinite("a weight")
        self._saved = time.monotonic()
        if not self.log:
            return
        try:
            self.checkpoints.save_last(
                {
                    "format": STATE_FORMAT,
                    "config": to_dict(self.config),
                    "state": asdict(self.state),
                    "total_steps": self.step.total_steps,
                    "step": self.step.state_dict(),
                    "rng": torch.get_rng_state(),
                    "threads": torch.get_num_threads(),
                    "log": self.log.rows(),
                    "logger_ids": self.log.ids,
                    "fingerprint": self.dataset.fingerprint,
                    "own_code": self.own_code,
                    **self.began_with,
                }
            )
        except OSError as error:
            raise CherimoyaError(
                f"the checkpoint could not be written ({error}). Free some space and continue "
                f"with: {console.resume_command(self.log.folder)}"
            ) from error

    def restore(self, saved: dict[str, Any]) -> None:
        """Continue from what `save` wrote.

        Raises CherimoyaError if the data or the configuration changed since.
        """
        check_state(saved, self.config, self.dataset, self.checkpoints.folder)
        self.state = TrainState.of(saved["state"])
        if not self.on_epoch:  # what stopped the run then is not there now
            self.state.stopped = None
        self.step.load_state_dict(saved["step"])
        torch.set_rng_state(saved["rng"])
        if self.log:
            self.log.restore(saved, self.state.seconds)
        say_changed(saved.get("own_code", {}), self.own_code, self.say)

    def _plan(self, epoch: int) -> EpochPlan:
        data, loci = self.config.data, self.dataset.loci
        label = loci.label[self.dataset.rows["train"]]
        return plan_epoch(
            self.config.seed, epoch, label, data.negative_ratio, loci.max_jitter,
            data.reverse_complement,
        )  # fmt: skip

    def _validate(self) -> dict[str, float]:
        """Scores of the averaged weights on the validation loci; the best ones are saved."""
        rows, state = self.dataset.rows["validation"], self.state
        with self.step.ema.swapped_in():
            scores = evaluate(
                self.predict, self.source, rows, self.dataset.loci.label,
                self.config.trainer.eval_batch_size, self.step.precision, self.step.processes,
                more=self.metrics,
            )  # fmt: skip
            valid = scores.metrics()
            valid["loss"] = valid["profile_mnll"] + self.count_weight * valid["count_mse"]
            is_best = state.note_validation(valid["loss"], self.config.trainer.min_improvement)
            if is_best and self.log:
                self.checkpoints.save_model(self.step.model, BEST, self.told)
        return valid

    def _row(self, valid: dict[str, float], steps: int) -> dict[str, Any]:
        """What is logged of the `steps` since the last row."""
        state = self.state
        return {
            metrics.STEP: state.step,
            metrics.EPOCH: state.epoch,
            **{f"train/{k}": v / steps for k, v in self.step.take_sums().items()},
            **{f"valid/{k}": v for k, v in valid.items()},
            **{f"lr/{k}": v for k, v in self.step.rates(state.step - 1).items()},
        }

    def _patience_over(self) -> bool:
        patience, state = self.config.trainer.early_stopping, self.state
        epochs = state.epoch - 1 - state.plateau_epoch
        if patience is None or state.validated < state.step or epochs < patience:
            return False
        without = console.counted(patience, "epoch")
        self.say(f"no better validation loss for {without}: stopping early")
        return True

    def speed(self) -> dict[str, float | None]:
        """Of the timed steps: ms each, sequences a second, share waited for data; peak memory."""
        state, cuda = self.state, self.step.device.type == "cuda"
        if not state.timed_steps:
            return {}
        seconds = state.timed_seconds / state.timed_steps
        memory = torch.cuda.max_memory_allocated(self.step.device) / 2**20 if cuda else None
        return {
            "ms_per_step": 1000 * seconds,
            "sequences_per_second": self.config.trainer.batch_size / seconds,
            "waiting_for_data": state.waited_seconds / state.timed_seconds,
            "peak_memory_mb": memory,
        }


def count_weight(dataset: Dataset) -> float:
    """The weight of the count error in the validation loss that picks the best epoch.

    Half the mean total count of a training peak, which puts both losses on one scale (BPNet,
    Avsec et al. 2021). Unlike the learned weights it does not change between epochs.
    """
    totals = dataset.peak_signal("train").sum(axis=(1, 2), dtype=np.float64)
    return max(float(totals.mean()) / 2, 1.0)


def _epoch_line(row: dict[str, Any], is_best: bool, epochs: int) -> str:
    width = len(str(epochs))
    return (
        f"epoch {row['epoch']:{width}d}  train loss {row['train/loss']:8.3f}  "
        f"valid loss {row['valid/loss']:9.3f}  MNLL {row['valid/profile_mnll']:8.3f}  "
        f"profile r {row['valid/profile_pearson']:.3f}  count r {row['valid/count_pearson']:.3f}"
        f"{'  best' if is_best else ''}"
    )
