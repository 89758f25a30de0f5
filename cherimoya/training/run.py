"""One run, from its configuration to its scores and plots."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from cherimoya.config.data import DataConfig
from cherimoya.config.diff import Changes
from cherimoya.config.schema import to_dict
from cherimoya.config.train import TrainConfig, check_trimming
from cherimoya.data.dataset import Dataset, load_dataset
from cherimoya.data.feed import Resident, Source, place
from cherimoya.distributed.processes import Processes, joined
from cherimoya.errors import CherimoyaError, ConfigError, Interrupted, LocalError, OutputClosed
from cherimoya.inference.precision import choose_precision
from cherimoya.loggers.run_log import RunLog
from cherimoya.network import Cherimoya, build_model
from cherimoya.records.own_folders import check_page, check_run_folder
from cherimoya.records.provenance import choose_device, describe_device, provenance, typed
from cherimoya.records.run import PLOTS, begin_run, forget_run, note_moved_data, write_config
from cherimoya.records.sweep import MEMBER
from cherimoya.report.pages import offer_report
from cherimoya.training.banner import banner, banner_warnings
from cherimoya.training.best import check_best
from cherimoya.training.bias import bias_model, find_bias
from cherimoya.training.checkpoint import Checkpoints
from cherimoya.training.failure import own_code_named
from cherimoya.training.interrupt import StopRequest, stop_request
from cherimoya.training.length import Length, length_of, with_warmup
from cherimoya.training.own_loss import check_block, check_loss
from cherimoya.training.step import TrainingStep
from cherimoya.training.summary import write_summary
from cherimoya.training.trainer import EpochCallback, Trainer
from cherimoya.training.warm_start import begin_from, read_start
from cherimoya.util import console
from cherimoya.util.console import counted, result, warning
from cherimoya.util.files import lock_folder, remove_left


def _nothing(message: str) -> None:
    """What processes after the first have to say."""


@dataclass
class RunContext:
    """What a run finds in its process: alone by default, else what it has in common with others."""

    say: Callable[[str], None] = console.say
    bar: bool = True  # of progress, on a terminal
    command: Sequence[str] | None = None  # as typed; None: this process's
    at_once: int = 1  # runs that share the device, which times depend on
    on_epoch: EpochCallback | None = None  # may end the training early, see Trainer
    stop: StopRequest | None = None  # None: the run listens to signals itself
    processes: Processes | None = None  # None: those that a launcher started
    part_of: Path | None = None  # the run that goes on in place of this one
    datasets: dict[str, Dataset] = field(default_factory=dict)
    resident: dict[str, tuple[Source, str]] = field(default_factory=dict)

    @property
    def provenance(self) -> dict[str, Any]:
        """What numbers made here depend on besides data, code and machine."""
        command = {"command": typed(self.command)} if self.command else {}
        return {"runs_at_once": self.at_once, **command}

    def load(self, config: DataConfig) -> Dataset:
        """The dataset of `config`, which may be loaded already."""
        key = repr(config)
        if key not in self.datasets:
            self.datasets[key] = load_dataset(config)
        return self.datasets[key]

    def place(
        self, dataset: Dataset, device: torch.device, config: DataConfig
    ) -> tuple[Source, str]:
        """The loci on `device`, and why so; where they are resident, others may read them too."""
        key = repr(config)
        if key in self.resident:
            return self.resident[key]
        placed = place(dataset.loci, device, config.placement)
        if isinstance(placed[0], Resident):
            self.resident[key] = placed
        return placed


def train(
    config: TrainConfig,
    folder: Path,
    context: RunContext | None = None,
    changes: Changes | None = None,
) -> None:
    """Train as `config` says, in `folder`, and leave scores and plots there.

    With `config.trainer.resume` the run in `folder` goes on. Of several processes, started by a
    launcher, the first alone writes and speaks. `changes` are what `config` changes of the
    defaults, to be noted in a new run's folder. Raises CherimoyaError for anything the user can
    mend, also where the folder holds another run, and Interrupted after Ctrl-C or SIGTERM.
    """
    with ready(config, folder, context or RunContext(), changes) as trainer:
        while trainer.goes_on():
            trainer.begin_epoch()
            while trainer.batches_left:
                trainer.train_stride()
            trainer.end_epoch()


@contextmanager
def ready(
    config: TrainConfig, folder: Path, context: RunContext, changes: Changes | None
) -> Iterator[Trainer]:
    """A run that is ready to `train`; where the block ends well, it is scored and summed up."""
    settings = config.trainer
    device = choose_device(settings.device)
    with ExitStack() as record:
        stop = context.stop or record.enter_context(stop_request(at_once=True))
        log = begun = None
        with joined(device, context.processes) as processes:
            folder = Path(processes.gathered(str(folder))[0])
            if processes.first:
                log = record.enter_context(_recorded(config, folder, changes, context))
            record.enter_context(own_code_named(config, lambda: begun))
            say = context.say if log else _nothing
            if log:
                log.check_loggers()
            # ------------------------------------------------- data, model and training step
            precision = choose_precision(settings.precision, device)
            checkpoints = Checkpoints(folder / "checkpoints")
            saved = checkpoints.load_last(say) if settings.resume else None
            _set_threads(saved["threads"] if saved else settings.threads, processes)
            start, _ = read_start(config.model, saved), find_bias(config.model, folder, saved)
            dataset = context.load(config.data)
            bias = bias_model(config, folder, dataset, device, saved)
            model = model_for(config, dataset, bias.model.cpu() if bias else None)
            began_with = {"bias": dict(bias.origin)} if bias else {}
            began_with |= begin_from(start, config, model, dataset)
            length = length_of(config, dataset, device.type == "cuda", saved)
            config, note = _fitted(config, length, changes, log)
            step = training_step(config, model.to(device), dataset, precision, processes, length)
            source, where_loci_are = context.place(dataset, device, config.data)
            trainer = Trainer(
                config, step, dataset, source, log, checkpoints, say, context.bar,
                context.on_epoch, began_with,
            )  # fmt: skip
            if saved:
                trainer.restore(saved)
                check_best(trainer)
            elif settings.resume and log:
                log.rewind("")
            origin = provenance(dataset.fingerprint, device, precision)
            origin |= {**context.provenance, **began_with}
            if log:
                _announce(trainer, log, saved, {"loci": where_loci_are, **note}, origin)
            begun = trainer
            with _saved_at_signals(trainer, folder, stop):
                yield trainer
                trainer.finish()
        if log:
            write_summary(trainer, log, say, origin)


def _set_threads(threads: int | None, processes: Processes) -> None:
    """Use so many threads; None: this process's share of the machine's."""
    share = max(torch.get_num_threads() // processes.on_this_machine, 1)
    torch.set_num_threads(threads or share)


@contextmanager
def _recorded(
    config: TrainConfig, folder: Path, changes: Changes | None, context: RunContext
) -> Iterator[RunLog]:
    """The run's folder, owned, and its record."""
    with lock_folder(folder):
        remove_left(folder, folder / "checkpoints", folder / PLOTS)
        if config.trainer.resume is None:
            check_run_folder(folder, config.trainer.plots)
            begin_run(folder, config, changes)
        elif config.trainer.plots:
            check_page(folder)
        log = RunLog(folder, config.logger)
        with _left_behind(config, log, context), log:
            yield log


