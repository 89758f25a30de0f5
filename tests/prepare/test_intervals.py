"""Which loci are kept, by name, region, overlap and file; what is said before, and what again."""

import os
import re

import numpy as np
import pytest
from toy import FRAGMENTS, LENGTHS, Toy, letters, refused
from toy_tracks import BAM, bam

from cherimoya.errors import DataError, ProcessError
from cherimoya.genome import intervals
from cherimoya.prepare import cutting, inputs
from cherimoya.prepare import parts as gather
from cherimoya.prepare.dry_run import inspect
from cherimoya.prepare.provenance import check_unchanged

ALIASES = ("auto", "add_chr", "table")


def alias(toy: Toy, kind: str) -> str:
    if kind != "table":
        return kind
    return str(toy.write("names.tsv", "# other\tname\nchrA\tA\tone\nB\tchrB\nchrC\tC\nchrZ\tZ\n"))


@pytest.mark.parametrize("kind", ALIASES)
def test_other_names_are_applied_when_accepted(toy: Toy, kind: str) -> None:
    toy.bed("chrA\t100\t201", "chrB\t500\t601")
    wanted = toy.run()
    short = {chrom.removeprefix("chr"): values for chrom, values in toy.plus.items()}
    files = [str(toy.bigwig("short.bw", short)), f"{toy.folder}/minus.bw"]
    message = refused_names(toy, files)
    assert "Proposal: A is chrA, B is chrB. Accept it with chrom_alias=auto." in message
    assert "In the file: A, B, C. In the genome: chrA, chrB, chrC." in message
    toy.bed("A\t100\t201", "chrB\t500\t601")
    toy.bed("B\t0\t9", name="exclude.bed")
    loci = toy.run(
        signal=[files],
        are_strands=True,
        chrom_alias=alias(toy, kind),
        exclude=f"{toy.folder}/exclude.bed",
    )  # fmt: skip
    np.testing.assert_array_equal(loci.signal, wanted.signal)
    assert list(loci.chrom) == ["chrA", "chrB"]
    assert toy.said.count("short.bw: A is chrA, B is chrB, C is chrC") == 1
    assert any(line.endswith("loci.bed: A is chrA") for line in toy.said)


def refused_names(toy: Toy, files: list[str]) -> str:
    with pytest.raises(DataError, match=r"short.bw and fasta=.* name chromosomes diff") as raised:
        toy.run(signal=[files], are_strands=True)
    return str(raised.value)


def test_reads_and_fragments_take_other_names(toy: Toy) -> None:
    toy.bases = {chrom.removeprefix("chr"): bases for chrom, bases in toy.bases.items()}
    toy.fasta()
    toy.bed("A\t95\t106")
    reads = bam(toy, ("chrA", 100, 0, 9))
    cuts = toy.write("cuts.tsv", "\n".join(FRAGMENTS))
    values = {"signal": [[str(reads)], [str(cuts)]], "in_window": 20, "out_window": 10}
    values |= {"bam": BAM | {"stranded": True}}
    refused(toy, "Proposal: chrA is A. Accept", **values)
    loci = toy.run(**values, chrom_alias="strip_chr")
    assert toy.said.count("reads.bam: chrA is A, chrB is B, chrC is C") == 1
    assert np.argwhere(loci.signal).tolist() == [[0, 0, 10], [0, 2, 10]]
    assert loci.signal.max(axis=2).tolist() == [[1, 0, 2]]


def test_mitochondria_have_many_names(toy: Toy) -> None:
    toy.bases["chrM"] = toy.bases.pop("chrC")
    toy.fasta()
    toy.bed("chrM\t500\t601")
    for name in ("M", "MT", "Mito", "chrMT", "MtDNA"):
        path = toy.bigwig("mito.bw", {name: toy.plus["chrC"]})
        loci = toy.run(signal=[[str(path)]], chrom_alias="auto")
        np.testing.assert_array_equal(loci.signal[0, 0], toy.plus["chrC"][535:565])


