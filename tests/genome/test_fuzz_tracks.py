"""Readers of loci, names, fragments, BAM and bigWig files take any input without a traceback."""

import gzip
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import bigwig_files
import pytest
from bigwig_files import sections
from fuzzing import INPUTS, Outcomes, fuzz, lines, mutated, text
from hypothesis import given
from hypothesis import strategies as st
from toy import LENGTHS, Toy, configure
from toy_tracks import bam

from cherimoya.genome.cells import read_cells
from cherimoya.genome.chrom_names import Aliases
from cherimoya.genome.fasta import Genome, read_genome
from cherimoya.genome.intervals import read_intervals
from cherimoya.genome.open_tracks import matched, open_tracks

pytestmark = pytest.mark.slow

BED = b"#h\nchrA\t100\t200\tp\t5\t+\nchrB\t50\t150\tq\t5\t-\nchrA\t3990\t4000\n"
NARROW = b"chrA\t100\t200\tp\t0\t.\t1.5\t2\t3\t50\nchrB\t20\t90\tq\t0\t.\t1\t2\t3\t0\n"
FRAGMENTS = (
    b"#h\nchrA\t100\t150\tAC\t3\nchrA\t100\t160\tAC\t1\nchrB\t0\t7\tGT\t2\nchrB\t9\t9\tG\t1\n"
)
READS = b"chrA\t100\t150\tr/1\t3\t+\nchrA\t120\t160\tr/2\t1\t-\nchrB\t0\t7\tr\t2\t+\n"
TABLE = b"#genome\tother\nchrA\tA\tone\nB\tchrB\nchrC C\n"


CELLS = b"barcode\tcell_type\nAC-1\tT cell\nGT-1\tB\nCC-1\tc10\tmore\n"


def files(usual: st.SearchStrategy[bytes], *good: bytes) -> st.SearchStrategy[bytes]:
    """Usual and unusual lines, changes of valid files, and the like after gzip."""
    plain = st.one_of(usual, usual, text(), *(mutated(one, 2) for one in good))
    packed = st.one_of(*(mutated(gzip.compress(one, mtime=0), 2) for one in good))
    return st.one_of(plain, plain, plain, packed, plain.map(lambda data: gzip.compress(data, 1)))


CHROMS, FROM = [b"chrA", b"chrB", b"chrC", b"A"], [b"0", b"7", b"90", b"-3"]
TO, ONES = [b"91", b"150", b"1999", b"2003"], [b"1", b"2", b"9"]
PLACES = st.one_of(
    lines(CHROMS, FROM[:3], TO),
    lines(CHROMS, FROM[:3], TO, [b"p"], [b"0"], [b"."], *[[b"1.5", b"2"]] * 3, [b"0", b"9"]),
)
NAMES = lines([b"chrA", b"chrB", b"chrC"], [b"A", b"B", b"one", b"C"])
INTERVALS = {
    "auto": st.one_of(
        lines(CHROMS, FROM, TO, [b"AC", b"GT"]),
        lines(CHROMS, FROM, TO, [b"1.5", b"2"]),  # bedGraph
        lines(CHROMS, FROM, TO, CHROMS, FROM, TO, [b"p"], ONES, [b"+", b"-"], [b"+", b"-"]),
        PLACES,
    ),
    "fragments": lines(CHROMS, FROM, TO, [b"AC", b"GT"], ONES),
    "reads": lines(CHROMS, FROM, TO, [b"r/1"], ONES, [b"+", b"-"]),
}


