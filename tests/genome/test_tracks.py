"""Reads and fragments as tracks: each end lands on its base, and only the ends asked for."""

import gzip
import re
import subprocess

import numpy as np
import pytest
from command_lines import command
from toy import FRAGMENTS, Toy, refused
from toy_tracks import BAM, ENDS, bam, counted

from cherimoya.errors import ConfigError
from cherimoya.genome.open_tracks import check_used

pysam = pytest.importorskip("pysam")


def test_five_prime_ends(toy: Toy) -> None:
    # a minus read at 200 with a gap of 5 ends at base 200 + 15 - 1
    path = bam(toy, ("chrA", 100, 0, 9), ("chrA", 100, 0, 9), ("chrA", 200, 16, 9))
    assert counted(path) == [{100: 2, 214: 1}]
    assert counted(path, bam=BAM | {"stranded": True}) == [{100: 2}, {214: 1}]
    shifted = BAM | {"shift_plus": 4, "shift_minus": -4}
    assert counted(path, bam=shifted) == [{104: 2, 210: 1}]
    assert counted(path, "chrB") == [{}]


def test_reads_that_do_not_count(toy: Toy) -> None:
    path = bam(
        toy,
        ("chrA", 10, 0, 30),
        ("chrA", 20, 0x400, 30),
        ("chrA", 30, 0x100, 30),
        ("chrA", 40, 0x800, 30),
        ("chrA", 50, 0x200, 30),
        ("chrA", 60, 0, 4),
        ("chrA", 70, 0x1 | 0x2 | 0x40, 30),
        ("chrA", 80, 0x1 | 0x2 | 0x80 | 0x10, 30),
        ("chrA", 90, 0x1 | 0x80, 30),
    )
    assert sorted(counted(path)[0]) == [10, 60, 70, 90, 94]
    for values, kept in (
        ({"duplicates": "keep"}, [10, 20, 60, 70, 90, 94]),
        ({"min_mapq": 5}, [10, 70, 90, 94]),
        ({"mates": "first"}, [10, 60, 70]),
        ({"mates": "second"}, [90, 94]),
        ({"proper_pairs": True}, [70, 94]),
    ):
        assert sorted(counted(path, bam=BAM | values)[0]) == kept, values


@pytest.mark.parametrize("kind", ["plain", "gzip", "small blocks"])
def test_both_ends_of_a_fragment(toy: Toy, kind: str, monkeypatch) -> None:
    path = toy.write("x.tsv", "\n".join(FRAGMENTS))  # the last line has no end
    if kind == "gzip":
        path = toy.folder / "x.tsv.gz"
        path.write_bytes(gzip.compress("\n".join(FRAGMENTS).encode()))
    if kind == "small blocks":
        monkeypatch.setattr("cherimoya.genome.fragments.BLOCK", 9)
    assert counted(path) == [{100: 2, 150: 1, 160: 1}]
    assert counted(path, fragments=ENDS | {"counts": True}) == [{100: 4, 150: 3, 160: 1}]
    tn5 = ENDS | {"shift_plus": 4, "shift_minus": -5}
    assert counted(path, fragments=tn5) == [{104: 2, 145: 1, 155: 1}]
    assert counted(path, "chrB", fragments=tn5) == [{4: 1, 2: 1, 2994: 1, 2995: 1}]


def test_ends_past_the_chromosome_are_not_counted(toy: Toy) -> None:
    path = toy.write("x.tsv", "\n".join(FRAGMENTS))
    far = ENDS | {"shift_plus": -1, "shift_minus": 1}
    assert counted(path, "chrB", fragments=far) == [{8: 1, 2989: 1}]


def test_kinds_mix_in_groups(toy: Toy) -> None:
    toy.bed("chrB\t20\t31", "chrA\t95\t106", "chrB\t40\t51", "chrA\t205\t216")
    reads = bam(toy, ("chrA", 100, 0, 9), ("chrA", 200, 16, 9))
    cuts = toy.write("cuts.tsv.gz", "\n".join(FRAGMENTS))
    plus = f"{toy.folder}/plus.bw"
    loci = toy.run(
        signal=[[str(reads)], [plus], [str(cuts)]],
        control=[[str(reads)]],
        bam=BAM | {"stranded": True},
        in_window=20,
        out_window=10,
    )
    assert loci.signal_groups == [2, 1, 1]
    assert loci.control_groups == [2]
    assert loci.track_names == ["reads.plus", "reads.minus", "plus", "cuts"]
    for row, at in ((1, 90), (3, 200)):
        np.testing.assert_array_equal(loci.signal[row, 2], toy.plus["chrA"][at : at + 20])
    assert np.argwhere(loci.signal[:, [0, 1, 3]]).tolist() == [[1, 0, 10], [1, 2, 10], [3, 1, 14]]
    assert loci.signal[1, 3, 10] == 2
    assert loci.control[3, 1].tolist() == [0] * 19 + [1] + [0] * 10


