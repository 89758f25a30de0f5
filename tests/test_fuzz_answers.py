"""Whatever is in a FASTA, VCF, MEME or attributions file: it is read, or refused in words."""

import gzip
import os
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pysam.bcftools
import pytest
from fuzzing import INPUTS, TOKENS, Outcomes, fuzz, lines, mutated, text
from hypothesis import given
from hypothesis import strategies as st
from toy import Toy

from cherimoya.errors import CherimoyaError
from cherimoya.genome.fasta import read_genome
from cherimoya.genome.fasta_index import genome_on_disk
from cherimoya.genome.meme import read_meme
from cherimoya.genome.vcf import read_variants
from cherimoya.interpret.motifs import consensus
from cherimoya.interpret.variants_windows import check_variants, renamed
from cherimoya.interpret.variants_write import Effects, write_vcf
from cherimoya.records.attributions import read_attributions, write_attributions
from cherimoya.util.marks import mark_of, write_mark

pytestmark = pytest.mark.slow

FASTA = b">chr1 a note\nACGTNacgtn\nACGT\n\n>chr2\r\nGGGRYK\r\n>empty\n>chr3\nAC GT\n"
MEME = b"""MEME version 4

ALPHABET= ACGT

MOTIF M1 first
letter-probability matrix: alength= 4 w= 3 nsites= 20 E= 1e-3
 0.1 0.2 0.6 0.1
 0.0 0.0 0.0 1.0
 0.7 0.1 0.1 0.1
URL http://x

MOTIF M2
letter-probability matrix:
 0.0 1.0 0.0 0.0
 0.25 0.25 0.25 0.25
"""
MEME_LINES = st.lists(
    st.sampled_from([line + b"\n" for line in [*MEME.split(b"\n"), *TOKENS]]), max_size=20
).map(b"".join)
FASTA_LINES = lines([b">a", b">b c", b">", b"ACGT", b"nnNN", b"RY", b""])


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where the files are: in memory if they can be, as there are many."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as made:
        yield Path(made)


def kinds(good: bytes) -> list[st.SearchStrategy[bytes]]:
    """A valid content with changes: as it is, packed before and after them, as gzip or BGZF."""
    packed = [gzip.compress(good, 1, mtime=0), bgzf(good)]
    return [mutated(good), mutated(good).map(bgzf), *(mutated(one, 2) for one in packed)]


def bgzf(content: bytes, size: int = 60) -> bytes:
    """`content` as BGZF in blocks of `size` bytes, with the empty block at its end."""
    blocks = [content[at : at + size] for at in range(0, len(content), size)]
    return b"".join(map(_block, [*blocks, b""]))


def _block(content: bytes) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    data = packer.compress(content) + packer.flush()
    head = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\0BC\x02\0" + struct.pack("<H", len(data) + 25)
    return head + data + struct.pack("<II", zlib.crc32(content), len(content))


def check(
    what: str,
    read: Callable[[Path], object],
    path: Path,
    contents: st.SearchStrategy[bytes],
    *good: bytes,
    cost: int = 1,
) -> None:
    """Each content at `path` is read, or refused in one printable line of some length."""
    outcomes = Outcomes(what)

    def read_or_refuse() -> None:
        try:
            read(path)
        except CherimoyaError as error:
            if not str(error).isprintable() or len(str(error)) > 1500:
                pytest.fail(f"not one line: {error}")
            raise

    @given(contents)
    def one(content: bytes) -> None:
        path.write_bytes(content)
        outcomes.of(read_or_refuse)

    fuzz(one, outcomes, INPUTS // cost, cost, good)


def test_fasta(folder: Path) -> None:
    codes = folder / "codes"

    def read(path: Path) -> None:
        genome = read_genome(path, codes, lambda _: None)
        assert codes.stat().st_size == sum(genome.lengths.values())
        for name, length in genome.lengths.items():
            assert len(genome.codes(name)) == length

    check("FASTA", read, folder / "x.fa", st.one_of(*kinds(FASTA), FASTA_LINES, text()), FASTA)


def test_meme(folder: Path) -> None:
    def read(path: Path) -> None:
        for matrix in read_meme(path).values():
            assert set(consensus(matrix)) <= set("ACGTRYSWKMBDHVN")

    check("MEME", read, folder / "x.meme", st.one_of(*kinds(MEME), MEME_LINES, text()), MEME)


@pytest.fixture
def rows(toy: Toy) -> list[bytes]:
    """Lines of a VCF file whose reference alleles are the genome's."""
    at = [(chrom, place) for chrom in ("chrA", "chrB") for place in (700, 900, 1100)]
    found = [f"{c}\t{p}\t.\t{toy.bases[c][p - 1]}\tGT,A\t.\tPASS\tAF=0.1" for c, p in at]
    return [line.encode() for line in found]


@pytest.mark.parametrize("kind", ["VCF", "table", "BCF"])
def test_variants(toy: Toy, folder: Path, rows: list[bytes], kind: str) -> None:
    head = b"##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    if kind == "table":
        head = b"chrom\tpos\tid\tref\talt\n"
    vcf = head + b"\n".join(rows) + b"\n"
    values = [
        [b"chrA"],
        [b"700", b"3999"],
        [b"."],
        [rows[0].split(b"\t")[3]],
        [b"A", b"GT,C", b"*"],
    ]
    contents = st.one_of(*kinds(vcf), lines(*values).map(lambda made: head + made), text())
    if kind == "BCF":
        told = b"##contig=<ID=chrA>\n##contig=<ID=chrB>\n"
        told += b'##INFO=<ID=AF,Number=A,Type=Float,Description="x">\n'
        named = vcf.replace(b"#CHROM", told + b"#CHROM")
        (folder / "good.vcf").write_bytes(named)
        unpacked, packed = folder / "good.ubcf", folder / "good.bcf"
        for path, option in ((unpacked, "-Ou"), (packed, "-Ob")):
            words = (option, "-o", str(path), str(folder / "good.vcf"))
            pysam.bcftools.view(*words, catch_stdout=False)
        contents = st.one_of(
            mutated(unpacked.read_bytes()), mutated(unpacked.read_bytes()).map(bgzf),
            mutated(packed.read_bytes(), 2), mutated(b"BCF\2\2" + vcf),
        )  # fmt: skip
    with genome_on_disk(toy.folder / "toy.fa") as genome:

        def read(path: Path) -> None:
            found = read_variants(path)
            status = check_variants(renamed(found, genome, "none", str(path)), genome, 200, "x")
            column = {"jsd": np.zeros(len(found))}
            write_vcf(folder / "o.vcf", path, Effects(found, status, column, 0, {}))
            assert (folder / "o.vcf").read_bytes().endswith(b"\n")

        good, cost = ([], 5) if kind == "BCF" else ([vcf], 1)  # each in another process
        check(kind, read, folder / "x.vcf", contents, *good, cost=cost)


def test_attributions(folder: Path) -> None:
    """As they were written, by the mark beside them: HDF5 itself would hang over some."""
    rng, path = np.random.default_rng(0), folder / "x.h5"
    write_attributions(
        path, rng.integers(0, 5, (3, 12)).astype(np.uint8),
        np.array(["chr1", "chr1", "chr2"]), np.array([5, 50, 7]),
        {"counts_0": rng.normal(size=(3, 4, 12)).astype(np.float32)}, {"method": "gradient"}, {},
    )  # fmt: skip
    write_mark(mark_of(path), {}, [path])
    check("attributions", read_attributions, path, mutated(path.read_bytes()) | text())
