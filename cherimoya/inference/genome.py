"""Predictions along a genome, chromosome by chromosome, that resume where they were stopped."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cherimoya.config.predict import PredictConfig
from cherimoya.errors import ConfigError
from cherimoya.genome.chrom_names import Aliases, table_of
from cherimoya.genome.fasta import check_exists
from cherimoya.genome.fasta_index import genome_on_disk
from cherimoya.inference.checkpoints import Checkpoint, find_checkpoint, input_window, load_ensemble
from cherimoya.inference.cuda_graph import CUDAGraphModel
from cherimoya.inference.ensemble import Ensemble
from cherimoya.inference.genome_inputs import (
    Windows,
    around,
    check_chroms,
    control_values,
    described,
    padded_bases,
    tiles,
)
from cherimoya.inference.genome_parts import (
    BATCHES,
    Part,
    Shape,
    in_parts,
    predict_missing,
)
from cherimoya.inference.precision import check_precision
from cherimoya.inference.predictor import predict_batch
from cherimoya.inference.writers import output_names, write_outputs
from cherimoya.records.overwrite import check_inputs_kept, check_own, noting
from cherimoya.records.provenance import choose_device, git_commit, typed, versions
from cherimoya.records.run import check_output_folder
from cherimoya.util.console import counted, result, say, warning
from cherimoya.util.files import TEMPORARY, atomic_path, lock_output, remove
from cherimoya.util.marks import measured, not_as_written, read_mark, set_aside, write_mark
from cherimoya.util.resume import STOPPED
from cherimoya.util.shapes import Table, read_json, tried

DONE, PLAN, PARTS = "predictions.json", "plan.json", "parts"
WRITTEN = "written.json"  # in the parts: which of the outputs are ours
RECORD = Table(known={"plan": Table(), "files": lambda files: _are_names(files)})


def predict_genome(config: PredictConfig) -> Path:
    """Predict as `config` says, write the files to the folder `config.output` and return it.

    Each chromosome is kept as it is done, so that the same command resumes after any end.
    Raises CherimoyaError for anything that the user can mend.
    """
    checkpoints = [find_checkpoint(named) for named in config.checkpoint]
    device = choose_device(config.device, "device")
    check_precision(config.precision, device)
    model = _loaded(config, checkpoints, device)
    shape = _shape(config, checkpoints, model)
    folder = Path(config.output)
    written = {folder / name: "" for name in (PARTS, *output_names(config, shape))}
    check_inputs_kept(config, {folder / DONE: "", **written})
    plan = _plan(config, checkpoints, shape)
    with lock_output(folder / DONE):  # which is the folder's, too
        stale = _stale(folder, plan, config.overwrite, written)
        if stale is None:
            if (folder / PARTS / PLAN).is_file():  # of a process killed when all was written
                remove(folder / PARTS)
            return folder
        parts, lengths = _predict_all(config, model, shape, plan, stale, device, folder)
        say("writing ...")
        with noting(folder / PARTS / WRITTEN, written):
            files = write_outputs(config, parts, shape, lengths, folder, plan)
        facts = {
            "plan": plan,
            "windows": sum(len(part) for part in parts),
            "command": typed(sys.argv),
            "git_commit": git_commit(),
            "versions": versions(),
        }
        if commits := {one.name: one.hub.commit for one in checkpoints if one.hub is not None}:
            facts["commits"] = commits  # of the Hub
        write_mark(folder / DONE, facts, files)
        remove(folder / PARTS)
        for path in files:
            say(result(f"written      {path}"))
    return folder


def _predict_all(
    config: PredictConfig,
    model: Ensemble,
    shape: Shape,
    plan: Mapping[str, Any],
    stale: Sequence[Path],
    device: torch.device,
    folder: Path,
) -> tuple[list[Part], dict[str, int]]:
    """Predict every chromosome; the parts in which they are, and the genome's lengths.

    `stale` is removed once the inputs are known to be good.
    """
    with genome_on_disk(config.fasta) as genome:
        aliases, lengths = Aliases(config.chrom_alias, genome), genome.lengths
        windows = _windows(config, shape, lengths, aliases)
        chroms = [w.chrom for w in windows]
        controls = control_values(config.control, chroms, aliases, genome)
        for path in stale:
            remove(path)
        least = _begin(folder / PARTS, plan, BATCHES * config.batch_size)
        parts = in_parts(windows, lengths, least, folder / PARTS)
        say(_what(config, windows, shape, lengths, f"{config.precision} on {device.type}"))
        run, size = CUDAGraphModel(model), config.batch_size
        predict = partial(predict_batch, run, precision=config.precision, size=size)
        try:
            predict_missing(parts, predict, shape, genome, controls, size, device)
        except KeyboardInterrupt:
            say(result(STOPPED))
            raise
    return parts, lengths


def _begin(folder: Path, plan: Mapping[str, Any], least: int) -> int:
    """How many windows a part has at least: as it was begun, else `least`."""
    begun = read_mark(folder / PLAN)
    if begun is not None:
        return int(begun.facts["least"])
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        write_mark(temporary / PLAN, {"plan": plan, "least": least}, [])
    return least


def _windows(
    config: PredictConfig, shape: Shape, lengths: Mapping[str, int], aliases: Aliases
) -> list[Windows]:
    if config.loci is not None:
        return around(config.loci, config.center, lengths, aliases, shape.out_window)
    chroms = config.chroms or [name for name, length in lengths.items() if length]
    check_chroms(chroms, lengths, f"chroms=[{','.join(chroms)}]")
    return tiles(lengths, chroms, shape.out_window)


def _shape(config: PredictConfig, checkpoints: list[Checkpoint], model: Ensemble) -> Shape:
    first = checkpoints[0]
    in_window = input_window(checkpoints, model.trimming, "in_window", config.in_window)
    out_window = in_window - 2 * model.trimming
    names = config.track_names or _track_names(first, sum(model.signal_groups))
    if len(names) != sum(model.signal_groups):
        raise ConfigError(
            f"track_names={names}: {first.name} predicts {sum(model.signal_groups)} tracks. Name "
            "each, or leave it out."
        )
    return Shape(in_window, out_window, model.signal_groups, names)


def _track_names(first: Checkpoint, n: int) -> list[str]:
    """As in the run's data, if it is still there and they can name files."""
    data = first.data
    if data is not None and data.path is not None:
        stored = first.stored()
        names = [] if stored is None else [name.replace("/", "_") for name in stored.track_names]
        if len(names) == n == len(set(names)):
            return names
    return [f"track_{i}" for i in range(n)]


