"""Pairs of strands: what is one by its names and its values, what is not, and what is said."""

from pathlib import Path

import numpy as np
import pytest
from loci_files import KEYS, make_loci, plain_file
from toy import Toy, refused
from toy_tracks import BAM, bam

from cherimoya.data import hdf5, loci
from cherimoya.errors import DataError
from cherimoya.genome.strands import strands_of


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("WT_plus.bw", "WT_minus.bw"), ("wt.pos.bigWig", "wt.neg.bigWig"),
        ("atacPlus.bw", "atacMinus.bw"), ("x_fwd.bw", "x_rev.bw"), ("x.f.bw", "x.r.bw"),
        ("x.+.bw", "x.-.bw"), ("x.pl.bw", "x.mn.bw"), ("x_plus_rep1.bw", "x_minus_rep1.bw"),
        ("x_plus_strand.bw", "x_minus_strand.bw"), ("plus/x.bw", "minus/x.bw"),
        ("a_plus/x_plus.bw", "a_minus/x_minus.bw"),
        ("GSM123_x_plus.bw", "GSM124_x_minus.bw"), ("x_sense.bw", "x_antisense.bw"),
        ("x_forward.bam", "x_reverse.bam"),
    ],
)  # fmt: skip
def test_names_of_strands(first: str, second: str) -> None:
    assert strands_of(first, second) == ("plus", "minus")
    assert strands_of(second, first) == ("minus", "plus")
    assert strands_of(first, first) is None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("cellA.bw", "cellB.bw"), ("a_plus.bw", "b_plus.bw"), ("rep1_plus.bw", "rep2_minus.bw"),
        ("f.bam", "g.bam"), ("CD34pos.bw", "CD34neg.bw"), ("cd4+.bw", "cd4-.bw"),
        ("tumor_p.bw", "tumor_m.bw"), ("top10.bw", "bottom10.bw"), ("x_top.bw", "x_bottom.bw"),
        ("wt_plus_dox.bw", "wt_minus_dox.bw"), ("factor.bw", "ractor.bw"), ("x-1.bw", "x-2.bw"),
    ],
)  # fmt: skip
def test_names_of_two_samples(first: str, second: str) -> None:
    assert strands_of(first, second) is None


def test_two_samples_in_one_group_are_questioned(toy: Toy) -> None:
    toy.bed("chrA\t100\t200", "chrB\t500\t600")
    a, b = (str(toy.bigwig(f"{name}.bw", getattr(toy, name))) for name in ("plus", "minus"))
    paths = [str(Path(path).rename(toy.folder / f"cell{i}.bw")) for i, path in enumerate((a, b))]
    for key in ("signal", "control"):
        if key == "control":
            toy.bigwig("plus.bw", toy.plus), toy.bigwig("minus.bw", toy.minus)
        message = refused(toy, "do not say plus and minus", **{key: [paths]})
        assert f"'{key}=[[{paths[0]}],[{paths[1]}]]'" in message
        assert "are_strands=true" in message
        assert toy.run(**{key: [[path] for path in paths]}).arrays()["signal"].any()
        assert toy.run(**{key: [paths]}, are_strands=True).signal_groups == [2]


def test_groups_of_more_than_a_pair_are_refused(toy: Toy) -> None:
    toy.bed("chrA\t95\t106")
    f = str(bam(toy, ("chrA", 100, 0, 9), name="f.bam"))
    g = str(bam(toy, ("chrA", 91, 16, 9), name="g.bam"))
    stranded = {"bam": BAM | {"stranded": True}}
    message = refused(
        toy, r"group of 4 channels .a BAM with bam.stranded=true has two", signal=[[f, g]],
        are_strands=True, **stranded,
    )  # fmt: skip
    assert f"'signal=[[{f}],[{g}]]'" in message
    bw = f"{toy.folder}/plus.bw"
    refused(toy, "group of 3 channels", signal=[[f, bw]], **stranded)
    refused(toy, "group of 3 channels", control=[[f, bw, f"{toy.folder}/minus.bw"]])
    found = toy.run(signal=[[f], [g]], **stranded)
    assert found.signal_groups == [2, 2]
    assert found.signal.sum(axis=2).tolist() == [[1, 0, 0, 1]]
    with pytest.raises(DataError, match=r"signal_groups=\[3\] has a group of 3 tracks"):
        loci.check_groups([3], ["a", "b", "c"], 3, "signal_groups", "x.h5")


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_scaled_copies_are_no_strands(toy: Toy, scale: float) -> None:
    toy.bed(*(f"chrA\t{at}\t{at + 50}" for at in range(100, 3800, 50)))
    toy.bigwig("minus.bw", {chrom: scale * values for chrom, values in toy.plus.items()})
    message = refused(toy, r"hold the same signal base by base .correlation 1.000")
    assert "are_strands=true" in message
    assert toy.run(are_strands=True).signal_groups == [2]
    rng = np.random.default_rng(0)
    noisy = {c: scale * v + rng.normal(0.05, 0.01, len(v)).clip(0) for c, v in toy.plus.items()}
    toy.bigwig("minus.bw", noisy)
    refused(toy, r"correlation (0.99|1.00)")


def test_the_table_says_which_file_is_which_strand(toy: Toy) -> None:
    toy.bed("chrA\t95\t106")
    reads = str(bam(toy, ("chrA", 100, 0, 9), name="f.bam"))
    plus, minus = f"{toy.folder}/plus.bw", f"{toy.folder}/minus.bw"
    toy.run(
        signal=[[reads], [minus, plus]], control=[[plus]], bam=BAM | {"stranded": True},
    )  # fmt: skip
    table = next(text for text in toy.said if text.startswith("group "))
    rows = [line.split() for line in table.splitlines()[2:]]
    assert rows == [
        ["signal", "1", "plus", "f.plus", "f.bam"],
        ["signal", "1", "minus", "f.minus", "f.bam"],
        ["signal", "2", "minus", "minus", "minus.bw"],
        ["signal", "2", "plus", "plus", "plus.bw"],
        ["control", "1", "both", "plus", "plus.bw"],
    ]


def test_three_tracks_of_a_plain_file_are_refused(tmp_path: Path) -> None:
    path = plain_file(tmp_path / "plain.h5", y=make_loci().signal)
    with pytest.raises(
        DataError, match=r"signal_groups=\[3\] .*tracks of a plain file are one group"
    ):
        hdf5.read(path, keys=KEYS)
