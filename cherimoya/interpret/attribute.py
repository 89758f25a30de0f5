"""cherimoya-attribute: which bases the predictions of loci rest on, as a file, logos and tracks."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cherimoya.config.interpret import LEAST_WINDOW, AttributeConfig
from cherimoya.errors import ConfigError, DataError
from cherimoya.genome.bigwig_writer import Piece, write_bigwig
from cherimoya.genome.sequence import N_CODE, reverse_complement, reverse_complement_tracks
from cherimoya.inference.checkpoints import find_checkpoint, load_ensemble
from cherimoya.interpret.contrast import asked_contrast, asked_groups, interval
from cherimoya.interpret.dependency import dependency_maps
from cherimoya.interpret.gradients import PAIRS_AT_ONCE, deep_lift_shap, input_gradients
from cherimoya.interpret.loci import (
    Sequences,
    central,
    chromosome_lengths,
    read_sequences,
)
from cherimoya.interpret.models import check_effects_precision, describe
from cherimoya.interpret.modisco import MOTIFS, check_modisco, find_motifs, folder_of
from cherimoya.interpret.mutagenesis import Mutagenesis, centred, default_batch
from cherimoya.interpret.target import Target, targets_of
from cherimoya.network import Cherimoya
from cherimoya.prepare.provenance import check_output
from cherimoya.records.attributions import (
    Attributions,
    at_sequence,
    read_attributions,
    write_attributions,
)
from cherimoya.records.overwrite import check_inputs_kept, own_files
from cherimoya.records.provenance import choose_device
from cherimoya.report.pages import offered
from cherimoya.util import console
from cherimoya.util.console import counted, result, warning
from cherimoya.util.files import lock_output
from cherimoya.util.marks import mark_of, not_as_written, read_mark
from cherimoya.util.resume import Journal, is_done

FREE = ("logos", "bigwig", "modisco", "max_seqlets", "motif_file")  # that change no attribution
BY_CHANGES = ("mutagenesis", "dependency")  # methods
GRADIENT_BATCHES = 4  # between two writes
# Hypothetical contributions (T, n, 4, W) of codes (n, L) in a window, with controls or None.
Method = Callable[[Cherimoya, torch.Tensor, slice, torch.Tensor | None], np.ndarray]


def attribute(config: AttributeConfig) -> Path:
    """Write what `config` says; after an interruption the same command resumes.

    Raises CherimoyaError for anything the user can mend, before any long work.
    """
    output = Path(config.output)
    if config.modisco:
        check_modisco(config.motif_file)
    check_output(output)
    with lock_output(output):
        _attribute(config, output)
    return output


def _attribute(config: AttributeConfig, output: Path) -> None:
    device = choose_device(config.device, "device")
    if config.method in BY_CHANGES:
        check_effects_precision(config.precision, device)
    checkpoints = [find_checkpoint(name) for name in config.checkpoint]
    ensemble = load_ensemble(checkpoints, device, bias=config.bias)
    models: list[Cherimoya] = list(ensemble.models)  # type: ignore[arg-type]
    targets = _targets(config, models[0].signal_groups)
    beside = _beside(config, output, [target.name for target in targets])
    check_inputs_kept(config, {output: "", **beside})
    loci = read_sequences(config, models[0])
    window = central(loci.codes.shape[1], config.window)
    width = window.stop - window.start
    if config.modisco and width < LEAST_WINDOW:
        raise ConfigError(f"modisco=true: {width} bases are too few, {LEAST_WINDOW} the least.")
    loci = _without_n(loci) if config.method == "deep_lift_shap" else loci
    lengths = chromosome_lengths(config, loci) if config.bigwig else {}
    deltas: list[float] = []
    method, at_once = _method(config, models, targets, width, deltas)
    files, settings = describe(config, FREE, loci.files, loci.codes.shape[1])
    settings["targets"] = [target.name for target in targets]
    if config.groups is not None:
        settings["groups"] = list(dict.fromkeys(target.group for target in targets))
    if config.loci is None:
        del settings["fasta"]  # read for the lengths of chromosomes alone
    is_done = _is_done(output, config, settings)
    drawn = {path: fix for path, fix in beside.items() if path.suffix != MOTIFS}
    with own_files(output, drawn, config.overwrite, anew=not is_done):
        if is_done:
            console.say(f"{output}: attributed before, with the same settings")
        else:
            _attribute_all(config, models, loci, window, method, at_once, settings, files)
        many = counted(len(loci), "locus", "loci")
        console.say(result(f"{output}: {many}, {', '.join(t.name for t in targets)}"))
        if deltas:
            console.say(
                f"contributions add up to the change of the prediction within {max(deltas):.1g}"
            )
        if config.logos:
            _offer_pictures(output, config.logos, find_checkpoint(config.checkpoint[0]).groups)
        if config.bigwig:
            for path in write_tracks(output, lengths):
                console.say(result(f"{path}: contributions"))
    if config.modisco:
        find_motifs(output, config.max_seqlets, config.motif_file, config.overwrite)


def _targets(config: AttributeConfig, signal_groups: list[int]) -> list[Target]:
    contrast = asked_contrast(config, signal_groups, "in natural logarithms")
    if contrast is not None:
        return [contrast]
    groups = asked_groups(config.groups, config.checkpoint, signal_groups)
    return targets_of(config.targets, groups, signal_groups)


def _beside(config: AttributeConfig, output: Path, targets: list[str]) -> dict[Path, str]:
    """The files and folders that come to be beside `output`, and how to do without each."""
    written = {}
    for name in targets:
        if config.logos:
            written[output.with_name(f"{output.stem}.{name}.png")] = ", or set logos=0"
            if config.method == "dependency":
                picture = output.with_name(f"{output.stem}.{name}.dependency.png")
                written[picture] = ", or set logos=0"
        if config.bigwig:
            written[track_path(output, name)] = ", or set bigwig=false"
        if config.modisco:
            written[folder_of(output, name)] = ", or set modisco=false"
    return written


def _is_done(output: Path, config: AttributeConfig, settings: dict[str, Any]) -> bool:
    """Whether `output` holds these attributions, see `is_done`; also of a file without a mark."""
    if output.exists() and not config.overwrite and read_mark(mark_of(output)) is None:
        with suppress(DataError):  # of somebody else
            if read_attributions(output).settings == json.loads(json.dumps(settings)):
                console.say(
                    warning(f"{output}: {not_as_written(None)}; overwrite=true makes it anew")
                )
                return True
    return is_done(output, settings, config.overwrite, console.say)


def _attribute_all(
    config: AttributeConfig,
    models: Sequence[Cherimoya],
    loci: Sequences,
    window: slice,
    method: Method,
    at_once: int,
    settings: dict[str, Any],
    files: dict[str, Any],
) -> None:
    """Go through the loci that are still to do, `at_once` at a time, and write the file."""
    output, names, length = Path(config.output), settings["targets"], loci.codes.shape[1]
    mirrored = slice(length - window.stop, length - window.start)
    ends = 2 if config.target is not None and len(models) > 1 else 0  # of intervals
    width = window.stop - window.start
    pairs = width if config.method == "dependency" else 0
    shape = (len(names), 4 + pairs + ends, width)

    def scored(codes: torch.Tensor, part: slice, controls: torch.Tensor | None) -> list[np.ndarray]:
        return [method(model, codes, part, controls) for model in models]

    with Journal(output, settings, shape, at_once, np.float32) as journal:
        for rows in journal.missing(len(loci), config.method, "loci"):
            codes = torch.from_numpy(loci.codes[rows])
            controls = None if loci.controls is None else loci.controls[rows]
            own = scored(codes, window, controls)
            scores = _mean(own)
            if config.reverse_complement:
                if controls is not None:
                    controls = reverse_complement_tracks(controls, loci.control_groups)
                other = scored(reverse_complement(codes), mirrored, controls)
                other = [_turned(one) for one in other]  # on the forward strand
                scores = _mean([scores, _mean(other)])
                own = [_mean(list(both)) for both in zip(own, other, strict=True)]
            if ends:
                scores = np.concatenate([scores, _intervals(own, loci.codes[rows, window])], axis=2)
            journal.append(scores.swapaxes(0, 1))
        start = np.where(loci.start < 0, -1, loci.start + window.start)
        parts = np.cumsum([0, 4, pairs, ends])
        found = [
            {name: journal.rows[:, t, a:b] for t, name in enumerate(names) if b > a}
            for a, b in pairwise(parts.tolist())
        ]
        hypothetical, dependency, intervals = found
        shown = loci.codes[:, window]
        write_attributions(
            output, shown, loci.chrom, start, hypothetical, settings, files, intervals, dependency
        )


def _turned(scores: np.ndarray) -> np.ndarray:
    """Scores (T, n, 4 + P, W) of the other strand on this one: bases, and P = W or 0 positions,
    are turned each on their own."""
    return np.concatenate([scores[:, :, 3::-1, ::-1], scores[:, :, :3:-1, ::-1]], axis=2)


def _intervals(scores: list[np.ndarray], codes: np.ndarray) -> np.ndarray:
    """Ends of the interval, over models, of the contributions of the bases that are there: (T, n,
    2, W) of each model's hypothetical ones (T, n, 4, W) at `codes` (n, W)."""
    found = [[at_sequence(target[:, :4], codes) for target in one] for one in scores]
    return np.stack(interval(np.array(found, np.float64)), axis=2).astype(np.float32)


