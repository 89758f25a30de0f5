"""What was done before is believed only where it is as it was written, and made again if not."""

import json
import os
import socket
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
from interpreted import configured, save_model
from toy import FRAGMENTS, Toy
from toy_parts import same, stopped

from cherimoya.config.interpret import AttributeConfig
from cherimoya.data import hdf5
from cherimoya.errors import CherimoyaError, DataError
from cherimoya.interpret import attribute as attribute_app
from cherimoya.prepare.dry_run import inspect
from cherimoya.records.attributions import read_attributions
from cherimoya.util.files import remove_left
from cherimoya.util.marks import (
    is_whole,
    mark_of,
    marked_folder,
    marked_path,
    read_mark,
    write_mark,
)
from cherimoya.util.resume import Journal, discard_journal, is_done, journal_mark, journal_path

VALUES = {"background_ratio": 1, "gc_bin": 1.0, "processes": 1, "overwrite": False}


def flip(path: Path, at: float = 0.5) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[int(at * (len(content) - 1))] ^= 1
    path.write_bytes(content)


def cut(path: Path, size: int = 1000) -> None:
    path.write_bytes(path.read_bytes()[:size])


def test_a_mark_tells_damage_to_files_and_to_itself(tmp_path: Path) -> None:
    one, mark = tmp_path / "one", tmp_path / "mark.json"
    one.write_bytes(b"0123456789")
    write_mark(mark, {"of": [1, None]}, [one])
    found = read_mark(mark)
    assert found is not None
    assert found.facts == {"of": [1, None]}
    assert found.damaged() == []
    for change in (lambda: flip(one), lambda: cut(one, 9), one.unlink):
        one.write_bytes(b"0123456789")
        change()
        assert found.damaged() == [one]
    whole = mark.read_bytes()
    for at in range(len(whole)):  # no bit of the mark itself changes what it says unseen
        changed = bytearray(whole)
        changed[at] ^= 2
        mark.write_bytes(changed)
        again = read_mark(mark)
        assert again is None or (again.facts, again.files) == (found.facts, found.files)