def _fitted(
    config: TrainConfig, length: Length, changes: Changes | None, log: RunLog | None
) -> tuple[TrainConfig, dict[str, str]]:
    """As `with_warmup`; config.yaml says what became of it."""
    config, note = with_warmup(config, length, changes)
    if log and note:
        new = replace(config, trainer=replace(config.trainer, resume=None))
        write_config(log.folder, to_dict(new))
    return config, note


def _announce(
    trainer: Trainer,
    log: RunLog,
    saved: Mapping[str, Any] | None,
    facts: Mapping[str, str],
    origin: Mapping[str, Any],
) -> None:
    """Say what is to be trained on what; from here on it is a run that has begun, on disk too."""
    config, state, step = trainer.config, trainer.state, trainer.step
    settings = config.trainer
    if saved:
        note_moved_data(log.folder, config)
    ids = saved.get("logger_ids", {"wandb": saved.get("wandb_id")}) if saved else {}
    log.start_loggers({**to_dict(config), "network": step.model.config, **origin}, ids)
    chosen = " (by trainer.precision=auto)" if settings.precision == "auto" else ""
    facts = {
        **facts,
        "device": describe_device(step.device, settings.device, step.processes.world),
        "metrics": log.where,
        "precision": f"{step.precision}{chosen}; steps: {trainer.runner.in_words}",
    }
    facts |= {name: origin["words"] for name, origin in trainer.began_with.items()}
    trainer.say(banner(config, log.folder, facts, step, trainer.dataset))
    for line in banner_warnings(config, step, trainer.dataset):
        trainer.say(warning(line))
    if saved:
        trainer.say(f"resumed after {counted(state.step, 'step')}, in epoch {state.epoch}")
    log.progress(
        epoch=state.epoch, epochs=trainer.epochs, best_epoch=state.best_epoch,
        train_seconds=state.seconds, ms_per_step=None,
    )  # fmt: skip


