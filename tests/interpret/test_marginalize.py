"""cherimoya-marginalize: motifs land in the middle, and the table says what they change."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from interpreted import configured, save_model

from cherimoya import Cherimoya, metrics
from cherimoya.config.interpret import MarginalizeConfig
from cherimoya.data import hdf5
from cherimoya.errors import CherimoyaError
from cherimoya.genome.motif import Motif
from cherimoya.genome.sequence import decode, encode, one_hot
from cherimoya.interpret import marginalize as app
from cherimoya.interpret.motifs import insert, read_motifs

MEME = """MEME version 4

ALPHABET= ACGT

MOTIF M1 first
letter-probability matrix: alength= 4 w= 3 nsites= 20
 0.1 0.2 0.6 0.1
 0.0 0.0 0.0 1.0
 0.7 0.1 0.1 0.1

MOTIF M2
letter-probability matrix: alength= 4 w= 2
 0.0 1.0 0.0 0.0
 0.0 0.9 0.1 0.0
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "a.pt")


@pytest.fixture
def asked(model: Path, small_data: Path, tmp_path: Path):
    def make(**values) -> MarginalizeConfig:
        given = {
            "checkpoint": [str(model)], "data__path": str(small_data), "max_loci": 6,
            "motifs": ["GATTACA"], "output": str(tmp_path / "out.tsv"), "profiles": 0,
        }  # fmt: skip
        return configured("marginalize", MarginalizeConfig, **(given | values))

    return make


def table(path) -> list[dict[str, str]]:
    with open(path) as file:
        next(file)
        return list(csv.DictReader(file, delimiter="\t"))


def test_the_table_says_what_a_motif_changes(asked, model, small_data):
    config = asked(shuffle=False, reverse_complement=False, motifs=["GATTACA", "keep:NNN"])
    app.marginalize(config)
    loci = hdf5.read(small_data)
    rows = np.linspace(0, len(loci) - 1, 6).round().astype(int)
    before = torch.from_numpy(loci.sequence[rows, 8:208])
    after = before.clone()
    after[:, 97:104] = torch.from_numpy(encode("GATTACA"))
    loaded = Cherimoya.load(model)
    with torch.no_grad():
        (x, counts), (y, others) = (loaded(one_hot(codes)) for codes in (before, after))
    fold = ((others - counts) / math.log(2)).numpy()[:, 0]
    distance = metrics.profile_jsd(*(metrics.group_softmax(z, [2]) for z in (x, y)), [2])[:, 0]
    found, nothing = table(config.output)
    assert (found["motif"], found["letters"], found["backgrounds"]) == ("GATTACA", "GATTACA", "6")
    assert float(found["log2_fold_change"]) == pytest.approx(fold.mean(), abs=1e-5)
    assert float(found["log2_fold_change_sd"]) == pytest.approx(fold.std(ddof=1), abs=1e-5)
    assert float(found["fraction_up"]) == pytest.approx((fold > 0).mean(), abs=1e-5)
    assert float(found["jsd"]) == pytest.approx(float(distance.mean()), abs=1e-5)
    assert float(found["jsd_sd"]) == pytest.approx(float(distance.std()), abs=1e-5)
    assert abs(fold).max() > 0.005
    assert float(nothing["log2_fold_change_sd"]) == 0
    assert float(nothing["jsd"]) < 1e-6


def test_motifs_are_compared_in_the_same_backgrounds(asked, model, small_data):
    pytest.importorskip("tangermeme")
    config = asked(motifs=["a:GATTACA", "b:GATTAGA"], against="a", reverse_complement=False)
    app.marginalize(config)
    rows = np.linspace(0, 89, 6).round().astype(int)
    background = app.shuffled(hdf5.read(small_data).sequence[rows, 8:208], config.seed)
    made = [insert(background, np.tile(encode(m), (6, 1))) for m in ("GATTACA", "GATTAGA")]
    with torch.no_grad():
        one, other = (Cherimoya.load(model)(one_hot(torch.from_numpy(m)))[1] for m in made)
    difference = ((other - one)[:, 0] / math.log(2)).numpy()
    same, found = table(config.output)
    assert (float(same["difference"]), float(same["difference_se"])) == (0, 0)
    assert float(found["difference"]) == pytest.approx(difference.mean(), abs=1e-5)
    error = difference.std(ddof=1) / math.sqrt(6)
    assert float(found["difference_se"]) == pytest.approx(error, abs=1e-5)
    with pytest.raises(CherimoyaError, match=r"against=c: no motif of that name\. There are a, b"):
        app.marginalize(asked(motifs=["a:GA", "b:GG"], against="c", overwrite=True))


