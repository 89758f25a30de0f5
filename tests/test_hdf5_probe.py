"""HDF5 files that the library chokes on, of other number types, or smaller than they say."""

import os
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from test_changes import made_of
from test_hdf5 import plain_file

from cherimoya.config.data import DataConfig, KeysConfig
from cherimoya.data import hdf5, hdf5_probe
from cherimoya.data.batches import plan_epoch
from cherimoya.data.dataset import check_file, load_dataset
from cherimoya.data.feed import Resident
from cherimoya.errors import CherimoyaError, DataError
from cherimoya.evaluation import baselines

ALL_KEYS = KeysConfig(sequence="X", signal="y", control="z", label="l", chrom="n")


def small_loci(n: int = 12) -> hdf5.Loci:
    """Loci of 8 bases on three chromosomes, with everything that a file can hold."""
    rng = np.random.default_rng(3)
    return hdf5.Loci(
        sequence=rng.integers(0, 5, (n, 10), dtype=np.uint8),
        signal=rng.poisson(2, (n, 2, 6)).astype(np.uint8),
        control=rng.poisson(1, (n, 1, 10)).astype(np.uint8),
        label=(np.arange(n) % 3 > 0).astype(np.uint8),
        chrom=np.array(["a", "b", "c"])[np.arange(n) * 3 // n],
        start=np.arange(n) * 100,
        end=np.arange(n) * 100 + 10,
        in_window=8,
        out_window=4,
        max_jitter=1,
        track_names=["plus", "minus"],
        control_names=["input"],
        signal_groups=[2],
        control_groups=[1],
        genome="toy",
        provenance={"sources": []},
        truth={"expected": rng.random((n, 2, 6), np.float32)},
    )


def valid_file(folder: Path, keys: KeysConfig | None) -> Path:
    """A prepared file, or with `keys` a plain one."""
    loci, path = small_loci(), folder / "valid.h5"
    if keys is None:
        return hdf5.write(path, loci)
    return plain_file(path, loci, z=loci.control, l=loci.label, n=np.char.encode(loci.chrom))


def settings() -> DataConfig:
    """Of a training on such a file."""
    words = ["data=hdf5", "data.path=x", "data.validation_chroms=[b]", "data.test_chroms=[c]"]
    return made_of(words).config.data


def train_on(config: DataConfig, path: Path, keys: KeysConfig | None) -> None:
    """What a training reads of the file: loci, examples of an epoch, and what it compares with."""
    config = DataConfig(**vars(config) | {"path": str(path), "keys": keys})
    check_file(config)
    dataset = load_dataset(config)
    loci, rows = dataset.loci, dataset.rows["train"]
    plan = plan_epoch(0, 0, loci.label[rows], 0.5, loci.max_jitter, True)
    tables = Resident(loci, torch.device("cpu")).tables
    first = (rows[plan.locus[:8]], plan.shift[:8], plan.flip[:8])
    batch = tables.gather(*(torch.from_numpy(values) for values in first))
    assert torch.isfinite(batch.signal.float()).all()
    assert set(batch.X.unique().tolist()) <= {0, 1}
    baselines.average_profile(dataset, "validation").metrics()
    baselines.ceiling(dataset, "validation")


def test_a_file_that_the_library_cannot_get_through_is_refused_in_time(tmp_path, monkeypatch):
    path = hdf5.write(tmp_path / "loci.h5", small_loci())
    helper = hdf5_probe._Helper()
    monkeypatch.setattr(hdf5_probe, "_helper", lambda: helper)
    monkeypatch.setattr(hdf5_probe, "SECONDS", 1.0)
    monkeypatch.setattr(hdf5_probe, "SERVE", "import time; time.sleep(60)")
    start = time.monotonic()
    with pytest.raises(DataError, match="damaged, the HDF5 library cannot get through it"):
        hdf5.read(path)
    assert time.monotonic() - start < 5
    monkeypatch.setattr(hdf5_probe, "SERVE", "import os; os.abort()")
    with pytest.raises(DataError, match="cannot get through it"):
        hdf5.read_header(path)
    monkeypatch.undo()
    assert len(hdf5.read(path)) == 12


def test_the_helper_ends_with_its_process(tmp_path):
    path = hdf5.write(tmp_path / "loci.h5", small_loci())
    helper = hdf5_probe._Helper()
    assert helper.finishes(path, 20)
    process = helper._process
    assert process.poll() is None
    assert helper.finishes(path, 20)
    assert helper._process is process  # one for all files
    process.stdin.close()
    assert process.wait(5) == 0
    assert helper.finishes(path, 20)
    os.kill(helper._process.pid, 9)


@pytest.mark.parametrize("kind", [">i2", "<i8", "<u2", "<f8", "<f2", ">f4", "i1", "?"])
def test_counts_of_any_number_type_train(tmp_path, kind):
    path = hdf5.write(tmp_path / "loci.h5", small_loci())
    with h5py.File(path, "r+") as file:
        values = file["signal"][()]
        del file["signal"]
        file["signal"] = (values > 0 if kind == "?" else values).astype(kind)
    read = hdf5.read(path).signal
    assert read.dtype in (np.uint8, np.float32)
    np.testing.assert_array_equal(read, values > 0 if kind == "?" else values)
    train_on(settings(), path, None)


def test_names_of_datasets_for_a_file_that_has_its_own_are_refused(tmp_path):
    path = hdf5.write(tmp_path / "loci.h5", small_loci())
    with pytest.raises(DataError, match=r"made by cherimoya-prepare.*Leave data.keys out"):
        train_on(settings(), path, ALL_KEYS)


def test_a_dataset_larger_than_its_file_is_refused(tmp_path):
    path = hdf5.write(tmp_path / "loci.h5", small_loci())
    with h5py.File(path, "r+") as file:
        del file["signal"]
        file.create_dataset("signal", (12, 2, 1 << 40), "u1", chunks=(1, 1, 64), compression="gzip")
    with pytest.raises(DataError, match=r"'signal' is said to hold .* bytes, in 0 of the file"):
        hdf5.read(path)
    with pytest.raises(CherimoyaError):
        hdf5.read(path, rows=np.array([0]))
