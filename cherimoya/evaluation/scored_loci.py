"""Which loci are scored, in which windows, and which others say what is usual."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cherimoya.config.data import DataConfig
from cherimoya.config.predict import EvaluateConfig
from cherimoya.data import hdf5
from cherimoya.data.dataset import Dataset, load_dataset
from cherimoya.data.groups import with_groups
from cherimoya.data.loci import Loci, crop
from cherimoya.errors import ConfigError, DataError
from cherimoya.genome.chrom_names import format_names, name_mismatch
from cherimoya.inference.checkpoints import Checkpoint
from cherimoya.inference.ensemble import Ensemble
from cherimoya.util.console import say

SCORED, REFERENCE = "scored", "train"


def load_scored(
    config: EvaluateConfig,
    first: Checkpoint,
    window: int | None,
    trimming: int,
) -> tuple[Dataset, str]:
    """The loci in windows of `window` bases (None: as needed), and what the scored are called.

    The rows "scored" are those of the split or chromosomes that `config` asks for. The rows
    "train" are those that baselines may look at: of the run's own training loci, else of every
    chromosome that is not scored; none when all are.
    """
    own = first.data
    if own is not None and config.data.groups is not None:
        own = replace(own, groups=config.data.groups)
    if config.chroms is None and config.split != "all":
        if own is None:
            raise ConfigError(
                f"split={config.split}: {first.name} lies in no run folder, so its split is "
                "unknown. In place of split name chromosomes that it was not trained on: "
                "'chroms=[chr1,chr3]', or set split=all for every locus."
            )
        return _of_split(config, first, own, window)
    if config.data.path is None:
        if own is None:
            raise ConfigError("data.path has no value. Set it: data.path=<file made by prepare>")
        dataset = load_dataset(own)
        loci, path, digest = dataset.loci, dataset.path, dataset.fingerprint
    else:
        path = Path(config.data.path)
        loci, digest = hdf5.read(path, keys=config.data.keys), hdf5.fingerprint(path)
        groups = config.data.groups if own is None else own.groups
        loci = with_groups(loci, groups, str(path))
    loci = fitted(loci, config, first, window, trimming, str(path))
    rows = np.arange(len(loci))
    if config.chroms is not None:
        _check_known(config.chroms, loci.chrom, str(path))
        rows = np.flatnonzero(np.isin(loci.chrom, config.chroms))
    others = np.flatnonzero(~np.isin(loci.chrom, np.unique(loci.chrom[rows])))
    named = format_names(config.chroms) if config.chroms is not None else "all"
    if not loci.label[rows].any():
        raise DataError(
            f"{path} has no peaks on {named}: nothing can be scored. Choose other chromosomes."
        )
    return Dataset(loci, {SCORED: rows, REFERENCE: others}, path, digest), named


def fitted(
    loci: Loci,
    config: EvaluateConfig,
    first: Checkpoint,
    window: int | None,
    trimming: int,
    where: str,
) -> Loci:
    """`loci` in windows of `window` bases, and of signal as asked for, else as in the run, else as
    the model needs.

    Raises ConfigError for windows that differ by something else than twice the trimming.
    """
    in_window, out_window = window, config.data.out_window or first.window[1]
    if in_window is None and out_window is None:
        out_window = min(loci.out_window, loci.in_window + 2 * loci.max_jitter - 2 * trimming)
    if in_window is None:
        assert out_window is not None
        in_window = out_window + 2 * trimming
        say(f"data.in_window {in_window:,} bases: no run says what the model was trained on")
    if out_window is None:
        out_window = in_window - 2 * trimming
    _check_windows(in_window, out_window, trimming, first)
    if (in_window, out_window) != (loci.in_window, loci.out_window):
        say(
            f"windows: {in_window} bp in, {out_window} bp out, cut from the middle of the "
            f"{loci.in_window} and {loci.out_window} of {where}"
        )
    return crop(loci, in_window, out_window, max_jitter=0, where=where)


def check_fits(dataset: Dataset, model: Ensemble, first: Checkpoint) -> None:
    """Raise ConfigError unless the model predicts the tracks of the data, from its controls."""
    loci = dataset.loci
    _check_windows(loci.in_window, loci.out_window, model.trimming, first)
    controls = 0 if loci.control is None else loci.control.shape[1]
    for what, has, held in (
        ("signal groups", model.signal_groups, list(loci.signal_groups)),
        ("control tracks", model.n_control_tracks, controls),
    ):
        if has != held:
            raise ConfigError(
                f"{first.name} has {what} {has}, but {dataset.path} has {held}. Prepare the file "
                "with tracks grouped as the model was trained, or name another checkpoint."
            )


def seen_in_training(
    checkpoints: Sequence[Checkpoint], dataset: Dataset, config: EvaluateConfig
) -> int | None:
    """How many scored loci lie on a chromosome that one of the models was trained on.

    None where no run tells, or its file names none of these. Raises ConfigError where
    split=validation or test of the first run holds what another model was trained on, which no
    held-out score may rest on.
    """
    chrom, held = dataset.loci.chrom, dataset.loci.chrom[dataset.rows[SCORED]]
    known: dict[str, set[str]] = {}
    for one in checkpoints:
        names = one.trained_on() or {}
        if set(held.tolist()) & set(names):
            known[one.name] = {name for name, trained in names.items() if trained}
    asked_for_others = config.chroms is None and config.split in ("validation", "test")
    for name, trained in known.items():
        seen = np.isin(held, sorted(trained))
        if asked_for_others and name != checkpoints[0].name and seen.any():
            free = set(chrom.tolist()).difference(*known.values())
            named = f"'chroms=[{','.join(sorted(free))}]' in place of split"
            fix = named if free else "one model at a time"
            listed = format_names(dict.fromkeys(held[seen].tolist()))
            raise ConfigError(
                f"split={config.split}: {int(seen.sum()):,} of its {len(held):,} loci lie on "
                f"{listed}, which {name} was trained on. "
                f"Score what no model was trained on: {fix}."
            )
    if not known:
        return None
    return int(np.isin(held, sorted(set().union(*known.values()))).sum())


def _of_split(
    config: EvaluateConfig, first: Checkpoint, data: DataConfig, window: int | None
) -> tuple[Dataset, str]:
    """The loci of a split of the run, in its own file or, chosen alike, in another one."""
    if config.data.path is not None:
        data = replace(data, source="hdf5", path=config.data.path, keys=config.data.keys)
    data = replace(
        data,
        in_window=window or data.in_window,
        out_window=config.data.out_window or data.out_window or first.window[1],
    )
    dataset = load_dataset(data)
    rows = dataset.rows[config.split]
    if not len(rows):
        raise ConfigError(
            f"split={config.split}: the run has no such loci. Use split=validation, or name "
            "chromosomes in place of split: 'chroms=[...]'."
        )
    others = dataset.rows["train"] if config.split != "train" else rows[:0]
    return replace(dataset, rows={SCORED: rows, REFERENCE: others}), config.split


def _check_windows(in_window: int, out_window: int, trimming: int, first: Checkpoint) -> None:
    if in_window - out_window != 2 * trimming or out_window < 1:
        raise ConfigError(
            f"data.in_window={in_window} and data.out_window={out_window}: {first.name} predicts "
            f"{2 * trimming} bases fewer than it reads. Set data.in_window="
            f"{max(out_window, 1) + 2 * trimming}, or leave both out."
        )


def _check_known(chroms: list[str], held: np.ndarray, where: str) -> None:
    names = list(dict.fromkeys(held.tolist()))
    unknown = [name for name in chroms if name not in names]
    if unknown:
        mismatch = name_mismatch(unknown, names)
        renamed = ",".join(mismatch.get(name, name) for name in chroms)
        fix = f"Set 'chroms=[{renamed}]'." if mismatch else "Use names that the file has."
        raise ConfigError(
            f"chroms names {format_names(unknown)}, which {where} does not have. In the file: "
            f"{format_names(names)}. {fix}"
        )
