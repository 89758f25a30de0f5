"""From FASTA, bigWig and BED to loci: base for base, count for count."""

import gzip
from collections import Counter

import numpy as np
import pytest
from toy import LENGTHS, Toy, letters, narrow

from cherimoya.config import groups
from cherimoya.data import hdf5
from cherimoya.data.loci import crop
from cherimoya.genome import fasta
from cherimoya.genome import intervals as places
from cherimoya.prepare import background


def test_base_for_base_and_count_for_count(toy: Toy) -> None:
    toy.bed("chrA\t100\t201\tname\t5\t-", "chrC\t1500\t1501", "chrB\t900\t1000")
    loci = toy.run()
    assert list(loci.chrom) == ["chrA", "chrC", "chrB"]
    assert list(loci.start) == [150 - 25, 1500 - 25, 950 - 25]
    for row, (chrom, center) in enumerate([("chrA", 150), ("chrC", 1500), ("chrB", 950)]):
        assert letters(loci.sequence[row]) == toy.bases[chrom][center - 25 : center + 25]
        for track, values in enumerate((toy.plus, toy.minus)):
            wanted = values[chrom][center - 15 : center + 15]
            np.testing.assert_array_equal(loci.signal[row, track], wanted)
    assert loci.signal.dtype == np.uint8
    assert list(loci.end - loci.start) == [50] * 3
    assert loci.track_names == ["plus", "minus"]
    assert loci.signal_groups == [2]
    assert loci.genome == "toy"
    assert loci.label.all()


def test_one_count_lands_on_its_base(toy: Toy) -> None:
    single = {chrom: np.zeros(n) for chrom, n in LENGTHS.items()}
    single["chrA"][500] = 7  # bedGraph chrA 500 501
    path = toy.bigwig("single.bw", single)
    toy.bed("chrA\t500\t501")
    loci = toy.run(signal=[[str(path)]])
    assert np.argwhere(loci.signal).tolist() == [[0, 0, 15]]
    assert letters(loci.sequence[0, 25:26]) == toy.bases["chrA"][500]


def test_a_smaller_preparation_is_a_crop(toy: Toy) -> None:
    toy.bed("chrA\t100\t201", "chrB\t700\t703")
    large = toy.run()
    for windows in ((30, 10, 2), (31, 11, 3), (40, 20, 0)):
        names = dict(zip(("in_window", "out_window", "max_jitter"), windows, strict=True))
        small, cut = toy.run(**names), crop(large, **names)
        for name, values in small.arrays().items():
            np.testing.assert_array_equal(values, cut.arrays()[name], err_msg=f"{name} {windows}")


def test_groups_and_controls(toy: Toy) -> None:
    toy.bed("chrA\t100\t200")
    plus, minus = f"{toy.folder}/plus.bw", f"{toy.folder}/minus.bw"
    loci = toy.run(signal=[[minus], [plus]], control=[[plus, minus]])
    assert loci.signal_groups == [1, 1]
    assert loci.control_groups == [2]
    assert loci.control_names == ["plus", "minus"]
    assert loci.control.shape == (1, 2, 50)
    np.testing.assert_array_equal(loci.control[0, 0], toy.plus["chrA"][125:175])
    np.testing.assert_array_equal(loci.signal[0, 0], toy.minus["chrA"][135:165])


def test_loci_at_the_edges(toy: Toy) -> None:
    toy.bed("chrA\t25\t26", "chrA\t24\t25", "chrA\t3975\t3976", "chrA\t3976\t3977")
    loci = toy.run()
    assert list(loci.start) == [0, 3950]
    assert list(loci.end) == [50, 4000]
    assert letters(loci.sequence[1]) == toy.bases["chrA"][-50:]
    assert toy.funnel()["past an end of the chromosome"] == (2, 2)


