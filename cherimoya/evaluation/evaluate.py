"""Scores of any checkpoint, or several together, on any prepared loci: numbers, files, a page."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from cherimoya.config.models import FREE
from cherimoya.config.predict import EvaluateConfig
from cherimoya.config.schema import to_dict
from cherimoya.data.dataset import Dataset
from cherimoya.data.feed import place
from cherimoya.data.groups import group_labels
from cherimoya.errors import ConfigError
from cherimoya.evaluation import baselines
from cherimoya.evaluation.bootstrap import Interval, intervals
from cherimoya.evaluation.fold_changes import fold_change_scores, group_table
from cherimoya.evaluation.own_metrics import Metric, metrics_of_runs
from cherimoya.evaluation.per_locus import example_loci, write_scored_loci
from cherimoya.evaluation.replicates import replicate_scores
from cherimoya.evaluation.scored_loci import (
    REFERENCE,
    SCORED,
    check_fits,
    load_scored,
    seen_in_training,
)
from cherimoya.evaluation.scores import Scores, evaluate
from cherimoya.genome.fasta import check_exists
from cherimoya.inference.checkpoints import Checkpoint, find_checkpoint, known_window, load_ensemble
from cherimoya.inference.cuda_graph import CUDAGraphModel
from cherimoya.inference.ensemble import Ensemble
from cherimoya.inference.precision import check_precision
from cherimoya.records.evaluation import LOCI, SCORES
from cherimoya.records.layout import EXAMPLES, PAGE
from cherimoya.records.metrics import METRICS
from cherimoya.records.overwrite import check_inputs_kept, own_files, settle
from cherimoya.records.per_locus import write_examples
from cherimoya.records.provenance import choose_device, provenance
from cherimoya.records.run import check_output_folder
from cherimoya.report.format import score
from cherimoya.report.pages import offer_report
from cherimoya.util import console
from cherimoya.util.console import counted, result, warning
from cherimoya.util.files import lock_output, write_json
from cherimoya.util.marks import checked_digest, marked_path
from cherimoya.util.resume import is_done


def evaluate_checkpoints(config: EvaluateConfig) -> Path:
    """Score what `config` names, leave scores.json, loci.tsv and report.html in `config.output`.

    Returns the folder. Raises CherimoyaError for anything that the user can mend, before the
    models see the first locus where it can.
    """
    folder = Path(config.output)
    _check_output(folder)
    check_inputs_kept(config, {folder / name: "" for name in (SCORES, LOCI, EXAMPLES, PAGE)})
    with lock_output(folder / SCORES):
        _evaluate(config, folder)
    return folder


def _evaluate(config: EvaluateConfig, folder: Path) -> None:
    """The scores, whose file is the last one written; where they are there, the page alone."""
    checkpoints = [find_checkpoint(named) for named in config.checkpoint]
    window = known_window(checkpoints, "data.in_window", config.data.in_window)
    device = choose_device(config.device, "device")
    precision = config.precision
    check_precision(precision, device)
    model = load_ensemble(checkpoints, device, config.reverse_complement, config.bias)
    dataset, split = load_scored(config, checkpoints[0], window, model.trimming)
    check_fits(dataset, model, checkpoints[0])
    theirs, held = checkpoints[0].groups, group_labels(dataset.loci)
    if theirs and theirs != held:
        console.say(f"groups       trained on {', '.join(theirs)}; scored on {', '.join(held)}")
    model.control_groups = dataset.loci.control_groups or model.control_groups
    own, told = metrics_of_runs(checkpoints, model.signal_groups, dataset.loci.out_window, device)
    settings = _settings(config, checkpoints, dataset) | told
    if is_done(folder / SCORES, settings, config.overwrite, console.say):
        settle(folder / SCORES)
        console.say(result(f"done already: {folder / SCORES}"))
        offer_report(folder)
        return
    beside = {folder / name: "" for name in (LOCI, EXAMPLES, PAGE)}
    with own_files(folder / SCORES, beside, config.overwrite):
        console.say(_what(config, dataset, split, precision, device))
        values = _score(config, folder, model, dataset, checkpoints, own)
        with marked_path(folder / SCORES, {"settings": settings}) as temporary:
            write_json(temporary, {"split": split, **values})
        console.say(result(score_table(values)))
        if "fold_changes" in values:
            console.say(result(f"\n{group_table(values)}"))
        console.say(result(f"\nscores       {folder / SCORES}\nloci         {folder / LOCI}"))
        offer_report(folder, config.overwrite)


def _score(
    config: EvaluateConfig,
    folder: Path,
    model: Ensemble,
    dataset: Dataset,
    checkpoints: list[Checkpoint],
    own: Mapping[str, Metric],
) -> dict[str, Any]:
    """The scores; those of each locus, and examples, are written."""
    device, precision = next(model.parameters()).device, config.precision
    rows = dataset.rows[SCORED]
    columns = _baselines(dataset, config)
    seen = seen_in_training(checkpoints, dataset, config)
    if seen:
        console.say(
            warning(f"{seen:,} of these {len(rows):,} loci are of chromosomes seen in training")
        )
    predict = CUDAGraphModel(model)
    source, _ = place(dataset.loci, device, "auto")
    label = dataset.loci.label
    scores = evaluate(
        predict, source, rows, label, config.batch_size, precision, label_of_progress="scoring",
        more=own,
    )  # fmt: skip
    peaks = rows[label[rows] == 1]
    write_examples(folder / EXAMPLES, example_loci(predict, source, dataset.loci, peaks, precision))
    write_scored_loci(folder / LOCI, scores, dataset.loci, rows)
    return {
        "seen_in_training": seen,
        "checkpoints": [one.described() for one in checkpoints],
        "reverse_complement": config.reverse_complement,
        "bias": model.with_bias,
        "parameters": model.n_parameters,
        "data": str(dataset.path),
        "replicate_file": config.replicate,
        "window": {"in": dataset.loci.in_window, "out": dataset.loci.out_window},
        "bootstrap": {"n": config.bootstrap, "confidence": config.confidence, "seed": config.seed},
        **_tables({"model": scores, **columns}, dataset, config),
        **_differences(scores, dataset),
        "provenance": provenance(dataset.fingerprint, device, precision),
    }


def _baselines(dataset: Dataset, config: EvaluateConfig) -> dict[str, Scores]:
    """What stands beside the model's scores: from below, and from above where that is known."""
    has_reference = len(dataset.peaks(REFERENCE)) > 0
    average = baselines.average_profile if has_reference else baselines.average_of_others
    columns = {
        "average_profile": average(dataset, SCORED),
        "ceiling": baselines.ceiling(dataset, SCORED),
    }
    if config.replicate is not None:
        columns["replicate"] = replicate_scores(dataset, config.replicate, config.data.keys)
    return {name: scores for name, scores in columns.items() if scores is not None}


