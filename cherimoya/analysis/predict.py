"""Predictions along a genome, chromosome by chromosome, that go on where they were stopped."""

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cherimoya import progress
from cherimoya.analysis.checkpoints import Checkpoint, find_checkpoint, load_ensemble
from cherimoya.analysis.genome_inputs import (
    Values,
    Windows,
    around,
    check_chroms,
    described,
    opened_controls,
    padded_bases,
    tiles,
)
from cherimoya.analysis.machine import choose_device, git_commit, versions
from cherimoya.analysis.predictions_written import write_outputs
from cherimoya.analysis.run_folder import is_run
from cherimoya.analysis.window import input_window
from cherimoya.captured import CapturedModel
from cherimoya.config_evaluate import PredictConfig
from cherimoya.data import hdf5
from cherimoya.data.aliases import Aliases, table_of
from cherimoya.data.loci import N_CODE
from cherimoya.data.sources import Genome, check_exists, genome_on_disk
from cherimoya.ensemble import Ensemble
from cherimoya.errors import ConfigError, DataError
from cherimoya.extras import needed
from cherimoya.files import owned, write_json
from cherimoya.ops import gather
from cherimoya.prediction import predict_batch
from cherimoya.training.precision import check_precision

Say = Callable[[str], None]

DONE, PLAN, PARTS = "predictions.json", "plan.json", "parts"


@dataclass(frozen=True, eq=False)
class Shape:
    """Windows and heads of the model."""

    in_window: int
    out_window: int
    signal_groups: list[int]
    track_names: list[str]

    @property
    def cut(self) -> int:
        """Bases that are read beyond the output window, on each side."""
        return (self.in_window - self.out_window) // 2


def predict_genome(config: PredictConfig, say: Say = progress.say) -> Path:
    """Predict as `config` says, write the files to the folder `config.output` and return it.

    Each chromosome is kept as it is done, so that the same command goes on after any end.
    Raises CherimoyaError for anything that the user can mend.
    """
    found = [find_checkpoint(named) for named in config.checkpoint]
    device = choose_device(config.device, "device")
    check_precision(config.precision, device)
    control_groups = [len(group) for group in config.control]
    _check_inputs(config, found, device, control_groups)
    model = load_ensemble(found, device, config.reverse_complement, control_groups or None)
    shape = _shape(config, found, model, say)
    folder = Path(config.output)
    plan = _plan(config, found, shape)
    with owned(folder / DONE):
        stale = _stale(folder, plan, config.overwrite)
        if stale is None:
            say(f"done already: {folder}")
            return folder
        windows, lengths = _predict_all(config, model, shape, plan, stale, device, folder, say)
        say("writing ...")
        files = write_outputs(config, windows, shape, lengths, folder, folder / PARTS, plan)
        write_json(
            folder / DONE,
            {
                "plan": plan,
                "files": [path.name for path in files],
                "windows": sum(len(w.start) for w in windows),
                "command": shlex.join(sys.argv),
                "git_commit": git_commit(),
                "versions": versions(),
            },
        )
        shutil.rmtree(folder / PARTS)
        for path in files:
            say(f"written      {path}")
    return folder


def _predict_all(
    config: PredictConfig,
    model: Ensemble,
    shape: Shape,
    plan: Mapping[str, Any],
    stale: Sequence[Path],
    device: torch.device,
    folder: Path,
    say: Say,
) -> tuple[list[Windows], dict[str, int]]:
    """Leave a folder of predictions for every chromosome; the windows, and the genome's lengths.

    `stale` is removed once the inputs are known to be good.
    """
    with genome_on_disk(config.fasta, say) as genome:
        aliases, lengths = Aliases(config.chrom_alias, genome, say), genome.lengths
        windows = _windows(config, shape, lengths, aliases)
        chroms = [w.chrom for w in windows]
        with opened_controls(config.control, chroms, aliases, genome, say) as controls:
            for path in stale:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            (folder / PARTS).mkdir(exist_ok=True)
            write_json(folder / PARTS / PLAN, plan)
            say(_what(config, windows, shape, lengths, f"{config.precision} on {device.type}"))
            run, size = CapturedModel(model), config.batch_size
            predict = partial(predict_batch, run, batch_size=size, precision=config.precision)
            with progress.resumable("the chromosomes that are done", say):
                _predict_missing(
                    config, predict, windows, shape, genome, controls, device, folder, say
                )
    return windows, lengths


