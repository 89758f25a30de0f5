"""Text files given as signal: which are fragments, which are named as something else."""

import gzip
import subprocess

import numpy as np
import pytest
from toy import LENGTHS, Toy, refused
from toy_tracks import ENDS, bam, counted

READS = [("chrA", 100, 0, 9), ("chrA", 100, 0, 9), ("chrA", 200, 16, 9), ("chrB", 7, 16, 9)]
BED12 = "chrA\t100\t900\tt\t0\t+\t100\t900\t0\t2\t50,60,\t0,740,"


def bed6(*reads: tuple) -> str:
    """The lines of bedtools bamtobed for reads as of `test_tracks.bam`."""
    lines = [
        f"{chrom}\t{start}\t{start + 15}\tr{i}/1\t{mapq}\t{'-' if flag & 16 else '+'}"
        for i, (chrom, start, flag, mapq) in enumerate(reads)
    ]
    return "\n".join(lines) + "\n"


def fragments(count: int, seed: int = 0) -> np.ndarray:
    """(count, 2) starts and ends of fragments on chrA, sorted, many of which overlap."""
    rng = np.random.default_rng(seed)
    start = np.sort(rng.integers(0, 3700, count))
    return np.stack([start, start + rng.integers(30, 300, count)], axis=1)


KINDS = {
    "bedpe": ("chrA\t3\t39\tchrA\t507\t543\tr0\t60\t+\t-", "BEDPE, read pairs"),
    "bedpe without a mate": ("chrA\t3\t39\t.\t-1\t-1\tr0\t60\t+\t.", "BEDPE, read pairs"),
    "bamtobed": ("chrA\t3\t39\tread1/2\t42\t+", "reads with a strand .6 columns.*kind=reads"),
    "tagAlign": ("chrA\t3\t39\tN\t1000\t-", "reads with a strand"),
    "bed6": ("chrA\t3\t39\tx\t1000\t.", "intervals with 6 columns.*Peaks are loci"),
    "narrowPeak": ("chrA\t5\t60\tpk0\t100\t.\t5.0\t3.0\t2.0\t30", "peaks .narrowPeak., not signal"),
    "broadPeak": ("chrA\t5\t60\tpk0\t100\t.\t5.0\t3.0\t2.5", "peaks .broadPeak., not signal"),
    "gappedPeak": (BED12 + "\t1.5\t2\t3", "peaks .gappedPeak., not signal"),
    "bed9": ("chrA\t5\t60\tx\t0\t.\t5\t60\t255,0,0", "intervals with 9 columns"),
    "bed12": (BED12, "BED12.*kind=reads"),
    "summits": ("chrA\t5\t6\tx_peak_1\t12.5", "peaks|BED5"),
    "bed5": ("chrA\t5\t60\tx\t12.5", "intervals with a score .BED5."),
    "bedGraph": ("chrA\t0\t9\t1.5", "a bedGraph.*bedGraphToBigWig"),
    "gtf": ('chrA\tensembl\tgene\t5\t60\t.\t+\t.\tgene_id "g"', "an annotation .GFF or GTF."),
    "vcf": ("##fileformat=VCFv4.2\nchrA\t5\t.\tA\tG", "variants .VCF or BCF."),
    "sam": ("@SQ\tSN:chrA\tLN:4000", "SAM or CRAM.*samtools sort"),
    "sam without a header": (
        "r1\t0\tchrA\t10\t60\t4M\t*\t0\t0\tAAAA\tIIII",
        "alignments .SAM.*samtools sort",
    ),
    "fasta": (">chrA\nACGT", "sequences .FASTA."),
    "pairs": ("## pairs format v1.0\nr\tchrA\t1\tchrA\t9\t+\t-", "contacts .pairs."),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("packed", [False, True])
def test_other_files_are_named(toy: Toy, kind: str, packed: bool) -> None:
    toy.bed("chrA\t100\t200")
    line, message = KINDS[kind]
    path = toy.write("x.txt", "".join(f"{line}\n" for _ in range(3)))
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    refused(toy, f"signal=.*x.txt: {message}", signal=[[str(path)]])


def test_a_header_may_have_no_sign(toy: Toy) -> None:
    lines = "chrA\t100\t150\tAC\t1\nchrA\t120\t190\tAC\t1\n"
    plain = toy.write("plain.tsv", lines)
    for name in ("chrom\tstart\tend\tbarcode\tcount", "#h", "chr\tchromStart\tchromEnd\tx\ty"):
        path = toy.write("named.tsv", f"{name}\n{lines}")
        assert counted(path, fragments=ENDS) == counted(plain, fragments=ENDS)


def test_reads_count_by_their_five_prime_ends_as_of_a_bam(toy: Toy) -> None:
    path = toy.write("reads.bed", bed6(*READS))
    reads = ENDS | {"kind": "reads"}
    alignments = bam(toy, *READS)
    assert counted(path, fragments=reads) == counted(alignments) == [{100: 2, 214: 1}]
    assert counted(path, "chrB", fragments=reads) == [{21: 1}]
    shifted = {"shift_plus": 4, "shift_minus": -4}
    assert counted(path, fragments=reads | shifted) == [{104: 2, 210: 1}]
    assert counted(path, fragments=ENDS | {"kind": "fragments"}) == [
        {100: 2, 115: 2, 200: 1, 215: 1}
    ]
    for columns in ("x\t12.5", "x\t0\t.", "x\t0\t.\t5\t60\t255,0,0"):
        line = toy.write("line.bed", f"chrA\t5\t60\t{columns}\n")
        assert counted(line, fragments=ENDS | {"kind": "fragments"}) == [{5: 1, 60: 1}]
    toy.bed("chrA\t100\t200")
    bare = toy.write("bare.bed", "chrA\t1\t9\tx\t0\t.\n")
    refused(toy, "line 1.*is not a read.*strand", signal=[[str(bare)]], fragments=reads)
    bare.write_text("chrA\t1\t9\n")
    refused(toy, "line 1.*is not a read", signal=[[str(bare)]], fragments=reads)


def test_the_command_for_bedpe_gives_fragments(toy: Toy) -> None:
    pairs = [(3, 39, 507, 543), (340, 376, 23, 59), (5, 9, 6, 8)]
    lines = [f"chrA\t{a}\t{b}\tchrA\t{c}\t{d}\tr\t60\t+\t-\n" for a, b, c, d in pairs]
    path = toy.write("x.bedpe", "".join(lines) + "chrA\t3\t39\t.\t-1\t-1\tr\t60\t+\t.\n")
    toy.bed("chrA\t100\t200")
    command = refused(toy, "BEDPE", signal=[[str(path)]]).partition("fragments: ")[2]
    subprocess.run(command, shell=True, cwd=toy.folder, check=True)
    assert counted(toy.folder / "fragments.tsv") == [{3: 1, 5: 1, 9: 1, 23: 1, 376: 1, 543: 1}]


def test_intervals_of_three_columns_that_are_no_fragments(toy: Toy) -> None:
    toy.bed("chrA\t100\t200")
    of_one_length = "".join(f"chrA\t{at}\t{at + 36}\n" for at in range(0, 600, 10))
    peaks = "".join(f"chrA\t{at}\t{at + 40 + at % 7}\n" for at in range(0, 3900, 50))
    for text, message in (
        (of_one_length, "all 60 lines are 36 bases long, as peaks or reads are"),
        (peaks, "no two of its 78 lines overlap, as of peaks"),
    ):
        path = toy.write("x.bed", text)
        refused(toy, f"{message}.*fragments.kind=fragments", signal=[[str(path)]])
        assert counted(path, fragments=ENDS | {"kind": "fragments"})[0]
    named = toy.write("x.bed", "chrA\t5\t60\tx_peak_1\nchrA\t90\t99\tx_peak_2\n")
    refused(toy, "peaks by the names in column 4", signal=[[str(named)]])
    lines = "".join(f"chrA\t{start}\t{end}\n" for start, end in fragments(300))
    assert sum(counted(toy.write("x.tsv", lines))[0].values()) == 600
    refused(
        toy,
        "signal=.*loci.bed: is the file of the loci, too",
        signal=[[str(toy.bed(*lines.splitlines()))]],
    )


def test_fragments_without_a_base_are_left_out_and_counted(toy: Toy) -> None:
    toy.bed("chrA\t100\t200")
    path = toy.write("x.tsv", "#h\nchrA\t100\t150\tA\t1\nchrA\t120\t120\tA\t1\nchrA\t9\t9\n")
    assert counted(path) == [{100: 1, 150: 1}]
    toy.run(signal=[[str(path)]], fragments=ENDS | {"kind": "fragments"})
    said = "x.tsv: 2 fragments without a base (start = end) are left out, the first in line 3"
    assert toy.said.count(said) == 1


def test_fragments_reach_a_little_past_an_end(toy: Toy) -> None:
    toy.bed("chrA\t3900\t4000", "chrA\t100\t200")
    path = toy.write("x.tsv", "chrA\t3950\t4003\tA\t1\nchrA\t-4\t100\tA\t1\nchrA\t90\t4000\tA\t1\n")
    loci = toy.run(signal=[[str(path)]])
    assert loci.signal.sum() == 1  # base 3950: the windows end at 3965
    assert (
        "x.tsv: 2 of 3 fragments on chrA reach past its ends, by 4 bases at most: what lies "
        "outside is not counted" in toy.said
    )
    for line in (f"chrA\t{LENGTHS['chrA']}\t4100", "chrA\t3900\t5001"):
        far = toy.write("far.tsv", f"chrA\t100\t150\n{line}\n")
        refused(toy, "1 of 2 fragments on chrA reach past its 4,000.*different assemblies",
                signal=[[str(far)]])  # fmt: skip
    many = toy.write("many.tsv", "".join(f"chrA\t{3900 + i}\t{4001 + i}\n" for i in range(40)))
    refused(toy, "40 of 40 fragments on chrA reach past", signal=[[str(many)]],
            fragments=ENDS | {"kind": "fragments"})  # fmt: skip
