"""FASTA files of any layout, read in pieces of bounded size."""

import gzip
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import letters

from cherimoya.errors import DataError
from cherimoya.genome import fasta

MEGABYTES = 60  # of one line


def read_plainly(text: str) -> dict[str, str]:
    """The sequences of a FASTA text, by the format's definition."""
    found: dict[str, str] = {}
    for line in text.split("\n"):
        if line.startswith(">"):
            name = line[1:].split()[0]
            found[name] = ""
        else:
            found[name] += "".join(line.split())
    return found


LINES = st.lists(st.text("ACGTNacgtn>", max_size=12).filter(lambda t: t[:1] != ">"), max_size=6)


@given(st.lists(LINES, min_size=1, max_size=5), st.integers(1, 40), st.sampled_from(["\n", "\r\n"]))
@settings(max_examples=300, deadline=None)
def test_blocks_of_any_size_give_the_same(tmp_path_factory, records, size, ends):
    folder = tmp_path_factory.mktemp("fasta")
    text = "\n".join("\n".join([f">s{i} a > note", *lines]) for i, lines in enumerate(records))
    (folder / "x.fa").write_bytes(text.replace("\n", ends).encode())
    before, fasta.FASTA_BLOCK = fasta.FASTA_BLOCK, size
    try:
        genome = fasta.read_genome(folder / "x.fa", folder / "codes")
    finally:
        fasta.FASTA_BLOCK = before
    expected = {name: bases.upper().replace(">", "N") for name, bases in read_plainly(text).items()}
    assert {name: letters(genome.codes(name)) for name in genome.lengths} == expected


@pytest.mark.parametrize("packed", [False, True])
def test_memory_does_not_grow_with_a_line(tmp_path: Path, packed: bool) -> None:
    content = b">chr1\n" + b"ACGTTGCA" * (MEGABYTES << 17) + b"\n"
    (tmp_path / "long.fa").write_bytes(gzip.compress(content, 1) if packed else content)
    tracemalloc.start()
    try:
        genome = fasta.read_genome(tmp_path / "long.fa", tmp_path / "codes")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert genome.lengths == {"chr1": MEGABYTES << 20}
    assert peak < 30e6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b">" + b"A" * 3_000_000, r"a header line of more than 1,048,576 letters"),
        (
            b">chr1\rACGT\rACGT\r>chr2\rACGT\r",
            r"carriage returns alone\. Write new ones: tr '\\r' ",
        ),
        (b"ACGT\n>chr1\n", r"not a FASTA file"),
        (b"\n>chr1\nACGT\n", r"not a FASTA file"),
    ],
)
def test_what_is_no_fasta_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.fa").write_bytes(content)
    with pytest.raises(DataError, match=message):
        fasta.read_genome(tmp_path / "x.fa", None)
