"""Links that somebody left in a folder: what they lead to is neither written nor removed."""

import os
from pathlib import Path

import numpy as np
import pytest

from cherimoya.errors import DiskError
from cherimoya.loggers.run_log import RunLog
from cherimoya.records import status
from cherimoya.records.study import JOURNAL
from cherimoya.util import console, files
from cherimoya.util.files import atomic_write, cut_torn_line, lock_folder, lock_output
from cherimoya.util.resume import Journal, journal_path, partial_path, resumable_output


def log_a_row(folder):
    with RunLog(folder, {}) as log:
        log.row({"step": 1})


def lock(folder):
    with lock_folder(folder):
        pass


def lock_file(folder):
    with lock_output(folder / "out.tsv"):
        pass


def keep_rows(folder):
    Journal(folder / "out.tsv", {}, (2,)).append(np.zeros((1, 2)))


def write_whole(folder):
    with atomic_write(folder / "out.tsv") as file:
        file.write(b"new")


WRITERS = {
    ".lock": lock,
    ".out.tsv.lock": lock_file,
    "metrics.jsonl": log_a_row,
    journal_path(Path("out.tsv")).name: keep_rows,
    JOURNAL: lambda folder: cut_torn_line(folder / JOURNAL),
}


@pytest.mark.parametrize("name", WRITERS)
def test_nothing_is_written_through_a_link(name, tmp_path):
    theirs = tmp_path / "bashrc"
    theirs.write_text("alias ll='ls -l'")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / name).symlink_to(theirs)
    with pytest.raises(DiskError, match="is a link"):
        WRITERS[name](folder)
    assert theirs.read_text() == "alias ll='ls -l'"


def test_a_link_in_the_place_of_a_temporary_file_is_not_followed(tmp_path, monkeypatch):
    theirs = tmp_path / "bashrc"
    theirs.write_text("alias ll='ls -l'")
    monkeypatch.setattr(files, "remove", lambda path: None)  # put there after that
    (tmp_path / f".out.tsv{files._own_ending(os.getpid())}").symlink_to(theirs)
    with pytest.raises(DiskError, match="is a link"):
        write_whole(tmp_path)
    assert theirs.read_text() == "alias ll='ls -l'"


def test_a_sign_of_life_is_none_of_another_file(tmp_path, monkeypatch):
    theirs = tmp_path / "theirs"
    theirs.write_text("")
    os.utime(theirs, (0, 0))
    (tmp_path / status.NAME).symlink_to(theirs)
    monkeypatch.setattr(status, "BEAT_SECONDS", 0.01)
    beat = status.Heartbeat(tmp_path)
    beat._stopped.wait(0.1)
    beat.stop()
    assert theirs.stat().st_mtime == 0


def resume(output):
    with resumable_output(output, {"a": 1}, lambda _: "", console.say) as folder:
        (folder / "parts").mkdir(exist_ok=True)
        (folder / "parts" / "new").write_text("")
        raise RuntimeError("killed")


def test_a_folder_of_parts_that_is_a_link_is_refused(tmp_path):
    theirs = tmp_path / "home"
    theirs.mkdir()
    (theirs / "letter").write_text("dear")
    partial_path(tmp_path / "out").symlink_to(theirs)
    with pytest.raises(DiskError, match="is a link"):
        resume(tmp_path / "out")
    assert [path.name for path in theirs.iterdir()] == ["letter"]


def test_links_among_the_parts_go(tmp_path):
    theirs = tmp_path / "home"
    theirs.mkdir()
    with pytest.raises(RuntimeError, match="killed"):
        resume(tmp_path / "out")
    parts = partial_path(tmp_path / "out") / "parts"
    (parts / "new").unlink()
    parts.rmdir()
    parts.symlink_to(theirs)
    with pytest.raises(RuntimeError, match="killed"):
        resume(tmp_path / "out")
    assert not list(theirs.iterdir())
