"""Which loci train, validate and test: by chromosome, chosen when training starts."""

from collections.abc import Collection

import numpy as np

from cherimoya.config.data import FOLDS, DataConfig
from cherimoya.errors import DataError
from cherimoya.genome.chrom_names import format_names, name_mismatch
from cherimoya.util.console import counted


def select_splits(
    chrom: np.ndarray,
    label: np.ndarray,
    *,
    train: Collection[str] | None,
    validation: Collection[str],
    test: Collection[str] = (),
    exclude: Collection[str] = (),
    where: str = "the data file",
) -> dict[str, np.ndarray]:
    """Row numbers (int64, ascending) of "train", "validation" and "test".

    chrom (n,) and label (n,) are those of the file `where`. `train=None` takes every chromosome
    that is not named otherwise. Raises DataError for a chromosome that the file does not have,
    one that no split names while `train` is given, and a split without peaks.
    """
    held = list(dict.fromkeys(chrom.tolist()))
    named = {"train": train, "validation": validation, "test": test, "exclude": exclude}
    for split, names in named.items():
        _check_known(split, names or (), held, where)
    if train is None:
        others = {*validation, *test, *exclude}
        named["train"] = [name for name in held if name not in others]
    else:
        _check_all_used(named, held, where)
    rows = {}
    for split in ("train", "validation", "test"):
        chosen = named[split] or ()
        rows[split] = np.flatnonzero(np.isin(chrom, np.array(sorted(chosen), dtype=str)))
        if chosen or split != "test":
            _check_has_peaks(split, chosen, label[rows[split]], where)
    return rows


def split_rows(
    config: DataConfig, chrom: np.ndarray, label: np.ndarray, where: str
) -> dict[str, np.ndarray]:
    """`select_splits` by whatever `config` says: lists, a fold, or a chromosome left out."""
    train, validation, test = config.train_chroms, config.validation_chroms, config.test_chroms
    if config.fold is not None:
        held = folds(chrom, label, config.exclude_chroms, where)
        train, test = None, held[config.fold]
        validation = held[(config.fold + 1) % FOLDS]
    elif config.leave_out is not None:
        train, test = None, [config.leave_out]
        validation = [beside(config.leave_out, chrom, label, config.exclude_chroms, where)]
    return select_splits(
        chrom,
        label,
        train=train,
        validation=validation or (),
        test=test or (),
        exclude=config.exclude_chroms,
        where=where,
    )


def folds(
    chrom: np.ndarray, label: np.ndarray, exclude: Collection[str] = (), where: str = "the file"
) -> list[list[str]]:
    """FOLDS lists of chromosomes with about as many peaks each; all but those in `exclude`.

    The chromosome with most peaks goes first, each to the fold with fewest so far: the same
    peaks give the same folds. Raises DataError for fewer chromosomes with peaks than folds.
    """
    peaks = _peaks(chrom, label, exclude)
    if sum(count > 0 for count in peaks.values()) < FOLDS:
        held = format_names(name for name, count in peaks.items() if count)
        raise DataError(
            f"data.fold needs peaks on {FOLDS} chromosomes or more, but {where} has them on "
            f"{held}. Name the chromosomes: "
            "data.fold=null data.validation_chroms=[...] data.test_chroms=[...]"
        )
    lists: list[list[str]] = [[] for _ in range(FOLDS)]
    for name in sorted(peaks, key=lambda name: (-peaks[name], name)):
        min(lists, key=lambda names: sum(peaks[n] for n in names)).append(name)
    return lists


def beside(
    left_out: str,
    chrom: np.ndarray,
    label: np.ndarray,
    exclude: Collection[str] = (),
    where: str = "the file",
) -> str:
    """The chromosome that validates while `left_out` is tested: nearest to a tenth of the peaks.

    Raises DataError when there is no such chromosome, naming those that can be left out.
    """
    peaks = _peaks(chrom, label, exclude)
    others = {name: count for name, count in peaks.items() if count and name != left_out}
    if not peaks.get(left_out) or len(others) < 2:
        raise DataError(
            f"data.leave_out={left_out}: no chromosome with peaks in {where}, or the last but one. "
            f"Leave out one of {','.join(name for name, count in peaks.items() if count)} (all of "
            "them in turn: -m data.leave_out=<these>)."
        )
    tenth = sum(peaks.values()) / 10
    return min(others, key=lambda name: (abs(others[name] - tenth), name))


def _peaks(chrom: np.ndarray, label: np.ndarray, exclude: Collection[str]) -> dict[str, int]:
    """The number of peaks on each chromosome that is not excluded."""
    names, counts = np.unique(chrom, return_inverse=True)
    peaks = np.bincount(counts, weights=label == 1, minlength=len(names))
    return {
        name: int(count)
        for name, count in zip(names.tolist(), peaks, strict=True)
        if name not in exclude
    }


def _check_known(split: str, names: Collection[str], held: list[str], where: str) -> None:
    unknown = [name for name in names if name not in held]
    mismatch = name_mismatch(unknown, held)
    if not unknown or (split == "exclude" and not mismatch):  # nothing to leave out is no harm
        return
    fix = f"Use names that the file has, or remove them from data.{split}_chroms."
    if mismatch:
        renamed = ",".join(mismatch.get(name, name) for name in names)
        fix = f"The two are named differently: set 'data.{split}_chroms=[{renamed}]'."
    raise DataError(
        f"data.{split}_chroms names {format_names(unknown)}, which {where} does not have. "
        f"Named: {format_names(names)}. In the file: {format_names(held)}. {fix}"
    )


def _check_all_used(named: dict[str, Collection[str] | None], held: list[str], where: str) -> None:
    used = {name for names in named.values() for name in names or ()}
    left = [name for name in held if name not in used]
    if left:
        raise DataError(
            f"{where} has {format_names(left)}, which no split names. Add to data.train_chroms, "
            "data.validation_chroms or data.test_chroms, or leave out with "
            f"'data.exclude_chroms=[{','.join(left)}]'."
        )


def _check_has_peaks(split: str, chosen: Collection[str], label: np.ndarray, where: str) -> None:
    if label.any():
        return
    held = (
        f"{counted(len(label), 'background locus', 'background loci')} and no peaks"
        if len(label)
        else "no loci"
    )
    raise DataError(
        f"the {split} split has {held}: data.{split}_chroms={format_names(chosen)} in {where}. "
        "Choose chromosomes with peaks (background alone cannot train or score a model)."
    )