def test_a_folder_is_whole_or_removed(tmp_path: Path) -> None:
    said: list[str] = []

    def fill() -> None:
        with marked_folder(tmp_path / "part") as folder:
            (folder / "a.npy").write_bytes(b"abc")

    assert not is_whole(tmp_path / "part", said.append)
    fill()
    assert is_whole(tmp_path / "part", said.append)
    assert said == []
    flip(tmp_path / "part" / "a.npy")
    assert not is_whole(tmp_path / "part", said.append)
    assert not (tmp_path / "part").exists()
    fill()
    (tmp_path / "part" / "done.json").unlink()
    assert not is_whole(tmp_path / "part", said.append)
    assert [line.split(": ", 1)[1] for line in said] == [
        "a.npy cut short or changed since it was written, so it is made again",
        "nothing valid says that it is whole (done.json), so it is made again",
    ]
    with pytest.raises(KeyboardInterrupt), marked_folder(tmp_path / "part"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_rows_of_a_journal_are_checked(tmp_path: Path, capsys) -> None:
    output, settings = tmp_path / "out.tsv", {"seed": 0}
    journal = Journal(output, settings, (2,))
    journal.append(np.array([[1.0, 2.0], [3.0, 4.0]]))
    journal.append(np.array([[5.0, 6.0]]))
    with open(journal_path(output), "ab") as file:
        file.write(b"cut short by a kill")
    again = Journal(output, settings, (2,))
    assert again.rows.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert len(Journal(output, settings, (2,), block=2)) == 2
    assert len(Journal(output, settings, (2,))) == 2
    assert len(Journal(output, {"seed": 1}, (2,))) == 0
    journal = Journal(output, settings, (2,))
    journal.append(np.array([[1.0, 2.0]]))
    assert capsys.readouterr().out == ""
    flip(journal_path(output))
    assert len(Journal(output, settings, (2,))) == 0
    assert "partial: changed since it was written, so all of it is made" in capsys.readouterr().out
    journal = Journal(output, settings, (2,))
    journal.append(np.array([[1.0, 2.0]]))
    journal_mark(output).write_text("{}")
    journal = Journal(output, settings, (2,))
    assert len(journal) == 0
    assert journal.rows.shape == (0, 2)
    assert "so all of it is made again" in capsys.readouterr().out
    for stand in output.parent.glob("*.damaged*"):
        stand.unlink()
    journal_path(output).write_text("my own")
    journal_mark(output).unlink()
    with pytest.raises(DataError, match=r"out\.tsv\.partial: exists already, and is nothing"):
        Journal(output, settings, (2,))
    assert journal_path(output).read_text() == "my own"
    discard_journal(output)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_file_put_in_the_place_of_unfinished_rows_is_kept(tmp_path: Path, n, seed) -> None:
    """Whichever settings the rows had, and however few there were when their maker was killed."""
    output = tmp_path / "out.tsv"
    Journal(output, {"seed": 0}, (2,)).append(np.zeros((n, 2)))
    journal_path(output).write_text("my own text, longer than a row")
    assert len(Journal(output, {"seed": seed}, (2,))) == 0
    kept = output.with_name("out.tsv.partial.damaged")
    assert kept.read_text() == "my own text, longer than a row"
    assert len(Journal(output, {"seed": seed}, (2,))) == 0
    journal_path(output).mkdir()
    with pytest.raises(DataError, match=r"out\.tsv\.partial: exists already, and is nothing"):
        Journal(output, {"seed": seed}, (2,))


@pytest.mark.parametrize("damage", [flip, cut])
def test_a_damaged_prepared_file_is_prepared_again(toy: Toy, damage) -> None:
    toy.bed("chrA\t1000\t1001", "chrB\t1500\t1501")
    toy.run(**VALUES)
    output = toy.folder / "out.h5"
    before = output.read_bytes()
    toy.run(**VALUES)
    assert toy.said == [
        f"{output}: up to date, made from these files and this configuration already"
    ]
    damage(output)
    said: list[str] = []
    inspect(toy.config(**VALUES, check=True), said.append)
    assert any("cut short or changed since it was written: would be prepared" in s for s in said)
    toy.run(**VALUES)
    assert toy.said[0] == (
        f"{output}: out.h5 cut short or changed since it was written, so it is prepared again"
    )
    assert output.read_bytes() == before
    mark_of(output).unlink()
    toy.run(**VALUES)
    assert toy.said[-1].endswith("out.h5.done.json is missing: whether the file is whole cannot be "
                                 "checked")  # fmt: skip


def test_a_changed_prepared_file_is_not_asked_about(toy: Toy) -> None:
    toy.bed("chrA\t1000\t1001", "chrB\t1500\t1501")
    toy.run(**VALUES | {"in_window": 160, "out_window": 60})
    output = toy.folder / "out.h5"
    save_model(toy.folder / "a.pt")
    given = {"checkpoint": [str(toy.folder / "a.pt")], "data__path": str(output), "logos": 0,
             "method": "gradient", "output": str(toy.folder / "a.h5")}  # fmt: skip
    config = configured("attribute", AttributeConfig, **given)
    assert len(hdf5.fingerprint(output)) == 16
    with h5py.File(output, "r+") as file:
        file.attrs["genome"] = "TOY"
    changed = r"out\.h5: cut short or changed since it was written, as out\.h5\.done\.json beside"
    with pytest.raises(CherimoyaError, match=changed):
        attribute_app.attribute(config)
    with pytest.raises(CherimoyaError, match=changed):
        hdf5.fingerprint(output)
    mark_of(output).unlink()
    attribute_app.attribute(config)


def test_a_file_that_is_another_ones_is_kept(toy: Toy) -> None:
    """With a mark of what was there before it."""
    toy.bed("chrA\t1000\t1001", "chrB\t1500\t1501")
    other = toy.folder / "other.h5"
    toy.run(**VALUES, seed=1, output=str(other))
    content = other.read_bytes()
    toy.run(**VALUES)
    output = toy.folder / "out.h5"
    other.replace(output)
    mark_of(other).replace(mark_of(output))
    with pytest.raises(CherimoyaError, match="made otherwise: seed was 1, now 0"):
        toy.run(**VALUES)
    assert output.read_bytes() == content
    toy.run(**VALUES | {"overwrite": True})
    output.write_bytes(content)  # the mark is of another one
    toy.run(**VALUES)
    assert f"{output}: what was there is kept as out.h5.damaged" in toy.said
    assert (toy.folder / "out.h5.damaged").read_bytes() == content


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("genome", "genome cut short or changed since it was written, so the genome is read again"),
        ("genome.json", "nothing valid says that it is whole (done.json), so the genome is read"),
        ("peaks-*/signal.npy", "signal.npy cut short or changed since it was written, so it is"),
        ("peaks-*/known.npz", "known.npz cut short or changed since it was written, so it is made"),
        ("*/0.cuts", "0.cuts cut short or changed since it was written, so cuts.tsv is read again"),
        ("made_from.json", "so it starts over"),
    ],
)
def test_damaged_parts_of_a_preparation_are_made_again(
    many: Toy,
    monkeypatch,
    names: str,
    words: str,
) -> None:
    values = VALUES | {"signal": [[f"{many.folder}/plus.bw"], [f"{many.folder}/cuts.tsv"]]}
    many.write("cuts.tsv", "\n".join(FRAGMENTS))
    whole = many.run(**values, output=f"{many.folder}/whole.h5")
    stopped(many, monkeypatch, 4, **values)
    damaged = next((many.folder / "out.h5.partial").glob(names))
    flip(damaged)
    assert same(many.run(**values), whole)
    assert any(words in line for line in many.said), many.said