def _mean(parts: list[np.ndarray]) -> np.ndarray:
    return np.stack(parts).mean(axis=0, dtype=np.float64).astype(np.float32)


def _method(
    config: AttributeConfig,
    models: Sequence[Cherimoya],
    targets: Sequence[Target],
    width: int,
    deltas: list[float],
) -> tuple[Method, int]:
    """The method, and how many loci to give it at once. DeepLIFT adds the largest convergence
    delta of each call to `deltas`."""
    if config.method in BY_CHANGES:
        device = next(models[0].parameters()).device
        size = config.batch_size or default_batch(device)
        engines = {id(m): Mutagenesis(m, targets, size, config.precision) for m in models}

        def mutagenesis(model, codes, window, controls):  # type: ignore[no-untyped-def]
            positions = range(window.start, window.stop)
            own = None if controls is None else controls.to(device)
            if config.method == "dependency":
                return dependency_maps(engines[id(model)], codes.to(device), positions, own)
            effects = engines[id(model)](codes.to(device), positions, own)
            return centred(effects.cpu().numpy())

        at_once = next(iter(engines.values())).loci_at_once(width)
        return mutagenesis, 1 if config.method == "dependency" else at_once
    size = config.batch_size or PAIRS_AT_ONCE

    def gradients(model, codes, window, controls):  # type: ignore[no-untyped-def]
        if config.method == "gradient":
            scores = [input_gradients(model, codes, t, controls, size, bar=False) for t in targets]
            return centred(np.stack(scores)[..., window])
        scores = []
        for target in targets:
            scored, missing = deep_lift_shap(
                model, codes, target, controls, config.n_shuffles, seed=config.seed,
                batch_size=size, bar=False,
            )  # fmt: skip
            scores.append(scored)
            deltas.append(float(missing.max()))
        return np.stack(scores)[..., window]

    pairs = config.n_shuffles if config.method == "deep_lift_shap" else 1
    return gradients, max(1, GRADIENT_BATCHES * size // pairs)


def _without_n(loci: Sequences) -> Sequences:
    """The loci whose sequence is whole: a shuffle keeps no N in its place."""
    whole = np.flatnonzero((loci.codes != N_CODE).all(axis=1))
    if not len(whole):
        raise DataError("every locus holds an N, which method=deep_lift_shap cannot shuffle.")
    if len(whole) < len(loci):
        every = counted(len(loci), "locus", "loci")
        console.say(warning(f"{len(loci) - len(whole):,} of {every} left out: they hold an N"))
    return loci.take(whole)


def _offer_pictures(output: Path, loci: int, groups: list[str]) -> None:
    """Pictures of the strongest loci beside `output`; a line where they cannot be drawn."""
    with offered("logos"):
        from cherimoya.report.plots.interpret import dependency_pages, logo_pages

        attributions = read_attributions(output)
        shown = min(loci, len(attributions.sequence))
        for path in logo_pages(attributions, loci, output, groups):
            console.say(result(f"{path}: loci with the strongest bases ({shown})"))
        for path in dependency_pages(attributions, loci, output, groups):
            console.say(result(f"{path}: which base's effect depends on which, of the same loci"))


def track_path(path: Path, target: str) -> Path:
    """Where the track of a target of the file at `path` goes."""
    return path.with_name(f"{path.stem}.{target}.bw")


def write_tracks(path: Path, lengths: Mapping[str, int]) -> list[Path]:
    """A bigWig of the contributions of each target in the file at `path`, beside it.

    lengths: chromosome to bases. Where loci overlap, the mean; nothing elsewhere.
    """
    attributions = read_attributions(path)
    return [
        write_bigwig(track_path(path, name), lengths, _pieces(attributions, name))
        for name in attributions.contributions
    ]


def _pieces(attributions: Attributions, name: str) -> Iterator[Piece]:
    """Every attributed base and its value, by chromosome, sorted."""
    values = attributions.contributions[name]
    for chrom in sorted(set(attributions.chrom.tolist())):
        rows = np.flatnonzero(attributions.chrom == chrom)
        bases = attributions.start[rows, None] + np.arange(values.shape[1])
        at, index, count = np.unique(bases, return_inverse=True, return_counts=True)
        total = np.bincount(index.ravel(), weights=values[rows].ravel())
        yield chrom, at, total / count