def _predict_missing(
    config: PredictConfig,
    predict: Callable[..., tuple[torch.Tensor, torch.Tensor]],
    windows: Sequence[Windows],
    shape: Shape,
    genome: Genome,
    controls: Values | None,
    device: torch.device,
    folder: Path,
    say: Say,
) -> None:
    """Leave a folder of predictions for every chromosome that has none yet."""
    missing = [(i, w) for i, w in enumerate(windows) if not part(folder, i).is_dir()]
    total = sum(-(-len(w.start) // config.batch_size) for w in windows)
    todo = sum(-(-len(w.start) // config.batch_size) for _, w in missing)
    if len(missing) < len(windows):
        say(f"{len(windows) - len(missing)} of {_chromosomes(len(windows))} are done already")
    bar = iter(progress.shown(range(todo), "predicting", total, "batch", total - todo, say))
    for i, w in missing:
        codes = genome.codes(w.chrom)
        control = controls(w.chrom, len(codes)) if controls else None
        batches = _batches(w.start, codes, control, shape, config.batch_size, device)
        predicted = (predict(*batch) for batch in batches)
        _keep(part(folder, i), predicted, len(w.start), shape, bar)
    next(bar, None)


def _batches(
    start: np.ndarray,
    codes: np.ndarray,
    control: np.ndarray | None,
    shape: Shape,
    size: int,
    device: torch.device,
) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    """X and control of the windows at `start`, cut on the device out of a padded chromosome."""
    pad = shape.in_window
    sequence = torch.from_numpy(np.pad(codes, pad, constant_values=N_CODE)).to(device)[None]
    table = None
    if control is not None:
        table = torch.from_numpy(np.pad(control, ((0, 0), (pad, pad)))).to(device)[None]
        channels = torch.arange(len(control), device=device).expand(2, -1).contiguous()
    first = torch.from_numpy(start - shape.cut + pad).to(device)
    for shift in first.split(size):
        zeros = torch.zeros_like(shift)
        X = gather.one_hot(sequence, zeros, shift, zeros, shape.in_window)
        X_ctl = None
        if table is not None:
            X_ctl = gather.counts(table, channels, zeros, shift, zeros, shape.in_window)
        yield X, X_ctl


def _keep(
    folder: Path,
    predicted: Iterator[tuple[torch.Tensor, torch.Tensor]],
    n: int,
    shape: Shape,
    bar: Iterator[int],
) -> None:
    """Write logits.npy and log_counts.npy of `n` windows to `folder`, which appears whole."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    sizes = {
        "logits": (n, sum(shape.signal_groups), shape.out_window),
        "log_counts": (n, len(shape.signal_groups)),
    }
    files = [
        np.lib.format.open_memmap(temporary / f"{name}.npy", "w+", np.float32, size)
        for name, size in sizes.items()
    ]
    done = 0
    for values in predicted:
        next(bar, None)
        for file, some in zip(files, values, strict=True):
            file[done : done + len(some)] = some.numpy()
        done += len(values[0])
    for file in files:
        file.flush()
    os.replace(temporary, folder)


def part(folder: Path, i: int) -> Path:
    """Where the predictions of the `i`-th chromosome are kept until all are done."""
    return folder / PARTS / f"{i:05d}"


def _windows(
    config: PredictConfig, shape: Shape, lengths: Mapping[str, int], aliases: Aliases
) -> list[Windows]:
    if config.loci is not None:
        return around(config.loci, config.center, lengths, aliases, shape.out_window)
    chroms = config.chroms or [name for name, length in lengths.items() if length]
    check_chroms(chroms, lengths, f"chroms=[{','.join(chroms)}]")
    return tiles(lengths, chroms, shape.out_window)


def _shape(config: PredictConfig, found: list[Checkpoint], model: Ensemble, say: Say) -> Shape:
    first = found[0]
    in_window = input_window(found, model.trimming, "in_window", config.in_window, say=say)
    out_window = in_window - 2 * model.trimming
    names = config.track_names or _track_names(first, sum(model.signal_groups))
    if len(names) != sum(model.signal_groups):
        raise ConfigError(
            f"track_names={names}: {first.path} predicts {sum(model.signal_groups)} tracks. Name "
            "each, or leave it out."
        )
    return Shape(in_window, out_window, model.signal_groups, names)


def _track_names(first: Checkpoint, n: int) -> list[str]:
    """As in the run's data, if it is still there and they can name files."""
    data = first.data
    if data is not None and data.path is not None:
        try:
            header = hdf5.read_header(data.path, data.keys)
            names = [name.replace("/", "_") for name in header.track_names]
        except DataError:
            names = []
        if len(names) == n == len(set(names)):
            return names
    return [f"track_{i}" for i in range(n)]


def _check_inputs(
    config: PredictConfig, found: list[Checkpoint], device: torch.device, control_groups: list[int]
) -> None:
    if config.kind == "bigwig":
        needed("figwig")
    check_exists(Path(config.fasta), "fasta")
    if config.loci is not None:
        check_exists(Path(config.loci), "loci")
    if Path(config.output).exists() and not Path(config.output).is_dir():
        raise ConfigError(f"output={config.output}: a file. Name a folder.")
    if is_run(Path(config.output)):
        raise ConfigError(f"output={config.output}: a run is there. Choose another folder.")
    controls = load_ensemble(found, device).n_control_tracks
    if controls != sum(control_groups):
        raise ConfigError(
            f"control has {sum(control_groups)} bigWig files, but {found[0].path} has {controls} "
            "control tracks. Name one for each, grouped as in its data: 'control=[[plus.bw,"
            "minus.bw]]'." if controls else
            f"control is set, but {found[0].path} has no control tracks. Leave it out."
        )  # fmt: skip


def _plan(config: PredictConfig, found: list[Checkpoint], shape: Shape) -> dict[str, Any]:
    """What the predictions depend on: with another plan, what is there cannot be gone on with."""
    paths = [path for group in config.control for path in group]
    names = [config.chrom_alias, *map(described, table_of(config.chrom_alias))]
    plan = {
        "checkpoints": [one.described() for one in found],
        "fasta": described(config.fasta),
        "loci": described(config.loci) if config.loci is not None else None,
        "center": config.center,
        "chrom_alias": names if config.loci is not None or paths else None,
        "chroms": config.chroms,
        "control": [described(path) for path in paths],
        "in_window": shape.in_window,
        "out_window": shape.out_window,
        "track_names": shape.track_names,
        "format": config.format,
        "values": config.values,
        "reverse_complement": config.reverse_complement,
        "precision": config.precision,
    }
    return json.loads(json.dumps(plan))


def _stale(folder: Path, plan: Mapping[str, Any], overwrite: bool) -> list[Path] | None:
    """What of another prediction has to go from `folder` first; None where the plan is done.

    Raises ConfigError where another plan has been at work, unless that may be overwritten.
    """
    done, noted = folder / DONE, folder / PARTS / PLAN
    before, files = None, []
    if done.is_file():
        record = json.loads(done.read_text())
        before, files = record["plan"], [folder / name for name in record["files"]]
    elif noted.is_file():
        before = json.loads(noted.read_text())
    if before == plan and not overwrite:
        whole = done.is_file() and all(path.is_file() for path in files)
        return None if whole else []
    if before is not None and not overwrite:
        differ = ", ".join(sorted(k for k in plan if before.get(k) != plan[k]))
        raise ConfigError(
            f"output={folder} holds a prediction with another {differ}. Choose another "
            "folder, or set overwrite=true to begin anew."
        )
    return [path for path in (folder / PARTS, done, *files) if path.exists()]


def _what(
    config: PredictConfig,
    windows: Sequence[Windows],
    shape: Shape,
    lengths: Mapping[str, int],
    how: str,
) -> str:
    n = sum(len(w.start) for w in windows)
    where = "around loci" if config.loci is not None else "side by side"
    beyond = padded_bases(windows, lengths, shape.out_window, shape.cut)
    padded = f"; {beyond:,} reach beyond an end of it, where all is N" if beyond else ""
    return (
        f"predicting {n:,} windows of {shape.out_window:,} bp from {shape.in_window:,} bp, {where} "
        f"on {_chromosomes(len(windows))}, in {how}{padded}"
    )


def _chromosomes(n: int) -> str:
    return f"{n} chromosome{'' if n == 1 else 's'}"