def _loaded(config: PredictConfig, checkpoints: list[Checkpoint], device: torch.device) -> Ensemble:
    """The models, if the other inputs are there and as they need them."""
    check_exists(Path(config.fasta), "fasta")
    if config.loci is not None:
        check_exists(Path(config.loci), "loci")
    holds = "predictions.h5" if config.kind == "hdf5" else "a bigWig file for each track"
    check_output_folder(Path(config.output), holds)
    model = load_ensemble(checkpoints, device, config.reverse_complement, config.bias)
    groups, controls = [len(group) for group in config.control], model.n_control_tracks
    if controls != sum(groups):
        raise ConfigError(
            f"control has {sum(groups)} bigWig files, but {checkpoints[0].name} has "
            f"{controls} control tracks. Name one for each, grouped as in its data: "
            "'control=[[plus.bw,minus.bw]]'." if controls else
            f"control is set, but {checkpoints[0].name} has no control tracks. Leave it out."
        )  # fmt: skip
    model.control_groups = groups or model.control_groups
    return model


def _content(one: Checkpoint) -> dict[str, Any]:
    """What a checkpoint is, without its commit: another one of the same bytes is the same."""
    return {key: value for key, value in one.described().items() if key != "commit"}


def _plan(config: PredictConfig, checkpoints: list[Checkpoint], shape: Shape) -> dict[str, Any]:
    """What the predictions depend on: with another plan, what is there cannot be gone on with."""
    paths = [path for group in config.control for path in group]
    names = [config.chrom_alias, *map(described, table_of(config.chrom_alias))]
    plan = {
        "checkpoints": [_content(one) for one in checkpoints],
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
    if config.bias is not False:  # as before there was a choice
        plan["bias"] = config.bias
    return json.loads(json.dumps(plan))


def _stale(
    folder: Path, plan: Mapping[str, Any], overwrite: bool, written: Mapping[Path, str]
) -> list[Path] | None:
    """What of another prediction has to go from `folder` first; None where the plan is done.

    Raises CherimoyaError where another plan has been at work, or something else has the name of
    what is `written`, unless that may be overwritten.
    """
    done, noted = folder / DONE, folder / PARTS / PLAN
    record = done if done.is_file() else noted
    nothing: dict[str, Any] = {}
    mark, old = read_mark(record), tried([], lambda: read_json(record, RECORD), nothing)
    mark = mark if mark is not None and _are_names(mark.files) else None
    before = old.get("plan") if mark is None else mark.facts["plan"]
    named = old.get("files", ()) if mark is None else mark.files
    sizes = named if isinstance(named, dict) else dict.fromkeys(named)  # before they had digests
    files = [folder / name for name in sizes]
    if (folder / PARTS).exists() and not _are_parts(folder / PARTS):
        if not overwrite:
            check_own({folder / PARTS: ""}, {})
        set_aside(folder / PARTS, say)
    # The record goes last: without one, what is there is taken for somebody's.
    present = [path for path in (folder / PARTS, *files, done) if path.exists()]
    if overwrite:
        return present
    if not record.is_file():
        check_own(written, {PARTS: None})
        return present
    if record == noted:
        ours = read_mark(folder / PARTS / WRITTEN)
        check_own(written, {PARTS: None}, {} if ours is None else ours.files)
        if mark is None:
            say(warning(f"{noted}: {not_as_written(mark)}, so it starts over"))
            return present
    if before != plan:
        differ = ", ".join(sorted(k for k in plan if (before or {}).get(k) != plan[k]))
        what = f"a prediction with another {differ}" if before else f"{record}, which is damaged"
        raise ConfigError(
            f"output={folder} holds {what}. Choose another folder, or set overwrite=true to begin "
            "anew."
        )
    if record == noted:
        return []
    if mark is not None and not mark.damaged():
        say(result(f"done already: {folder}"))
        return None
    if isinstance(named, list) and all(path.is_file() for path in files):
        say(warning(f"done already: {folder}, which may not be whole: it has no digests in {DONE}"))
        return None
    say(warning(f"{folder}: {not_as_written(mark)}, so it is made again"))
    for path in filter(os.path.lexists, files):
        if sizes[path.name] not in (None, measured(path)):
            set_aside(path, say)
    check_own(written, {**sizes, PARTS: None})
    return [path for path in present if os.path.lexists(path)]


def _are_parts(folder: Path) -> bool:
    """Whether a folder holds nothing but what a prediction leaves in its parts."""
    return folder.is_dir() and all(
        path.name in (PLAN, WRITTEN) or path.name.isdecimal() or path.name.endswith(TEMPORARY)
        for path in folder.iterdir()
    )


def _are_names(files: Any) -> bool:
    """Whether these are files of one folder, as a list, or as a table that says more of each."""
    return isinstance(files, list | dict) and all(
        Path(str(name)).name == name and name not in ("", "..") for name in files
    )


def _what(
    config: PredictConfig,
    windows: Sequence[Windows],
    shape: Shape,
    lengths: Mapping[str, int],
    how: str,
) -> str:
    n = sum(len(w.start) for w in windows)
    where = "around loci" if config.loci is not None else "side by side"
    beyond = padded_bases(windows, lengths, shape.out_window, shape.flank)
    padded = f"; {beyond:,} reach beyond an end of it, where all is N" if beyond else ""
    return (
        f"predicting {counted(n, 'window')} of {shape.out_window:,} bp from {shape.in_window:,} "
        f"bp, {where} on {counted(len(windows), 'chromosome')}, in {how}{padded}"
    )