def test_a_chromosome_without_signal_is_zeros(toy: Toy) -> None:
    path = toy.bigwig("part.bw", {"chrA": toy.plus["chrA"], "chrB": toy.plus["chrB"]})
    toy.bed("chrA\t100\t200", "chrC\t100\t200")
    loci = toy.run(signal=[[str(path)]])
    assert loci.signal[0].sum() > 0
    assert loci.signal[1].sum() == 0
    assert "part.bw has no chrC: zeros there" in toy.said


def test_nan_is_zero_and_fractions_are_kept(toy: Toy) -> None:
    values = {chrom: np.full(n, 0.25) for chrom, n in LENGTHS.items()}
    values["chrA"][150] = np.nan
    path = toy.bigwig("half.bw", values, zeros=True)
    toy.bed("chrA\t100\t201")
    loci = toy.run(signal=[[str(path)]])
    assert loci.signal.dtype == np.float32
    assert loci.signal[0, 0, 15] == 0
    assert loci.signal.sum() == 29 * 0.25
    assert any("not whole numbers (half at chrA:100-201, 1 such loci)" in line for line in toy.said)


def test_large_counts_take_wider_integers(toy: Toy) -> None:
    values = {chrom: np.full(n, 70_000.0) for chrom, n in LENGTHS.items()}
    toy.bed("chrA\t100\t201")
    loci = toy.run(signal=[[str(toy.bigwig("large.bw", values))]])
    assert loci.signal.dtype == np.int32
    assert (loci.signal == 70_000).all()


def test_case_and_other_letters(toy: Toy) -> None:
    bases = toy.bases["chrA"]
    toy.bases["chrA"] = bases[:140].lower() + "NNrY" + bases[144:]
    toy.fasta()
    toy.bed("chrA\t100\t201")
    loci = toy.run()
    assert letters(loci.sequence[0]) == bases[125:140] + "NNNN" + bases[144:175]
    assert any("N 2, R 1, Y 1 (4 in the windows)" in line for line in toy.said)


@pytest.mark.parametrize("kind", ["gzip", "bgzf", "one line", "crlf", "uneven", "small blocks"])
def test_kinds_of_fasta(toy: Toy, kind: str, monkeypatch, tmp_path_factory) -> None:
    path = toy.fasta(width=5000 if kind == "one line" else 60)
    text = path.read_bytes()
    if kind == "crlf":
        path.write_bytes(text.replace(b"\n", b"\r\n"))
    if kind == "uneven":
        path.write_bytes(text.replace(b"ACG", b"A\nCG\n\n").rstrip())
    if kind == "small blocks":
        monkeypatch.setattr(fasta, "FASTA_BLOCK", 7)
    if kind in ("gzip", "bgzf"):  # BGZF is gzip in many members
        size = 1000 if kind == "bgzf" else len(text)
        members = [gzip.compress(text[at : at + size]) for at in range(0, len(text), size)]
        path = toy.folder / "toy.fa.gz"
        path.write_bytes(b"".join(members))
    genome = fasta.read_genome(path, tmp_path_factory.mktemp("spool") / "codes")
    assert genome.lengths == LENGTHS
    assert {name: letters(genome.codes(name)) for name in LENGTHS} == toy.bases
    toy.bed("chrC\t1900\t1950")
    before = sorted(toy.folder.iterdir())
    assert toy.run(fasta=str(path)).genome == "toy"
    made = [toy.folder / name for name in ("out.h5", "out.h5.done.json")]
    assert sorted(toy.folder.iterdir()) == sorted([*before, *made])  # no index


def test_bed_dialects(toy: Toy) -> None:
    lines = (
        'track name="a b"',
        "browser position chrA:1-2",
        "# note",
        "",
        "chrA 100 201",
        "chrB\t5\t6\tn a m e",
    )
    toy.bed(*lines)
    path = toy.folder / "loci.bed.gz"
    path.write_bytes(gzip.compress("\r\n".join(lines).encode()))
    for name in ("loci.bed", "loci.bed.gz"):
        found = places.read_intervals(toy.folder / name, "midpoint")
        assert list(found.chrom) == ["chrA", "chrB"]
        assert list(found.center) == [150, 5]


