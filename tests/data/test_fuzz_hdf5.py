"""Whatever is in a prepared or plain HDF5 file: training reads it, or refuses it in words."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from fuzzing import INPUTS, Outcomes, fuzz, mutated
from hypothesis import given
from hypothesis import strategies as st
from loci_files import ALL_KEYS, settings, train_on, valid_file

from cherimoya.config.data import KeysConfig
from cherimoya.data import hdf5, hdf5_probe

LIMIT = 2.0  # seconds that the library has for a file: most take milliseconds, some for ever
ATTRIBUTES = ("format", "version", "genome", *hdf5.NUMBERS, *hdf5.LISTS, "provenance")
KINDS = ["u1", "i1", "<u2", ">i2", "<i4", "<i8", "<u8", "<f2", "<f4", ">f4", "<f8", "?", "S3", "c8"]
SHAPES = [(), (0,), (1,), (12,), (11,), (12, 1), (12, 10), (12, 2, 6), (12, 4, 8), (12, 1, 10),
          (12, 2, 7), (12, 0, 6), (1, 2, 6)]  # fmt: skip
VALUES = [0, 1, 2, 5, -1, 0.5, np.nan, np.inf, 1e30, 3e9, 65535]
TEXTS = [
    "", "[", "[]", "[1]", "[2]", "[1, 1]", "[-2]", "[true]", "[2.0]", '["a", "b"]', '["a"]', "{}",
    "null", "3", "NaN", "cherimoya-hdf5", "a" * 70_000, "é", "[99999999999999999999]",
]  # fmt: skip
FROM_HDF5 = (ValueError, KeyError, OSError, TypeError, RuntimeError, OverflowError)


def edits(names: list[str]) -> st.SearchStrategy[Any]:
    """Changes of a valid file: datasets and attributes replaced, retyped or gone."""
    array = st.tuples(st.sampled_from(KINDS), st.sampled_from(SHAPES), st.sampled_from(VALUES))
    retyped = st.sampled_from(KINDS).map(lambda kind: ("as", kind))
    other = st.none() | st.sampled_from(["group", "empty", "text"])
    dataset = st.tuples(st.sampled_from(names), array | retyped | other)
    value = st.sampled_from([*TEXTS, b"\xff", [1, 2], [[1.5]]])
    value |= st.integers(-3, 2**40) | st.floats() | st.none()
    attribute = st.tuples(st.sampled_from(ATTRIBUTES).map(lambda name: f"@{name}"), value)
    return st.lists(dataset | attribute, min_size=1, max_size=3)


def edit(file: h5py.File, name: str, value: Any) -> None:
    """One of the `edits`."""
    if name.startswith("@"):
        if value is None:
            file.attrs.pop(name[1:], None)
        else:
            file.attrs[name[1:]] = value
        return
    held = name in file and isinstance(file[name], h5py.Dataset)
    before = file[name][()] if held else np.ones(12)
    if name in file:
        del file[name]
    if value == "group":
        file.create_group(name)
    elif value == "empty":
        file[name] = h5py.Empty("f4")
    elif value == "text":
        file.create_dataset(name, data=["x", "é", ""] * 4, dtype=h5py.string_dtype())
    elif value is not None:
        kind, *rest = value[::-1] if value[0] == "as" else value
        with np.errstate(all="ignore"):
            file[name] = np.asarray(before if rest == ["as"] else np.full(*rest)).astype(kind)


def overwritten(valid: bytes) -> st.SearchStrategy[bytes]:
    """`valid` with some of its bytes changed, and all others where they were."""
    piece = st.binary(min_size=1, max_size=8) | st.sampled_from([b"\0" * 8, b"\xff" * 8])
    changes = st.lists(st.tuples(st.integers(0, len(valid) - 8), piece), min_size=1, max_size=8)

    def changed(changes: list[tuple[int, bytes]]) -> bytes:
        made = bytearray(valid)
        for at, piece in changes:
            made[at : at + len(piece)] = piece
        return bytes(made)

    return changes.map(changed)


@pytest.mark.slow
@pytest.mark.parametrize("keys", [None, ALL_KEYS], ids=["prepared", "plain"])
def test_training_reads_or_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: KeysConfig | None
) -> None:
    monkeypatch.setattr(hdf5_probe, "SECONDS", LIMIT)
    valid, work, config = valid_file(tmp_path, keys), tmp_path / "work.h5", settings()
    train_on(config, valid, keys)
    content, own = valid.read_bytes(), [*hdf5.REQUIRED, "control", "truth", "truth/expected"]

    def edited(changes: list[tuple[str, Any]]) -> bytes:
        work.write_bytes(content)
        with h5py.File(work, "r+", locking=False) as file:
            for name, value in changes:
                try:
                    edit(file, name, value)
                except FROM_HDF5:  # not what HDF5 can hold, or in a group that is gone
                    continue
        return work.read_bytes()

    contents = mutated(content) | overwritten(content)
    contents |= edits(own if keys is None else list("Xyzln")).map(edited)
    outcomes, path = Outcomes("plain HDF5" if keys else "prepared HDF5"), tmp_path / "x.h5"

    @given(contents)
    def one(content: bytes) -> None:
        path.write_bytes(content)
        outcomes.of(train_on, config, path, keys)

    fuzz(one, outcomes, INPUTS // 10)  # over one in a hundred the library would never end
