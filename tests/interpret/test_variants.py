"""cherimoya-variants: both alleles predicted in place, mismatches reported, tables and VCF out."""

import gzip
import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pysam
import pysam.bcftools
import pytest
import torch
from command_lines import clean_environment
from interpreted import save_model
from scipy.stats import false_discovery_control, kstest
from toy import Toy
from toy_variants import HEADER, LENGTH, changed, snvs, table, vcf

from cherimoya import Cherimoya, metrics
from cherimoya.errors import CherimoyaError, DataError, InUse
from cherimoya.genome.fasta_index import genome_on_disk
from cherimoya.genome.intervals import Intervals
from cherimoya.genome.sequence import encode, one_hot, reverse_complement
from cherimoya.genome.vcf import read_variants
from cherimoya.interpret import variants as app
from cherimoya.interpret import variants_effects as effects
from cherimoya.interpret.models import EnsemblePredictor
from cherimoya.interpret.variants_null import p_values, percentile, q_values, random_variants
from cherimoya.util.resume import journal_path


def by_hand(model: Path, letters: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities and log counts of a sequence, the mean of both strands."""
    loaded = Cherimoya.load(model)
    codes = torch.from_numpy(encode(letters))[None]
    with torch.no_grad():
        (logits, counts), (turned, others) = (
            loaded(one_hot(c)) for c in (codes, reverse_complement(codes))
        )
    p = metrics.group_softmax(logits, [1, 2])
    other = metrics.group_softmax(turned, [1, 2])[:, [0, 2, 1]].flip(2)
    return (p + other) / 2, (counts + others) / 2


def one_base(p: torch.Tensor, bases: int, left: int, right: int) -> torch.Tensor:
    """Of 100 predicted bases those beside the allele in the middle, and it as one."""
    start = 50 - bases // 2
    end = start + bases
    allele = p[..., start:end].sum(-1, keepdim=True)
    return torch.cat([p[..., start - left : start], allele, p[..., end : end + right]], dim=-1)


def test_alleles_are_predicted_in_place(toy: Toy, asked, model):
    bases = toy.bases["chrA"]
    ref, deleted = bases[999], bases[1499:1503]
    other = next(b for b in "ACGT" if b not in (ref, changed(ref)))
    vcf(
        toy,
        ("chrA", 1000, "snv", ref, f"{changed(ref)},{other}", ".", ".", "AF=0.1"),
        ("chrA", 1500, "del", deleted, deleted[0], ".", "."),
        ("chrA", 2000, "ins", bases[1999], bases[1999] + "GATTACA", ".", ".", "."),
    )
    app.variants(asked())
    rows = table(asked().output)
    assert [row["id"] for row in rows] == ["snv", "snv", "del", "ins"]
    sequences = [  # the middle of each allele is at base 100
        (bases[899:1099], bases[899:999] + changed(ref) + bases[1000:1099]),
        (bases[899:1099], bases[899:999] + other + bases[1000:1099]),
        (bases[1401:1601], bases[1399:1499] + deleted[0] + bases[1503:1602]),
        (bases[1899:2099], bases[1903:1999] + bases[1999] + "GATTACA" + bases[2000:2096]),
    ]
    sides = [None, None, (48, 48), (46, 46)]  # predicted bases beside both alleles
    sizes = [None, None, (4, 1), (1, 8)]
    for row, (before, after), beside, bases in zip(rows, sequences, sides, sizes, strict=True):
        (p, counts), (q, others) = by_hand(model, before), by_hand(model, after)
        if beside:
            p, q = (one_base(x, n, *beside) for x, n in zip((p, q), bases, strict=True))
        distance = metrics.profile_jsd(p, q, [1, 2])[0]
        for g in (0, 1):
            fold = float(others[0, g] - counts[0, g]) / math.log(2)
            assert float(row[f"ref_log_counts_{g}"]) == pytest.approx(float(counts[0, g]), abs=1e-4)
            assert float(row[f"log2_fold_change_{g}"]) == pytest.approx(fold, abs=2e-5)
            assert float(row[f"jsd_{g}"]) == pytest.approx(float(distance[g]), abs=1e-5)
    assert max(abs(float(row["log2_fold_change_0"])) for row in rows) > 0.005
    lines = Path(asked().output).with_suffix(".vcf").read_text().splitlines()
    assert lines[0] == "##fileformat=VCFv4.2"
    assert any(line.startswith("##INFO=<ID=CM_LFC_0,Number=A,Type=Float") for line in lines)
    first, deletion = (line.split("\t") for line in lines[-3:-1])
    folds = ",".join(row["log2_fold_change_0"] for row in rows[:2])
    assert first[7].startswith(f"AF=0.1;CM_LFC_0={folds};")
    assert deletion[7].startswith(f"CM_LFC_0={rows[2]['log2_fold_change_0']};CM_JSD_0=")


def test_what_cannot_be_scored_is_said(toy: Toy, asked, capsys):
    bases = toy.bases["chrA"]
    good = [("chrA", i, ".", bases[i - 1], changed(bases[i - 1])) for i in range(500, 1700, 100)]
    vcf(
        toy,
        *good,
        ("chrA", 1000, "bad", changed(bases[999]), bases[999]),
        ("chrA", 50, "end", bases[49], changed(bases[49])),
        ("chrX", 50, "away", "A", "C"),
        ("chrA", 1000, "long", bases[999:1150], "A"),
        ("chrA", 1000, "sym", bases[999], "<DEL>"),
    )
    app.variants(asked())
    rows = {row["id"]: row for row in table(asked().output)}
    assert rows["bad"]["status"] == "reference differs"
    assert rows["bad"]["jsd_0"] == ""
    assert rows["end"]["status"] == "too near an end of the chromosome"
    assert rows["away"]["status"] == "chromosome not in the genome"
    assert rows["long"]["status"] == "longer than half the input window (100 bases)"
    said = capsys.readouterr().out
    assert (
        f"1 variant not scored, reference differs: chrA:1,000 {changed(bases[999])}>{bases[999]} "
        "in line 15"
    ) in said
    assert "1 allele left out, with a symbolic or no ALT allele: line 19" in said
    assert "out.tsv: 12 of 16 variants scored" in said


def test_another_assembly_is_one_message(toy: Toy, asked):
    bases = toy.bases["chrA"]
    rows = [("chrA", i, ".", bases[i - 1], changed(bases[i - 1])) for i in range(500, 520)]
    shifted = [(c, pos + 1, name, ref, alt) for c, pos, name, ref, alt in rows]
    vcf(toy, *shifted)
    with pytest.raises(
        DataError, match=r"of 20 reference alleles differ.*in line [34], where.*of another as"
    ):
        app.variants(asked())
    vcf(toy, *[(c, pos, name, alt, ref) for c, pos, name, ref, alt in rows])
    with pytest.raises(DataError, match=r"in 20 of them ALT is what the genome has"):
        app.variants(asked())
    vcf(toy, *[("A", *row[1:]) for row in rows])
    with pytest.raises(DataError, match=r"Proposal: A is chrA\. Accept it with chrom_alias=auto"):
        app.variants(asked())
    app.variants(asked(chrom_alias="auto"))
    found = table(asked().output)
    assert [(row["chrom"], row["status"]) for row in found] == [("A", "ok")] * 20
    vcf(toy, *rows)
    app.variants(asked(output=str(toy.folder / "own.tsv")))
    own = table(toy.folder / "own.tsv")
    assert [row | {"chrom": "A"} for row in own] == found


def test_a_table_does_as_well(toy: Toy, asked):
    base = toy.bases["chrB"][999]
    text = f"ref\talt\tpos\tchrom\n{base.lower()}\t{changed(base)}\t1000\tchrB\n"
    (toy.folder / "v.tsv.gz").write_bytes(gzip.compress(text.encode()))
    config = asked(variants=str(toy.folder / "v.tsv.gz"), random_variants=40)
    app.variants(config)
    (row,) = table(config.output)
    assert (row["chrom"], row["pos"], row["ref"], row["status"]) == ("chrB", "1000", base, "ok")
    assert 0 <= float(row["jsd_percentile_1"]) <= 100
    (line,) = [x for x in (toy.folder / "out.vcf").read_text().splitlines() if x[0] != "#"]
    assert line.startswith(f"chrB\t1000\t.\t{base}\t{changed(base)}\t.\t.\tCM_LFC_0=")
    assert "CM_JSD_PCT_1=" in line


def test_order_line_ends_and_case_do_not_matter(toy: Toy, asked):
    rows = snvs(toy, *range(500, 1700, 100)) + snvs(toy, 700, chrom="chrB")
    vcf(toy, *rows)
    app.variants(asked())
    expected = table(asked().output)
    shuffled = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    lower = [(*row[:3], row[3].lower(), row[4].lower(), *row[5:]) for row in shuffled]
    path = vcf(toy, *lower)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    app.variants(asked(overwrite=True))
    at = {row["id"] + row["chrom"]: row for row in table(asked().output)}
    for row in expected:  # to float32's rounding, which another batch may change
        found = at[row["id"] + row["chrom"]]
        assert found["ref"] == row["ref"]
        for name in ("ref_log_counts_1", "log2_fold_change_0", "jsd_1"):
            assert float(found[name]) == pytest.approx(float(row[name]), rel=1e-4, abs=1e-6)
    assert b"\r" not in (toy.folder / "out.vcf").read_bytes()


def test_alleles_that_are_no_sequence_stay_without_a_value(toy: Toy, asked):
    (one, two, three) = snvs(toy, 1000, 1100, 1200)
    star = (*one[:4], f"*,{one[4]}", *one[5:])
    dot, code = (*two[:4], ".", *two[5:]), (*three[:4], f"{three[4]},R", *three[5:])
    vcf(toy, star, dot, code)
    app.variants(asked())
    rows = table(asked().output)
    assert [(row["id"], row["alt"]) for row in rows] == [("v1000", one[4]), ("v1200", three[4])]
    lines = [x.split("\t") for x in (toy.folder / "out.vcf").read_text().splitlines()]
    first, second, third = lines[-3:]
    assert first[7].startswith(f"CM_LFC_0=.,{rows[0]['log2_fold_change_0']};")
    assert second[7] == "."
    assert third[7].startswith(f"CM_LFC_0={rows[1]['log2_fold_change_0']},.;")


def test_headers_of_a_vcf(toy: Toy, asked):
    (one,) = snvs(toy, 1000)
    short = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\n"
    vcf(toy, one[:5], header=short)
    app.variants(asked())
    *_, header, line = (toy.folder / "out.vcf").read_text().splitlines()
    assert header.split("\t") == HEADER.splitlines()[1].split("\t")
    assert len(line.split("\t")) == len(header.split("\t"))
    vcf(toy, (one[0], one[1], one[3], one[4]), header="#CHROM\tPOS\tREF\tALT\n")  # a table
    app.variants(asked(overwrite=True))
    *_, header, line = (toy.folder / "out.vcf").read_text().splitlines()
    assert line.split("\t")[:5] == [one[0], "1000", ".", one[3], one[4]]
    assert line.split("\t")[7].startswith("CM_LFC_0=")


def test_an_annotated_file_is_annotated_anew(toy: Toy, asked):
    vcf(toy, (*snvs(toy, 1000)[0][:7], "AF=0.1;CM_LFCX=1"))
    app.variants(asked(output=str(toy.folder / "once.tsv")))
    app.variants(asked(variants=str(toy.folder / "once.vcf"), output=str(toy.folder / "twice.tsv")))
    once, twice = ((toy.folder / f"{n}.vcf").read_text().splitlines() for n in ("once", "twice"))
    assert len(once) == len(twice)
    assert once[-1] == twice[-1]
    assert once[-1].count("CM_LFC_0=") == 1
    assert "AF=0.1;CM_LFCX=1;" in once[-1]


def test_the_window_is_that_of_training(toy: Toy, asked, model, tmp_path, capsys):
    vcf(toy, *snvs(toy, 1000))
    app.variants(asked())
    expected = table(asked().output)
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    Cherimoya.load(model).save(run / "checkpoints" / "best.pt")
    (run / "config.yaml").write_text(f"data: {{in_window: {LENGTH}}}\n")
    app.variants(asked(checkpoint=[str(run)], in_window=None, overwrite=True))
    assert table(asked().output) == expected
    assert f"{LENGTH} bases, as in training" in capsys.readouterr().out
    other = tmp_path / "other"
    (other / "checkpoints").mkdir(parents=True)
    Cherimoya.load(model).save(other / "checkpoints" / "best.pt")
    (other / "config.yaml").write_text("data: {in_window: 300}\n")
    with pytest.raises(CherimoyaError, match=r"with 200, .* with 300\. Choose one with in_window"):
        app.variants(asked(checkpoint=[str(run), str(other)], in_window=None, overwrite=True))
    app.variants(asked(in_window=None, overwrite=True))
    assert "1,100 bases, for 1,000 predicted: no run says" in capsys.readouterr().out


def test_nothing_to_score_is_an_error_and_leaves_nothing(toy: Toy, asked):
    vcf(toy, *snvs(toy, 20, 30))
    with pytest.raises(DataError, match=r"none can be scored\. 2 variants not scored, too near an"):
        app.variants(asked())
    assert not list(toy.folder.glob("*out*"))


def swapped(toy: Toy, row: tuple) -> tuple[str, tuple]:
    """The chromosome with the variant's ALT allele, and the variant seen from there."""
    chrom, pos, name, ref, alt, *rest = row
    bases = toy.bases[chrom]
    return bases[: pos - 1] + alt + bases[pos - 1 + len(ref) :], (
        chrom, pos, name, alt, ref, *rest
    )  # fmt: skip


@pytest.mark.parametrize("lengths", [(1, 1), (4, 1), (1, 8), (3, 2)])
def test_exchanged_alleles_have_the_opposite_effect(toy: Toy, asked, lengths):
    n_ref, n_alt = lengths
    ref = toy.bases["chrA"][999 : 999 + n_ref]
    row = ("chrA", 1000, "v", ref, (changed(ref[0]) + "GATTACA")[:n_alt], ".", ".", ".")
    vcf(toy, row)
    app.variants(asked())
    (one,) = table(asked().output)
    toy.bases["chrA"], back = swapped(toy, row)
    toy.fasta()
    vcf(toy, back)
    app.variants(asked(overwrite=True))
    (other,) = table(asked().output)
    for g in (0, 1):
        fold = float(one[f"log2_fold_change_{g}"])
        assert fold != 0
        assert float(other[f"log2_fold_change_{g}"]) == -fold
        assert other[f"jsd_{g}"] == one[f"jsd_{g}"]
        assert other[f"ref_log_counts_{g}"] == one[f"alt_log_counts_{g}"]


@pytest.mark.parametrize("lengths", [(1, 1), (3, 1), (1, 5)])
def test_the_other_strand_has_the_same_effect(toy: Toy, asked, lengths):
    """Of an odd window around alleles of odd length, whose middle is one base on both strands."""
    n_ref, n_alt = lengths
    ref = toy.bases["chrA"][999 : 999 + n_ref]
    row = ("chrA", 1000, "v", ref, (changed(ref[0]) + "GATTACA")[:n_alt], ".", ".", ".")
    vcf(toy, row)
    app.variants(asked(in_window=LENGTH + 1))
    (one,) = table(asked().output)

    def turned(letters: str) -> str:
        return letters[::-1].translate(str.maketrans("ACGT", "TGCA"))

    pos = len(toy.bases["chrA"]) - (999 + n_ref) + 1
    toy.bases["chrA"] = turned(toy.bases["chrA"])
    toy.fasta()
    vcf(toy, ("chrA", pos, "v", turned(ref), turned(row[4]), ".", ".", "."))
    app.variants(asked(in_window=LENGTH + 1, overwrite=True))
    (other,) = table(asked().output)
    for name in ("ref_log_counts_0", "log2_fold_change_1", "jsd_1"):
        assert float(other[name]) == pytest.approx(float(one[name]), rel=1e-4, abs=1e-6)
    app.variants(asked(in_window=LENGTH + 1, overwrite=True, reverse_complement=False))
    (alone,) = table(asked().output)
    assert abs(float(alone["ref_log_counts_0"]) - float(one["ref_log_counts_0"])) > 1e-4


def test_the_distance_of_an_indel_leaves_out_what_it_shifts():
    """A profile that follows the bases is the same beside an indel, wherever the window lies."""
    rng = np.random.default_rng(0)
    genome = torch.from_numpy(rng.random((3, 120)))  # of each base

    def window(allele: torch.Tensor, left: int, right: int) -> torch.Tensor:
        profile = torch.cat([genome[:, 60 - left : 60], allele, genome[:, 61 : 61 + right]], dim=1)
        return (profile / profile.sum())[None]

    for bases in (2, 5, 8):
        own = genome[:, 60:61]
        ref = window(own, 50, 49)
        start = 50 - bases // 2
        alt = window(own.expand(3, bases) / bases, start, 100 - start - bases)
        assert metrics.profile_jsd(ref, alt, [3])[0, 0] > 0.02
        for sizes, one, other in (((1, bases), ref, alt), ((bases, 1), alt, ref)):
            before, after = effects.aligned(one, other, np.array([sizes]))
            assert before.shape == after.shape == (1, 3, 100)
            assert metrics.profile_jsd(before, after, [3])[0, 0] < 1e-6
    same, _ = effects.aligned(ref, alt, np.array([[1, 1]]))
    assert torch.equal(same, ref)
    nothing = metrics.profile_jsd(*effects.aligned(ref, alt, np.array([[100, 1]])), [3])
    assert torch.isnan(nothing).all()  # there is nothing beside it


def mixed(toy: Toy) -> list[tuple]:
    """Single bases, insertions, deletions, and two bases that become others."""
    bases = toy.bases["chrA"]
    rows = snvs(toy, *range(600, 3000, 400))
    rows.append(("chrA", 1500, "del", bases[1499:1502], bases[1499], ".", ".", "."))
    rows.append(("chrA", 1900, "ins", bases[1899], bases[1899] + "GATTACA", ".", ".", "."))
    pair = bases[1999:2001]
    rows.append(("chrA", 2000, "mnv", pair, "".join(map(changed, pair)), ".", ".", "."))
    return rows


def test_effects_are_ranked_among_random_variants_of_their_kind(toy: Toy, asked, monkeypatch):
    """Scored on their own as a VCF file, the random variants give percentiles and p by hand."""
    kept, own = [], app.random_variants
    monkeypatch.setattr(app, "random_variants", lambda *a: kept.append(own(*a)) or kept[-1])
    vcf(toy, *mixed(toy))
    app.variants(asked(random_variants=60))
    rows, text = table(asked().output), Path(asked().output).with_suffix(".vcf").read_text()
    (random,) = kept
    columns = (random.chrom, random.pos, random.ref, random.alt)
    vcf(toy, *[(c, p + 1, ".", r, a) for c, p, r, a in zip(*columns, strict=True)])
    app.variants(asked(output=str(toy.folder / "random.tsv")))
    others = table(toy.folder / "random.tsv")
    assert len(others) == 120
    for name, key in (("log2_fold_change", abs), ("jsd", float)):
        for is_indel in (False, True):
            among = [
                key(float(row[f"{name}_1"])) for row in others
                if (len(row["ref"]) != len(row["alt"])) == is_indel
            ]  # fmt: skip
            assert len(among) == 60
            for row in rows:
                if (len(row["ref"]) != len(row["alt"])) != is_indel:
                    continue
                mine = key(float(row[f"{name}_1"]))
                below = sum(value < mine * (1 - 1e-4) for value in among)
                up_to = sum(value <= mine * (1 + 1e-4) for value in among)
                percent, p = (float(row[f"{name}_{of}_1"]) for of in ("percentile", "p"))
                assert 100 * below / 60 - 0.01 <= percent <= 100 * up_to / 60 + 0.01
                assert (61 - up_to) / 61 - 1e-4 <= p <= (61 - below) / 61 + 1e-4
        p, q = (np.array([float(row[f"{name}_{of}_1"]) for row in rows]) for of in "pq")
        np.testing.assert_allclose(q, false_discovery_control(p), rtol=1e-4)
    for key in ("CM_LFC_P_1", "CM_LFC_Q_1", "CM_JSD_P_1", "CM_JSD_Q_1"):
        assert text.count(f";{key}=") == len(rows)
        assert f"##INFO=<ID={key},Number=A" in text


def gc(letters: str) -> float:
    return (letters.count("G") + letters.count("C")) / len(letters)


def test_random_variants_are_changes_of_the_same_kinds(toy: Toy):
    """Anywhere in the genome: the same letters, as many bases away and in, the same GC content."""
    rows = mixed(toy)
    named = read_variants(vcf(toy, *rows))
    with genome_on_disk(toy.folder / "toy.fa") as genome:
        found = random_variants(named, np.arange(len(rows)), genome, LENGTH, 200, seed=1)
    own = {(r, a) for *_, r, a in (row[:5] for row in rows) if len(r) == len(a) == 1}
    contents = [gc(toy.bases["chrA"][row[1] - 101 : row[1] + 99]) for row in rows]
    seen = {"snv": 0, "mnv": 0, "ins": 0, "del": 0}
    for chrom, pos, ref, alt in zip(found.chrom, found.pos, found.ref, found.alt, strict=True):
        bases = toy.bases[chrom]
        assert bases[pos : pos + len(ref)] == ref != alt
        around = gc(bases[pos - 100 : pos + 100])
        assert min(abs(around - one) for one in contents) < 0.06
        if len(ref) == len(alt) == 1:
            seen["snv"] += (ref, alt) in own
        elif len(ref) == len(alt):
            seen["mnv"] += len(ref) == 3 and ref[0] == alt[0]  # beside a base that stays
        elif len(alt) > len(ref):
            seen["ins"] += (len(ref), len(alt), alt[0]) == (1, 8, ref)
        else:
            seen["del"] += (len(ref), alt) == (3, ref[0])
    assert seen["snv"] + seen["mnv"] == seen["ins"] + seen["del"] == 200
    assert min(seen.values()) > 10
    assert set(found.chrom) == set(toy.bases)
    inserted = [a[1:] for r, a in zip(found.ref, found.alt, strict=True) if len(a) == 8]
    assert len(set(inserted)) > 0.9 * len(inserted)


def test_random_variants_lie_outside_of_peaks(toy: Toy):
    rows = mixed(toy)
    named = read_variants(vcf(toy, *rows))
    peaks = Intervals(*(np.array(one) for one in (
        ["chrA", "chrA", "chrA"], [1750, 1050, 300], [1500, 900, 200], [2000, 1200, 2900]
    )))  # fmt: skip
    with genome_on_disk(toy.folder / "toy.fa") as genome:
        found = random_variants(named, np.arange(len(rows)), genome, LENGTH, 100, 0, peaks)
        every = random_variants(named, np.arange(len(rows)), genome, LENGTH, 100, 0)
    inside = (found.chrom == "chrA") & (found.pos > 200) & (found.pos < 2899)
    assert not inside.any()
    assert len(found) == len(every) == 200
    assert ((every.chrom == "chrA") & (every.pos > 200) & (every.pos < 2899)).sum() > 20


def test_no_random_deletion_takes_a_base_of_a_peak(toy: Toy):
    genome_path, taken = toy.folder / "toy.fa", 12
    ref = toy.bases["chrA"][399 : 400 + taken]
    rows = [("chrA", 400, "del", ref, ref[0], ".", ".", ".")]
    named = read_variants(vcf(toy, *rows))
    starts = np.arange(0, 3000, 60)
    peaks = Intervals(np.full(len(starts), "chrA"), starts + 30, starts, starts + 20)
    with genome_on_disk(genome_path) as genome:
        found = random_variants(named, np.arange(1), genome, LENGTH, 300, 0, peaks)
    first = found.pos[found.chrom == "chrA"] + 1  # after the base that VCF files write before it
    assert len(first) > 50
    covered = (np.arange(4000) % 60 < 20) & (np.arange(4000) < 3000)
    assert not any(covered[pos : pos + taken].any() for pos in first.tolist())


def test_what_a_model_says_of_random_variants_is_kept_for_the_next_file(
    toy: Toy, asked, monkeypatch, capsys
):
    """The same table as without the cache, for one file and for another that shares kinds."""
    vcf(toy, *mixed(toy))
    own, counted = effects.effects_of, []
    monkeypatch.setattr(effects, "effects_of", lambda *a: counted.append(len(a[1])) or own(*a))
    app.variants(asked(random_variants=60))
    first = table(asked().output)
    assert sum(counted) == 9 + 120
    counted.clear()
    app.variants(asked(random_variants=60, overwrite=True))
    assert sum(counted) == 9
    for row, again in zip(first, table(asked().output), strict=True):  # in smaller batches
        assert row.keys() == again.keys()
        for name in row.keys() - {"chrom", "pos", "id", "ref", "alt", "status"}:
            assert float(row[name]) == pytest.approx(float(again[name]), abs=1e-6)
    assert "120 of 120 random variants are known from before" in capsys.readouterr().out
    counted.clear()
    vcf(toy, *mixed(toy)[:8])
    app.variants(asked(random_variants=60, overwrite=True))
    shared, asked_now = table(asked().output), sum(counted)
    assert 8 < asked_now < 8 + 60  # some of the same kinds are known
    monkeypatch.setenv("XDG_CACHE_HOME", str(toy.folder / "another"))
    app.variants(asked(random_variants=60, overwrite=True))
    for row, again in zip(shared, table(asked().output), strict=True):
        assert float(row["jsd_p_0"]) == pytest.approx(float(again["jsd_p_0"]), abs=1e-9)
    (kept,) = (toy.folder / "another").rglob("variants-*.npz")
    kept.write_bytes(kept.read_bytes()[:-9])  # damaged: made anew
    counted.clear()
    app.variants(asked(random_variants=60, overwrite=True))
    assert sum(counted) == 8 + 120
    counted.clear()
    other = save_model(toy.folder / "b.pt", seed=1, signal_groups=[1, 2])
    app.variants(asked(checkpoint=[str(other)], random_variants=60, overwrite=True))
    assert sum(counted) == 8 + 120  # another model knows nothing of it


def test_the_spread_over_models_and_the_quantile_among_peaks(toy: Toy, asked, model):
    second = save_model(toy.folder / "b.pt", seed=1, signal_groups=[1, 2])
    vcf(toy, *snvs(toy, 1000, 1500))
    centers = [500, 800, 1200, 2500, 3000]
    toy.write("peaks.bed", "".join(f"chrA\t{c - 10}\t{c + 10}\n" for c in [20, *centers]))
    peaks = str(toy.folder / "peaks.bed")
    app.variants(asked(checkpoint=[str(model), str(second)], peaks=peaks))
    rows = table(asked().output)
    changes = []
    for path in (model, second):
        app.variants(
            asked(checkpoint=[str(path)], output=str(toy.folder / "one.tsv"), overwrite=True)
        )
        changes.append([float(r["log2_fold_change_1"]) for r in table(toy.folder / "one.tsv")])
    spread = np.std(changes, axis=0, ddof=1)
    bases = toy.bases["chrA"]
    windows = [bases[c - 100 : c + 100] for c in centers]
    counts = np.mean([[by_hand(p, w)[1][0, 1].item() for w in windows] for p in (model, second)], 0)
    for row, sd in zip(rows, spread, strict=True):
        assert float(row["log2_fold_change_sd_1"]) == pytest.approx(sd, abs=1e-5)
        ref, alt = (float(row[f"{a}_log_counts_1"]) for a in ("ref", "alt"))
        below = [(counts < one).mean() for one in (ref, alt)]
        assert float(row["active_allele_quantile_1"]) == pytest.approx(max(below))
        assert float(row["quantile_change_1"]) == pytest.approx(below[1] - below[0])
        size = abs(float(row["log2_fold_change_1"])) * float(row["jsd_1"]) * max(*below, 1 / 6)
        assert float(row["combined_1"]) == pytest.approx(size, rel=1e-4)
    text = Path(asked().output).with_suffix(".vcf").read_text()
    assert ";CM_LFC_SD_1=" in text
    assert ";CM_CMB_1=" in text
    assert ";CM_AAQ_1=" in text
    toy.write("peaks.bed", "chrA\t10\t30\n")
    with pytest.raises(DataError, match=r"peaks=.*no peak whose 200 bases"):
        app.variants(asked(peaks=peaks, overwrite=True))


def test_a_change_of_an_unknown_base_has_no_random_ones(toy: Toy, asked, capsys):
    toy.bases["chrA"] = toy.bases["chrA"][:999] + "N" + toy.bases["chrA"][1000:]
    toy.fasta()
    vcf(toy, ("chrA", 1000, "n", "N", "A", ".", ".", "."))
    app.variants(asked(random_variants=20))
    (row,) = table(asked().output)
    assert (row["status"], "jsd_p_0" in row) == ("ok", False)
    assert (
        "0 of 20 random variants: the genome has no place for the others" in capsys.readouterr().out
    )


def test_p_values_of_random_variants_are_uniform(toy: Toy, asked):
    vcf(toy, *mixed(toy))
    named = read_variants(toy.folder / "v.vcf")
    with genome_on_disk(toy.folder / "toy.fa") as genome:
        drawn = random_variants(named, np.arange(len(named)), genome, LENGTH, 150, seed=7)
    columns = (drawn.chrom, drawn.pos, drawn.ref, drawn.alt)
    vcf(toy, *[(c, p + 1, ".", r, a) for c, p, r, a in zip(*columns, strict=True)])
    app.variants(asked(random_variants=400))
    for kind in (False, True):
        own = [r for r in table(asked().output) if (len(r["ref"]) != len(r["alt"])) == kind]
        for column in ("log2_fold_change_p_0", "jsd_p_1"):
            p = np.array([float(row[column]) for row in own])
            assert kstest(p, "uniform").pvalue > 0.01, (kind, column)
            assert p.min() >= 1 / 401


def test_p_and_q_values_are_those_of_their_sources():
    p = p_values(np.array([0.5, 2.0, 9.0]), np.array([3.0, 1.0, 2.0, 2.0]))
    np.testing.assert_allclose(p, [1, 4 / 5, 1 / 5])
    p = np.random.default_rng(0).random(50) ** 3
    np.testing.assert_allclose(q_values(p), false_discovery_control(p))
    some = np.insert(p, 7, np.nan)
    assert np.isnan(q_values(some)[7])
    np.testing.assert_allclose(np.delete(q_values(some), 7), q_values(p))


def test_models_and_strands_are_averaged_as_numpy_would(toy: Toy, asked, model):
    second = save_model(toy.folder / "b.pt", seed=1, signal_groups=[1, 2])
    (row,) = snvs(toy, 1000)
    vcf(toy, row)
    app.variants(asked(checkpoint=[str(model), str(second)]))
    (found,) = table(asked().output)
    window = toy.bases["chrA"][899:1099]
    p, counts = {}, {}
    for name, letters in (("ref", window), ("alt", window[:100] + row[4] + window[101:])):
        both = [by_hand(path, letters) for path in (model, second)]  # strands averaged there
        p[name] = np.mean([x[0][0].double().numpy() for x in both], axis=0)
        counts[name] = np.mean([x[1][0].double().numpy() for x in both], axis=0)
    for g, channels in enumerate(([0], [1, 2])):
        q, r = p["ref"][channels].ravel(), p["alt"][channels].ravel()
        middle = (q + r) / 2
        jsd = np.sqrt((np.sum(q * np.log(q / middle)) + np.sum(r * np.log(r / middle))) / 2)
        assert float(found[f"jsd_{g}"]) == pytest.approx(jsd, rel=1e-3)
        fold = (counts["alt"][g] - counts["ref"][g]) / np.log(2)
        assert float(found[f"log2_fold_change_{g}"]) == pytest.approx(fold, abs=2e-5)
        assert float(found[f"ref_log_counts_{g}"]) == pytest.approx(counts["ref"][g], rel=1e-4)


def test_one_long_allele_does_not_widen_all(toy: Toy):
    found = read_variants(vcf(toy, *snvs(toy, *range(1, 900)), ("chrA", 5, ".", "A" * 10**6, "A")))
    assert found.ref.dtype == object  # an array of text would be 3.6 GB
    assert len(found.ref[-1]) == 10**6


def test_percentiles_count_what_is_smaller():
    among = np.array([3.0, 1.0, 2.0, 2.0])
    found = percentile(np.array([0.5, 2.0, 2.5, 9.0]), among)
    np.testing.assert_allclose(found, [0, 50, 75, 100])


def test_random_variants_are_the_same_each_time_and_their_windows_lie_in_the_genome(toy: Toy):
    base = toy.bases["chrA"][119]
    named = read_variants(vcf(toy, ("chrA", 120, ".", base, changed(base))))
    with genome_on_disk(toy.folder / "toy.fa") as genome:
        arguments = (named, np.array([0]), genome, LENGTH, 50, 0)
        one, same = (random_variants(*arguments) for _ in range(2))
    assert np.array_equal(one.pos, same.pos)
    assert len(set(zip(one.chrom, one.pos, strict=True))) > 40
    for chrom, pos, ref in zip(one.chrom, one.pos, one.ref, strict=True):
        assert LENGTH // 2 < pos < len(toy.bases[chrom]) - LENGTH // 2
        assert toy.bases[chrom][pos] == ref == base
    assert set(one.alt) == {changed(base)}


def test_an_interrupted_command_goes_on(toy: Toy, asked, monkeypatch, capsys):
    bases = toy.bases["chrA"]
    rows = [("chrA", i, ".", bases[i - 1], changed(bases[i - 1])) for i in range(500, 530)]
    vcf(toy, *rows)
    app.variants(asked(output=str(toy.folder / "whole.tsv"), batch_size=4))
    real, calls = effects.effects_of, []

    def interrupted(*arguments):
        calls.append(len(arguments[1]))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(effects, "effects_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        app.variants(asked(batch_size=4))
    with open(journal_path(Path(asked().output)), "a") as file:
        file.write("[1.0, 2.")  # cut short by a kill
    app.variants(asked(batch_size=4))
    assert calls == [16, 14, 14]
    said = capsys.readouterr().out
    assert "stopped. Re-run the same command to resume." in said
    assert "16 of 30 variants were done before" in said
    assert table(asked().output) == table(toy.folder / "whole.tsv")
    assert not list(toy.folder.glob(".*"))


def test_two_commands_do_not_make_one_output(toy: Toy, asked, monkeypatch):
    vcf(toy, *snvs(toy, 500, 600))
    real, refused = effects.effects_of, []

    def meanwhile(*arguments):
        if not refused:
            refused.append("tried")
            with pytest.raises(InUse, match=r"out\.tsv is being made by another process"):
                app.variants(asked(overwrite=True))
            refused.append("in use")
        return real(*arguments)

    monkeypatch.setattr(effects, "effects_of", meanwhile)
    app.variants(asked())
    assert refused == ["tried", "in use"]
    assert len(table(asked().output)) == 2
    assert not list(toy.folder.glob(".*"))


@pytest.mark.slow
def test_a_killed_command_goes_on_to_the_same_bytes(toy: Toy, model):
    """SIGKILL in the middle of the work; a file that somebody then puts there is not written."""
    vcf(toy, *snvs(toy, *range(500, 1500, 20)))

    environment = clean_environment() | {"TMPDIR": str(toy.folder)}

    def begun(output: str) -> subprocess.Popen:
        own = {
            "XDG_CACHE_HOME": str(toy.folder / "caches" / output)
        }  # nothing is known from before
        return subprocess.Popen(
            [sys.executable, "-c", "from cherimoya.cli.commands import variants; variants()",
             f"checkpoint={model}", "variants=v.vcf", "fasta=toy.fa", f"in_window={LENGTH}",
             "random_variants=1000", f"output={output}", "batch_size=4", "device=cpu"],
            cwd=toy.folder, env=environment | own, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    assert begun("whole.tsv").communicate(timeout=120)
    journal = toy.folder / "cut.tsv.partial"
    killed = begun("cut.tsv")
    while not journal.is_file() or journal.stat().st_size < 100 * 6 * 8:  # rows of 6 numbers
        assert killed.poll() is None, "it ended before it was killed"
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    assert not (toy.folder / "cut.tsv").exists()
    (toy.folder / "cut.vcf").write_text("mine")
    begun("cut.tsv").communicate(timeout=120)
    assert (toy.folder / "cut.vcf").read_text() == "mine"
    (toy.folder / "cut.vcf").unlink()
    said, _ = begun("cut.tsv").communicate(timeout=120)
    assert "of 1,050 variants were done before" in said
    for name in ("tsv", "vcf"):
        cut, whole = ((toy.folder / f"{n}.{name}").read_text() for n in ("cut", "whole"))
        assert cut.replace("cut.tsv", "whole.tsv") == whole
    assert not list(toy.folder.glob(".*"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"the file is empty"),
        (HEADER, r"no variant in it\. Give"),
        ("chrA\t5\tA\tC\n", r"line 1: no column chrom, pos, ref, alt among"),
        (HEADER + "chrA\tx\t.\tA\tC\n", r"line 3: pos 'x' must be a whole number from 1"),
        (HEADER + "chrA\t0\t.\tA\tC\n", r"line 3: pos '0' must be"),
        (HEADER + "chrA\t\u00b2\t.\tA\tC\n", r"line 3: pos '\u00b2' must be"),
        (HEADER + "chrA\t5\t.\t\tC\n", r"line 3: no REF allele"),
        (HEADER + "chrA\t5\t.\tR\tC\n", r"1 allele left out, with letters other .*: line 3"),
        ("chrA\t5\t.\tA\tC\n", r"line 1: the header is missing or damaged"),
        ("##fileformat=VCFv4.2\nchrom\tpos\tref\talt\n", r"line 2: the header is missing or"),
        ("chrom,pos,ref,alt\nchrA,5,A,C\n", r"line 1: no column .* tab-separated table"),
        ("chrom\tpos\tref\nchrA\t5\tA\n", r"line 1: no column alt among chrom, pos, ref\."),
        (HEADER + "chrA\t5\t.\tA\tC\nchrA\t6", r"line 4: 2 columns, the header has more"),
        (HEADER + "chrA 5 . A C\n", r"line 3: 1 column, the header has more"),
        (HEADER + "chrA\t5\t.\tA\t<DEL>\n", r"no variant in it; 1 allele left out, with a sym"),
    ],
)
def test_bad_files_are_named(toy: Toy, asked, text, message):
    toy.write("v.vcf", text)
    with pytest.raises(DataError, match=message):
        app.variants(asked())


def test_a_truncated_gzip_is_named(toy: Toy, asked):
    whole = gzip.compress((HEADER + "chrA\t5\t.\tA\tC\n" * 99).encode())
    (toy.folder / "v.vcf").write_bytes(whole[:-20])
    with pytest.raises(DataError, match=r"v\.vcf: truncated or damaged"):
        app.variants(asked())


def test_tables_that_share_a_vcf_have_one_owner(toy: Toy, asked, monkeypatch):
    vcf(toy, *snvs(toy, 500))
    one, other = (str(toy.folder / f"same.{end}") for end in ("tsv", "txt"))
    monkeypatch.setattr(app, "_score_all", lambda *_: app.variants(asked(output=other)))
    with pytest.raises(InUse, match=r"same\.vcf is being made by another process"):
        app.variants(asked(output=one))


def test_outputs_do_not_fall_on_inputs(toy: Toy, asked):
    with pytest.raises(CherimoyaError, match=r"a folder\. Name the file to write"):
        app.variants(asked(output=str(toy.folder)))
    (toy.folder / "file").write_text("")
    with pytest.raises(CherimoyaError, match=r"file/x\.tsv: .*/file is a file"):
        app.variants(asked(output=str(toy.folder / "file" / "x.tsv")))
    vcf(toy, ("chrA", 1000, ".", "A", "C"))
    with pytest.raises(CherimoyaError, match=r"v\.vcf would be overwritten by .*or set vcf=false"):
        app.variants(asked(output=str(toy.folder / "v.tsv")))
    table_file = toy.write("t.tsv", "chrom\tpos\tref\talt\nchrA\t5\tA\tC\n")
    with pytest.raises(CherimoyaError, match=r"t\.tsv would be overwritten by .*output\.$"):
        app.variants(asked(variants=str(table_file), output=str(table_file), overwrite=True))
    toy.write("out.tsv", "mine")
    with pytest.raises(CherimoyaError, match=r"out\.tsv: exists already"):
        app.variants(asked())
    assert (toy.folder / "out.tsv").read_text() == "mine"
    with pytest.raises(CherimoyaError, match=r"output=a\.vcf: the table, such as effects\.tsv"):
        asked(output="a.vcf")


def info(path: Path) -> list[dict[str, str]]:
    """INFO of each record, as pysam reads it."""
    with pysam.VariantFile(str(path)) as file:
        return [
            {"pos": str(record.pos)} | {k: str(v) for k, v in dict(record.info).items()}
            for record in file
        ]


def as_binary(source: Path) -> Path:
    """The VCF file as BCF beside it."""
    path = source.with_suffix(".bcf")
    pysam.bcftools.view("-Ob", "-o", str(path), str(source), catch_stdout=False)
    return path


CONTIG = "##fileformat=VCFv4.2\n##contig=<ID=chrA>\n" + (
    '##INFO=<ID=AF,Number=A,Type=Float,Description="frequency">\n'
)


def test_compressed_and_binary_files_come_out_as_they_came_in(toy: Toy, asked):
    rows = [(*row[:7], "AF=0.5") for row in mixed(toy)[:8]]
    rows.sort(key=lambda row: row[1])
    star = (*rows[0][:4], f"{rows[0][4]},*", ".", ".", "AF=0.5,0.25")
    plain = vcf(toy, star, *rows[1:], header=CONTIG + HEADER.splitlines()[1] + "\n")
    app.variants(asked())
    expected, wanted = table(asked().output), info(toy.folder / "out.vcf")
    assert "nan" not in wanted[0]["CM_LFC_0"]
    gz = toy.folder / "c.vcf.gz"
    with pysam.BGZFile(str(gz), "wb") as file:
        file.write(plain.read_bytes())
    for source, name in ((gz, "gz"), (as_binary(plain), "bcf")):
        config = asked(variants=str(source), output=str(toy.folder / f"{name}.tsv"))
        app.variants(config)
        assert table(config.output) == expected
        ending = {"gz": ".vcf.gz", "bcf": ".bcf"}[name]
        made = toy.folder / f"{name}{ending}"
        assert info(made) == wanted
        assert made.with_name(made.name + {"gz": ".tbi", "bcf": ".csi"}[name]).is_file()
        with pysam.VariantFile(str(made)) as file:
            (found,) = file.fetch("chrA", rows[2][1] - 1, rows[2][1])
            assert found.pos == rows[2][1]
        app.variants(config)  # done already
        assert sorted(p.name for p in toy.folder.glob(f"{name}.*")) == sorted(
            [f"{name}.tsv", f"{name}.tsv.done.json", made.name, f"{made.name}.tbi"]
            if name == "gz"
            else [f"{name}.tsv", f"{name}.tsv.done.json", made.name, f"{made.name}.csi"]
        )


def test_unsorted_variants_have_no_index_and_damaged_binary_ones_are_named(toy: Toy, asked, capsys):
    rows = snvs(toy, 1000, 600)
    plain = vcf(toy, *rows, header=CONTIG + HEADER.splitlines()[1] + "\n")
    gz = toy.folder / "c.vcf.gz"
    gz.write_bytes(gzip.compress(plain.read_bytes()))
    app.variants(asked(variants=str(gz)))
    said = capsys.readouterr().out
    assert "out.vcf.gz: the same as INFO; no index: its variants are not sorted" in said
    assert [row["pos"] for row in info(toy.folder / "out.vcf.gz")] == ["1000", "600"]
    whole = as_binary(plain).read_bytes()
    for content in (whole[:-40], whole[:60], b"BCF\x02\x02"):
        plain.with_suffix(".bcf").write_bytes(content)
        with pytest.raises(DataError, match=r"variants=.*v\.bcf: .*damaged"):
            app.variants(asked(variants=str(plain.with_suffix(".bcf")), overwrite=True))


def test_the_page_shows_all_effects_and_the_tracks_of_the_strongest(toy: Toy, asked, model):
    rows = mixed(toy)
    vcf(toy, *rows)
    app.variants(asked(random_variants=30, page=True))
    text = (toy.folder / "out.html").read_text()
    found = table(asked().output)
    size = [max(abs(float(r[f"log2_fold_change_{g}"])) for g in (0, 1)) for r in found]
    first = found[int(np.argmax(size))]
    assert f"<figcaption>{first['chrom']}:{int(first['pos']):,} {first['ref']}" in text
    assert text.count("<figcaption>") == 2 * 2 + 6  # two charts a group, six tracks
    assert "9 of 9 variants scored" in text
    assert "60 random variants beside them" in text
    app.variants(asked(random_variants=30, page=True))  # done already
    (toy.folder / "out.html").write_text("mine")
    with pytest.raises(CherimoyaError, match=r"out\.html: exists already.*page=false"):
        app.variants(asked(page=True, vcf=False, output=str(toy.folder / "out.txt")))


def test_tracks_are_the_expected_counts_of_either_allele(toy: Toy, asked, model):
    bases = toy.bases["chrA"]
    rows = [mixed(toy)[0], ("chrA", 1500, "del", bases[1499:1503], bases[1499])]
    named = read_variants(vcf(toy, *(row[:5] for row in rows), header=HEADER.replace(
        "\tQUAL\tFILTER\tINFO", ""
    )))  # fmt: skip
    with genome_on_disk(toy.folder / "toy.fa") as genome:
        ask = effects.Questions(EnsemblePredictor(asked()), genome, LENGTH, {})
        snv, deletion = ask.tracks(named, np.array([0, 1]))
    pos, alt = rows[0][1] - 1, rows[0][4]
    window = bases[pos - 100 : pos + 100]
    for letters, found in ((window, snv.ref), (window[:100] + alt + window[101:], snv.alt)):
        p, counts = by_hand(model, letters)
        expected = p[0] * torch.expm1(counts[0])[[0, 1, 1]][:, None]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    assert snv.at == 50
    p, counts = by_hand(model, bases[1401:1601])
    allele = (p[0, 0, 48:52].sum() * torch.expm1(counts[0, 0])).item()
    assert deletion.ref[0, deletion.at] == pytest.approx(allele, rel=1e-3)
