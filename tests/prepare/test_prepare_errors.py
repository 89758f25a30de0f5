"""Every input that cherimoya-prepare refuses, and what it says."""

import gzip
import re
from pathlib import Path

import numpy as np
import pytest
from toy import LENGTHS, Toy, narrow, refused

from cherimoya.data import hdf5
from cherimoya.errors import ConfigError, DataError
from cherimoya.genome import fasta


def test_nothing_left_shows_the_funnel(toy: Toy) -> None:
    toy.bed("chrA\t0\t3", "chrA\t3990\t3999")
    message = refused(toy, "no locus is left")
    assert re.search(r"past an end of the chromosome +2 +0", message)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("chrA\t100", "line 2.*2 columns"),
        ("chrA,100,200", "line 2.*1 column[.].*separated by tabs or spaces"),
        ("chrA\tsource\tgene\t100\t200", "line 2.*as in BED: chrom, start, end"),
        ("chrom\tstart\tend", "line 2.*'start'.*start it with #"),
        ("chrA\t1.5\t20", "line 2.*'1.5'"),
        ("chrA\t20\t20", "line 2: start 20 and end 20"),
        ("chrA\t-1\t20", "line 2: start -1"),
    ],
)
def test_lines_that_are_not_bed(toy: Toy, line: str, message: str) -> None:
    toy.bed("chrA\t100\t200", line)
    assert "loci.bed" in refused(toy, message)


def test_loci_of_another_assembly(toy: Toy) -> None:
    toy.bed("chrA\t100\t200", "chrA\t4000\t4010")
    refused(toy, "loci=.*chrA:4,000-4,010 lies beyond the end of chrA, which has 4,000 bases")
    toy.bed("chrA\t3990\t4010", "chrA\t100\t200")
    assert len(toy.run()) == 1
    said = next(line for line in toy.said if "past an end of the chromosome," in line)
    assert said.startswith("1 locus is left out because its window of 50 bases reaches past")
    assert "first chrA:3,990-4,010 (chrA has 4,000 bases). A smaller in_window or max_jit" in said
    toy.bed("chrB\t5000\t5010", name="exclude.bed")
    refused(toy, "exclude=.*lies beyond the end of chrB", exclude=f"{toy.folder}/exclude.bed")


def test_letters_are_said_where_they_leave_nothing(toy: Toy) -> None:
    toy.bases["chrA"] = toy.bases["chrA"].replace("T", "U")
    toy.fasta()
    toy.bed("chrA\t100\t200")
    refused(toy, r"no locus is left(.|\n)*N over 10% +1 +0")
    assert any("are treated as N: U " in line for line in toy.said)


def test_loci_without_summits(toy: Toy) -> None:
    toy.bed("chrA\t100\t200")
    refused(toy, "3 columns, so no summit.*center=midpoint", center="summit")
    for summit in (-1, 100):
        toy.bed(narrow(100, 200, summit))
        refused(toy, f"line 1: summit offset {summit} must lie in", center="summit")


@pytest.mark.parametrize("key", ["fasta", "loci", "signal", "control"])
def test_files_that_are_missing_empty_or_something_else(toy: Toy, key: str) -> None:
    toy.bed("chrA\t100\t200")

    def named(path: Path):
        return {key: [[str(path)]] if key in ("signal", "control") else str(path)}

    refused(toy, f"{key}=.*nowhere: no such file.*Relative paths", **named(toy.folder / "nowhere"))
    refused(toy, f"{key}=.*a folder", **named(toy.folder))
    refused(toy, f"{key}=.*empty", **named(toy.write("empty", "")))
    other = toy.folder / "other.bin"
    other.write_bytes(bytes(range(1, 256)) * 10)
    refused(toy, f"{key}=.*other.bin.*not a", **named(other))


def test_damaged_sources(toy: Toy) -> None:
    toy.bed("chrA\t100\t200")
    cut = toy.folder / "cut.bw"
    cut.write_bytes((toy.folder / "plus.bw").read_bytes()[:300])
    refused(toy, "cut.bw: truncated or damaged .it ends before", signal=[[str(cut)]])
    garbled = toy.folder / "garbled.bw"
    middle = bytearray((toy.folder / "plus.bw").read_bytes())
    middle[600:2000] = bytes(1400)
    garbled.write_bytes(middle)
    refused(toy, "garbled.bw: truncated or damaged .*Copy it again", signal=[[str(garbled)]])
    short = toy.folder / "short.fa.gz"
    short.write_bytes(gzip.compress((toy.folder / "toy.fa").read_bytes())[:-99])
    refused(toy, "short.fa.gz: truncated or damaged", fasta=str(short))
    twice = toy.write("twice.fa", ">chrA\nACGT\n>chrA\nACGT\n")
    refused(toy, "two sequences are named chrA", fasta=str(twice))
    refused(toy, "a sequence has no name", fasta=str(toy.write("none.fa", ">\nACGT\n")))
    header = toy.folder / "loci.bed.gz"
    header.write_bytes(gzip.compress(b"chrA\t100\t200\n" * 99)[:-9])
    refused(toy, "loci.bed.gz: truncated or damaged.*Copy it again", loci=str(header))
    refused(toy, "no loci in it", loci=str(toy.bed("# nothing", name="none.bed")))