def _tables(
    columns: Mapping[str, Scores], dataset: Dataset, config: EvaluateConfig
) -> dict[str, Any]:
    """The metrics of all loci, of each signal group and of each chromosome."""
    groups = dataset.loci.signal_groups
    chrom = dataset.loci.chrom[dataset.rows[SCORED]]
    chroms = list(dict.fromkeys(chrom.tolist()))
    held = iter(dataset.loci.track_names)
    tracks = [[next(held) for _ in range(size)] for size in groups]
    names = [{"name": name} for name in dataset.loci.group_names] or [{}] * len(groups)
    parts = 1 + sum(len(some) for some in (groups, chroms) if len(some) > 1)
    total = parts * config.bootstrap
    ticks = iter(console.track(range(total), "intervals", total, "resample"))

    def scored(part: Mapping[str, Scores]) -> dict[str, Any]:
        return _scored(part, config, lambda: next(ticks, None))

    values: dict[str, Any] = scored(columns)
    if len(groups) > 1:
        values["groups"] = [
            names[g] | {"tracks": tracks[g], **scored({k: s.group(g) for k, s in columns.items()})}
            for g in range(len(groups))
        ]
    if len(chroms) > 1:
        here = {name: torch.from_numpy(chrom == name) for name in chroms}
        values["chromosomes"] = {
            name: scored({k: s.take(mask) for k, s in columns.items()})
            for name, mask in here.items()
        }
    next(ticks, None)
    return values


