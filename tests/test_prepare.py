"""From FASTA, bigWig and BED to loci: base for base, count for count, and every refusal."""

import gzip
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from cherimoya.config import PrepareConfig, resolve
from cherimoya.data import background, hdf5, sources
from cherimoya.data.prepare import prepare
from cherimoya.errors import ConfigError, DataError

pysam = pytest.importorskip("pysam")
pyBigWig = pytest.importorskip("pyBigWig")  # noqa: N816

CONF = Path(__file__).resolve().parents[1] / "conf" / "prepare.yaml"
LENGTHS = {"chrA": 4000, "chrB": 3000, "chrC": 2000}
COMPLEMENT = str.maketrans("ACGT", "TGCA")
SMALL = {"in_window": 40, "out_window": 20, "max_jitter": 5, "outlier_factor": None}


def configure(**values) -> PrepareConfig:
    """conf/prepare.yaml with `values` on top."""
    given = OmegaConf.to_container(OmegaConf.load(CONF))
    del given["defaults"], given["hydra"]
    return resolve(given | values, PrepareConfig)


class Toy:
    """A genome of three random chromosomes and two tracks whose every value is known."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(5)
        self.folder = folder
        self.bases = {c: "".join(rng.choice(list("ACGT"), n)) for c, n in LENGTHS.items()}
        self.plus = {c: rng.poisson(0.6, n).astype(float) for c, n in LENGTHS.items()}
        self.minus = {c: rng.poisson(0.6, n).astype(float) for c, n in LENGTHS.items()}
        self.fasta()
        self.bigwig("plus.bw", self.plus)
        self.bigwig("minus.bw", self.minus)

    def fasta(self, name: str = "toy.fa", width: int = 60) -> Path:
        lines = []
        for chrom, bases in self.bases.items():
            lines += [f">{chrom} a note", *re.findall(f".{{1,{width}}}", bases)]
        return self.write(name, "\n".join(lines) + "\n")

    def bigwig(self, name: str, values: dict[str, np.ndarray], zeros: bool = False) -> Path:
        path = self.folder / name
        with pyBigWig.open(str(path), "w") as file:
            file.addHeader([(chrom, len(v)) for chrom, v in values.items()])
            for chrom, v in values.items():
                at = np.arange(len(v)) if zeros else np.flatnonzero(v)
                chroms = np.array([chrom] * len(at))
                file.addEntries(chroms, at, ends=at + 1, values=v[at])
        return path

    def bed(self, *lines: str, name: str = "loci.bed") -> Path:
        return self.write(name, "\n".join(lines) + "\n")

    def write(self, name: str, text: str) -> Path:
        (self.folder / name).write_text(text)
        return self.folder / name

    def config(self, **values) -> PrepareConfig:
        given = {
            "fasta": f"{self.folder}/toy.fa",
            "loci": f"{self.folder}/loci.bed",
            "signal": [[f"{self.folder}/plus.bw", f"{self.folder}/minus.bw"]],
            "output": f"{self.folder}/out.h5",
            "background_ratio": 0,
            "overwrite": True,
        }
        return configure(**(given | SMALL | values))

    def run(self, **values) -> hdf5.Loci:
        self.said: list[str] = []
        return hdf5.read(prepare(self.config(**values), self.said.append))

    def funnel(self) -> dict[str, tuple[int, int]]:
        """What the printed table says: reason -> (removed, left)."""
        table = next(text for text in self.said if text.startswith("loci  "))
        rows = [re.split(r"  +", line) for line in table.splitlines()[1:]]
        return {r[0]: (int(r[1].replace(",", "")), int(r[2].replace(",", ""))) for r in rows}


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path)


def letters(codes: np.ndarray) -> str:
    return "".join("ACGTN"[code] for code in codes)


def refused(toy: Toy, message: str, **values) -> str:
    """The message of the DataError that `values` give; nothing may be left behind."""
    with pytest.raises(DataError, match=message) as raised:
        toy.run(**values)
    assert not list(toy.folder.glob("out.h5*")) and not list(toy.folder.glob(".out*"))
    return str(raised.value)


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
    assert loci.signal.dtype == np.uint8 and list(loci.end - loci.start) == [50] * 3
    assert loci.track_names == ["plus", "minus"] and loci.signal_groups == [2]
    assert loci.genome == "toy" and loci.label.all()


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
        small, cut = toy.run(**names), hdf5.crop(large, **names)
        for name, values in small.arrays().items():
            np.testing.assert_array_equal(values, cut.arrays()[name], err_msg=f"{name} {windows}")


def test_groups_and_controls(toy: Toy) -> None:
    toy.bed("chrA\t100\t200")
    plus, minus = f"{toy.folder}/plus.bw", f"{toy.folder}/minus.bw"
    loci = toy.run(signal=[[minus], [plus]], control=[[plus, minus]])
    assert loci.signal_groups == [1, 1] and loci.control_groups == [2]
    assert loci.control_names == ["plus", "minus"] and loci.control.shape == (1, 2, 50)
    np.testing.assert_array_equal(loci.control[0, 0], toy.plus["chrA"][125:175])
    np.testing.assert_array_equal(loci.signal[0, 0], toy.minus["chrA"][135:165])


def test_loci_at_the_edges(toy: Toy) -> None:
    toy.bed("chrA\t25\t26", "chrA\t24\t25", "chrA\t3975\t3976", "chrA\t3976\t3977")
    loci = toy.run()
    assert list(loci.start) == [0, 3950] and list(loci.end) == [50, 4000]
    assert letters(loci.sequence[1]) == toy.bases["chrA"][-50:]
    assert toy.funnel()["past an end of the chromosome"] == (2, 2)


def test_a_chromosome_without_signal_is_zeros(toy: Toy) -> None:
    path = toy.bigwig("part.bw", {"chrA": toy.plus["chrA"], "chrB": toy.plus["chrB"]})
    toy.bed("chrA\t100\t200", "chrC\t100\t200")
    loci = toy.run(signal=[[str(path)]])
    assert loci.signal[0].sum() > 0 and loci.signal[1].sum() == 0
    assert "part.bw has no chrC: zeros there" in toy.said


def test_nan_is_zero_and_fractions_are_kept(toy: Toy) -> None:
    values = {chrom: np.full(n, 0.25) for chrom, n in LENGTHS.items()}
    values["chrA"][150] = np.nan
    path = toy.bigwig("half.bw", values, zeros=True)
    toy.bed("chrA\t100\t201")
    loci = toy.run(signal=[[str(path)]])
    assert loci.signal.dtype == np.float32
    assert loci.signal[0, 0, 15] == 0 and loci.signal.sum() == 29 * 0.25
    assert any("not whole numbers" in line for line in toy.said)


def test_large_counts_take_wider_integers(toy: Toy) -> None:
    values = {chrom: np.full(n, 70_000.0) for chrom, n in LENGTHS.items()}
    toy.bed("chrA\t100\t201")
    loci = toy.run(signal=[[str(toy.bigwig("large.bw", values))]])
    assert loci.signal.dtype == np.int32 and (loci.signal == 70_000).all()


def test_case_and_other_letters(toy: Toy) -> None:
    bases = toy.bases["chrA"]
    toy.bases["chrA"] = bases[:140].lower() + "NNrY" + bases[144:]
    toy.fasta()
    toy.bed("chrA\t100\t201")
    loci = toy.run()
    assert letters(loci.sequence[0]) == bases[125:140] + "NNNN" + bases[144:175]
    assert any("N 2, R 1, Y 1 (4 in the windows)" in line for line in toy.said)


@pytest.mark.parametrize("kind", ["bgzf", "wide", "crlf"])
def test_kinds_of_fasta(toy: Toy, kind: str) -> None:
    path = toy.fasta(width=97 if kind == "wide" else 60)
    if kind == "crlf":
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    if kind == "bgzf":
        pysam.tabix_compress(str(path), f"{path}.gz")
        path = Path(f"{path}.gz")
    toy.bed("chrC\t1900\t1950")
    before = sorted(toy.folder.iterdir())
    loci = toy.run(fasta=str(path))
    assert letters(loci.sequence[0]) == toy.bases["chrC"][1900:1950]
    assert loci.genome == "toy"
    assert sorted(toy.folder.iterdir()) == sorted([*before, toy.folder / "out.h5"])  # no index


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
        places = sources.read_places(toy.folder / name, "midpoint")
        assert list(places.chrom) == ["chrA", "chrB"] and list(places.center) == [150, 5]


def narrow(start: int, end: int, summit: int) -> str:
    return f"chrA\t{start}\t{end}\tp\t0\t.\t1\t2\t3\t{summit}"


def test_summits_and_midpoints(toy: Toy) -> None:
    toy.bed(narrow(100, 200, 10), narrow(100, 200, 90), narrow(500, 600, 0))
    assert list(toy.run(center="summit").start + 25) == [110, 190, 500]
    assert list(toy.run(center="midpoint").start + 25) == [150, 550]
    assert toy.funnel()["same centre as another"] == (1, 2)


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
    assert len(loci) == n and set(loci.chrom) == {"chrA"}
    assert [tuple(row[1:]) for row in loci.provenance["funnel"]] == list(rows.values())
    aligned = next(text for text in toy.said if text.startswith("loci  ")).splitlines()
    assert len({len(line) for line in aligned}) == 1


def test_nothing_left_shows_the_funnel(toy: Toy) -> None:
    toy.bed("chrA\t0\t3", "chrA\t3990\t3999")
    message = refused(toy, "no locus is left")
    assert re.search(r"past an end of the chromosome +2 +0", message)


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
    assert provenance["config"]["in_window"] == 40 and provenance["command"]
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
    assert len(peaks) == 60 and 110 <= len(others) <= 120
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
    assert any("background: none of" in line and "min_distance" in line for line in toy.said)


def test_background_is_held_to_the_outlier_cut_off(toy: Toy) -> None:
    toy.plus["chrA"][1000:3500] = 1000
    toy.bigwig("plus.bw", toy.plus)
    toy.bed(*(f"chrA\t{at}\t{at + 50}" for at in range(100, 900, 100)))
    values = {"background_ratio": 10.0, "gc_bin": 1.0, "max_n_fraction": 1.0}
    loci = toy.run(**values, outlier_factor=1.2)
    assert 0 < (loci.label == 0).sum() and loci.signal.max() < 1000
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
def test_window_fractions(length: int) -> None:
    codes = np.random.default_rng(0).integers(0, 5, 60, dtype=np.uint8)
    starts = np.array([0, 3, 3, 60 - length])
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


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("chrA\t100", "line 2.*2 columns"),
        ("chrom\tstart\tend", "line 2.*'start'.*start it with #"),
        ("chrA\t1.5\t20", "line 2.*'1.5'"),
        ("chrA\t20\t20", "line 2: start 20 and end 20"),
        ("chrA\t-1\t20", "line 2: start -1"),
    ],
)
def test_lines_that_are_not_bed(toy: Toy, line: str, message: str) -> None:
    toy.bed("chrA\t100\t200", line)
    assert "loci.bed" in refused(toy, message)


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
    refused(toy, "cut.bw is truncated or damaged", signal=[[str(cut)]])
    plain = toy.folder / "plain.fa.gz"
    plain.write_bytes(gzip.compress((toy.folder / "toy.fa").read_bytes()))
    refused(toy, "gunzip -c .* | bgzip", fasta=str(plain))
    uneven = toy.write("uneven.fa", ">chrA\nACGT\nAC\nACGT\n")
    refused(toy, "uneven.fa: cannot be indexed.*equally long", fasta=str(uneven))
    header = toy.folder / "loci.bed.gz"
    header.write_bytes(gzip.compress(b"chrA\t100\t200\n" * 99)[:-9])
    refused(toy, "loci.bed.gz: not a BED file", loci=str(header))
    refused(toy, "no loci in it", loci=str(toy.bed("# nothing", name="none.bed")))


def test_names_that_do_not_match(toy: Toy) -> None:
    toy.bed("A\t100\t200", "B\t100\t200")
    message = refused(toy, "name chromosomes differently")
    assert "The loci: A, B. The genome: chrA, chrB, chrC." in message
    assert "sed 's/^/chr/'" in message
    toy.bed("2L\t100\t200")
    refused(toy, "The loci: 2L. .*Rename one to match")
    toy.bed("chrA\t100\t200")
    for name, values in {"A": toy.plus["chrA"], "zz": toy.plus["chrA"]}.items():
        path = toy.bigwig("other.bw", {name: values})
        message = refused(toy, "name chromosomes differently", signal=[[str(path)]])
        assert f"The bigWig: {name}. The genome: chrA, chrB, chrC." in message
    toy.bases = {chrom.removeprefix("chr"): bases for chrom, bases in toy.bases.items()}
    refused(toy, re.escape("sed 's/^chr//'"), fasta=str(toy.fasta("bare.fa")))


def test_a_bigwig_of_another_assembly(toy: Toy) -> None:
    toy.bed("chrA\t100\t200")
    path = toy.bigwig("other.bw", {"chrA": np.ones(4001)})
    refused(toy, "chrA has 4,001 bases, but 4,000 .*different assemblies", signal=[[str(path)]])


def test_negative_and_absent_signal(toy: Toy) -> None:
    toy.bed("chrA\t100\t201")
    values = {chrom: np.zeros(n) for chrom, n in LENGTHS.items()}
    values["chrB"][5] = 1
    path = toy.bigwig("zero.bw", values)
    refused(toy, "zero.bw is zero at all 1 loci", signal=[[str(path)]])
    values["chrA"][155] = -3
    path = toy.bigwig("negative.bw", values)
    message = refused(toy, "negative.bw: -3 at chrA:155 .0-based", signal=[[str(path)]])
    assert "chrA:100-201" in message and "awk" in message


def test_outputs_that_cannot_be_written(toy: Toy, monkeypatch) -> None:
    toy.bed("chrA\t100\t200")
    refused(toy, "output=.*a folder", output=str(toy.folder))
    monkeypatch.setattr("os.access", lambda *_: False)
    refused(toy, "cannot be written to", output=str(toy.folder / "new" / "x.h5"))
    monkeypatch.undo()
    toy.run(output=str(toy.folder / "deep" / "er" / "x.h5"))
    toy.run()
    before = hdf5.fingerprint(toy.folder / "out.h5")
    with pytest.raises(DataError, match="exists already.*overwrite=true"):
        toy.run(overwrite=False)
    assert hdf5.fingerprint(toy.folder / "out.h5") == before


def test_a_missing_reader_names_the_extra(toy: Toy, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyBigWig", None)
    toy.bed("chrA\t100\t200")
    refused(toy, r"pyBigWig is not installed.*cherimoya-train\[prepare\]")


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
    ],
)
def test_configurations_that_cannot_be(toy: Toy, values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        toy.config(**values)


def yeast(shared: Path, output: Path, **values) -> hdf5.Loci:
    folder = shared / "data" / "yeast"
    if not folder.is_dir():
        pytest.skip(f"real data are not at {folder}")
    found = {
        key: [[str(folder / path) for path in group] for group in value]
        if key == "signal"
        else str(folder / value)
        for key, value in values.items()
        if key in ("signal", "loci")
    }
    given = {"fasta": str(folder / "genome/sacCer3.fa.gz"), "output": str(output)}
    config = configure(**(given | {"background_ratio": 0} | values | found))
    return hdf5.read(prepare(config, lambda line: None))


def complement(code: np.ndarray) -> np.ndarray:
    return np.where(code < 4, 3 - code.astype(int), 4)


def test_yeast_transcription_starts_at_a_purine_after_a_pyrimidine(
    shared: Path, tmp_path: Path
) -> None:
    loci = yeast(
        shared,
        tmp_path / "stripe.h5",
        loci="stripeseq/WT_tss_loci.bed",
        signal=[["stripeseq/WT_plus.bw", "stripeseq/WT_minus.bw"]],
        outlier_factor=None,
        in_window=1014,
        out_window=1000,
        max_jitter=0,
    )
    rows = hdf5.select_splits(
        loci.chrom, loci.label, train=None, validation=["chrXVI"], test=["chrIV", "chrXI"]
    )
    assert [len(rows[s]) for s in ("test", "validation", "train")] == [967, 401, 3729]
    row, strand, at = np.nonzero(loci.signal >= 5)
    at += 7
    _, unique = np.unique(
        np.stack(
            [np.unique(loci.chrom, return_inverse=True)[1][row], loci.start[row] + at, strand]
        ),
        axis=1,
        return_index=True,
    )
    row, strand, at = row[unique], strand[unique], at[unique]
    first = np.where(strand == 0, loci.sequence[row, at], complement(loci.sequence[row, at]))
    before = np.where(
        strand == 0, loci.sequence[row, at - 1], complement(loci.sequence[row, at + 1])
    )
    shares = {base: np.mean(first == code) for code, base in enumerate("ACGT")}
    shares_before = {base: np.mean(before == code) for code, base in enumerate("ACGT")}
    assert shares["A"] == pytest.approx(0.53, abs=0.02)
    assert shares["G"] == pytest.approx(0.46, abs=0.02)
    assert shares_before["C"] == pytest.approx(0.43, abs=0.02)
    assert shares_before["T"] == pytest.approx(0.48, abs=0.02)


def test_yeast_cuts_gather_at_reb1(shared: Path, tmp_path: Path) -> None:
    path = shared / "data/yeast/genome/sacCer3.fa.gz"
    if not path.is_file():
        pytest.skip(f"real data are not at {path}")
    genome = {}
    for record in gzip.decompress(path.read_bytes()).decode().split(">")[1:]:
        name, bases = record.split("\n", 1)
        genome[name.split()[0]] = bases.replace("\n", "").upper()
    means = {}
    for motif in ("CGGGTAA", "CGGATAA", "CGAGTAA"):
        either = f"(?={motif}|{motif.translate(COMPLEMENT)[::-1]})"
        lines = [
            f"{chrom}\t{match.start()}\t{match.start() + 7}"
            for chrom, bases in genome.items()
            for match in re.finditer(either, bases)
            if chrom != "chrM"
        ]
        bed = tmp_path / f"{motif}.bed"
        bed.write_text("\n".join(lines) + "\n")
        values = {"loci": str(bed), "in_window": 400, "out_window": 400, "max_jitter": 0}
        loci = yeast(
            shared,
            tmp_path / f"{motif}.h5",
            signal=[["atac/atac_ins.bw"]],
            outlier_factor=None,
            **values,
        )
        means[motif] = loci.signal.sum(axis=(1, 2)).mean()
    assert means["CGGGTAA"] == pytest.approx(70, abs=10)
    assert means["CGGATAA"] == pytest.approx(23, abs=8)
    assert means["CGAGTAA"] == pytest.approx(23, abs=8)