def test_aliases_that_cannot_be(toy: Toy) -> None:
    toy.bed("chrA\t100\t200")
    both = toy.bigwig("both.bw", {"A": toy.plus["chrA"], "chrA": toy.plus["chrA"]})
    fix = "chrA and A would both be chrA, as chrom_alias=auto says"
    refused(toy, fix, signal=[[str(both)]], chrom_alias="auto")
    refused(toy, "chrom_alias=atuo: no such file, and none of none, auto", chrom_alias="atuo")
    odd = toy.write("odd.tsv", "A\tchrA\nx\tchrA\tchrB\n")
    refused(toy, "odd.tsv, line 2: chrA, chrB are all names", chrom_alias=str(odd))
    void = toy.write("void.tsv", "A\tB\n")
    refused(toy, "void.tsv: no line holds one of the genome's", chrom_alias=str(void))


def test_several_loci_files(toy: Toy) -> None:
    first = toy.bed("chrB\t500\t601", "chrA\t100\t201", name="first.bed")
    second = toy.bed("chrA\t300\t401", "chrA\t100\t201", name="second.bed")
    loci = toy.run(loci=[str(first), str(second)])
    assert list(loci.start + 25) == [550, 150, 350]
    assert toy.funnel()["in first.bed, second.bed"] == (0, 4)
    assert toy.funnel()["same centre as another"] == (1, 3)
    names = [s["name"] for s in loci.provenance["sources"] if s["key"] == "loci"]
    assert names == ["first.bed", "second.bed"]
    assert toy.run(loci=str(first)).chrom.tolist() == ["chrB", "chrA"]
    second.write_text("chrA\t1\n")
    refused(toy, r"second.bed, line 1.*2 columns", loci=[str(first), str(second)])


def test_excluded_regions_end_where_they_end(toy: Toy) -> None:
    # windows of 50 bases: the locus at c reads [c - 25, c + 25)
    toy.bed(*(f"chrA\t{at}\t{at + 1}" for at in (174, 175, 225, 226, 1000)))
    with pytest.raises(DataError, match="no locus is left"):
        toy.run(exclude=[str(toy.bed("chrA\t0\t4000", name="all.bed"))])
    toy.bed("chrA\t10\t20", "chrA\t200\t201", "chrA\t12\t13", name="bad.bed")
    loci = toy.run(exclude=[f"{toy.folder}/bad.bed"])
    assert list(loci.start + 25) == [174, 175, 226, 1000]
    assert toy.funnel()["in an excluded region"] == (1, 4)
    refused(toy, "exclude=.*none.bed: no such file", exclude=f"{toy.folder}/none.bed")
    toy.bed("A\t1\t2", name="other.bed")
    refused(toy, "exclude=.*other.bed .*Proposal: A is chrA", exclude=f"{toy.folder}/other.bed")


def test_background_keeps_out_of_excluded_regions(toy: Toy) -> None:
    toy.bed(*(f"chrA\t{at}\t{at + 50}" for at in range(100, 900, 100)))
    bad = toy.bed("chrA\t1500\t3000", name="bad.bed")
    values = {"background_ratio": 20.0, "gc_bin": 1.0}
    start = toy.run(**values).start
    assert ((start < 3000) & (start + 50 > 1500)).sum() > 20
    loci = toy.run(**values, exclude=str(bad))
    assert not ((loci.start < 3000) & (loci.start + 50 > 1500)).any()
    assert (loci.start >= 3000).sum() > 20


def test_overlapping_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        chrom, start = rng.choice(["a", "b", "c"], 30), rng.integers(0, 60, 30)
        end = start + rng.integers(1, 9, 30)
        all_places = intervals.Intervals(chrom, start, start, end)
        mine = all_places.take(np.arange(20))
        regions = all_places.take(np.arange(20, 20 + rng.integers(0, 10)))
        wanted = [
            any(
                c == regions.chrom[j] and s < regions.end[j] and regions.start[j] < e
                for j in range(len(regions))
            )
            for c, s, e in zip(mine.chrom, mine.start, mine.end, strict=True)
        ]
        assert intervals.overlapping(mine, mine.start, mine.end, regions).tolist() == wanted


