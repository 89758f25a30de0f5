"""What processes that work together share, in a folder that others may write."""

import pickle

import pytest

from cherimoya.errors import DiskError, ProcessError
from cherimoya.prepare.workers import Workers


def add(shared, job):
    return shared["by"] + job


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_what_is_shared_is_read_by_each(tmp_path):
    with Workers(2, tmp_path) as workers:
        assert list(workers.map(add, {"by": 10}, [1, 2, 3])) == [11, 12, 13]
        assert list(workers.map(add, {"by": 20}, [1, 2])) == [21, 22]


def test_what_somebody_put_in_its_place_is_not(tmp_path):
    made, evil = tmp_path / "made", pickle.dumps(Evil(tmp_path / "made"))
    with Workers(2, tmp_path) as workers:
        done = workers.map(add, {"by": 10}, Swapping(tmp_path, evil))
        with pytest.raises(ProcessError, match=r"shared-0\.pickle: changed meanwhile"):
            list(done)
    assert not made.exists()


class Swapping:
    """Jobs, of which the first comes after the shared file was changed."""

    def __init__(self, folder, content):
        self.folder, self.content = folder, content

    def __iter__(self):
        (self.folder / "shared-0.pickle").write_bytes(self.content)
        yield 1


def test_nothing_is_written_through_a_link(tmp_path):
    theirs = tmp_path / "theirs"
    theirs.write_text("dear")
    (tmp_path / "shared-0.pickle").symlink_to(theirs)
    with Workers(2, tmp_path) as workers, pytest.raises(DiskError, match="is a link"):
        list(workers.map(add, {"by": 10}, [1]))
    assert theirs.read_text() == "dear"