def _differences(scores: Scores, dataset: Dataset) -> dict[str, Any]:
    """How well differences between signal groups are predicted, if there are several."""
    if len(dataset.loci.signal_groups) < 2:
        return {}
    return {"fold_changes": fold_change_scores(scores, dataset.loci)}


def _scored(
    columns: Mapping[str, Scores], config: EvaluateConfig, tick: Callable[[], object]
) -> dict[str, Any]:
    """The metrics of each column, with intervals of the model's."""
    model = columns["model"]
    peaks = int((model.label == 1).sum())
    table: dict[str, Any] = {"loci": {"peaks": peaks, "background": len(model.label) - peaks}}
    table |= {name: scores.metrics() for name, scores in columns.items()}
    if config.bootstrap:
        drawn: dict[str, Interval] = intervals(
            model, config.bootstrap, config.confidence, config.seed, tick
        )
        table["intervals"] = {name: list(interval) for name, interval in drawn.items()}
    return table


def score_table(values: Mapping[str, Any]) -> str:
    """The metrics of all loci: the model's with their intervals, and what stands beside them."""
    beside = [name for name in ("average_profile", "ceiling", "replicate") if name in values]
    header = ["metric", "model"]
    if "intervals" in values:
        header.append(f"{100 * values['bootstrap']['confidence']:g} % interval")
    header += [name.replace("_", " ") for name in beside]
    rows = []
    for name in dict.fromkeys([*METRICS, *values["model"]]):
        row = [name, score(values["model"][name])]
        if "intervals" in values:
            low, high = values["intervals"][name]
            row.append("-" if low != low else f"{score(low)} to {score(high)}")
        rows.append([*row, *(score(values[column].get(name)) for column in beside)])
    return console.table(header, rows)


def _what(
    config: EvaluateConfig, dataset: Dataset, split: str, precision: str, device: torch.device
) -> str:
    n, peaks = len(dataset.rows[SCORED]), len(dataset.peaks(SCORED))
    many = len(config.checkpoint)
    models = f"{many} models, probabilities and log counts averaged" if many > 1 else "one model"
    strands = ", both strands averaged" if config.reverse_complement else ""
    return (
        f"scoring {models}{strands}, in {precision} on {device.type}: "
        f"{counted(peaks, 'peak')} and {counted(n - peaks, 'background locus', 'background loci')} "
        f"({split}) of {dataset.path}"
    )


def _settings(
    config: EvaluateConfig, checkpoints: Sequence[Checkpoint], dataset: Dataset
) -> dict[str, Any]:
    """What the scores depend on, beside metrics of the user's own."""
    settings = {key: value for key, value in to_dict(config).items() if key not in FREE}
    settings |= {"checkpoint": [one.described()["sha256"] for one in checkpoints]}
    return settings | {"fingerprint": dataset.fingerprint, "replicate": _digest(config.replicate)}


def _digest(replicate: str | None) -> str | None:
    if replicate is None:
        return None
    check_exists(Path(replicate), "replicate")
    return checked_digest(Path(replicate))


def _check_output(folder: Path) -> None:
    check_output_folder(folder, f"{SCORES}, {LOCI} and a report")
    parent = next(p for p in folder.absolute().parents if p.exists())
    if not os.access(folder if folder.exists() else parent, os.W_OK):
        raise ConfigError(f"output={folder}: cannot be written to. Choose another folder.")
