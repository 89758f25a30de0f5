"""Folds and chromosomes left out: balanced, disjoint, the same every time."""

import numpy as np
import pytest
from omegaconf import OmegaConf
from toy import CONF

from cherimoya.config.data import FOLDS, DataConfig, SyntheticConfig
from cherimoya.config.schema import build
from cherimoya.data import hdf5
from cherimoya.data.splits import beside, folds, split_rows
from cherimoya.data.synthetic import simulate
from cherimoya.errors import ConfigError, DataError

HUMAN = [2000, 1600, 1300, 1000, 1000, 1100, 1000, 800, 800, 900, 1000, 900, 500, 600, 600, 700]
HUMAN += [900, 400, 800, 500, 200, 400, 600, 10]


def loci(counts: list[int], background: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """chrom and label of `counts` peaks on chr1, chr2, ... and some background on each."""
    names = np.array([f"chr{i}" for i in range(1, len(counts) + 1)])
    chrom = np.concatenate([np.repeat(names, counts), np.repeat(names, background)])
    label = (np.arange(len(chrom)) < sum(counts)).astype(np.uint8)
    return chrom, label


def config(**values) -> DataConfig:
    """conf/data/hdf5.yaml with `values` on top."""
    given = OmegaConf.to_container(OmegaConf.load(CONF.parent / "data" / "hdf5.yaml"))
    return build(DataConfig, given | {"path": "x.h5"} | values)


@pytest.mark.parametrize("counts", [HUMAN, [10] * 5, [100, 1, 1, 1, 1, 1], [5, 0, 7, 9, 9, 3, 2]])
def test_folds_share_the_peaks(counts: list[int]) -> None:
    chrom, label = loci(counts)
    found = folds(chrom, label)
    assert len(found) == FOLDS
    assert sorted(name for names in found for name in names) == sorted(set(chrom))
    peaks = [int(label[np.isin(chrom, names)].sum()) for names in found]
    # no fold exceeds the mean by more than its own largest chromosome could force
    assert min(peaks) > 0
    assert max(peaks) <= max(max(counts), sum(counts) / FOLDS * 4 / 3)
    if counts is HUMAN:
        assert max(peaks) / min(peaks) < 1.05
    order = np.random.default_rng(0).permutation(len(chrom))
    assert folds(chrom[order], label[order]) == found


def test_every_fold_tests_and_validates_each_locus_once() -> None:
    chrom, label = loci(HUMAN)
    held = {"test": np.zeros(len(chrom), int), "validation": np.zeros(len(chrom), int)}
    for fold in range(FOLDS):
        rows = split_rows(config(fold=fold), chrom, label, "x.h5")
        assert sorted(np.concatenate(list(rows.values()))) == list(range(len(chrom)))
        for split, count in held.items():
            count[rows[split]] += 1
        assert not set(chrom[rows["test"]]) & set(chrom[rows["train"]])
    assert all((count == 1).all() for count in held.values())


def test_an_excluded_chromosome_is_in_no_fold() -> None:
    chrom, label = loci(HUMAN)
    rows = split_rows(config(fold=1, exclude_chroms=["chr1"]), chrom, label, "x.h5")
    assert "chr1" not in chrom[np.concatenate(list(rows.values()))]


def test_one_chromosome_left_out() -> None:
    chrom, label = loci([10, 30, 50, 9, 1])
    for left_out, validation in (("chr1", "chr4"), ("chr3", "chr1")):
        rows = split_rows(config(leave_out=left_out), chrom, label, "x.h5")
        assert set(chrom[rows["test"]]) == {left_out}
        assert set(chrom[rows["validation"]]) == {validation}
        assert len(set(chrom[rows["train"]])) == 3
    assert beside("chr3", chrom, label, exclude=["chr1"]) == "chr4"
    with pytest.raises(DataError, match=r"leave_out=chr9.*-m data.leave_out=.*") as raised:
        split_rows(config(leave_out="chr9"), chrom, label, "x.h5")
    assert "chr1,chr2,chr3,chr4,chr5" in str(raised.value)


def test_too_few_chromosomes_for_folds() -> None:
    chrom, label = loci([5, 5, 0, 0, 5, 5])
    with pytest.raises(DataError, match=r"5 chromosomes.*x.h5 has them on chr1, chr2, chr5, chr6"):
        split_rows(config(fold=0), chrom, label, "x.h5")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fold": 0, "validation_chroms": ["a"]}, r"two ways.*with data.validation_chroms=null"),
        ({"fold": 0, "leave_out": "a"}, r"data.fold=0 and data.leave_out=a: .*leave_out=null"),
        ({"leave_out": "a", "test_chroms": []}, r"two ways.*data.test_chroms=null"),
        ({"fold": 5}, "data.fold|fold=5: must be at most 4"),
        ({"fold": -1}, "fold=-1: must be at least 0"),
        ({}, r"data.validation_chroms has no value.*data.fold, from 0 to 4"),
        ({"validation_chroms": ["a"]}, "data.test_chroms has no value"),
        ({"validation_chroms": ["a"], "test_chroms": ["a"]}, "belongs to one split"),
    ],
)
def test_ways_to_split_that_cannot_be(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**values)


@pytest.mark.slow
def test_a_run_of_a_fold_says_what_it_holds_out(tmp_path, cherimoya_train) -> None:
    simulated = SyntheticConfig(
        seed=1, n_chromosomes=6, n_peaks=64, n_background=8, mean_count=200.0
    )
    path = hdf5.write(tmp_path / "six.h5", simulate(simulated, 200, 100, 8))
    asked = ["data=hdf5", f"data.path={path}", "data.fold=1", "model=tiny", "logger=none"]
    asked += ["trainer.max_epochs=1", "optim.warmup_epochs=1", "trainer.plots=false"]
    done = cherimoya_train(*asked, "trainer.batch_size=4", "trainer.threads=1")
    header = hdf5.read_header(path)
    held = folds(header.chrom, header.label)
    wanted = f"held out  validation {', '.join(sorted(held[2]))}; test {', '.join(sorted(held[1]))}"
    assert wanted in done.stdout, done.stdout + done.stderr