def test_overlapping_loci_are_counted_once_when_asked(toy: Toy) -> None:
    toy.bed(*(f"chrA\t{at}\t{at + 1}" for at in (500, 519, 481, 520, 539, 100)), "chrB\t500\t501")
    assert len(toy.run()) == 7
    loci = toy.run(overlap="once")
    assert list(loci.start + 25) == [500, 520, 100, 500]  # centres 20 = out_window apart
    assert toy.funnel()["overlaps one before it"] == (3, 4)


def test_checking_says_what_would_happen_and_writes_nothing(toy: Toy) -> None:
    toy.bed("chrA\t100\t201", "chrA\t0\t3", "chrUn\t5\t9")
    reads = bam(toy, ("chrA", 100, 0, 9))
    before = {path: path.stat().st_mtime_ns for path in toy.folder.iterdir()}
    said: list[str] = []
    values = {"check": True, "processes": 2, "signal": [[f"{toy.folder}/plus.bw"], [str(reads)]]}
    inspect(toy.config(**values), said.append)
    assert {path: path.stat().st_mtime_ns for path in toy.folder.iterdir()} == before
    text = "\n".join(said)
    assert re.search(r"past an end of the chromosome +1 +1", text)
    assert "fasta: toy.fa: 3 sequences, 9,000 bases: chrA, chrB, chrC" in text
    assert "signal, group 2 of 2: reads (BAM, reads.bam): 3 chromosomes" in text
    assert "would read 2 tracks at 1 window of 50 bases" in text
    assert "needs about 0.45 GB of memory, and 9.2e-06 GB of disk" in text
    assert re.search(r"out.h5: would be written\n.*nothing was written", text)
    inspect(toy.config(**values, output=None), said.append)
    toy.run()
    inspect(toy.config(check=True, overwrite=False), said.append)
    assert any("is up to date and would be left" in line for line in said)
    inspect(toy.config(check=True, overwrite=False, seed=3), said.append)
    assert any("would be refused" in line and "seed was 0, now 3" in line for line in said)
    with pytest.raises(DataError, match="no such file"):
        inspect(toy.config(check=True, signal=[[f"{toy.folder}/none.bw"]]), said.append)


def test_unchanged_inputs_are_not_prepared_again(toy: Toy) -> None:
    toy.bed("chrA\t100\t201")
    toy.run()
    path = toy.folder / "out.h5"
    before = path.stat().st_mtime_ns
    toy.run(overwrite=False, processes=1)
    assert path.stat().st_mtime_ns == before
    assert toy.said == [f"{path}: up to date, made from these files and this configuration already"]
    moved = toy.write("moved/loci.bed", "chrA\t100\t201\n")
    toy.run(overwrite=False, loci=str(moved))  # the same file elsewhere
    assert path.stat().st_mtime_ns == before
    check_unchanged(path, toy.config(overwrite=False))
    toy.run()
    assert path.stat().st_mtime_ns > before


def test_another_table_of_names_is_another_input(toy: Toy) -> None:
    toy.bed("A\t100\t201")
    values = {"chrom_alias": str(toy.write("names.tsv", "chrA\tA\n"))}
    toy.run(**values)
    toy.run(**values, overwrite=False)
    assert "up to date" in toy.said[0]
    toy.write("names.tsv", "chrB\tA\n")
    with pytest.raises(DataError, match=r"made otherwise: chrom_alias 3 was names.tsv \(.*now"):
        toy.run(**values, overwrite=False)


