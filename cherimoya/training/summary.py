"""The end of a run: scores of the best checkpoint, a summary, plots, and where they are."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cherimoya.config.schema import to_dict
from cherimoya.data.dataset import Dataset
from cherimoya.data.groups import group_labels
from cherimoya.evaluation import baselines
from cherimoya.evaluation.per_locus import example_loci, write_scored_loci
from cherimoya.evaluation.scores import Scores, evaluate
from cherimoya.inference.cuda_graph import CUDAGraphModel
from cherimoya.interpret.bias_quality import bias_quality
from cherimoya.loggers.run_log import RunLog
from cherimoya.network import Cherimoya
from cherimoya.ops import autotune
from cherimoya.records import metrics
from cherimoya.records.layout import BIAS_QUALITY, EXAMPLES, SCORED_LOCI
from cherimoya.records.metrics import METRICS, share_of_ceiling
from cherimoya.records.per_locus import Examples, write_examples
from cherimoya.records.run import BEST
from cherimoya.records.status import read_rows
from cherimoya.report.format import score
from cherimoya.training.bias import BIAS_MODELS
from cherimoya.training.trainer import Trainer
from cherimoya.util import console
from cherimoya.util.console import counted, result, warning
from cherimoya.util.files import write_json


def write_summary(
    trainer: Trainer, log: RunLog, say: Callable[[str], None], origin: Mapping[str, Any]
) -> None:
    """Score the best checkpoint on the test loci, write the summary and the plots, and say so.

    `origin` is what the numbers depend on, kept in the summary as "provenance". Of a run that was
    stopped early it is said how far it came, and why no further; the test is left alone.
    """
    config = trainer.config
    if trainer.state.stopped:
        log.outcome = "pruned"
        write_pruned_summary(trainer, log, say, origin)
        return
    folder, dataset, state = log.folder, trainer.dataset, trainer.state
    split = "test" if len(dataset.rows["test"]) else "validation"
    model = Cherimoya.load(folder / "checkpoints" / BEST, trainer.step.device, bias=None)
    size = config.trainer.eval_batch_size
    rows, precision = dataset.rows[split], trainer.step.precision
    predict = CUDAGraphModel(model, config.trainer.cuda_graph)
    scores = evaluate(
        predict, trainer.source, rows, dataset.loci.label, size, precision, more=trainer.metrics
    )
    speed = trainer.speed()
    columns = _beside(scores, dataset, split)
    log.summary(_summary(trainer, model, split, speed, origin, columns))
    write_scored_loci(folder / SCORED_LOCI, scores, dataset.loci, rows)
    peaks = dataset.peaks(split)
    examples = example_loci(predict, trainer.source, dataset.loci, peaks, precision)
    write_examples(folder / EXAMPLES, examples)
    checks = _tried_quality(trainer, model, folder)
    plots = _tried_plots(trainer, scores, examples, log, say) if config.trainer.plots else []
    scored = counted(len(dataset.peaks(split)), f"{split} peak")
    say("")
    say(result(f"best epoch {state.best_epoch}, on the {scored}:"))
    say(result(score_table(columns)))
    for line in checks:
        say(result(line))
    took = f"{counted(state.step, 'step')} in {console.duration(state.seconds)}"
    say(result(f"\n{took}{_speed_in_words(speed)}"))
    say(result(f"run          {folder}"))
    say(result(f"checkpoints  {folder / 'checkpoints'}"))
    if plots:
        say(result(f"plots        {folder / 'plots'}"))
    log.table(metrics.LOCI, folder / SCORED_LOCI, state.step)
    log.model({**origin, "config": to_dict(config), "network": model.config, "best": columns})
    if log.sync_command:
        say(result(f"W&B          {log.sync_command}"))


def write_pruned_summary(
    trainer: Trainer, log: RunLog, say: Callable[[str], None], origin: Mapping[str, Any]
) -> None:
    """As `write_summary`, of a run that was stopped early."""
    state = trainer.state
    summary = _numbers(trainer, trainer.step.model, trainer.speed())
    summary |= {"pruned": {"epoch": state.epoch - 1, "why": state.stopped}}
    log.summary({**summary, "provenance": dict(origin)})
    say(result(f"\npruned: {state.stopped}"))
    say(result(f"{counted(state.step, 'step')} in {console.duration(state.seconds)}"))
    say(result(f"run          {log.folder}"))


def _speed_in_words(speed: Mapping[str, float | None]) -> str:
    """A few words on `Trainer.speed`; none for a run too short to tell."""
    if not speed:
        return ""
    words = (
        f": {speed['ms_per_step']:.2f} ms a step, {speed['sequences_per_second']:,.0f} sequences a "
        f"second, {speed['waiting_for_data']:.1%} of it waiting for data"
    )
    memory = speed["peak_memory_mb"]
    return words if memory is None else f"{words}, {memory:,.0f} MiB of the device at most"


def _summary(
    trainer: Trainer,
    model: Cherimoya,
    split: str,
    speed: Mapping[str, float | None],
    origin: Mapping[str, Any],
    columns: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """What summary.json says of a run that ended well."""
    dataset = trainer.dataset
    groups = group_labels(trainer.dataset.loci)
    return {
        **_numbers(trainer, model, speed),
        "scored_split": split,
        "window": {
            "in": dataset.loci.in_window,
            "out": dataset.loci.out_window,
            "receptive_field": model.receptive_field,
        },
        "loci": {
            name: {"peaks": len(peaks), "background": len(dataset.rows[name]) - len(peaks)}
            for name, peaks in ((name, dataset.peaks(name)) for name in dataset.rows)
        },
        **({"groups": [{"name": name} for name in groups]} if len(groups) > 1 else {}),
        "provenance": {**origin, "kernel_options": autotune.chosen()},
        **{name.replace(" ", "_"): values for name, values in columns.items()},
    }


def _numbers(
    trainer: Trainer, model: Cherimoya, speed: Mapping[str, float | None]
) -> dict[str, Any]:
    """What every summary.json says."""
    state = trainer.state
    return {
        "best_epoch": state.best_epoch,
        "epochs": state.epoch,
        "steps": state.step,
        metrics.TRAIN_SECONDS: round(state.seconds, 1),
        "speed": speed,
        "best_valid_loss": state.best_loss,
        metrics.PARAMETERS: sum(p.numel() for _, p in model.trained_parameters()),
        "loss": trainer.step.loss.logged(trainer.step.model),
    }


def _beside(scores: Scores, dataset: Dataset, split: str) -> dict[str, dict[str, float]]:
    """The scores of the model, of the average profile, and of the truth where it is known."""
    columns = {split: scores, "average profile": baselines.average_profile(dataset, split)}
    truth = baselines.ceiling(dataset, split)
    if truth is not None:
        columns["ceiling"] = truth
    return {name: values.metrics() for name, values in columns.items()}


def score_table(columns: dict[str, dict[str, float]]) -> str:
    """Metrics by column; beside a ceiling also how far the model came to it, from chance."""
    header = ["metric", *columns]
    first = next(iter(columns.values()))
    if "ceiling" in columns:
        header.append("of ceiling")
    rows = []
    for name in dict.fromkeys([*METRICS, *first]):
        row = [name, *(score(values.get(name)) for values in columns.values())]
        if name not in METRICS:
            row += [""] * ("ceiling" in columns)
        elif "ceiling" in columns:
            constant = columns.get("average profile", {}).get(name)
            share = share_of_ceiling(name, first[name], columns["ceiling"][name], constant)
            row.append("" if share is None else f"{share:.0f} %")
        rows.append(row)
    return console.table(header, rows)


def _tried_quality(trainer: Trainer, model: Cherimoya, folder: Path) -> list[str]:
    """What the quality control of the bias model says, if there is one; its numbers are written.

    Where it fails, that is no reason to call the run failed.
    """
    if model.bias_model is None:
        return []
    config = trainer.config
    options: dict[str, Any] = {}
    if config.bias_model and "bias" in trainer.began_with:
        options = {"most_counts": config.bias_model.max_count_pearson}
        if following := trainer.began_with["bias"].get("choice", {}).get("next"):
            options["next_best"] = str(folder / BIAS_MODELS / following)
    try:
        quality = bias_quality(
            model, trainer.dataset, trainer.source, config.trainer.eval_batch_size,
            trainer.step.precision, **options,
        )  # fmt: skip
        write_json(folder / BIAS_QUALITY, quality)
    except Exception as error:
        return [f"\nno quality control of the bias model: {error!r}. The run is done without it."]
    marks = {True: "green", False: "RED  "}
    lines = [f"  {marks[check['good']]}  {check['why']}" for check in quality["checks"]]
    return ["\nquality of the bias model:", *lines]


def _tried_plots(
    trainer: Trainer, scores: Scores, examples: Examples, log: RunLog, say: Callable[[str], None]
) -> list[Path]:
    """The plots; none where one fails, which is no reason to call the run failed."""
    try:
        return _plots(trainer, scores, examples, log)
    except Exception as error:
        say(warning(f"no plots: {error!r}. The page has the same: cherimoya-report {log.folder}"))
        return []


def _plots(trainer: Trainer, scores: Scores, examples: Examples, log: RunLog) -> list[Path]:
    try:
        from cherimoya.report.plots import runs as plots
    except ImportError:
        console.say_once(
            "no plots: matplotlib is missing. Install it with: pip install 'cherimoya-train[plots]'"
        )
        return []
    folder = log.folder / "plots"
    made = [
        plots.learning_curves(
            read_rows(log.folder / "metrics.jsonl"), folder / "learning_curves.png"
        ),
        plots.count_scatter(
            scores.log_counts.numpy(),
            scores.observed_log_counts.numpy(),
            scores.label.numpy(),
            folder / "counts.png",
        ),
        plots.example_profiles(examples, folder / "profiles.png"),
    ]
    for path in made:
        log.image(f"plots/{path.stem}", path, trainer.state.step)
    return made
