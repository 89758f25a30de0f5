"""HDF5 files that have the library read other files, which may be anybody's."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from loci_files import ALL_KEYS, valid_file

from cherimoya.data import hdf5
from cherimoya.errors import DataError
from cherimoya.records.attributions import read_attributions, write_attributions
from cherimoya.util.marks import mark_of, write_mark


def external(file, name, secret):
    shape, dtype = file[name].shape, file[name].dtype
    del file[name]
    size = int(np.prod(shape)) * dtype.itemsize
    file.create_dataset(name, shape, dtype, external=[(str(secret), 0, size)])


def virtual(file, name, secret):
    shape, dtype = file[name].shape, file[name].dtype
    del file[name]
    layout = h5py.VirtualLayout(shape, dtype)
    layout[:] = h5py.VirtualSource(str(secret), "x", shape, dtype)
    file.create_virtual_dataset(name, layout)


def linked(file, name, secret):
    del file[name]
    file[name] = h5py.ExternalLink(str(secret), "x")


def soft(file, name, secret):
    del file[name]
    file["elsewhere"] = h5py.ExternalLink(str(secret), "/")
    file[name] = h5py.SoftLink("/elsewhere/x")


KINDS = [external, virtual, linked, soft]


def hostile(path: Path, name: str, kind) -> Path:
    """The file with the dataset in the hands of another one, which has what is wanted."""
    with h5py.File(path, "r+") as file:
        values = file[name][:]
        secret = path.with_name("secret")
        if kind is external:
            secret.write_bytes(values.tobytes())
        else:
            with h5py.File(secret, "w") as other:
                other["x"] = values
        kind(file, name, secret)
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("keys", "name"), [(None, "signal"), (None, "start"), (ALL_KEYS, "y")])
def test_loci(keys, name, kind, tmp_path):
    path = hostile(valid_file(tmp_path, keys), name, kind)
    said = "elsewhere" if kind is soft else name
    for read in (hdf5.read, hdf5.read_header):
        with pytest.raises(DataError, match=f"valid.h5: '{said}' lies in another file"):
            read(path, keys=keys)
    with pytest.raises(DataError, match="lies in another file"):
        hdf5.is_prepared(path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("marked", [True, False])
def test_attributions(kind, marked, tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "a.h5"
    write_attributions(
        path, rng.integers(0, 5, (3, 12)).astype(np.uint8), np.array(["a", "b", "c"]),
        np.array([5, 50, 7]), {"counts_0": np.ones((3, 4, 12), np.float32)}, {}, {},
    )  # fmt: skip
    hostile(path, "contributions/counts_0", kind)
    mark_of(path).unlink()
    if marked:
        write_mark(mark_of(path), {}, [path])
    with pytest.raises(DataError, match=r"a\.h5: '\S+' lies in another file"):
        read_attributions(path)


def test_links_inside_of_a_file_are_followed(tmp_path):
    path = valid_file(tmp_path, ALL_KEYS)
    with h5py.File(path, "r+") as file:
        file.move("y", "kept")
        file["y"] = h5py.SoftLink("/kept")
    assert len(hdf5.read(path, keys=ALL_KEYS)) == 12
