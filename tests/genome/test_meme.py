"""Motifs of MEME files: every form that is valid, and a message for every one that is not."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from cherimoya.errors import CherimoyaError, DataError
from cherimoya.genome.meme import read_meme
from cherimoya.interpret.modisco import check_modisco
from cherimoya.interpret.motifs import consensus, read_motifs

HEAD = """MEME version 4

ALPHABET= ACGT

strands: + -

Background letter frequencies
A 0.25 C 0.25 G 0.25 T 0.25

"""
REB1 = "0 0 1 0\n0 0 1 0\n0 0 1 0\n0 0 0 1\n1 0 0 0\n1 0 0 0\n"
TATA = "0 0 0 1\n1 0 0 0\n0 0 0 1\n1 0 0 0\n1 0 0 0\n"
BOTH = HEAD + (
    f"MOTIF REB1\nletter-probability matrix: {{0}}\n{REB1}\n"
    f"MOTIF TATA box\nletter-probability matrix: {{1}}\n{TATA}\n"
)
FULL = f"""{HEAD}********
MOTIF  GGGTAA MEME-1\twidth =   6  sites =  18  llr = 214  E-value = 1.1e-005
********
\tMotif GGGTAA MEME-1 Description
Simplified        A  ::::aa
log-odds matrix: alength= 4 w= 6 n= 100 bayes= 5 E= 1.1e-005
  -200    -80    100   -300
