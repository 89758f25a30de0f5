"""HDF5 files that the library chokes on, of other number types, or smaller than they say."""

import os
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from loci_files import ALL_KEYS, settings, small_loci, train_on

from cherimoya.data import hdf5, hdf5_probe
from cherimoya.errors import CherimoyaError, DataError
from cherimoya.util import native


def hang(path: Path) -> None:
    time.sleep(60)


def crash(path: Path) -> None:
    os.abort()


def test_a_file_that_the_library_cannot_get_through_is_refused_in_time(tmp_path, monkeypatch):
    path = hdf5.write(tmp_path / "loci.h5", small_loci())
    monkeypatch.setattr(hdf5_probe, "SECONDS", 1.0)
    monkeypatch.setattr(hdf5_probe, "look_through", hang)
    start = time.monotonic()
    with pytest.raises(DataError, match="damaged, the HDF5 library cannot get through it"):
        hdf5.read(path)
    assert time.monotonic() - start < 5
    monkeypatch.undo()
    monkeypatch.setattr(hdf5_probe, "look_through", crash)
    with pytest.raises(DataError, match="cannot get through it"):
        hdf5.read_header(path)
    monkeypatch.undo()
    assert len(hdf5.read(path)) == 12


def test_the_other_process_ends_with_this_one(tmp_path):
    path = hdf5.write(tmp_path / "loci.h5", small_loci())
    hdf5_probe.check_finishes(path)
    process = native._library().process
    assert process.poll() is None
    hdf5_probe.check_finishes(path)
    assert native._library().process is process  # one for all files
    process.stdin.close()
    assert process.wait(5) == 0
    hdf5_probe.check_finishes(path)  # by another one


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