def test_a_missing_pysam_names_the_extra(toy: Toy, monkeypatch) -> None:
    toy.bed("chrA\t100\t200")
    path = bam(toy, ("chrA", 100, 0, 9))
    monkeypatch.setitem(__import__("sys").modules, "pysam", None)
    refused(toy, r"pysam is not installed.*cherimoya-train\[prepare\]", signal=[[str(path)]])


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        ("chrA\t100", False),
        ("chrA\tstart\tend", False),
        ("chrA\t21\t20", False),
        ("chrA\t-1001\t20", False),
        ("chrA\t1\t20\tA\t1\t+", False),
        ("chrA\t1\t99999999999999999999", False),
        ("chrA\t1_0\t20", False),
        ("chrA\t1\t20\tA", True),
        ("chrA\t1\t20\tA\t0", True),
        ("chrA 1 20", False),
    ],
)
def test_lines_that_are_no_fragments(toy: Toy, line: str, counts: bool) -> None:
    toy.bed("chrA\t100\t200")
    path = toy.write("x.tsv", f"chrA\t5\t9\tA\t1\n\n{line}\n")
    message = f"x.tsv, line 3: {re.escape(repr(line))} is not a fragment"
    refused(toy, message, signal=[[str(path)]], fragments=ENDS | {"counts": counts})


def test_fragment_files_that_cannot_be_read(toy: Toy) -> None:
    toy.bed("chrA\t100\t200")
    cut = toy.folder / "cut.tsv.gz"
    lines = "\n".join(f"chrA\t{at}\t{at + 37}\tA\t1" for at in range(3000))
    cut.write_bytes(gzip.compress(lines.encode())[:-300])
    refused(toy, "cut.tsv.gz: truncated or damaged", signal=[[str(cut)]])
    graph = toy.write("x.bedGraph", "track type=bedGraph\nchrA\t0\t9\t1.5\n")
    refused(toy, "x.bedGraph: a bedGraph.*bedGraphToBigWig", signal=[[str(graph)]])
    wiggle = toy.write("x.wig", "track type=wiggle_0\nfixedStep chrom=chrA start=1 step=1\n1\n")
    refused(toy, "x.wig: a wiggle text file.*wigToBigWig", signal=[[str(wiggle)]])
    far = toy.write("far.tsv", "chrA\t100\t5001\tA\t1\nchrA\t1\t9\n")
    refused(
        toy, "far.tsv: 1 of 2 fragments on chrA reach past its 4,000 bases", signal=[[str(far)]]
    )
    other = toy.write("none.tsv", "# chrom start end\n")
    refused(toy, "none.tsv: not a bigWig, BAM or fragment file", signal=[[str(other)]])


def test_tn5_cuts_of_reads_and_of_their_fragments_are_the_same(toy: Toy) -> None:
    path = bam(toy, ("chrA", 100, 0x63, 9), ("chrA", 185, 0x93, 9))  # a pair from 100 to 200
    fragment = toy.write("x.tsv", "chrA\t100\t200\tAC\t1\n")
    cuts = counted(fragment, fragments=ENDS | {"shift_plus": 4, "shift_minus": -5})
    reads = BAM | {"shift_plus": 4, "shift_minus": -4, "proper_pairs": True}
    assert counted(path, bam=reads) == cuts == [{104: 1, 195: 1}]


def cherimoya_prepare(toy: Toy, *arguments: str) -> subprocess.CompletedProcess[str]:
    """cherimoya-prepare on the toy, as a user types it."""
    given = ["fasta=toy.fa", "loci=loci.bed", "output=o.h5", "in_window=40", "out_window=20"]
    given += ["max_jitter=5", "background_ratio=0", *arguments]
    return command("prepare", *given, folder=toy.folder)


def test_keys_that_do_nothing_are_refused(toy: Toy) -> None:
    toy.bed("chrA\t100\t200")
    bam(toy, ("chrA", 100, 0, 9))
    toy.write("x.tsv", "chrA\t100\t150\tA\t1\nchrA\t120\t170\tA\t1\n")
    used = {"plus.bw": (), "reads.bam": ("bam.min_mapq=3",), "x.tsv": ("fragments.kind=fragments",)}
    every = {"bam.min_mapq=3", "bam.stranded=False", "fragments.kind=fragments", "are_strands=True"}
    values = {a.partition("=")[0]: a.partition("=")[2] for a in every}
    for name, own in used.items():
        group = own[0].partition(".")[0] if own else "none"
        for key, value in values.items():
            config = toy.config(signal=[[f"{toy.folder}/{name}"]], are_strands=key == "are_strands")
            if key.startswith(f"{group}."):
                check_used(config, {key: value})
                continue
            with pytest.raises(ConfigError, match=f"{key}=.*: does nothing.*Leave it out"):
                check_used(config, {key: value})
    check_used(toy.config(are_strands=True), {"are_strands": True})
    for typed in ("bam.min_mapq=3", "fragments.counts=true", "bam.stranded=false"):
        done = cherimoya_prepare(toy, "signal=[[plus.bw]]", typed)
        assert done.returncode == 1, done.stdout
        assert f"error: {typed.partition('=')[0]}=" in done.stdout + done.stderr
        assert "does nothing, as no file" in done.stdout + done.stderr
    done = cherimoya_prepare(toy, "signal=[[plus.bw]]", "control=[[reads.bam]]", "bam.min_mapq=3")
    assert done.returncode == 0, done.stdout + done.stderr