def test_one_signal_file_need_not_be_in_lists(toy: Toy) -> None:
    with groups.initialized():
        values, _ = groups.compose("prepare", ["signal=plus.bw", "fasta=a", "loci=b"])
    assert groups.plain_values(values)["signal"] == [["plus.bw"]]


def test_summits_and_midpoints(toy: Toy) -> None:
    toy.bed(narrow(100, 200, 10), narrow(100, 200, 90), narrow(500, 600, 0))
    assert list(toy.run(center="summit").start + 25) == [110, 190, 500]
    assert list(toy.run(center="midpoint").start + 25) == [150, 550]
    assert "loci are centred on their midpoints (center=midpoint)" in toy.said
    assert any(f"{toy.folder / 'loci.bed'} has summits in column 10" in said for said in toy.said)
    assert toy.funnel()["same centre as another"] == (1, 2)
    for line in ("chrA\t100\t200", narrow(100, 200, 90) + "\t0\t0", narrow(100, 200, -1)):
        toy.bed(line)
        assert not places.has_summits(toy.folder / "loci.bed")


def test_the_funnel_counts_each_reason_once(toy: Toy) -> None:
    bases = toy.bases["chrB"]
    toy.bases["chrB"] = bases[:1000] + "N" * 30 + bases[1030:]
    toy.fasta()
    for values in (toy.plus, toy.minus):
        values["chrC"][475:525] = 0
        values["chrC"][900:920] = 500
    toy.bigwig("plus.bw", toy.plus)
    toy.bigwig("minus.bw", toy.minus)
    ordinary = [f"chrA\t{at}\t{at + 1}" for at in range(100, 3900, 20)]
    toy.bed(
        *ordinary,
        "chrUn\t5\t9",
        "chrA\t0\t3",
        "chrA\t100\t101",
        "chrB\t1010\t1011",
        "chrC\t500\t501",
        "chrC\t910\t911",
    )
    loci = toy.run(min_counts=5, outlier_factor=2)
    n = len(ordinary)
    rows = toy.funnel()
    cut_off = next(reason for reason in rows if reason.startswith("over the outlier"))
    assert rows == {
        "in loci.bed": (0, n + 6),
        "chromosome not in the genome": (1, n + 5),
        "past an end of the chromosome": (1, n + 4),
        "same centre as another": (1, n + 3),
        "N over 10%": (1, n + 2),
        "under 5 counts": (1, n + 1),
        cut_off: (1, n),
    }
    assert len(loci) == n
    assert set(loci.chrom) == {"chrA"}
    assert [tuple(row[1:]) for row in loci.provenance["funnel"]] == list(rows.values())
    aligned = next(text for text in toy.said if text.startswith("loci  ")).splitlines()
    assert len({len(line) for line in aligned}) == 1


def test_the_outlier_cut_off_is_of_each_group(toy: Toy) -> None:
    """1.2 times the 99th percentile of a group's counts in the output window, without jitter."""
    toy.bed(*(f"{c}\t{at}\t{at + 1}" for c, n in LENGTHS.items() for at in range(50, n - 50, 20)))
    toy.plus["chrA"][500] = toy.plus["chrB"][703] = toy.minus["chrC"][909] = 60
    files = [[str(toy.bigwig(f"{n}.bw", v))] for n, v in (("a", toy.plus), ("b", toy.minus))]
    whole, kept = toy.run(signal=files), toy.run(signal=files, outlier_factor=1.2)
    totals = whole.signal[:, :, 5:25].sum(axis=2)
    usual = (totals <= 1.2 * np.percentile(totals, 99, axis=0)).all(axis=1)
    assert (~usual).sum() == 3
    np.testing.assert_array_equal(kept.signal, whole.signal[usual])
    np.testing.assert_array_equal(kept.start, whole.start[usual])


