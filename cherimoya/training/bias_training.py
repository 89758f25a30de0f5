"""model.bias=train: bias models trained before the network, and the one that is taken."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cherimoya.config.diff import Changes, differences
from cherimoya.config.saved import current
from cherimoya.config.schema import to_dict
from cherimoya.config.train import (
    FREE_ON_RESUME,
    TRAIN_BIAS,
    WHERE_DATA_IS,
    BiasConfig,
    TrainConfig,
)
from cherimoya.data.dataset import Dataset, background_alone
from cherimoya.data.feed import place
from cherimoya.data.loci import crop, without_controls
from cherimoya.distributed.processes import Processes, joined
from cherimoya.errors import CherimoyaError, ConfigError, DataError, Interrupted, InUse, OtherRun
from cherimoya.evaluation.scores import evaluate
from cherimoya.inference.cuda_graph import CUDAGraphModel
from cherimoya.network import SPARE_CONTEXT, Cherimoya
from cherimoya.records import status
from cherimoya.records.layout import CONFIG, read_config
from cherimoya.records.own_folders import check_run_folder
from cherimoya.records.provenance import choose_device
from cherimoya.records.run import BEST, LAST, PREVIOUS, begin_run
from cherimoya.records.sweep import SUMMARY
from cherimoya.training.bias import BIAS_MODELS, CHOICE, read_choice
from cherimoya.training.interrupt import stop_request
from cherimoya.training.length import SHARE
from cherimoya.training.packed import train_packed
from cherimoya.training.run import RunContext, model_for
from cherimoya.util import console
from cherimoya.util.console import result, warning
from cherimoya.util.files import lock_folder, write_json
from cherimoya.util.shapes import Table, read_json

STATES = (LAST, f"{LAST}.new", PREVIOUS)  # of a run, with its bias model in them
SCORED = ("profile_mnll", "profile_pearson", "count_pearson")


@contextmanager
def bias_models_trained(
    config: TrainConfig, folder: Path, context: RunContext, changes: Changes | None = None
) -> Iterator[RunContext]:
    """Where the run in `folder` has its bias models: model.bias=train trains them first.

    What is yielded is the context to train it in.
    """
    if config.model.bias != TRAIN_BIAS:
        yield context
        return
    with joined(choose_device(config.trainer.device)) as processes:  # once: they cannot meet again
        folder = Path(processes.gathered(str(folder))[0])
        if processes.first:
            train_bias_models(config, folder, context, changes)
        processes.gathered(None)  # the others wait for that
        yield replace(context, processes=processes)


def train_whole_packed(
    members: Sequence[tuple[TrainConfig, Path, Changes | None]],
) -> dict[Path, Exception]:
    """As `train_packed`, with the bias models of each member first; those of one after another."""
    failed: dict[Path, Exception] = {}
    ready = []
    for config, folder, changes in members:
        try:
            if config.model.bias == TRAIN_BIAS:
                train_bias_models(config, folder, RunContext(bar=False), changes)
            ready.append((config, folder, changes))
        except InUse as error:
            console.say(warning(f"[{folder.name}] left to the process that is at it: {error}"))
        except Exception as error:
            failed[folder] = error
            console.say(warning(f"[{folder.name}] error: {error}"))
    return failed | (train_packed(ready) if ready else {})


def train_bias_models(
    config: TrainConfig, folder: Path, context: RunContext, changes: Changes | None
) -> None:
    """Train the bias models of a run side by side, choose one, and note that in `folder`/bias.

    What an earlier call began is gone on with; nothing is done for a run that has saved its state,
    which the bias model is part of. Raises CherimoyaError where one fails, OtherRun where `folder`
    has bias models of another configuration or other data, and InUse where a process is at it.
    """
    settings, home = config.bias_model, folder / BIAS_MODELS
    assert settings is not None
    if config.trainer.resume and any((folder / "checkpoints" / name).exists() for name in STATES):
        return
    dataset = context.load(config.data)
    model_for(config, dataset)  # whose errors come before any training
    narrow = _narrowed(dataset, settings)
    configs, datasets = _possible(config, settings, narrow, context)
    folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder):
        _check_same(home, configs, dataset)
        if read_choice(folder):
            return
        if config.trainer.resume is None:
            check_run_folder(folder, config.trainer.plots)
            begin_run(folder, config, changes)
        to_do = []
        for name, one in configs.items():
            if not (home / name / SUMMARY).is_file():
                begun = (home / name / CONFIG).is_file()
                resumed = replace(one.trainer, resume=str(home / name) if begun else None)
                to_do.append((replace(one, trainer=resumed), home / name, None))
        of_candidates = replace(
            context, command=None, on_epoch=None, datasets=datasets, resident={},
            processes=Processes(), part_of=folder,
        )  # fmt: skip
        with _in_status(folder):
            for error in train_packed(to_do, of_candidates).values():
                raise error
            for name in configs:
                if not (home / name / SUMMARY).is_file():
                    raise InUse(f"{home / name} is in use by another process. Wait until it ends.")
            found = _scored_all(config, home, configs, narrow, context)
        choice = choose(found, settings.max_count_pearson)
        write_json(home / CHOICE, choice)
    for line in table(choice):
        context.say(warning(line) if line.startswith("warning") else line)


@contextmanager
def _in_status(folder: Path) -> Iterator[None]:
    """While the block runs, and where it does not end well, status.json of the run says so."""
    started = time.time()
    status.write(folder, "running", started)
    alive = status.Heartbeat(folder)
    try:
        yield
    except BaseException as error:
        stopped = not isinstance(error, Exception)  # a signal
        status.write(folder, "interrupted" if stopped else "failed", started, error)
        raise
    finally:
        alive.stop()


def _check_same(home: Path, configs: Mapping[str, TrainConfig], dataset: Dataset) -> None:
    """Raise OtherRun where a bias model in `home` is of another configuration or other data."""
    for name, one in configs.items():
        changed = differences(
            current(read_config(home / name)), to_dict(one), (*FREE_ON_RESUME, *WHERE_DATA_IS)
        )
        summary = read_json(home / name / SUMMARY, Table())
        found = summary.get("provenance", {}).get("data_fingerprint", dataset.fingerprint)
        if found != dataset.fingerprint:
            changed.append(f"{dataset.path} was {found}, now {dataset.fingerprint}")
        if changed:
            raise OtherRun(
                f"{home / name} holds a bias model that was trained otherwise: "
                f"{'; '.join(changed)}. Move {home} away, or name another hydra.run.dir."
            )
    made = read_choice(home.parent)
    if made and {one.get("name") for one in made.get("candidates", [])} != set(configs):
        raise OtherRun(
            f"{home / CHOICE} chose among other bias models than bias_model.background_below and "
            f"the data ask for ({', '.join(configs)}). Move {home} away, or name another "
            "hydra.run.dir."
        )


def _scored_all(
    config: TrainConfig,
    home: Path,
    configs: Mapping[str, TrainConfig],
    narrow: Dataset,
    context: RunContext,
) -> list[dict[str, Any]]:
    """The scores of all bias models, on the same loci; a signal ends that at once."""
    device = choose_device(config.trainer.device)
    widest = max(one.data.background_below or 0 for one in configs.values())
    try:
        with stop_request(at_once=True):
            return [
                {"name": name, "background_below": one.data.background_below}
                | scored(home / name / "checkpoints" / BEST, narrow, widest, device)
                for name, one in configs.items()
            ]
    except Interrupted:
        context.say(result(f"stopped. Continue with: {console.resume_command(home.parent)}"))
        raise


def _possible(
    config: TrainConfig, settings: BiasConfig, narrow: Dataset, context: RunContext
) -> tuple[dict[str, TrainConfig], dict[str, Dataset]]:
    """The bias models that there is enough background for, by name, and their data.

    Says which are left out. Raises CherimoyaError if all are.
    """
    configs, datasets = dict[str, TrainConfig](), dict[str, Dataset]()
    reasons: list[CherimoyaError] = []
    for below in settings.background_below:
        one = of_bias(config, settings, below, narrow)
        try:
            data = background_alone(narrow, below)
            if len(data.rows["train"]) < one.trainer.batch_size:
                raise DataError(
                    f"data.background_below={below:g}: {len(data.rows['train'])} background loci "
                    f"to train on, fewer than trainer.batch_size={one.trainer.batch_size}."
                )
        except DataError as error:
            reasons.append(error)
            continue
        configs[f"background_below={below:g}"], datasets[repr(one.data)] = one, data
    if not configs:
        raise ConfigError(f"bias_model.background_below={settings.background_below}: {reasons[-1]}")
    for reason in reasons:
        context.say(warning(f"no bias model of it: {reason}"))
    return configs, datasets


def _narrowed(dataset: Dataset, settings: BiasConfig) -> Dataset:
    """The data in input windows no wider than the bias models read."""
    loci = dataset.loci
    reach = SPARE_CONTEXT + 2**settings.n_layers - 1
    width = min(loci.out_window + 2 * reach, loci.in_window)
    loci = crop(loci, width, loci.out_window, loci.max_jitter, str(dataset.path))
    return replace(dataset, loci=without_controls(loci))


def of_bias(
    config: TrainConfig, settings: BiasConfig, below: float, narrow: Dataset
) -> TrainConfig:
    """The configuration of a bias model of a run, on the background below a threshold."""
    width = narrow.loci.in_window if config.data.path else config.data.in_window
    model = replace(
        config.model, blocks=settings.blocks, n_filters=settings.n_filters,
        n_layers=settings.n_layers, profile_kernel_size=1, trimming=None, count_bias="mean",
        bias=None, init=None, freeze=None, n_control_tracks=None,
    )  # fmt: skip
    data = replace(config.data, background_below=below, negative_ratio=0.0, in_window=width)
    trainer = replace(
        config.trainer, max_epochs=settings.max_epochs, gpu_min_steps=settings.gpu_min_steps,
        min_steps=None, max_steps=None, early_stopping=None, resume=None, devices=1,
        profile=False, plots=False,
    )  # fmt: skip
    warmup = config.optim.warmup_epochs
    warmup = warmup if warmup <= settings.max_epochs else settings.max_epochs * SHARE
    return replace(
        config, model=model, data=data, trainer=trainer, logger={}, metrics={}, bias_model=None,
        optim=replace(config.optim, warmup_epochs=warmup),
    )  # fmt: skip


def scored(path: Path, narrow: Dataset, below: float, device: torch.device) -> dict[str, Any]:
    """What a bias model predicts of validation loci, in fp32.

    background: of those with counts under the threshold `below`, profile MNLL and Pearson;
    peaks: the Pearson correlation of log counts
    """
    predict = CUDAGraphModel(Cherimoya.load(path, device).eval())
    few = background_alone(narrow, below)
    values: dict[str, Any] = {}
    for kind, dataset in (("background", few), ("peaks", narrow)):
        source, _ = place(dataset.loci, device, "auto")
        rows, label = dataset.peaks("validation"), dataset.loci.label
        found = evaluate(predict, source, rows, label, 64, "fp32").metrics()
        source.close()
        values |= {f"{kind}/{name}": found[name] for name in SCORED}
        values[f"{kind}/loci"] = len(rows)
    return {k: None if v is not None and not np.isfinite(v) else v for k, v in values.items()}


def choose(found: list[dict[str, Any]], limit: float) -> dict[str, Any]:
    """Of the bias models with a count Pearson in peaks within `limit`, either way, the one with
    the lowest MNLL of background profiles; if there is none, the one nearest to it.

    The next one by the same rule is to be tried where the enzyme is left in the corrected model.
    """

    def known(one: Mapping[str, Any]) -> float:
        return abs(one["peaks/count_pearson"] or 0.0)

    def rank(one: Mapping[str, Any]) -> tuple[bool, float]:
        fits = known(one) <= limit
        return (not fits, one["background/profile_mnll"] if fits else known(one))

    names = [one["name"] for one in sorted(found, key=rank)]
    fits = any(known(one) <= limit for one in found)
    rule = (
        f"the lowest MNLL of background profiles where the counts of peaks are predicted with a "
        f"Pearson correlation within {limit:g} either way; the next one where the quality control "
        "finds more of the enzyme in the corrected model than its limit"
    )
    if not fits:
        rule = f"the correlation with the counts of peaks nearest to 0, as none is within {limit:g}"
    return {
        "chosen": names[0],
        "next": names[1] if len(names) > 1 else None,
        "fits": fits,
        "rule": rule,
        "candidates": found,
    }


def table(choice: Mapping[str, Any]) -> list[str]:
    """The bias models and which is taken, a line each."""
    lines = ["", f"{'bias model':<24}  background MNLL  profile r  peaks count r"]
    for one in choice["candidates"]:
        mark = "  taken" if one["name"] == choice["chosen"] else ""
        numbers = [
            one[key] for key in
            ("background/profile_mnll", "background/profile_pearson", "peaks/count_pearson")
        ]  # fmt: skip
        cells = [
            "-" if value is None else f"{value:.{digits}f}"
            for value, digits in zip(numbers, (1, 3, 3), strict=True)
        ]
        lines.append(f"{one['name']:<24}  {cells[0]:>15}  {cells[1]:>9}  {cells[2]:>13}{mark}")
    lines.append(f"taken: {choice['rule']}")
    if not choice["fits"]:
        lines.append(
            "warning: all of them know the counts of peaks. Add a smaller value to "
            "bias_model.background_below, so that the background has no weak peaks in it."
        )
    return [*lines, ""]
