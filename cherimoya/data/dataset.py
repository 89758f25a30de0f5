"""The loci of a training run, with their splits, from whatever `data=...` chose."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cherimoya import registry
from cherimoya.config.data import FILE, DataConfig
from cherimoya.config.schema import Choice, to_dict
from cherimoya.data import hdf5, synthetic
from cherimoya.data.cache import made_once
from cherimoya.data.groups import group_labels, with_groups
from cherimoya.data.loci import Loci, crop, crop_sizes, without_controls
from cherimoya.data.splits import split_rows
from cherimoya.errors import ConfigError, DataError
from cherimoya.util.console import counted
from cherimoya.util.own_code import code_digest, own_errors

LEAST_PEAKS = 0.01  # share of the training peaks, of the fewest counts


@dataclass(frozen=True)
class Dataset:
    """Loci in the windows of the run, the rows of each split, and the file they came from."""

    loci: Loci
    rows: dict[str, np.ndarray]  # "train", "validation", "test"
    path: Path
    fingerprint: str

    def peaks(self, split: str) -> np.ndarray:
        """The rows of the peaks of a split."""
        rows = self.rows[split]
        return rows[self.loci.label[rows] == 1]

    def peak_signal(self, split: str) -> np.ndarray:
        """The signal of the peaks of a split, without jitter: (n, tracks, out_window)."""
        j = self.loci.max_jitter
        return self.loci.signal[self.peaks(split)][:, :, j : j + self.loci.out_window]

    def mean_log_counts(self, split: str) -> np.ndarray:
        """The mean of log(1 + total counts) over the peaks of a split, by signal group: (groups,).

        Background has no part in it, as the counts of peaks are what is scored.
        """
        return np.log1p(self.loci.totals(self.peaks(split))).mean(axis=0)


def check_file(config: DataConfig) -> None:
    """Raise what `load_dataset` would, as far as a file's header tells; it holds no sequences."""
    if config.source == FILE:
        path, header, _ = _split(config)
        with_groups(header, config.groups, str(path))
        crop_sizes(header, config.in_window, config.out_window, config.max_jitter, str(path))


def load_dataset(config: DataConfig) -> Dataset:
    """Read, cut and split the data; simulate it first if need be.

    Raises DataError or ConfigError for whatever is wrong with the file or the splits.
    """
    path, _, rows = _split(config)
    held = hdf5.read(path, keys=config.keys)
    held = with_groups(held, config.groups, str(path))
    loci = crop(held, config.in_window, config.out_window, config.max_jitter, str(path))
    dataset = Dataset(loci, rows, path, hdf5.fingerprint(path))
    factor = config.background_below
    return dataset if factor is None else background_alone(dataset, factor)


def background_alone(dataset: Dataset, factor: float) -> Dataset:
    """The background loci of few counts, which take the place of the peaks.

    Few are, in each signal group, at most `factor` times the counts that 1 % of the training peaks
    have at most, as ChromBPNet's bias_threshold_factor (Pampari et al. 2024). Controls are left
    out. Raises DataError where a split has none, or a group no counts.
    """
    loci = dataset.loci
    totals = loci.totals()
    least = np.quantile(totals[dataset.peaks("train")], LEAST_PEAKS, axis=0)
    for name, weakest in zip(group_labels(loci), least, strict=True):
        if not weakest:
            raise DataError(
                f"data.background_below={factor:g}: the weakest {LEAST_PEAKS:.0%} of the training "
                f"peaks of {dataset.path} have no counts in {name}, and no background has fewer. "
                "Leave that group out (data.groups), or prepare peaks that have some (min_counts)."
            )
    few = (loci.label == 0) & (totals <= factor * least).all(axis=1)
    rows = {split: rows[few[rows]] for split, rows in dataset.rows.items()}
    for split in rows:
        if not len(rows[split]) and len(dataset.rows[split]):
            most = ", ".join(f"{factor * value:,.0f}" for value in least)
            n = len(dataset.rows[split]) - len(dataset.peaks(split))
            held = counted(n, "background locus", "background loci")
            raise DataError(
                f"data.background_below={factor:g}: of {held} of the {split} split of "
                f"{dataset.path} none has {most} counts or fewer, {factor:g} times what the "
                f"weakest {LEAST_PEAKS:.0%} of the training peaks have. Raise it, or prepare more "
                "background (background_ratio)."
            )
    kept = np.concatenate([*rows.values()])
    for name, most, held in zip(
        group_labels(loci), factor * least, totals[kept].sum(axis=0), strict=True
    ):
        if not held:
            raise DataError(
                f"data.background_below={factor:g}: the background of at most {most:,.1f} counts, "
                f"{factor:g} times what the weakest {LEAST_PEAKS:.0%} of the training peaks of "
                f"{dataset.path} have, has no counts at all in {name}. Raise it, or leave that "
                "group out (data.groups)."
            )
    loci = replace(without_controls(loci), label=few.astype(np.uint8))
    return replace(dataset, loci=loci, rows=rows)


def _split(config: DataConfig) -> tuple[Path, hdf5.Header, dict[str, np.ndarray]]:
    """The file of the data, its header, and the rows of each split.

    Raises DataError where names of datasets are given for a file that has its own.
    """
    path = data_file(config)
    if config.keys is not None and hdf5.is_prepared(path):
        raise DataError(
            f"data.keys names datasets of a plain file, but {path} was made by cherimoya-prepare, "
            "which names them itself. Leave data.keys out."
        )
    header = hdf5.read_header(path, config.keys)
    return path, header, split_rows(config, header.chrom, header.label, str(path))


def data_file(config: DataConfig) -> Path:
    """The file of the data, which is made first where nothing is read and it is not there yet."""
    if config.source == FILE:
        assert config.path is not None
        return Path(config.path)
    if own := config.own_source:
        return _made_by(own, config.cache_dir)
    assert config.synthetic is not None
    windows = (config.in_window, config.out_window, config.max_jitter)
    if None in windows:
        raise DataError(
            "data=synthetic needs data.in_window, data.out_window and data.max_jitter: "
            "there is no file to take them from."
        )
    return synthetic.cached(config.synthetic, *windows, config.cache_dir)  # type: ignore[arg-type]


def _made_by(chosen: Choice, cache_dir: str | None) -> Path:
    """The file of a source of the user's own, made anew when its settings or its module change."""
    source = registry.find(chosen.group, chosen.name, chosen.group)
    parameters = {**to_dict(chosen), "code": code_digest(source)}

    def make() -> Loci:
        named = f"data.source={chosen.name}: loci()"
        with own_errors(named):
            loci = chosen.make().loci()
        if not isinstance(loci, Loci):
            raise ConfigError(
                f"{named} returned {type(loci).__name__}: expected cherimoya.data.loci.Loci"
            )
        return loci

    return made_once(source.__name__.lower(), parameters, make, cache_dir)