def test_provenance(toy: Toy) -> None:
    toy.bed("chrA\t100\t200")
    provenance = toy.run(genome="toy-1").provenance
    assert [s["name"] for s in provenance["sources"]] == [
        "toy.fa",
        "loci.bed",
        "plus.bw",
        "minus.bw",
    ]
    assert provenance["sources"][1]["size"] == len("chrA\t100\t200\n")
    assert len(provenance["sources"][0]["sha256"]) == 64
    assert provenance["config"]["in_window"] == 40
    assert provenance["command"]
    assert hdf5.read_header(toy.folder / "out.h5").genome == "toy-1"


def gc_genome(toy: Toy) -> None:
    """Chromosomes whose GC rises along them, with peaks in the GC-rich half of two of them."""
    rng = np.random.default_rng(3)
    for chrom in toy.bases:
        gc = np.linspace(0.2, 0.8, 60_000)
        strong, kind = rng.random(60_000) < gc, rng.random(60_000) < 0.5
        letter = np.where(strong, np.where(kind, "G", "C"), np.where(kind, "A", "T"))
        toy.bases[chrom] = "".join(letter)
    toy.fasta()
    toy.plus = {chrom: rng.poisson(0.2, 60_000).astype(float) for chrom in LENGTHS}
    toy.bigwig("plus.bw", toy.plus)
    places = [
        f"{c}\t{at}\t{at + 150}" for c in ("chrA", "chrB") for at in range(36_000, 48_000, 400)
    ]
    toy.bed(*places)


def test_background_matches_gc_away_from_peaks(toy: Toy) -> None:
    gc_genome(toy)
    values = {"signal": [[f"{toy.folder}/plus.bw"]], "background_ratio": 2.0, "min_distance": 30}
    loci = toy.run(**values)
    peaks, others = loci.take(loci.label == 1), loci.take(loci.label == 0)
    assert len(peaks) == 60
    assert 110 <= len(others) <= 120
    assert list(loci.label) == sorted(loci.label, reverse=True)

    def gc(chosen: hdf5.Loci) -> np.ndarray:
        return np.isin(chosen.sequence[:, 5:45], (1, 2)).mean(axis=1)

    assert abs(gc(peaks).mean() - gc(others).mean()) < 0.02
    assert (
        np.abs(
            np.quantile(gc(peaks), [0.1, 0.5, 0.9]) - np.quantile(gc(others), [0.1, 0.5, 0.9])
        ).max()
        < 0.05
    )
    whole = np.concatenate([np.isin(list(b), list("GC")) for b in toy.bases.values()]).mean()
    assert gc(peaks).mean() - whole > 0.08
    assert set(others.chrom) == {"chrA", "chrB"}  # chrC has no peaks
    center = others.start + 25
    for chrom in ("chrA", "chrB"):
        mine = np.sort(center[others.chrom == chrom])
        assert np.diff(mine).min() >= 20  # output windows do not overlap
        for at in range(36_000, 48_000, 400):
            gap = np.maximum(at - (mine + 10), (mine - 10) - (at + 150))
            assert gap.min() >= 30
        row = int(np.flatnonzero(loci.label == 0)[0])
        first = loci.start[row]
        assert letters(loci.sequence[row]) == toy.bases[loci.chrom[row]][first : first + 50]
        wanted = toy.plus[loci.chrom[row]][first + 10 : first + 40]
        np.testing.assert_array_equal(loci.signal[row, 0], wanted)


