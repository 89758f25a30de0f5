"""Text files without line ends: refused in little memory, with the line's number."""

import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from toy import Toy, refused

from cherimoya.errors import DataError
from cherimoya.genome import fasta, fragments
from cherimoya.genome.intervals import read_intervals
from cherimoya.genome.meme import read_meme
from cherimoya.genome.vcf import read_variants

READERS: dict[str, Callable[[Path], object]] = {
    "bed": lambda path: read_intervals(path, "midpoint"),
    "vcf": read_variants,
    "meme": read_meme,
}


@pytest.mark.parametrize("name", READERS)
def test_a_long_line_is_not_read_whole(name, tmp_path, monkeypatch):
    monkeypatch.setattr(fasta, "MOST_LINE", 1 << 20)
    path = tmp_path / "long.txt"
    path.write_bytes(b"##first\n" + b"7" * (1 << 25))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"long\.txt, line 2: longer than 1,048,576 letters"):
            READERS[name](path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


def test_fragments_without_line_ends_are_refused_at_once(toy: Toy, monkeypatch):
    monkeypatch.setattr(fasta, "MOST_LINE", 1 << 20)
    monkeypatch.setattr(fragments, "BLOCK", 1 << 16)
    toy.bed("chrA\t100\t200")
    path = toy.folder / "long.tsv"
    path.write_bytes(b"chrA\t1\t9\n" + b"7" * (1 << 27))
    start = time.monotonic()
    message = refused(toy, r"long\.tsv, line 2: longer than", signal=[[str(path)]])
    assert time.monotonic() - start < 10  # 140 s where each block is joined to all before
    assert len(message) < 1000


def test_a_message_does_not_repeat_a_long_line(tmp_path):
    for line in ("7" * 10_000, f"chr1\t{'7' * 10_000}\t9"):
        (tmp_path / "a.bed").write_text(line)
        with pytest.raises(DataError) as refusal:
            read_intervals(tmp_path / "a.bed", "midpoint")
        assert len(str(refusal.value)) < 500


def test_many_alleles_of_a_long_one_take_no_more_time(tmp_path):
    path, alts = tmp_path / "a.vcf", ",".join(["C"] * 20_000)
    path.write_text(f"chrom\tpos\tref\talt\nchr1\t5\t{'A' * 200_000}\t{alts}\n")
    start = time.monotonic()
    assert len(read_variants(path)) == 20_000
    assert time.monotonic() - start < 10  # 50 s where the long one is looked through for each
