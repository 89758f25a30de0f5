"""BAM files with missing, old or damaged indexes, and damaged ones: the truth, or an error."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from fuzzing import changed
from toy import LENGTHS, Toy, refused
from toy_tracks import BAM, READ, bam, counted

from cherimoya.errors import DataError, ProcessError
from cherimoya.util.native import LibraryError, call

pysam = pytest.importorskip("pysam")

READS = [("chrA", at, 16 * (at % 2), 9) for at in range(0, 3000)]
LAST_BLOCK = 28  # bytes of the block that ends a BAM


def test_bams_that_cannot_be_read(toy: Toy) -> None:
    toy.bed("chrA\t100\t200")
    wild = bam(toy, *reversed(READS), name="wild.bam", index=False)
    refused(toy, "wild.bam: not sorted by coordinate.*samtools sort", signal=[[str(wild)]])
    mixed = bam(toy, ("chrA", 1, 0, 9), ("chrB", 1, 0, 9), ("chrA", 2, 0, 9), index=False)
    refused(toy, "reads.bam: not sorted by coordinate", signal=[[str(mixed)]])
    whole = bam(toy, *READS).read_bytes()
    cut = toy.folder / "cut.bam"
    for size in (len(whole) - LAST_BLOCK, len(whole) // 2, 40):
        cut.write_bytes(whole[:size])
        refused(toy, "cut.bam: truncated", signal=[[str(cut)]])
    garbled = bytearray(whole)
    garbled[len(whole) // 2 : len(whole) // 2 + 200] = bytes(200)
    cut.write_bytes(garbled)
    refused(toy, "cut.bam: truncated or damaged .*copy it again", signal=[[str(cut)]])
    void = toy.folder / "void.bam"
    with pysam.AlignmentFile(str(void), "wb", header={"HD": {"VN": "1.6"}}):
        pass
    refused(toy, "void.bam: its header names no chromosomes.*reheader", signal=[[str(void)]])
    late = bam(toy, ("chrA", 3000, 0, 9), name="late.bam")
    refused(toy, "late.bam is zero at the only locus.*bam.min_mapq", signal=[[str(late)]])
    sam = toy.write("x.sam", "@HD\tVN:1.6\n@SQ\tSN:chrA\tLN:4000\n")
    refused(toy, "x.sam: SAM or CRAM.*samtools sort", signal=[[str(sam)]])


def test_an_index_that_is_missing_old_or_damaged_changes_nothing(toy: Toy) -> None:
    toy.bed("chrA\t100\t200", "chrA\t2000\t2100")
    path = bam(toy, *READS)
    wanted = toy.run(signal=[[str(path)]]).signal
    assert wanted.sum() == 60
    assert not any("is older than" in line for line in toy.said)
    index = Path(f"{path}.bai")
    good = index.read_bytes()
    os.utime(index, (0, 0))
    np.testing.assert_array_equal(toy.run(signal=[[str(path)]]).signal, wanted)
    assert "reads.bam.bai is older than reads.bam: not used, the BAM was indexed afresh" in toy.said
    for bad in (None, good[: len(good) // 2], good[:40] + bytes(len(good) - 40), b"BAI\1"):
        index.unlink()
        if bad is not None:
            index.write_bytes(bad)
        elif bad is None:
            np.testing.assert_array_equal(toy.run(signal=[[str(path)]]).signal, wanted)
            index.write_bytes(b"")
        np.testing.assert_array_equal(toy.run(signal=[[str(path)]]).signal, wanted)


@pytest.mark.parametrize("order", ["unsorted", "queryname", "unknown"])
@pytest.mark.parametrize("index", [True, False])
def test_the_order_that_the_header_says_is_not_believed(toy: Toy, order: str, index: bool) -> None:
    toy.bed("chrA\t100\t200")
    path = bam(toy, *READS[:300], index=index, SO=order)
    assert toy.run(signal=[[str(path)]]).signal.sum() == 30


def without_cigar(path: Path, flag: int) -> None:
    """Take the CIGAR of the first read of the file, and give it a flag."""
    with pysam.AlignmentFile(str(path)) as file:
        header, reads = file.header, list(file)
    reads[0].cigarstring, reads[0].flag = None, flag
    with pysam.AlignmentFile(str(path), "wb", header=header) as file:
        for read in reads:
            file.write(read)


@pytest.mark.parametrize("flag", [0, 16])
def test_reads_without_a_cigar_are_refused_with_a_command(toy: Toy, flag: int) -> None:
    toy.bed("chrA\t100\t200")
    path = bam(toy, ("chrA", 90, 0, 9), ("chrA", 150, 0, 9))
    without_cigar(path, flag)
    message = refused(toy, r"read r at chrA:90 .0-based. is mapped but has no CIGAR",
                      signal=[[str(path)]])  # fmt: skip
    _, view, *rest = message.partition("out: ")[2].split()
    whole = toy.folder / "whole.bam"
    arguments = " ".join(rest).replace("'", "").replace("ncigar > 0", "ncigar>0").split()
    pysam.view(*[str(whole) if a == "whole.bam" else a for a in arguments], catch_stdout=False)
    assert view == "view"
    assert counted(whole) == [{150: 1}]
    without_cigar(path, 4)  # an unmapped read has none
    assert counted(path) == [{150: 1}]
    without_cigar(path, 0x400)
    assert counted(path, bam=BAM) == [{150: 1}]


def damaged(good: bytes, rng: np.random.Generator) -> bytes:
    """`good` with one bit flipped."""
    bad, at = bytearray(good), int(rng.integers(len(good)))
    bad[at] ^= 1 << int(rng.integers(8))
    return bytes(bad)


@pytest.mark.parametrize("flips", [25, pytest.param(400, marks=pytest.mark.slow)])
def test_a_flipped_bit_in_a_bam_gives_the_truth_or_an_error(toy: Toy, flips: int) -> None:
    path = bam(toy, *READS, ("chrB", 7, 0, 9))
    wanted = counted(path), counted(path, "chrB")
    good, rng, refusals = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(flips):
        path.write_bytes(damaged(good, rng))
        try:
            assert (counted(path), counted(path, "chrB")) == wanted
        except DataError as error:
            refusals += str(path) in str(error)
    assert refusals > flips / 2


def die(path: Path, number: int) -> None:
    """End this process as a library does that fails."""
    os.kill(os.getpid(), number)


def raise_it(path: Path) -> None:
    raise ValueError("no such thing")


def test_a_library_that_breaks_down_names_the_file() -> None:
    path = Path("x.bam")
    for number in (signal.SIGSEGV, signal.SIGABRT):
        with pytest.raises(DataError, match=f"x.bam: the library .* broke down .{number.name}."):
            call(die, path, number)
    with pytest.raises(ProcessError, match=r"x.bam: .* was killed .SIGKILL.*processes=1"):
        call(die, path, signal.SIGKILL)
    with pytest.raises(LibraryError, match="no such thing"):
        call(raise_it, path)
    assert call(os.path.basename, path) == "x.bam"


def test_reads_lie_on_their_chromosomes(toy: Toy) -> None:
    path = bam(toy, *((c, n - READ - 5, 16, 9) for c, n in LENGTHS.items()))
    for chrom, length in LENGTHS.items():
        assert counted(path, chrom) == [{length - 1: 1}]


def test_a_damaged_index_is_not_read(toy: Toy) -> None:
    """The library aborts over this one, or does not: that depends on what its memory held."""
    path = bam(
        toy, ("chrA", 100, 0, 9), ("chrA", 200, 16, 9), ("chrB", 7, 16, 9), ("chrC", 9, 0, 9)
    )
    index = Path(f"{path}.bai")
    insertions = [(234, 3, 128, b""), (112, 3, 147, b""), (99, 1, 177, b""), (60, 1, 109, b"")]
    index.write_bytes(changed(index.read_bytes(), insertions))
    assert counted(path) == [{100: 1, 214: 1}]


def test_a_disk_without_links_is_said(toy: Toy, monkeypatch) -> None:
    toy.bed("chrA\t95\t106")
    path = bam(toy, ("chrA", 100, 0, 9))

    def none(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", none)
    refused(toy, "reads.bam cannot be read by way of .*Choose an output on", signal=[[str(path)]])