def test_the_match_of_gc_is_recorded_and_drawn(toy: Toy) -> None:
    pytest.importorskip("matplotlib")
    from cherimoya.report.plots.gc import plot_gc

    gc_genome(toy)
    loci = toy.run(signal=[[f"{toy.folder}/plus.bw"]], background_ratio=2.0)
    found = loci.provenance["gc"]
    assert sum(found["peaks"]) == loci.label.sum()
    assert sum(found["background"]) == (loci.label == 0).sum()
    at = np.arange(50) / 50 + 0.01
    means = {name: np.average(at, weights=counts) for name, counts in found.items()}
    assert abs(means["peaks"] - means["background"]) < 0.03
    assert means["peaks"] - means["free windows"] > 0.05
    plot = plot_gc(toy.folder / "out.h5")
    assert plot == toy.folder / "out.gc.png"
    assert plot.read_bytes().startswith(b"\x89PNG")
    toy.run(signal=[[f"{toy.folder}/plus.bw"]], background_ratio=0)
    assert plot_gc(toy.folder / "out.h5") is None


def test_background_depends_on_the_seed_alone(toy: Toy) -> None:
    gc_genome(toy)
    values = {"signal": [[f"{toy.folder}/plus.bw"]], "background_ratio": 1.0}
    prints = []
    for seed in (0, 0, 1):
        loci = toy.run(**values, seed=seed)
        prints.append((loci.start.tolist(), hdf5.fingerprint(toy.folder / "out.h5")))
    assert prints[0] == prints[1]
    assert prints[0][0] != prints[2][0]


def test_a_genome_without_room_for_background(toy: Toy) -> None:
    toy.bed(*(f"chrC\t{at}\t{at + 80}" for at in range(0, 2000, 80)))
    loci = toy.run(background_ratio=1.0)
    assert loci.label.all()
    (said,) = (line for line in toy.said if "background: none of" in line)
    assert "What makes room: a smaller out_window, a smaller in_window or max_jitter" in said
    assert "min_distance" not in said  # which is 0


def test_background_is_held_to_the_outlier_cut_off(toy: Toy) -> None:
    toy.plus["chrA"][1000:3500] = 1000
    toy.bigwig("plus.bw", toy.plus)
    toy.bed(*(f"chrA\t{at}\t{at + 50}" for at in range(100, 900, 100)))
    values = {"background_ratio": 10.0, "gc_bin": 1.0, "max_n_fraction": 1.0}
    loci = toy.run(**values, outlier_factor=1.2)
    assert not loci.label.all()
    assert loci.signal.max() < 1000
    assert toy.run(**values, outlier_factor=None).signal.max() == 1000


def test_match_gc_takes_each_row_once_and_stays_near() -> None:
    rng = np.random.default_rng(0)
    target, pool = rng.normal(0.6, 0.05, 400).clip(0, 1), rng.uniform(0, 1, 3000)
    rows = background.match_gc(target, pool, 400, 0.02, rng)
    assert len(rows) == len(set(rows.tolist())) == 400
    assert abs(pool[rows].mean() - target.mean()) < 0.005
    few = background.match_gc(target, np.full(50, 0.1), 400, 0.02, rng)
    assert len(few) == 0  # GC too far away does not stand in
    ends = background.match_gc(np.array([0.0, 1.0]), np.array([1.0, 0.0, 0.5]), 2, 0.02, rng)
    assert ends.tolist() == [0, 1]


@pytest.mark.parametrize("length", [1, 7, 40])
@pytest.mark.parametrize("stretch", [1, 8, 1 << 22])
def test_window_fractions(length: int, stretch: int, monkeypatch) -> None:
    monkeypatch.setattr(background, "STRETCH", stretch)
    codes = np.random.default_rng(0).integers(0, 5, 60, dtype=np.uint8)
    starts = np.array([60 - length, 0, 3, 3])
    for start, gc, n in zip(
        starts,
        background.gc_fraction(codes, starts, length),
        background.n_fraction(codes, starts, length),
        strict=True,
    ):
        text = Counter(letters(codes[start : start + length]))
        known = sum(text[base] for base in "ACGT")
        assert gc == pytest.approx((text["G"] + text["C"]) / max(known, 1))
        assert n == pytest.approx(text["N"] / length)