def test_names_that_do_not_match(toy: Toy) -> None:
    toy.bed("A\t100\t200", "B\t100\t200")
    message = refused(toy, "loci=.*name chromosomes differently")
    assert "In the file: A, B. In the genome: chrA, chrB, chrC." in message
    assert "Proposal: A is chrA, B is chrB. Accept it with chrom_alias=auto." in message
    toy.bed("2L\t100\t200")
    refused(toy, "In the file: 2L. .*chrom_alias=names.tsv")
    toy.bed("chrA\t100\t200")
    for name, values in {"A": toy.plus["chrA"], "zz": toy.plus["chrA"]}.items():
        path = toy.bigwig("other.bw", {name: values})
        message = refused(toy, "name chromosomes differently", signal=[[str(path)]])
        assert f"In the file: {name}. In the genome: chrA, chrB, chrC." in message
    toy.bases = {chrom.removeprefix("chr"): bases for chrom, bases in toy.bases.items()}
    refused(toy, "Proposal: chrA is A. ", fasta=str(toy.fasta("bare.fa")))


def test_a_bigwig_of_another_assembly(toy: Toy) -> None:
    toy.bed("chrA\t100\t200")
    path = toy.bigwig("other.bw", {"chrA": np.ones(4001)})
    refused(toy, "chrA has 4,001 bases, but 4,000 .*different assemblies", signal=[[str(path)]])


def test_negative_and_absent_signal(toy: Toy) -> None:
    toy.bed("chrA\t100\t201")
    values = {chrom: np.zeros(n) for chrom, n in LENGTHS.items()}
    values["chrB"][5] = 1
    path = toy.bigwig("zero.bw", values)
    refused(toy, "zero.bw is zero at the only locus", signal=[[str(path)]])
    values["chrA"][155] = -3
    path = toy.bigwig("negative.bw", values)
    message = refused(toy, "negative.bw: -3 at chrA:155 .0-based", signal=[[str(path)]])
    assert "chrA:100-201" in message
    assert "awk" in message


def test_infinite_signal(toy: Toy) -> None:
    toy.bed("chrA\t100\t201")
    values = {chrom: np.ones(n) for chrom, n in LENGTHS.items()}
    values["chrA"][155] = np.inf
    path = toy.bigwig("infinite.bw", values)
    refused(toy, "infinite.bw: inf at chrA:155 .*must be finite", signal=[[str(path)]])


def test_outputs_that_cannot_be_written(toy: Toy, monkeypatch) -> None:
    toy.bed("chrA\t100\t200")
    refused(toy, "output=.*a folder", output=str(toy.folder))
    monkeypatch.setattr("os.access", lambda *_: False)
    refused(toy, "cannot be written to", output=str(toy.folder / "new" / "x.h5"))
    monkeypatch.undo()
    toy.run(output=str(toy.folder / "deep" / "er" / "x.h5"))
    toy.run()
    before = hdf5.fingerprint(toy.folder / "out.h5")
    with pytest.raises(DataError, match=r"made otherwise: seed was 0, now 1.*overwrite=true"):
        toy.run(overwrite=False, seed=1)
    toy.bed("chrA\t100\t202")
    with pytest.raises(DataError, match=r"loci 2 was loci.bed \(.*\), now loci.bed \("):
        toy.run(overwrite=False)
    toy.write("other.h5", "mine")
    with pytest.raises(DataError, match=r"other.h5: exists already, made by something else"):
        toy.run(overwrite=False, output=f"{toy.folder}/other.h5")
    assert hdf5.fingerprint(toy.folder / "out.h5") == before


def test_a_full_disk(toy: Toy, monkeypatch) -> None:
    toy.bed("chrA\t100\t200")

    def full(path, spool, tell):
        return fasta.read_genome(path, Path("/dev/full"), tell)

    monkeypatch.setattr("cherimoya.prepare.inputs.read_genome", full)
    with pytest.raises(DataError, match=r"output=.*out.h5: the disk is full.*Free space"):
        toy.run()
    monkeypatch.undo()
    assert len(toy.run()) == 1
    assert any("resuming from" in line for line in toy.said)


def test_a_disk_that_fills_while_the_result_is_written(toy: Toy, monkeypatch) -> None:
    toy.bed("chrA\t100\t200")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cherimoya.data.hdf5.h5py.File", full)
    with pytest.raises(DataError, match=r"out.h5: .*No space.*Free space"):
        toy.run()
    monkeypatch.undo()
    assert (toy.folder / "out.h5.partial").is_dir()
    assert len(toy.run()) == 1
    assert any("1 part of the peaks" in line for line in toy.said)
    assert not (toy.folder / "out.h5.partial").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"signal": "???"}, "signal has no value"),
        ({"signal": []}, r"signal=\[\] has an empty group.*\[\[plus.bw,minus.bw\]\]"),
        ({"signal": [["a.bw"], []]}, "empty group"),
        ({"signal": ["a.bw"]}, r"signal\[0\]='a.bw': expected a list"),
        ({"signal": [["a.bw", "a.bw"]]}, "a.bw twice"),
        ({"center": "sumit"}, "Did you mean summit"),
        ({"out_window": 999}, "^in_window=40 and out_window=999"),
        ({"max_n_fraction": 1.5}, "max_n_fraction=1.5: must be at most 1"),
        ({"windows": 4}, "unknown key windows"),
        ({"max_jitter": 10**20}, f"max_jitter={10**20}: must be at most 10000000"),
        ({"in_window": 2**63 - 1}, f"in_window={2**63 - 1}: must be at most 10000000"),
        ({"min_distance": 2**53}, f"min_distance={2**53}: must be at most 10000000"),
        ({"seed": 2**63}, f"seed={2**63}: must be at most {2**63 - 1}"),
        ({"min_counts": 10**400}, "min_counts=10+: must be at most"),
        ({"background_ratio": 1e300}, r"background_ratio=1e\+300: must be at most 1000"),
        ({"outlier_factor": 1e300}, r"outlier_factor=1e\+300: must be at most 1000000"),
        (
            {"fragments": {"kind": "auto", "shift_plus": -(2**62)}},
            "shift_plus=.*at least -10000000",
        ),
    ],
)
def test_configurations_that_cannot_be(toy: Toy, values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        toy.config(**values)
