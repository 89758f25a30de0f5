"""Whatever is in a FASTA, VCF, MEME or attributions file: it is read, or refused in words."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from fuzzing import bgzf, check_reader, generated, mutated
from hypothesis import strategies as st
from toy import Toy

from cherimoya.analysis.interpret.motifs import consensus
from cherimoya.analysis.interpret.variants_windows import check_variants, renamed
from cherimoya.analysis.interpret.variants_write import Effects, write_vcf
from cherimoya.data.attributions import read_attributions, write_attributions
from cherimoya.data.meme import read_meme
from cherimoya.data.sources import genome_on_disk, read_genome
from cherimoya.data.variants import read_variants

pytestmark = pytest.mark.slow

FASTA = b">chr1 a note\nACGTNacgtn\nACGT\n\n>chr2\r\nGGGRYK\r\n>empty\n>chr3\nAC GT\n"
MEME = b"""MEME version 4

ALPHABET= ACGT

strands: + -

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


def packed(content: bytes) -> list[bytes]:
    """The same as it is, as gzip and as BGZF."""
    return [content, gzip.compress(content, mtime=0), bgzf(content)]


@pytest.mark.parametrize("kind", [0, 1, 2], ids=["plain", "gzip", "bgzf"])
def test_fasta(tmp_path: Path, kind: int) -> None:
    def read(path: Path) -> None:
        genome = read_genome(path, tmp_path / "codes")
        assert (tmp_path / "codes").stat().st_size == sum(genome.lengths.values())
        for name, length in genome.lengths.items():
            assert len(genome.codes(name)) == length

    words = [">", ">a", ">b c", "ACGT", "NNN", "\r", ""]
    contents = mutated([packed(FASTA)[kind]])
    if not kind:
        contents |= generated(words, "")
    check_reader(read, tmp_path / "x.fa", contents)


@pytest.mark.parametrize("kind", [0, 1, 2], ids=["plain", "gzip", "bgzf"])
def test_meme(tmp_path: Path, kind: int) -> None:
    def read(path: Path) -> None:
        for matrix in read_meme(path).values():
            assert set(consensus(matrix)) <= set("ACGTRYSWKMBDHVN")

    words = ["MOTIF", "letter-probability", "matrix:", "w=", "alength=", "4", "2", "0", "1", "0.25",
             "ALPHABET=", "ACGT", "URL", "0 0 1 0"]  # fmt: skip
    contents = mutated([packed(MEME)[kind]])
    if not kind:
        contents |= generated(words, " ")
    check_reader(read, tmp_path / "x.meme", contents, least=50)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    pytest.importorskip("pybigtools")
    return Toy(tmp_path_factory.mktemp("toy"))


@pytest.mark.parametrize("kind", [0, 1, 2, 3], ids=["plain", "gzip", "bgzf", "bcf"])
def test_vcf(toy: Toy, tmp_path: Path, kind: int) -> None:
    rows = [(chrom, at) for chrom in ("chrA", "chrB") for at in (700, 900, 1100)]
    lines = [f"{c}\t{at}\t.\t{toy.bases[c][at - 1]}\tGT,A\t.\tPASS\tAF=0.1" for c, at in rows]
    head = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    table = "chrom\tpos\tref\talt\n" + f"chrA\t700\t{toy.bases['chrA'][699]}\tG\n"
    vcf = (head + "\n".join(lines) + "\n").encode()
    valid = [packed(vcf), packed(table.encode()), [b"BCF\2\2" + bgzf(vcf), bgzf(b"BCF\2\2" + vcf)]]
    with genome_on_disk(toy.fasta(f"{kind}.fa")) as genome:

        def read(path: Path) -> None:
            found = read_variants(path)
            status = check_variants(renamed(found, genome, "none", str(path)), genome, 200, "x")
            column = {"jsd": np.zeros(len(found))}
            written = write_vcf(tmp_path / "o.tsv", path, Effects(found, status, column, 0, {}, {}))
            assert written.read_text(encoding="utf-8").startswith("##")

        words = ["chrA", "chrom", "pos", "ref", "alt", "#CHROM", "POS", "ID", "REF", "ALT", "700",
                 "A", "G", "A,C", "<DEL>", "*", ".", "##fileformat=VCFv4.2", ""]  # fmt: skip
        contents = mutated(valid[2] if kind == 3 else [valid[0][kind], valid[1][kind]])
        if not kind:
            contents |= generated(words)
        check_reader(read, tmp_path / "x.vcf", contents, least=0 if kind == 3 else 50)


def test_attributions(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    valid = write_attributions(
        tmp_path / "valid.h5", rng.integers(0, 5, (3, 12)).astype(np.uint8),
        np.array(["chr1", "chr1", "chr2"]), np.array([5, 50, 7]),
        {"counts_0": rng.normal(size=(3, 4, 12)).astype(np.float32)}, {"method": "gradient"}, {},
    )  # fmt: skip
    contents = mutated([valid.read_bytes()]) | st.binary(max_size=40)
    check_reader(read_attributions, tmp_path / "x.h5", contents)