letter-probability matrix: alength= 4 w= 6 nsites= 18 E= 1.1e-005
{REB1}--------
Time  0.10 secs.
"""


@pytest.fixture
def meme(tmp_path: Path):
    def write(text: str | bytes, name: str = "m.meme") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("alength= 4 w= 6 nsites= 20 E= 0", "alength= 4 w= 5 nsites= 20 E= 0"),
        ("", ""),
        ("nsites= 1000.0", "alength= 4 w= 5 nsites= 1000.0 E= 1e-3"),
        ("w=6", "alength=4"),
        ("\n", "w= 5"),  # a blank line before the rows
    ],
)
@pytest.mark.parametrize("how", ["plain", "gzip", "windows"])
def test_every_valid_header_is_read(meme, first, second, how):
    text = BOTH.format(first, second)
    content = {"plain": text.encode(), "gzip": gzip.compress(text.encode()),
               "windows": b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()}[how]  # fmt: skip
    found = read_meme(meme(content))
    assert list(found) == ["REB1", "TATA box"]
    assert [consensus(matrix) for matrix in found.values()] == ["GGGTAA", "TATAA"]
    assert found["REB1"].shape == (4, 6)


def test_names_may_be_numbers(meme):
    found = read_meme(meme(BOTH.format("", "").replace("MOTIF TATA box", "MOTIF 1 2")))
    assert [consensus(found[name]) for name in ("REB1", "1 2")] == ["GGGTAA", "TATAA"]


def test_the_full_output_of_meme_is_read(meme):
    found = read_meme(meme(FULL))
    assert {name: consensus(matrix) for name, matrix in found.items()} == {
        "GGGTAA MEME-1": "GGGTAA"
    }


@pytest.mark.parametrize(
    ("column", "letter"),
    [
        ((0, 0, 1, 0), "G"),
        ((0.25, 0.25, 0.25, 0.25), "N"),
        ((0.24, 0.26, 0.25, 0.25), "N"),
        ((0.4, 0.3, 0.2, 0.1), "N"),
        ((0.5, 0, 0, 0.5), "W"),
        ((0.1, 0.2, 0.6, 0.1), "G"),
        ((0.7, 0.1, 0.1, 0.1), "A"),
        ((0.6, 0.35, 0.05, 0), "M"),  # over half, but not twice the next
        ((0.05, 0.45, 0.05, 0.45), "Y"),
        ((0, 0.3, 0.3, 0.4), "B"),
        ((0.34, 0.33, 0.33, 0), "V"),
    ],
)
def test_a_column_becomes_the_letter_of_what_it_says(column, letter):
    assert consensus(np.array(column, np.float32)[:, None]) == letter


def test_uninformative_columns_keep_what_is_there(meme):
    rows = "0 0 1 0\n0.25 0.25 0.25 0.25\n0.24 0.26 0.25 0.25\n0.5 0 0 0.5\n0 0 0 1\n"
    path = meme(f"{HEAD}MOTIF LOW\nletter-probability matrix: w= 5\n{rows}")
    (motif,) = read_motifs([], str(path))
    assert motif.letters == "GNNWT"
    drawn = motif.drawn(np.random.default_rng(0), 200)
    assert (drawn[:, 1:3] == 4).all()
    assert set(drawn[:, 3]) == {0, 3}


def test_a_motif_without_a_base_is_said(meme, capsys):
    path = meme(f"{HEAD}MOTIF flat\nletter-probability matrix:\n.25 .25 .25 .25\n")
    (motif,) = read_motifs([], str(path))
    assert motif.letters == "N"
    assert capsys.readouterr().out == "of flat no column names a base: they change nothing\n"


ONE = "MOTIF A\nletter-probability matrix: w= 1\n1 0 0 0\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + ONE + ONE, r"two motifs are named A, in lines 10 and 13\. Give each its own name"),
        (BOTH.format("w= 4", ""), r"line 11: motif REB1 has w= 4, but 6 rows follow\. Write w= 6"),
        (BOTH.format("w= 7", ""), r"line 11: motif REB1 has w= 7, but 6 rows follow"),
        (BOTH.format("w= six", ""), r"REB1 has w= six, but 6 rows"),
        (BOTH.format("alength= 20", ""), r"line 11: alength= 20, but DNA has 4 letters"),
        (
            BOTH.format("", "").replace("1 0 0 0", "1 zero 0 0"),
            r"line 16: 1 zero 0 0 in motif REB1",
        ),
        (BOTH.format("", "").replace("1 0 0 0", "1 0 0"), r"1 0 0 in motif REB1 is not four prob"),
        (BOTH.format("", "").replace("1 0 0 0", "12 3 5 0"), r"12 3 5 0 in motif REB1 is not four"),
        (BOTH.format("", "").replace("1 0 0 0", "nan 0 0 1"), r"nan 0 0 1 in motif REB1 is not"),
        (BOTH.format("", "").replace("1 0 0 0", "0 0 0 0"), r"the row of motif REB1 adds up to 0,"),
        (HEAD + "MOTIF A\n" + ONE, r"two motifs are named A|motif A has no letter-probability"),
        (HEAD + "MOTIF A\n", r"line 10: motif A has no letter-probability matrix"),
        (HEAD + "MOTIF\n", r"line 10: a motif without a name"),
        (HEAD + ONE[8:], r"line 10: a matrix before any motif"),
        (HEAD + ONE + ONE[8:], r"line 13: motif A has a second matrix"),
        (HEAD.replace("ACGT", "ACGU") + ONE, r"line 3: the alphabet is ACGU, not ACGT"),
        ("MEME version 4\n", r"no motif in it\. Give a file in MEME's format"),
        (">MA1\nA [1 2]\n", r"no motif in it"),
        ("", r"the file is empty"),
        (b"MEME\xff\xfe", r"not a text file in UTF-8"),
        (gzip.compress(BOTH.encode())[:-9], r"truncated or damaged"),
    ],
)
def test_what_is_no_meme_file_is_named(meme, text, message):
    with pytest.raises(DataError, match=message) as caught:
        read_meme(meme(text))
    assert "\n" not in str(caught.value)


def test_one_name_in_the_list_and_in_the_file(meme):
    path = meme(BOTH.format("", ""))
    with pytest.raises(
        CherimoyaError, match=r"named REB1: of motifs=REB1:AC and of motif_file=.*m"
    ):
        read_motifs(["REB1:AC"], str(path))


def test_known_motifs_of_modisco_are_read_alike(meme):
    pytest.importorskip("modiscolite")
    with pytest.raises(DataError, match=r"two motifs are named A, in lines 10 and 13"):
        check_modisco(str(meme(HEAD + ONE + ONE)))
    check_modisco(str(meme(gzip.compress(BOTH.format("", "").encode()))))
