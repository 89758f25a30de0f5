"""A pipe that has the name of a file is refused; nobody waits at it."""

import os

import pytest

from cherimoya.errors import CherimoyaError, DataError, DiskError
from cherimoya.training.checkpoint import Checkpoints
from cherimoya.util.files import open_owned
from cherimoya.util.marks import mark_of, measured, read_mark
from cherimoya.util.torch_file import read_torch_file

SAID = "something else than a file has its name. Move it away"


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / "last.pt")
    return tmp_path / "last.pt"


def test_a_checkpoint(pipe):
    with pytest.raises(DataError, match=SAID):
        read_torch_file(pipe)
    with pytest.raises(CherimoyaError, match=f"cannot resume: .*{SAID}"):
        Checkpoints(pipe.parent).load_last(print)


@pytest.mark.parametrize("mode", ["rb", "wb", "ab", "a+", "r+b"])
def test_a_file_of_our_own(mode, pipe):
    with pytest.raises(DiskError, match=SAID):
        open_owned(pipe, mode)


def test_a_mark(pipe):
    assert measured(pipe) is None
    os.mkfifo(mark_of(pipe))
    assert read_mark(mark_of(pipe)) is None
