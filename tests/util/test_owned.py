"""A file that one process makes at a time."""

from pathlib import Path

import pytest

from cherimoya.errors import InUse
from cherimoya.util import files
from cherimoya.util.files import lock_output


def test_a_second_owner_is_refused_until_the_first_is_done(tmp_path):
    output = tmp_path / "new" / "deep" / "out.tsv"
    with lock_output(output):
        with (
            pytest.raises(InUse, match=r"out\.tsv is being made by another process"),
            lock_output(output),
        ):
            raise AssertionError
        with lock_output(output.with_name("other.tsv")):
            pass
    assert list(tmp_path.iterdir()) == []  # nothing came of it
    with lock_output(output):
        output.write_text("made")
    assert list(output.parent.iterdir()) == [output]


def test_a_lock_that_its_owner_removed_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    output, real, seen = tmp_path / "out.tsv", files._taken, []

    def finishing(lock):
        if not seen:
            Path(lock.name).unlink()  # by the owner, between our opening it and locking it
        seen.append(lock.name)
        return real(lock)

    monkeypatch.setattr(files, "_taken", finishing)
    with lock_output(output):
        assert len(seen) == 2
        with pytest.raises(InUse), lock_output(output):
            raise AssertionError


def test_a_folder_in_which_no_file_can_be_ends_in_an_error(monkeypatch, tmp_path):
    def refuse(path, mode):
        raise FileNotFoundError(2, "No such file or directory", str(path))

    monkeypatch.setattr(files, "open_owned", refuse)
    with pytest.raises(FileNotFoundError), files.lock_output(tmp_path / "x.tsv"):
        pass