@pytest.fixture
def attributed(small_data: Path, tmp_path: Path):
    save_model(tmp_path / "a.pt")

    def run(**values) -> np.ndarray:
        given = {"checkpoint": [str(tmp_path / "a.pt")], "data__path": str(small_data), "logos": 0,
                 "max_loci": 4, "window": 120, "method": "gradient", "modisco": True,
                 "output": str(tmp_path / "out.h5")}  # fmt: skip
        attribute_app.attribute(configured("attribute", AttributeConfig, **(given | values)))
        return read_attributions(tmp_path / "out.h5").contributions["counts_0"]

    return run


@pytest.mark.parametrize("damage", [flip, cut])
def test_damaged_attributions_are_made_again(attributed, tmp_path, monkeypatch, capsys, damage):
    pytest.importorskip("modiscolite")
    monkeypatch.setattr(attribute_app, "find_motifs", lambda *_: None)
    before = attributed(modisco=False)
    capsys.readouterr()
    attributed()
    assert "attributed before, with the same settings" in capsys.readouterr().out
    damage(tmp_path / "out.h5")
    assert np.array_equal(attributed(), before)
    assert "out.h5 cut short or changed since it was written, so it is made again" in (
        capsys.readouterr().out
    )
    mark_of(tmp_path / "out.h5").unlink()
    attributed()
    said = capsys.readouterr().out
    assert "out.h5: nothing valid says that it is whole (done.json); overwrite=true makes" in said
    (tmp_path / "out.h5").write_text(json.dumps("mine"))
    with pytest.raises(CherimoyaError, match="exists already"):
        attributed()


def test_a_damaged_part_of_attributions_is_made_again(attributed, tmp_path, monkeypatch, capsys):
    whole = attributed(modisco=False)
    for path in (tmp_path / "out.h5", mark_of(tmp_path / "out.h5")):
        path.unlink()
    real = attribute_app.write_attributions

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(attribute_app, "write_attributions", interrupted)
    with pytest.raises(KeyboardInterrupt):
        attributed(modisco=False)
    monkeypatch.setattr(attribute_app, "write_attributions", real)
    flip(journal_path(tmp_path / "out.h5"))
    capsys.readouterr()
    assert np.array_equal(attributed(modisco=False), whole)
    assert "changed since it was written, so all of it is made again" in capsys.readouterr().out


def test_what_a_killed_process_left_goes(tmp_path):
    host, ended = socket.gethostname(), subprocess.Popen(["true"])
    ended.wait()
    mine, gone = os.getpid(), ended.pid
    names = [f".a.{host}.{mine}.tmp", f".a.elsewhere.{gone}.tmp", ".a.tmp", "b.tmp"]
    for name in (*names, f".a.{host}.{gone}.tmp"):
        (tmp_path / name).write_text("{")
    (tmp_path / f".folder.{host}.{gone}.tmp").mkdir()
    remove_left(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names)


def test_where_a_file_is_its_mark_is(tmp_path, monkeypatch):
    output = tmp_path / "a.tsv"

    def written(text: str) -> None:
        with marked_path(output, {"settings": {"seed": 1}}) as temporary:
            temporary.write_text(text)

    written("one")
    assert is_done(output, {"seed": 1}, overwrite=False, say=print)
    with pytest.raises(DataError, match="exists already, made with another seed"):
        is_done(output, {"seed": 2}, overwrite=False, say=print)
    assert not is_done(output, {"seed": 1}, overwrite=True, say=print)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        written("two")
    monkeypatch.undo()
    assert not output.exists() or output.read_text() == "one"
    written("two")
    assert is_done(output, {"seed": 1}, overwrite=False, say=print)
    output.write_text("no")
    assert not is_done(output, {"seed": 1}, overwrite=False, say=print)
    assert (tmp_path / "a.tsv.damaged").read_text() == "no"
    output.write_text("mine")
    mark_of(output).unlink()
    with pytest.raises(DataError, match="exists already"):
        is_done(output, {"seed": 1}, overwrite=False, say=print)