@contextmanager
def _saved_at_signals(trainer: Trainer, folder: Path, stop: StopRequest) -> Iterator[None]:
    """Where a signal asks for it, as `stop` notes, the training saves and ends."""
    try:
        with stop.noted():
            trainer.start(stop)
            yield
    except torch.OutOfMemoryError as error:
        raise LocalError(out_of_memory(trainer.config, folder)) from error
    finally:
        trainer.source.close()
        trainer.runner.forget()


@contextmanager
def _left_behind(config: TrainConfig, log: RunLog, context: RunContext) -> Iterator[None]:
    """Leave the page of a run that is done or has failed; one that was stopped goes on some day.

    Of a new run that could not begin, for a reason that the user can mend, nothing is left, unless
    it is one of a sweep, which tells of it.
    """
    try:
        yield
    except Interrupted:
        whole = context.part_of or log.folder
        context.say(result(f"stopped. Continue with: {console.resume_command(whole)}"))
        raise
    except (KeyboardInterrupt, OutputClosed):
        raise
    except BaseException as error:
        new = config.trainer.resume is None and not (log.folder / MEMBER).is_file()
        if new and not log.begun and isinstance(error, CherimoyaError):
            forget_run(log.folder)
        elif config.trainer.plots:
            offer_report(log.folder)
        raise
    if config.trainer.plots:
        offer_report(log.folder)


def model_for(
    config: TrainConfig, dataset: Dataset, bias_model: Cherimoya | None = None
) -> Cherimoya:
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
    model = build_model(config.model, loci.signal_groups, controls, trimming, bias_model)
    check_block(config.model.blocks, model, loci.in_window)
    if config.model.count_bias == "mean":
        with torch.no_grad():
            model.linear.bias.copy_(torch.from_numpy(dataset.mean_log_counts("train")))
    return model


def out_of_memory(config: TrainConfig, folder: Path) -> str:
    """What to say when the device's memory is full."""
    settings = config.trainer
    pieces = settings.devices * settings.accumulate
    smaller = max(settings.batch_size // 2 // pieces, 1) * pieces
    return (
        f"out of memory on the device with trainer.batch_size={settings.batch_size} in {pieces} "
        f"pieces. Try trainer.accumulate={2 * settings.accumulate}, which keeps the batch, or "
        f"trainer.batch_size={smaller}, in a new run ({folder} keeps what was saved)."
    )


def training_step(
    config: TrainConfig,
    model: Cherimoya,
    dataset: Dataset,
    precision: str,
    processes: Processes,
    length: Length,
) -> TrainingStep:
    """The training step for this data. Raises ConfigError for a loss that cannot be trained."""
    piece = config.trainer.batch_size // config.trainer.accumulate // processes.world
    check_loss(config.loss, model, piece, dataset.loci.out_window)
    return TrainingStep(
        model, config.loss, config.optim, length.per_epoch, length.epochs, precision,
        config.trainer.accumulate, processes, length.steps,
    )  # fmt: skip