@pytest.fixture(autouse=True)
def in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Temporary files lie in memory where they can, as there are many."""
    if os.access("/dev/shm", os.W_OK):
        monkeypatch.setattr(tempfile, "tempdir", "/dev/shm")


@pytest.fixture
def genome(toy: Toy) -> Genome:
    return read_genome(toy.folder / "toy.fa", None, lambda _: None)


def reader(
    path: Path, genome: Genome, kind: str = "auto", chroms: Iterable[str] = LENGTHS
) -> Callable[[], float]:
    """What gives the sum of the track at `path`, opened and checked as the commands do."""
    config = configure(
        fasta="-", loci="-", signal=[[str(path)]], output="-",
        fragments={"kind": kind, "shift_plus": 4, "shift_minus": -5, "counts": kind == "fragments"},
    )  # fmt: skip

    def read() -> float:
        with open_tracks(config.signal, "signal", config, tell=lambda _: None) as ((track,),):
            matched(track, list(LENGTHS), Aliases("auto", genome, lambda _: None), genome)
            return sum(float(track.values(chrom, 0, 2000).sum()) for chrom in chroms)

    return read


def test_loci(toy: Toy, genome: Genome) -> None:
    outcomes, path = Outcomes("BED and narrowPeak"), toy.folder / "x.bed"

    def read(center: str) -> None:
        places = read_intervals(path, center)
        Aliases("auto", genome, lambda _: None).accepted(places.chrom.tolist(), "loci=x.bed")
        assert (places.start >= 0).all()
        assert ((places.start <= places.center) & (places.center < places.end)).all()

    @given(files(PLACES, BED, NARROW))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        outcomes.of(read, ["midpoint", "summit"][sum(data) % 2])

    fuzz(check, outcomes, good=[BED, NARROW])


def test_tables_of_names(toy: Toy, genome: Genome) -> None:
    outcomes, path = Outcomes("table of names"), toy.folder / "x.tsv"

    def read() -> None:
        aliases = Aliases(str(path), genome, lambda _: None)
        assert set(aliases.of(["A", "B", "one", "chrA"], "x.bw").values()) <= set(LENGTHS)

    @given(files(NAMES, TABLE))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        outcomes.of(read)

    fuzz(check, outcomes, good=[TABLE])


def test_tables_of_cells(toy: Toy) -> None:
    outcomes, path = Outcomes("table of cells"), toy.folder / "x.tsv"

    def read() -> None:
        cells = read_cells(path)
        assert set(cells.group_of.values()) == set(range(len(cells.names)))
        assert all(name.isprintable() and "/" not in name for name in cells.names)

    @given(files(lines([b"AC-1", b"GT-1", b"", b"C"], [b"T cell", b"B", b"1"]), CELLS))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        outcomes.of(read)

    fuzz(check, outcomes, good=[CELLS])


@pytest.mark.parametrize("kind", ["auto", "fragments", "reads"])
def test_fragments_and_other_intervals(toy: Toy, genome: Genome, kind: str) -> None:
    outcomes, path = Outcomes(f"intervals as signal, {kind}"), toy.folder / "x.tsv"
    read = reader(path, genome, kind)

    @given(files(INTERVALS[kind], FRAGMENTS, READS, BED, NARROW))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        total = outcomes.of(read)
        assert total is None or total >= 0

    fuzz(check, outcomes, INPUTS // 3 + 1, good=[FRAGMENTS, READS, BED, NARROW])


def test_bam_files(toy: Toy, genome: Genome) -> None:
    pysam = pytest.importorskip("pysam")
    outcomes, path = Outcomes("BAM"), bam(toy, *READS_OF_BAM)
    good = path.read_bytes()
    inner = gzip.decompress(good)

    def packed(data: bytes) -> bytes:
        with pysam.BGZFile(str(path), "wb") as file:
            file.write(data)
        return path.read_bytes()

    index, read = Path(f"{path}.bai"), reader(path, genome, chroms=["chrA"])

    @given(st.one_of(mutated(good, 1), mutated(inner, 2).map(packed)), mutated(index.read_bytes()))
    def check(data: bytes, beside: bytes) -> None:
        path.write_bytes(data)
        index.write_bytes(beside)
        total = outcomes.of(read)
        assert total is None or total >= 0

    fuzz(check, outcomes)


READS_OF_BAM = [("chrA", 100, 0, 9), ("chrA", 200, 16, 9), ("chrB", 7, 16, 9), ("chrC", 90, 0, 9)]


def test_bigwig_files(toy: Toy, genome: Genome) -> None:
    outcomes, path = Outcomes("bigWig"), toy.folder / "x.bw"
    made = [one for kind in (1, 2, 3) for one in sections(kind)[0][kind - 1 : kind]]
    made.sort(key=lambda one: (one[1], int(one[2][0])))
    kinds = {
        (order, packed): bigwig_files.write(path, LENGTHS, made, order, packed).read_bytes()
        for order in "<>"
        for packed in (True, False)
    }
    read = reader(path, genome)

    @given(st.one_of(*(mutated(good, 2) for good in kinds.values())))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        outcomes.of(read)

    fuzz(check, outcomes)
