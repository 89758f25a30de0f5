"""Some of a file's signal groups, by name or number."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from configs import composed
from grouped_data import DEPTHS, NAMES, grouped_loci, run_on
from loci_files import make_loci
from training_runs import assert_same_run

from cherimoya.config.group_names import group_number
from cherimoya.config.predict import EvaluateConfig
from cherimoya.config.schema import build
from cherimoya.data import hdf5
from cherimoya.data.groups import group_labels, with_groups
from cherimoya.errors import ConfigError, DataError
from cherimoya.evaluation.evaluate import evaluate_checkpoints
from cherimoya.inference.checkpoints import find_checkpoint
from cherimoya.inference.genome import _track_names
from cherimoya.training.checkpoint import of_training


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The file of three groups."""
    return hdf5.write(tmp_path_factory.mktemp("grouped") / "all.h5", grouped_loci())


@pytest.fixture(scope="module")
def two(whole: Path) -> Path:
    """A file of two of them, in another order, as a preparation of these alone would write it."""
    loci = grouped_loci()
    own = replace(
        loci, signal=loci.signal[:, [2, 0]], signal_groups=[1, 1], track_names=["b", "a"],
        group_names=["B", "A"], group_depths=[DEPTHS[2], DEPTHS[0]],
    )  # fmt: skip
    return hdf5.write(whole.parent / "two.h5", own)


def test_names_and_depths_are_kept(whole: Path, tmp_path: Path) -> None:
    for held in (hdf5.read(whole), hdf5.read_header(whole)):
        assert (held.group_names, held.group_depths) == (NAMES, DEPTHS)
    plain = hdf5.write(tmp_path / "plain.h5", make_loci())
    with h5py.File(plain) as file:
        assert not {"group_names", "group_depths"} & set(file.attrs)
    assert hdf5.read_header(plain).group_names == []
    assert group_labels(hdf5.read_header(plain)) == ["a", "plus, minus"]


@pytest.mark.parametrize("value", ['["a"]', "3", '["a", "b", 3]', "{}", "nothing"])
def test_damaged_names_are_refused(whole: Path, tmp_path: Path, value: str) -> None:
    path = tmp_path / "damaged.h5"
    path.write_bytes(whole.read_bytes())
    with h5py.File(path, "a") as file:
        file.attrs["group_names"] = value
    with pytest.raises(DataError, match="its attributes are damaged"):
        hdf5.read_header(path)


def test_groups_are_taken_in_the_order_that_is_asked_for() -> None:
    loci = make_loci()
    for asked, tracks in ((["1"], [1, 2]), (["1", "0"], [1, 2, 0]), (["plus, minus"], [1, 2])):
        taken = with_groups(loci, asked, "a.h5")
        np.testing.assert_array_equal(taken.signal, loci.signal[:, tracks])
        np.testing.assert_array_equal(taken.truth["expected"], loci.truth["expected"][:, tracks])
        np.testing.assert_array_equal(taken.truth["rate"], loci.truth["rate"])
        assert taken.track_names == [loci.track_names[track] for track in tracks]
    assert with_groups(loci, None, "a.h5") is loci
    named = replace(loci, group_names=["1", "0"])  # a name goes before a number
    assert with_groups(named, ["1"], "a.h5").signal_groups == [1]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["T-cell"], r"data.groups=\[T-cell\], .*all.h5: there is no signal group T-cell. Did you "
                     r"mean T cell\? There are A, T cell, B \(or their numbers, from 0\)"),
        (["3"], "there is no signal group 3"),
        (["-1"], "there is no signal group -1"),
        (["A", "0"], "one group is named twice"),
    ],
)  # fmt: skip
def test_groups_that_are_not_there(whole: Path, asked: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_groups(hdf5.read_header(whole), asked, str(whole))


def test_where_names_are_numbers_only_names_count() -> None:
    clusters = ["1", "2", "3"]
    assert [group_number(name, clusters, 3, "groups") for name in clusters] == [0, 1, 2]
    with pytest.raises(ConfigError, match=r"no signal group 0\. There are 1, 2, 3\.$"):
        group_number("0", clusters, 3, "groups")
    assert group_number("1", ["A", "B"], 2, "groups") == 1


def test_a_model_keeps_the_name_of_its_only_group(whole: Path) -> None:
    """Where there is one; a name that was not given, such as a track's, is not kept."""
    loci = with_groups(hdf5.read(whole), ["B"], str(whole))
    rows = {"train": np.arange(4)}
    assert of_training(SimpleNamespace(loci=loci, rows=rows), {})["groups"] == ["B"]
    unnamed = SimpleNamespace(loci=replace(loci, group_names=[]), rows=rows)
    assert "groups" not in of_training(unnamed, {})


@pytest.mark.slow
def test_a_run_on_some_groups_is_one_on_a_file_of_them(
    whole: Path, two: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    some = run_on(whole, tmp_path / "some", "data.groups=[B,0]")
    assert "  groups    B, A\n" in capsys.readouterr().out
    alone = run_on(two, tmp_path / "alone")
    assert_same_run(some, alone)
    found = find_checkpoint(str(some))
    assert found.groups == find_checkpoint(str(alone)).groups == ["B", "A"]
    assert _track_names(found, 2) == ["b", "a"]
    copied = tmp_path / "copy.pt"
    copied.write_bytes(found.path.read_bytes())
    assert find_checkpoint(str(copied)).groups == ["B", "A"]
    monkeypatch.setattr("cherimoya.evaluation.evaluate.offer_report", lambda *_: None)

    def scores(name: str, *words: str) -> dict:
        given = ["bootstrap=0", f"output={tmp_path / name}", *words]
        values = composed("evaluate", given)
        values["checkpoint"] = [values["checkpoint"]]
        folder = evaluate_checkpoints(build(EvaluateConfig, values))
        return json.loads((folder / "scores.json").read_text())

    known = scores("known", f"checkpoint={alone}", "split=all")
    capsys.readouterr()
    turned = scores("turned", f"checkpoint={some}", f"data.path={whole}", "data.groups=[A,B]")
    assert "groups       trained on B, A; scored on A, B" in capsys.readouterr().out
    assert turned["model"] != known["model"]
    for number, words in enumerate(
        (
            [f"checkpoint={some}", "split=all"],
            [f"checkpoint={some}", "split=all", f"data.path={whole}"],
            [f"checkpoint={some}", "split=all", f"data.path={two}", "data.groups=[B,A]"],
            [f"checkpoint={copied}", "split=all", f"data.path={whole}", "data.groups=[B,A]"],
            [f"checkpoint={alone}", "split=all", f"data.path={whole}", "data.groups=[B,A]"],
        )
    ):
        found = scores(f"out{number}", *words)
        assert found["model"] == known["model"]
        assert [g["tracks"] for g in found["groups"]] == [["b"], ["a"]]
    replicate = scores("same", f"checkpoint={some}", f"replicate={whole}")
    assert replicate["replicate"]["profile_pearson"] == pytest.approx(1)


def test_a_run_says_before_it_begins_that_a_group_is_not_there(whole, tmp_path) -> None:
    with pytest.raises(ConfigError, match="there is no signal group C"):
        run_on(whole, tmp_path / "run", "data.groups=[A,C]")
    with pytest.raises(ConfigError, match=r"data.groups=\[\] is empty"):
        run_on(whole, tmp_path / "run2", "data.groups=[]")