def test_processes_change_nothing(toy: Toy, monkeypatch) -> None:
    rng = np.random.default_rng(1)
    chosen = [(c, int(rng.integers(40, n - 40))) for c, n in LENGTHS.items() for _ in range(60)]
    rng.shuffle(chosen)
    toy.bed(*(f"{c}\t{at}\t{int(at) + 1}" for c, at in chosen))
    reads = bam(toy, *(("chrA", at, 0, 9) for at in range(0, 3900, 7)))
    cuts = toy.write("cuts.tsv", "\n".join(FRAGMENTS))
    values = {"signal": [[f"{toy.folder}/plus.bw"], [str(reads)], [str(cuts)]]}
    one = toy.run(**values, processes=1)
    monkeypatch.setattr(inputs, "WORTH_WINDOWS", 0)
    monkeypatch.setattr(gather, "PART", (10, 25))
    two = toy.run(**values, processes=2)
    for name, array in one.arrays().items():
        np.testing.assert_array_equal(array, two.arrays()[name], err_msg=name)
    assert one.signal[:, 1].any()
    assert one.signal[:, 2].any()
    row = int(np.flatnonzero(one.chrom == "chrB")[3])
    start = one.start[row]
    assert letters(one.sequence[row]) == toy.bases["chrB"][start : start + 50]
    toy.plus["chrB"][:] = -1
    bad = toy.bigwig("bad.bw", toy.plus)
    refused_values = {"signal": [[str(bad)]], "processes": 2}
    refused(toy, "bad.bw: -1 at chrB", **refused_values)


def die(*_: object) -> None:
    """End this process as one does that is killed."""
    os._exit(1)


def test_a_process_that_is_killed_is_said_to_be(toy: Toy, monkeypatch) -> None:
    toy.bed("chrA\t100\t201", "chrB\t100\t201")
    monkeypatch.setattr(inputs, "WORTH_WINDOWS", 0)
    monkeypatch.setattr(gather, "keep", die)
    with pytest.raises(ProcessError, match=r"was killed, .* out of memory.*processes=1"):
        toy.run(processes=2)
    monkeypatch.undo()
    assert len(toy.run(processes=1)) == 2
    assert any("resuming from" in line for line in toy.said)


def test_types_of_counts() -> None:
    highest = np.array([0, 255, 256, 32767, 32768, 2**31, 0.5, 3], np.float32)
    values = np.zeros((8, 2, 3), np.float32)
    values[:, 1, 2] = highest
    types = [np.dtype(cutting.TYPES[i]).name for i in cutting.smallest_types(values)]
    wanted = ["uint8", "uint8", "int16", "int16", "int32", "float32", "float32", "uint8"]
    assert types == wanted


def test_columns_read_rows_of_several_parts_in_any_order(tmp_path) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, high, (n, 2, 3)) for n, high in ((4, 200), (6, 9), (3, 70_000))]
    parts = [tmp_path / str(i) for i in range(3)]
    for part, values, kind in zip(parts, arrays, (np.uint8, np.uint8, np.int32), strict=True):
        part.mkdir()
        np.save(part / "signal.npy", values.astype(kind))

    def some(which: list[int], kind: int) -> tuple[gather.StoredWindows, np.ndarray]:
        order = rng.permutation([(i, row) for i in which for row in range(len(arrays[i]))])[:-1]
        n = np.zeros(len(order))
        found = gather.StoredWindows(
            intervals.Intervals(n, n, n, n), [parts[i] for i in which], order[:, 0] - which[0],
            order[:, 1], n, n, n, {"signal": n.astype(np.uint8) + kind},
        )  # fmt: skip
        return found, np.stack([arrays[i][row] for i, row in order])

    first, wanted = some([0, 1], 0)
    second, more = some([2], 2)
    column = gather.Column("signal", [first, second])
    assert (column.shape, column.dtype) == ((11, 2, 3), np.int32)
    np.testing.assert_array_equal(column[2:], np.concatenate([wanted, more])[2:])
    assert gather.Column("signal", [first]).dtype == np.uint8


@pytest.mark.parametrize("end", ["400\x1c", "400\x85", "4_00", "٤٠٠"])
def test_a_number_that_python_alone_would_read_or_not_is_refused(tmp_path, end: str) -> None:
    bed = tmp_path / "x.bed"
    bed.write_text(f"chrA\t100\t{end}\n", encoding="utf-8")
    with pytest.raises(DataError, match="must be whole numbers"):
        intervals.read_intervals(bed, "midpoint")
