"""What a model that a run builds on has seen of the chromosomes that the run holds out."""

from collections.abc import Iterable, Mapping, Sequence

from cherimoya.config.train import TrainConfig
from cherimoya.data.dataset import Dataset
from cherimoya.errors import ConfigError
from cherimoya.genome.chrom_names import format_names, name_mismatch


def check_seen(
    named: str, trained_on: Mapping[str, bool] | None, config: TrainConfig, dataset: Dataset
) -> list[str]:
    """What is to be said of held-out chromosomes that a model was trained on.

    named: the setting that names the model, for messages
    trained_on: whether it was trained on each chromosome of its data; None where that is not known

    Raises ConfigError where the run tests on one of them, unless data.seen=allow.
    """
    if trained_on is None:
        return ["nothing tells what it was trained on: test on what it cannot have seen"]
    trained = [name for name, seen in trained_on.items() if seen]
    held = {split: _chroms(dataset, split) for split in ("validation", "test")}
    seen = {split: _same(names, trained) for split, names in held.items()}
    if seen["test"] and config.data.seen != "allow":
        raise ConfigError(
            f"{named}: it was trained on {format_names(seen['test'])}, "
            "which this run tests on, so that its test scores would be too good. Test on other "
            "chromosomes (data.test_chroms or data.fold), or set data.seen=allow."
        )
    return [
        f"trained on {format_names(names)}, {what}"
        for split, what in (
            ("test", "so that the test scores are too good (data.seen=allow)"),
            ("validation", "so that validation says less of when to stop"),
        )
        if (names := seen[split])
    ]


def _chroms(dataset: Dataset, split: str) -> list[str]:
    return list(dict.fromkeys(dataset.loci.chrom[dataset.rows[split]].tolist()))


def _same(names: Iterable[str], others: Sequence[str]) -> list[str]:
    """Those of `names` that are among `others`, also as 1 for chr1."""
    listed = list(names)
    renamed = name_mismatch(listed, others)
    return [name for name in listed if name in others or name in renamed]
