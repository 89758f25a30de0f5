"""One run, from its configuration to its scores and plots."""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cherimoya import __version__
from cherimoya.analysis import baselines
from cherimoya.analysis.banner import banner, describe_device
from cherimoya.config import TrainConfig, check_trimming, to_dict
from cherimoya.data.batches import LociOnDevice, examples_per_epoch
from cherimoya.data.dataset import Dataset, load_dataset
from cherimoya.errors import CherimoyaError, ConfigError, Interrupted
from cherimoya.metrics import group_softmax
from cherimoya.network import Cherimoya, build_model
from cherimoya.training import progress
from cherimoya.training.checkpoint import BEST, Checkpoints, locked
from cherimoya.training.evaluation import LOWER_IS_BETTER, METRICS, Scores, evaluate
from cherimoya.training.run_log import RunLog
from cherimoya.training.step import TrainingStep
from cherimoya.training.trainer import Trainer

N_EXAMPLE_LOCI = 4


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
        log.start_wandb(record(config, dataset, model), saved["wandb_id"] if saved else None)
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
        conclude(config, trainer, log, say)


def choose_device(asked: str) -> torch.device:
    """The device for trainer.device. Raises ConfigError for a GPU that is not there."""
    if asked == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "trainer.device=cuda, but torch sees no GPU. Use trainer.device=cpu, or install the "
            f"CUDA build of torch (this is {torch.__version__})."
        )
    return torch.device("cuda" if asked != "cpu" and torch.cuda.is_available() else "cpu")


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


def conclude(
    config: TrainConfig, trainer: Trainer, log: RunLog, say: Callable[[str], None]
) -> None:
    """Score the best checkpoint on the test loci, write the summary and the plots, and say so."""
    folder, dataset, state = log.folder, trainer.dataset, trainer.state
    split = "test" if len(dataset.rows["test"]) else "validation"
    model = Cherimoya.load(folder / "checkpoints" / BEST, device=_device_of(trainer.step.model))
    size = config.trainer.eval_batch_size
    scores = evaluate(model, trainer.loci, dataset.rows[split], dataset.loci.label, size)
    columns = {
        split: scores.metrics(),
        "average profile": baselines.average_profile(dataset, split).metrics(),
    }
    truth = baselines.ceiling(dataset, split)
    if truth is not None:
        columns["ceiling"] = truth.metrics()
    log.summary(
        {
            "best_epoch": state.best_epoch,
            "epochs": state.epoch,
            "steps": state.step,
            "train_seconds": round(state.seconds, 1),
            "best_valid_loss": state.best_loss,
            "parameters": sum(p.numel() for p in model.parameters()),
            "scored_split": split,
            **{name.replace(" ", "_"): values for name, values in columns.items()},
        }
    )
    plots = _plots(model, trainer, scores, split, log, say) if config.trainer.plots else []
    say("")
    say(f"best epoch {state.best_epoch}, on the {len(dataset.peaks(split)):,} {split} peaks:")
    say(score_table(columns))
    say(f"\n{state.step:,} steps in {progress.duration(state.seconds)}")
    say(f"run          {folder}")
    say(f"checkpoints  {folder / 'checkpoints'}")
    if plots:
        say(f"plots        {folder / 'plots'}")
    if log.sync_command:
        say(f"W&B          {log.sync_command}")


def score_table(columns: dict[str, dict[str, float]]) -> str:
    """Metrics by column; beside a ceiling also the share of it that was reached."""
    header = ["metric", *columns]
    first = next(iter(columns.values()))
    if "ceiling" in columns:
        header.append("of ceiling")
    rows = []
    for name in METRICS:
        row = [name, *(_number(values[name]) for values in columns.values())]
        if "ceiling" in columns:
            comparable = name not in LOWER_IS_BETTER
            row.append(
                f"{100 * first[name] / columns['ceiling'][name]:.0f} %" if comparable else ""
            )
        rows.append(row)
    return progress.table(header, rows)


def record(config: TrainConfig, dataset: Dataset, model: Cherimoya) -> dict[str, Any]:
    """What W&B keeps of a run besides its metrics: configuration, code, versions, data."""
    return {
        **to_dict(config),
        "network": model.config,
        "data_fingerprint": dataset.fingerprint,
        "git_commit": git_commit(),
        "command": shlex.join(sys.argv),
        "versions": {
            "cherimoya": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "cpu_count": os.cpu_count(),
    }


def git_commit() -> str | None:
    """The commit of the checkout this code runs from, with "-dirty" after changes, or None."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _plots(
    model: Cherimoya,
    trainer: Trainer,
    scores: Scores,
    split: str,
    log: RunLog,
    say: Callable[[str], None],
) -> list[Path]:
    try:
        from cherimoya.analysis import plots
    except ImportError:
        say(
            "no plots: matplotlib is missing. Install it with: pip install 'cherimoya-train[plots]'"
        )
        return []
    folder = log.folder / "plots"
    made = [
        plots.learning_curves(log.folder / "metrics.jsonl", folder / "learning_curves.png"),
        plots.count_scatter(
            scores.log_counts.numpy(),
            scores.observed_log_counts.numpy(),
            scores.label.numpy(),
            folder / "counts.png",
        ),
        plots.example_profiles(
            _examples(model, trainer, split),
            trainer.dataset.loci.track_names,
            folder / "profiles.png",
        ),
    ]
    for path in made:
        log.image(f"plots/{path.stem}", path, trainer.state.step)
    return made


@torch.no_grad()
def _examples(model: Cherimoya, trainer: Trainer, split: str) -> list[dict[str, Any]]:
    """A few peaks of the split, evenly spread from the most counts to the median."""
    dataset, loci = trainer.dataset, trainer.dataset.loci
    peaks = dataset.peaks(split)
    totals = baselines.centred_signal(dataset, peaks).sum(dim=(1, 2)).numpy()
    order = peaks[np.argsort(-totals, kind="stable")]
    chosen = order[
        np.linspace(0, (len(order) - 1) // 2, min(N_EXAMPLE_LOCI, len(order)), dtype=int)
    ]
    batch = trainer.loci.centred(chosen)
    model.eval()
    logits, log_counts = model(batch.X, batch.control)
    counts = torch.expm1(log_counts).repeat_interleave(
        torch.tensor(model.signal_groups, device=log_counts.device), dim=1
    )
    expected = (group_softmax(logits, model.signal_groups) * counts[:, :, None]).cpu().numpy()
    sign = [-1 if size == 2 and i == 1 else 1 for size in model.signal_groups for i in range(size)]
    shift = loci.max_jitter + (loci.in_window - loci.out_window) // 2
    return [
        {
            "title": f"{loci.chrom[row]}:{loci.start[row] + shift:,}",
            "start": int(loci.start[row]) + shift,
            "observed": batch.signal[i].cpu().numpy(),
            "expected": expected[i],
            "sign": sign,
        }
        for i, row in enumerate(chosen)
    ]


def _device_of(model: Cherimoya) -> torch.device:
    return next(model.parameters()).device


def _number(value: float) -> str:
    return "-" if value != value else f"{value:.4f}" if abs(value) < 100 else f"{value:.1f}"
