"""FASTA files through an index: letters as of the whole file, or a word and the whole file."""

import gzip
import os
import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cherimoya.errors import DataError
from cherimoya.genome import fasta, fasta_index
from cherimoya.genome.fasta_index import IndexedGenome, genome_lengths, genome_on_disk

pysam = pytest.importorskip("pysam")
LETTERS = "ACGTNacgtnRYSWKMBDHVryswkmbdhv"


def made(path: Path, sequences: list[str], width: int, ends: str, packed: bool) -> Path:
    """A FASTA file and its index, by htslib."""
    text = "".join(
        f">s{i} of {len(one)}{ends}"
        + "".join(f"{one[at : at + width]}{ends}" for at in range(0, len(one), width))
        for i, one in enumerate(sequences)
    )
    path.write_bytes(text.encode())
    if packed:
        pysam.tabix_compress(str(path), f"{path}.gz", force=True)
        path = path.with_name(f"{path.name}.gz")
    pysam.faidx(str(path))
    return path


def quiet(_: str) -> None:
    """No messages."""


@given(
    sequences=st.lists(st.text(LETTERS, min_size=1, max_size=90), min_size=1, max_size=5),
    width=st.integers(1, 40), ends=st.sampled_from(["\n", "\r\n"]), packed=st.booleans(),
    at_once=st.integers(1, 50), cuts=st.lists(st.integers(0, 99), min_size=2, max_size=8),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_the_same_letters_as_of_the_whole_file(
    tmp_path_factory, sequences, width, ends, packed, at_once, cuts
):
    folder = tmp_path_factory.mktemp("index")
    path = made(folder / "x.fa", sequences, width, ends, packed)
    whole = fasta.read_genome(path, folder / "codes", quiet)
    before, fasta_index.AT_ONCE = fasta_index.AT_ONCE, at_once
    try:
        with genome_on_disk(path, quiet) as genome:
            assert isinstance(genome, IndexedGenome)
            assert genome.lengths == whole.lengths == genome_lengths(path, quiet)
            sent = pickle.loads(pickle.dumps(genome))
            for name, length in whole.lengths.items():
                one, other = genome.codes(name), np.array(whole.codes(name))
                assert len(one) == len(other) == length
                np.testing.assert_array_equal(np.asarray(one), other)
                np.testing.assert_array_equal(sent.codes(name)[1:], other[1:])
                for start, end in pairwise(cuts):
                    np.testing.assert_array_equal(one[start:end], other[start:end])
                some = np.array(cuts) % length
                np.testing.assert_array_equal(one[some], other[some])
    finally:
        fasta_index.AT_ONCE = before


@pytest.fixture(params=[False, True], ids=["plain", "BGZF"])
def indexed(tmp_path: Path, request) -> Path:
    """Three sequences of 100,000 letters, of several blocks, in lines of 60."""
    rng = np.random.default_rng(0)
    sequences = ["".join(rng.choice(list("ACGTNacg"), 100_000)) for _ in range(3)]
    return made(tmp_path / "g.fa", sequences, 60, "\n", request.param)


def test_blocks_are_read_where_they_are_needed(indexed, tmp_path, monkeypatch):
    whole = fasta.read_genome(indexed, tmp_path / "codes", quiet)
    monkeypatch.setattr(fasta_index, "read_genome", None)
    monkeypatch.setattr(fasta_index, "spooled_genome", None)
    with genome_on_disk(indexed, quiet) as genome:
        for start in (0, 59, 60, 65_000, 99_000):
            here = slice(start, start + 1000)
            np.testing.assert_array_equal(genome.codes("s1")[here], whole.codes("s1")[here])


def older(path: Path) -> None:
    stamp = path.stat().st_mtime + 10
    os.utime(path, (stamp, stamp))


def of_another(path: Path) -> None:
    index = Path(f"{path}.fai")
    index.write_text(index.read_text().replace("s1\t", "other\t"))


def cut_index(path: Path) -> None:
    index = Path(f"{path}.fai")
    index.write_text("".join(index.read_text().splitlines(True)[:-1]))


def wrong_lines(path: Path) -> None:
    index = Path(f"{path}.fai")
    index.write_text(index.read_text().replace("\t60\t61", "\t61\t62"))


def nonsense(path: Path) -> None:
    Path(f"{path}.fai").write_bytes(b"\xff\xfe no index")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(older, "older than the file"), (of_another, "other is not where it says"),
     (cut_index, "has another size"), (wrong_lines, "is not where it says"), (nonsense, "")],
)  # fmt: skip
def test_an_index_that_does_not_fit_is_left_aside(indexed, tmp_path, spoil, said):
    whole = fasta.read_genome(indexed, tmp_path / "codes", quiet)
    spoil(indexed)
    heard: list[str] = []
    with genome_on_disk(indexed, heard.append) as genome:
        assert not isinstance(genome, IndexedGenome)
        assert genome.lengths == whole.lengths
        np.testing.assert_array_equal(genome.codes("s2"), whole.codes("s2"))
    assert said in heard[0]
    assert "samtools faidx" in heard[0]


def test_no_index_and_plain_gzip_need_no_word(tmp_path):
    path = made(tmp_path / "x.fa", ["ACGT"], 4, "\n", False)
    zipped = tmp_path / "z.fa.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    Path(f"{path}.fai").rename(f"{zipped}.fai")
    for one in (path, zipped):
        heard: list[str] = []
        assert fasta_index.open_indexed(one, heard.append) is None
        assert heard == []


def test_lines_that_were_changed_later_are_never_read_as_others(tmp_path):
    path = made(tmp_path / "x.fa", ["ACGTACGTAC" * 4, "GGGG"], 10, "\n", False)
    index = Path(f"{path}.fai")
    text = path.read_text()
    path.write_text(text.replace("ACGTACGTAC\nACGTACGTAC\n", "ACGTACGTACACG\nTACGTAC\n", 1))
    os.utime(index, (path.stat().st_mtime + 10,) * 2)
    with (
        genome_on_disk(path, quiet) as genome,
        pytest.raises(DataError, match=r"lines of other lengths than its index says.*faidx"),
    ):
        genome.codes("s0")[:]


def test_damage_of_a_block_is_said(tmp_path):
    rng = np.random.default_rng(0)
    path = made(tmp_path / "g.fa", ["".join(rng.choice(list("ACGT"), 300_000))], 60, "\n", True)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    for end in (".fai", ".gzi"):
        os.utime(f"{path}{end}", (path.stat().st_mtime + 10,) * 2)
    with (
        genome_on_disk(path, quiet) as genome,
        pytest.raises(DataError, match=r"g\.fa\.gz: damaged, or its index is not of it"),
    ):
        genome.codes("s0")[:]