def test_shuffles_keep_dinucleotides(small_data):
    pytest.importorskip("tangermeme")
    codes = hdf5.read(small_data).sequence[:4].copy()
    codes[2, 50:53] = 4
    made, same = (app.shuffled(codes, seed=3) for _ in range(2))
    assert np.array_equal(made, same)
    assert (made != codes).mean() > 0.3
    for one, other in zip(codes, made, strict=True):
        pairs = [np.bincount(5 * x[:-1].astype(int) + x[1:], minlength=25) for x in (one, other)]
        assert np.array_equal(*pairs)


def test_motifs_are_read_and_put_in_the_middle(tmp_path):
    (tmp_path / "m.meme").write_text(MEME)
    motifs = read_motifs(["acgt", "pair:RYN"], str(tmp_path / "m.meme"))
    assert motifs == [
        Motif("ACGT", "ACGT"), Motif("pair", "RYN"), Motif("M1 first", "GTA"), Motif("M2", "CC")
    ]  # fmt: skip
    drawn = motifs[1].drawn(np.random.default_rng(0), 200)
    assert set(drawn[:, 0]) == {0, 2}
    assert set(drawn[:, 1]) == {1, 3}
    assert (drawn[:, 2] == 4).all()
    background = np.tile(encode("AAAAAAAA"), (2, 1))
    assert decode(insert(background, np.array([[1, 4, 2], [3, 3, 3]]))[0]) == "AAACAGAA"
    assert decode(background[0]) == "AAAAAAAA"


def test_an_interrupted_command_goes_on(asked, monkeypatch, capsys, tmp_path):
    motifs = ["AAAA", "CCCC", "GGGG"]
    app.marginalize(asked(motifs=motifs, shuffle=False, output=str(tmp_path / "whole.tsv")))
    real, calls = app.statistics, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(app, "statistics", interrupted)
    with pytest.raises(KeyboardInterrupt):
        app.marginalize(asked(motifs=motifs, shuffle=False))
    app.marginalize(asked(motifs=motifs, shuffle=False))
    assert len(calls) == 4
    said = capsys.readouterr().out
    assert "stopped. Re-run the same command to resume." in said
    assert "1 of 3 motifs were done before" in said
    assert table(asked().output) == table(tmp_path / "whole.tsv")


def test_the_plot_is_drawn(asked, tmp_path):
    pytest.importorskip("matplotlib")
    app.marginalize(asked(motifs=["GATTACA", "CCCC"], shuffle=False, profiles=1))
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"output": "out.png"}, r"output=out\.png: the table, such as motifs\.tsv"),
        ({"motifs": []}, r"no motifs are named. Set motifs=\[TCCGGGTAA\], or motif_file"),
        ({"motifs": ["x:ACQ"]}, r"motifs=x:ACQ: Q is no letter of a motif"),
        ({"motifs": ["x:"]}, r"motifs=x:: nothing is no letter"),
        ({"motifs": ["AC", "AC"]}, r"two motifs are named AC"),
        ({"motifs": ["A" * 101]}, r"has 101 letters, but only 100 bases are predicted"),
        ({"motif_file": "none.meme"}, r"motif_file=none\.meme: no such file"),
    ],
)
def test_what_cannot_be_is_refused(asked, values, message):
    with pytest.raises(CherimoyaError, match=message):
        app.marginalize(asked(**values))
