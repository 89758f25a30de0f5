"""The HDF5 file: what goes in comes out, and each way it can be wrong has its message."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from command_lines import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st
from loci_files import IN, JITTER, KEYS, OUT, N, make_loci, plain_file

from cherimoya.config.data import KeysConfig
from cherimoya.data import hdf5
from cherimoya.data.loci import crop, smallest_integers
from cherimoya.data.splits import select_splits
from cherimoya.errors import DataError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return hdf5.write(tmp_path / "loci.h5", make_loci())


def assert_same(a: hdf5.Loci, b: hdf5.Loci) -> None:
    assert a.arrays().keys() == b.arrays().keys()
    for name, values in a.arrays().items():
        np.testing.assert_array_equal(values, b.arrays()[name], err_msg=name)
        assert values.dtype == b.arrays()[name].dtype, name
    for name in ("in_window", "out_window", "max_jitter", "genome", "provenance"):
        assert getattr(a, name) == getattr(b, name)
    for name in ("track_names", "control_names", "signal_groups", "control_groups"):
        assert getattr(a, name) == getattr(b, name)


def damaged(path: Path, edit) -> Path:
    with h5py.File(path, "r+") as file:
        edit(file)
    return path


def replaced(name: str, values: np.ndarray):
    def edit(file: h5py.File) -> None:
        del file[name]
        file[name] = values

    return edit


def test_what_is_written_is_read(path: Path) -> None:
    assert_same(hdf5.read(path), make_loci())


def test_rows_keep_their_order_and_repeats(path: Path) -> None:
    rows = np.array([7, 3, 29, 3, 0])
    assert_same(hdf5.read(path, rows=rows), make_loci().take(rows))


def test_rows_across_many_chunks(tmp_path: Path) -> None:
    loci = make_loci(9000)
    rows = np.random.default_rng(1).permutation(9000)[:500]
    read = hdf5.read(hdf5.write(tmp_path / "many.h5", loci), rows=rows)
    assert_same(read, loci.take(rows))


def test_header_has_counts_without_the_arrays(path: Path) -> None:
    header = hdf5.read_header(path)
    assert (header.n, header.in_window, header.out_window, header.max_jitter) == (30, 40, 20, 6)
    assert header.chromosomes() == {"chr1": (6, 4), "chr2": (7, 3), "chrX": (7, 3)}
    assert header.signal_groups == [1, 2]
    assert header.signal_dtype == "int16"
    assert header.truth_names == ["expected", "rate"]


def test_provenance_over_64_kilobytes(tmp_path: Path) -> None:
    loci = replace(make_loci(), provenance={"sources": ["x" * 100] * 1000})
    assert len(hdf5.read(hdf5.write(tmp_path / "p.h5", loci)).provenance["sources"]) == 1000


def test_same_loci_same_bytes(tmp_path: Path) -> None:
    one, two = (hdf5.write(tmp_path / name, make_loci()) for name in ("1.h5", "2.h5"))
    assert hdf5.fingerprint(one) == hdf5.fingerprint(two)
    other = hdf5.write(tmp_path / "3.h5", make_loci(seed=1))
    assert hdf5.fingerprint(one) != hdf5.fingerprint(other)


def test_an_interrupted_write_leaves_what_was_there(path: Path, monkeypatch) -> None:
    before = hdf5.fingerprint(path)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(hdf5, "_write_dataset", interrupted)
    with pytest.raises(KeyboardInterrupt):
        hdf5.write(path, make_loci(seed=1))
    assert hdf5.fingerprint(path) == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_refused_write_is_one_message(tmp_path: Path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hdf5, "_write_dataset", full)
    with pytest.raises(DataError, match=r"No space left.*Free space"):
        hdf5.write(tmp_path / "full.h5", make_loci())
    assert list(tmp_path.iterdir()) == []


def test_write_refuses_what_read_would_refuse(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'label' has shape \(3,\)"):
        hdf5.write(tmp_path / "bad.h5", replace(make_loci(), label=np.ones(3, np.uint8)))
    assert list(tmp_path.iterdir()) == []


def test_does_not_import_torch() -> None:
    code = "import sys, cherimoya.data.hdf5; sys.exit('torch' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p.unlink(), "no such file.*cherimoya-prepare"),
        (lambda p: p.write_bytes(b""), "empty"),
        (lambda p: p.write_text("chr1\t0\t10\n"), "not an HDF5 file"),
        (lambda p: p.write_bytes(p.read_bytes()[:3000]), "truncated or damaged"),
        (lambda p: p.write_bytes(p.read_bytes()[:-500]), "truncated or damaged"),
        (lambda p: damaged(p, lambda f: f.attrs.__delitem__("format")), "no format.*sequence"),
        (lambda p: damaged(p, lambda f: f.attrs.__setitem__("format", "other")), "'other'"),
        (lambda p: damaged(p, lambda f: f.attrs.__setitem__("version", 2)), "version 2.*version 1"),
        (lambda p: damaged(p, lambda f: f.attrs.__delitem__("in_window")), "attributes are damage"),
        (lambda p: damaged(p, lambda f: f.__delitem__("label")), "dataset 'label' is missing"),
    ],
)
def test_files_that_cannot_be_opened(path: Path, make, message: str) -> None:
    make(path)
    for read in (hdf5.read, hdf5.read_header):
        with pytest.raises(DataError, match=message) as raised:
            read(path)
        assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("label", lambda v: v[:-1], "'label' has shape .*agree"),
        ("control", lambda v: v[:-1], "'control' has shape"),
        ("sequence", lambda v: v[:, :-1], r"'sequence' has shape \(30, 51\).*\(30, 52\)"),
        ("signal", lambda v: v[:, :, :-2], r"'signal' has shape \(30, 3, 30\).*\(30, 3, 32\)"),
        ("signal", lambda v: v[:, :2], r"signal_groups=\[1, 2\] adds up to 3 tracks.*are 2"),
        ("control", lambda v: v[:, :1], r"control_groups=\[2\]"),
        ("sequence", lambda v: v + np.uint8(3), "'sequence'.*holds 7"),
        ("label", lambda v: v * np.uint8(2), "'label' holds 2"),
        ("signal", lambda v: v - np.int16(50), "'signal' holds -.* at locus 0.*0 or more"),
        ("signal", lambda v: np.where(v > 5, np.nan, v), "'signal' holds nan at locus"),
        ("signal", lambda v: np.where(v > 5, np.inf, v), "'signal' holds inf"),
        ("control", lambda v: v.astype(float) - 0.5, "'control' holds -0.5"),
    ],
)
def test_contents_that_cannot_be_used(path: Path, name: str, change, message: str) -> None:
    damaged(path, replaced(name, change(getattr(make_loci(), name))))
    with pytest.raises(DataError, match=message) as raised:
        hdf5.read(path)
    assert str(path) in str(raised.value)


def test_no_loci(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no loci"):
        hdf5.write(tmp_path / "none.h5", make_loci().take(np.arange(0)))


@given(
    st.integers(1, IN + 10), st.integers(1, OUT + 10), st.integers(0, JITTER + 8), st.integers(0, 9)
)
@settings(max_examples=200, deadline=None)
def test_crop_keeps_the_centre_or_says_what_is_stored(
    in_window: int, out_window: int, jitter: int, row: int
) -> None:
    loci = make_loci(10)
    room = IN + 2 * JITTER - in_window - 2 * jitter, OUT + 2 * JITTER - out_window - 2 * jitter
    if out_window > in_window or (in_window - out_window) % 2 or min(room) < 0:
        with pytest.raises(DataError, match=r"data\.(in|out)_window=\d+.*store"):
            crop(loci, in_window, out_window, jitter)
        return
    cut = crop(loci, in_window, out_window, jitter)
    center, middle = (IN + 2 * JITTER) // 2, (OUT + 2 * JITTER) // 2
    assert cut.sequence.shape == (10, in_window + 2 * jitter)
    assert cut.signal.shape == (10, 3, out_window + 2 * jitter)
    at, out_at = cut.sequence.shape[1] // 2, cut.signal.shape[2] // 2
    assert cut.sequence[row, at] == loci.sequence[row, center]
    assert cut.control[row, 1, at] == loci.control[row, 1, center]
    np.testing.assert_array_equal(cut.signal[row, :, out_at], loci.signal[row, :, middle])
    expected = loci.truth["expected"][row, :, middle]
    np.testing.assert_array_equal(cut.truth["expected"][row, :, out_at], expected)
    assert cut.start[row] + at == loci.start[row] + center
    assert cut.end[row] - cut.start[row] == cut.sequence.shape[1]


def test_crop_message_says_the_fix() -> None:
    with pytest.raises(
        DataError, match=r"data.in_window=48 with data.max_jitter=6.*jitter=2 or le"
    ):
        crop(make_loci(), in_window=48)
    with pytest.raises(DataError, match=r"Set data.in_window smaller.*in_window=100 max_jitter=6"):
        crop(make_loci(), in_window=100)
    assert crop(make_loci(), in_window=48, max_jitter=2).sequence.shape == (N, 52)


def split(**named) -> dict[str, np.ndarray]:
    loci = make_loci()
    return select_splits(loci.chrom, loci.label, where="loci.h5", **{"train": None} | named)


def test_splits_by_chromosome() -> None:
    rows = split(validation=["chr2"], test=["chrX"])
    assert {name: list(r) for name, r in rows.items()} == {
        "train": list(range(10)),
        "validation": list(range(10, 20)),
        "test": list(range(20, 30)),
    }
    assert len(split(validation=["chr2"])["train"]) == 20
    assert len(split(validation=["chr2"], exclude=["chrX", "chrM"])["train"]) == 10
    assert len(split(validation=["chr2"], exclude=["chrX"])["test"]) == 0


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"validation": ["chr9"]}, "validation_chroms names chr9.*In the file: chr1, chr2, chrX"),
        ({"validation": ["2"]}, r"'data.validation_chroms=\[chr2\]'"),
        ({"validation": ["chr2", "x"]}, r"names x.*data.validation_chroms=\[chr2,chrX\]"),
        ({"validation": ["chr2"], "exclude": ["X"]}, r"data.exclude_chroms=\[chrX\]"),
        ({"train": ["chr1"], "validation": ["chr2"]}, r"has chrX.*data.exclude_chroms=\[chrX\]"),
        ({"validation": ["chr1", "chr2", "chrX"]}, "train split has no loci"),
    ],
)
def test_splits_that_cannot_be(named: dict, message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        split(**named)
    assert "loci.h5" in str(raised.value)


def test_a_split_of_background_alone() -> None:
    chrom, label = np.array(["a", "b", "b"]), np.array([1, 0, 0], np.uint8)
    with pytest.raises(DataError, match="validation split has 2 background loci and no peaks"):
        select_splits(chrom, label, train=None, validation=["b"])


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([0, 255], np.uint8),
        ([0, 256], np.int16),
        ([0.0, 40_000.0], np.int32),
        ([0.5, 3.0], np.float32),
        ([2.0**35], np.float32),
    ],
)
def test_smallest_integers(values: list[float], dtype: type) -> None:
    assert smallest_integers(np.array(values)).dtype == dtype
    np.testing.assert_array_equal(smallest_integers(np.array(values)), np.array(values))


def test_a_plain_file(tmp_path: Path) -> None:
    read = hdf5.read(plain_file(tmp_path / "plain.h5"), keys=KEYS)
    np.testing.assert_array_equal(read.sequence, make_loci().sequence)
    np.testing.assert_array_equal(read.signal, make_loci().signal[:, :2])
    assert (read.in_window, read.out_window, read.max_jitter) == (52, 32, 0)
    assert read.signal_groups == [2]
    assert read.control is None
    assert read.label.all()
    assert list(np.unique(read.chrom)) == [f"part{i}" for i in range(10)]
    assert list(read.chrom) == sorted(read.chrom)


def test_a_plain_file_with_everything(tmp_path: Path) -> None:
    loci = make_loci()
    path = plain_file(
        tmp_path / "plain.h5", c=loci.control, l=loci.label == 1, n=np.char.encode(loci.chrom)
    )
    keys = KeysConfig(sequence="X", signal="y", control="c", label="l", chrom="n")
    rows = np.array([29, 4, 11])
    read, wanted = hdf5.read(path, rows=rows, keys=keys), loci.take(rows)
    np.testing.assert_array_equal(read.signal, wanted.signal[:, :2])
    for name in ("sequence", "control", "label", "chrom"):
        np.testing.assert_array_equal(getattr(read, name), getattr(wanted, name))
    assert hdf5.read_header(path, keys).chromosomes() == {
        "chr1": (6, 4),
        "chr2": (7, 3),
        "chrX": (7, 3),
    }


def test_plain_parts_hold_peaks_and_background(tmp_path: Path) -> None:
    path = plain_file(tmp_path / "plain.h5", l=(np.arange(N) < 20).astype(np.uint8))
    counts = hdf5.read_header(path, replace(KEYS, label="l")).chromosomes()
    assert counts == {f"part{i}": (2, 1) for i in range(10)}


@pytest.mark.parametrize(
    ("datasets", "keys", "message"),
    [
        ({}, replace(KEYS, signal="Y"), r"data.keys.signal=Y.*X \(30, 4, 52\)"),
        ({"X": np.zeros((N, 52, 4))}, KEYS, r"\(30, 52, 4\).*\(loci, 4, length\)"),
        ({"X": np.full((N, 4, 52), 0.25)}, KEYS, "locus 0 is not one-hot"),
        ({"X": np.ones((N, 4, 52))}, KEYS, "locus 0 is not one-hot"),
        ({"y": np.zeros((N, 32))}, KEYS, r"'y' has shape \(30, 32\)"),
        ({"y": np.zeros((N, 1, 60))}, KEYS, "no longer than the sequences"),
        ({"y": np.zeros((N, 1, 31))}, KEYS, "even number"),
        ({"y": np.zeros((N + 1, 1, 32))}, KEYS, "'y' has 31 rows"),
        ({"y": np.full((N, 1, 32), -1)}, KEYS, "'signal' holds -1"),
        ({"c": np.zeros((N, 1, 9))}, replace(KEYS, control="c"), "as long as the sequences"),
    ],
)
def test_plain_files_that_cannot_be_used(tmp_path: Path, datasets, keys, message: str) -> None:
    path = plain_file(tmp_path / "plain.h5", **datasets)
    with pytest.raises(DataError, match=message):
        hdf5.read(path, keys=keys)
