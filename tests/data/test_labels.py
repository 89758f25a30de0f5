"""What marks peaks and background, in files of our own and in plain ones."""

import re
from dataclasses import replace

import h5py
import numpy as np
import pytest
from loci_files import KEYS, make_loci, plain_file

from cherimoya.data import hdf5
from cherimoya.errors import DataError


@pytest.mark.parametrize(("values", "words"), [
    (np.array([1.0, 0.7, 0.0, 1.0]), "holds 0.7 at locus 1 (1 such values)"),
    (np.array([1, 257, 256, 0]), "holds 257 at locus 1 (2 such values)"),
    (np.array([0, 1, -1, 1], np.int8), "holds -1 at locus 2"),
    (np.array([1.0, np.nan, 0.0, 1.0]), "holds nan at locus 1"),
    (np.array([b"peak", b"none", b"peak", b"peak"]), "is |S4 of shape (4,), such as 'peak'"),
    (np.array([b"1", b"0", b"1", b"1"]), "such as '1'"),
    (np.array([[1], [0], [1], [1]]), "of shape (4, 1), such as 1"),
    (np.array([1, 0, 1, 1], complex), "is complex128"),
])  # fmt: skip
def test_labels_are_0_and_1(tmp_path, values, words):
    path = plain_file(tmp_path / "plain.h5", make_loci(4), lab=values)
    keys = replace(KEYS, label="lab")
    for read in (hdf5.read_header, hdf5.read):
        with pytest.raises(DataError, match=re.escape(words)) as error:
            read(path, keys=keys)
        assert "dataset 'lab'" in str(error.value)
        assert "label: null" in str(error.value)
    own = hdf5.write(tmp_path / "own.h5", make_loci(4))
    with h5py.File(own, "r+") as file:
        del file["label"]
        file["label"] = values
    with pytest.raises(DataError, match="dataset 'label'"):
        hdf5.read_header(own)


@pytest.mark.parametrize("values", [[1.0, 0.0, 1.0, 1.0], [True, False, True, True]], ids=str)
def test_labels_may_be_any_kind_of_number(tmp_path, values):
    path = plain_file(tmp_path / "plain.h5", make_loci(4), lab=np.array(values))
    found = hdf5.read(path, keys=replace(KEYS, label="lab")).label
    assert found.dtype == np.uint8
    assert found.tolist() == [1, 0, 1, 1]
