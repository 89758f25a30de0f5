"""cherimoya-hits finds what was placed, and says where; the fit is the least of its problem."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from interpreted import configured
from placed_motifs import WIDTH, called, plant, write_motifs, write_patterns

from cherimoya.config.interpret import HitsConfig
from cherimoya.data import motif_grammar
from cherimoya.errors import CherimoyaError
from cherimoya.interpret import hits as app
from cherimoya.interpret.hit_motifs import of_matrix, of_pattern, read_hit_motifs
from cherimoya.interpret.sparse_fit import SparseFit
from cherimoya.records.attributions import read_attributions
from cherimoya.records.hits import HitMotif, Hits


@pytest.fixture
def asked(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_motifs(tmp_path / "five.meme")

    def make(**values) -> HitsConfig:
        given = {"attributions": "a.h5", "motifs": "five.meme", "output": "hits.tsv",
                 "page": False}  # fmt: skip
        return configured("hits", HitsConfig, **(given | values))

    return make


def rows_of(path: str | Path) -> list[dict[str, str]]:
    with open(path) as file:
        lines = [line for line in file if not line.startswith("#")]
    return list(csv.DictReader(lines, delimiter="\t"))


def rates(found: list, planted: set) -> tuple[float, float]:
    """Precision and recall."""
    good = set(found) & planted
    return len(good) / max(len(found), 1), len(good) / len(planted)


def found_in(rows: list[dict[str, str]]) -> list[tuple[int, int, int, int]]:
    names = [motif.name for motif in motif_grammar.MOTIFS]
    return [
        (int(row["locus"]), names.index((row["match"] or row["motif"]).removesuffix("(-)")),
         int(row["offset"]), 1 if row["strand"] == "+" else -1)
        for row in rows
    ]  # fmt: skip


@pytest.mark.parametrize("motifs", ["five.meme", "a.counts_0.motifs", None])
def test_placed_motifs_are_found_where_they_are(asked, motifs):
    planted = plant(Path("a.h5"))
    if motifs != "five.meme":
        write_patterns(Path("a.counts_0.motifs"))
    app.hits(asked(motifs=motifs))
    rows = rows_of("hits.tsv")
    precision, recall = rates(found_in(rows), planted.instances)
    assert precision >= 0.9
    assert recall >= 0.9
    values = read_attributions("a.h5").contributions["counts_0"]
    for row in rows:
        locus, first = int(row["locus"]), int(row["offset"])
        own = values[locus, first : first + WIDTH]
        assert float(row["contribution"]) == pytest.approx(float(own.sum()), rel=1e-4, abs=1e-5)
        assert float(row["importance"]) == pytest.approx(float(np.abs(own).sum()), rel=1e-4)
        assert (row["chrom"], int(row["start"])) == (f"chr{1 + locus % 2}", 1000 * locus + first)
        assert int(row["end"]) == int(row["start"]) + WIDTH
        assert 0.7 <= float(row["similarity"]) <= 1.0001
    lowered = {row["motif"] for row in rows if float(row["contribution"]) < 0}
    assert lowered == ({"ZEB(-)"} if motifs == "five.meme" else {"neg_patterns.pattern_0"})


@pytest.mark.slow
def test_placed_motifs_are_found_in_as_many_loci_as_users_have(asked):
    planted = plant(Path("a.h5"), n=2000, length=400, each=6, noise=0.06)
    app.hits(asked())
    precision, recall = rates(found_in(rows_of("hits.tsv")), planted.instances)
    print(f"precision {precision}, recall {recall}")
    assert precision >= 0.9
    assert recall >= 0.9


def test_bed_and_track_say_the_same(asked):
    plant(Path("a.h5"))
    app.hits(asked())
    rows = rows_of("hits.tsv")
    bed = [line.split("\t") for line in Path("hits.bed").read_text().splitlines()]
    assert {(b[0], b[1], b[2], b[3], b[5]) for b in bed} == {
        (r["chrom"], r["start"], r["end"], r["motif"], r["strand"]) for r in rows
    }
    assert bed == sorted(bed, key=lambda b: (b[0], int(b[1])))
    largest = max(float(row["score"]) for row in rows)
    score = {(r["chrom"], r["start"], r["motif"]): float(r["score"]) for r in rows}
    assert all(int(b[4]) == round(1000 * score[b[0], b[1], b[3]] / largest) for b in bed)
    track = [line.split("\t") for line in Path("hits.bedGraph").read_text().splitlines()[1:]]
    values = read_attributions("a.h5").contributions["counts_0"]
    bases = {(r["chrom"], at) for r in rows for at in range(int(r["start"]), int(r["end"]))}
    assert {(chrom, int(first)) for chrom, first, _, _ in track} == bases
    for chrom, first, last, value in track:
        assert int(last) == int(first) + 1
        assert chrom == f"chr{1 + int(first) // 1000 % 2}"
        assert float(value) == pytest.approx(
            float(values[int(first) // 1000, int(first) % 1000]), rel=1e-4, abs=1e-6
        )


def test_counts_by_locus(asked):
    planted = plant(Path("a.h5"), n=8)
    app.hits(asked())
    loci, rows = rows_of("hits.loci.tsv"), rows_of("hits.tsv")
    assert [int(row["locus"]) for row in loci] == list(range(8))
    for row in loci:
        own = [hit["motif"] for hit in rows if hit["locus"] == row["locus"]]
        assert int(row["hits"]) == len(own)
        assert {name: int(row[name]) for name in list(row)[6:]} == {
            name: own.count(name) for name in list(row)[6:]
        }
        assert 0.9 < float(row["explained"]) <= 1
        assert (int(row["start"]), int(row["end"])) == (
            1000 * int(row["locus"]), 1000 * int(row["locus"]) + 120)  # fmt: skip
    assert len(planted.instances) == 24


def test_loci_without_coordinates_have_rows_and_no_bed(asked, capsys):
    plant(Path("a.h5"), n=4, known=False)
    app.hits(asked())
    rows = rows_of("hits.tsv")
    assert {(row["chrom"], row["start"], row["end"]) for row in rows} == {("", "", "")}
    assert {row["locus"] for row in rows} == set("0123")
    assert not Path("hits.bed").exists()
    assert not Path("hits.bedGraph").exists()
    assert "do not say where their loci are" in capsys.readouterr().out


def test_nothing_is_found_in_nothing(asked, tmp_path):
    planted = plant(Path("a.h5"), n=3, each=0, noise=0)
    assert not planted.instances
    app.hits(asked())
    assert rows_of("hits.tsv") == []
    assert Path("hits.bed").read_text() == ""
    assert [row["explained"] for row in rows_of("hits.loci.tsv")] == ["0"] * 3


def random_problem(n: int = 6, length: int = 60):
    rng = np.random.default_rng(4)
    motifs = [rng.normal(size=(4, w)) for w in (5, 8, 6)]
    motifs = [m / np.sqrt((m**2).sum()) for m in motifs]
    return motifs, rng.normal(size=(n, length)), rng.integers(0, 5, (n, length)).astype(np.uint8)


def test_the_fit_meets_the_conditions_of_its_minimum(monkeypatch):
    """Karush-Kuhn-Tucker: the slope is the penalty where a coefficient is, and less elsewhere."""
    from cherimoya.interpret import sparse_fit

    monkeypatch.setattr(sparse_fit, "GAP", 1e-6)
    motifs, values, codes = random_problem()
    fit = SparseFit(motifs, 0.3)
    seen = {}
    real = fit._solve
    monkeypatch.setattr(
        fit, "_solve", lambda *a: seen.setdefault("a", (*a, real(*a)))[-1]
    )  # fmt: skip
    done = fit(values, codes)
    assert done.converged.all()
    X, hot, scale, _, (coefficients, _) = seen["a"]
    left = X - fit._signal(coefficients * scale) * hot
    slope = torch.nn.functional.conv1d(left, fit._motifs) * scale
    held = coefficients > 1e-3
    assert held.sum() > 20
    assert (slope[held] - 0.3).abs().max() < 5e-3
    assert slope[~held].max() < 0.3 + 5e-3
    widths = np.array([5, 8, 6])
    assert (done.placed.position + widths[done.placed.motif] <= 60).all()
    assert (done.placed.similarity >= 0.3).all()


def test_a_locus_is_fitted_alike_in_any_company():
    motifs, values, codes = random_problem()
    together = SparseFit(motifs, 0.3)(values, codes).placed
    alone = SparseFit(motifs, 0.3)(values[2:3], codes[2:3]).placed
    own = together.locus == 2
    np.testing.assert_array_equal(together.position[own], alone.position)
    np.testing.assert_allclose(together.coefficient[own], alone.coefficient, rtol=1e-4)


def test_the_scale_of_contributions_does_not_matter():
    motifs, values, codes = random_problem()
    one, other = (SparseFit(motifs, 0.3)(s * values, codes).placed for s in (1, 1e-3))
    np.testing.assert_array_equal(one.position, other.position)
    np.testing.assert_allclose(one.coefficient, other.coefficient, rtol=1e-3)


def test_a_palindrome_is_one_instance():
    locus, motif = np.array([0, 0, 0, 1]), np.zeros(4, int)
    position, strand = np.array([10, 11, 30, 10]), np.array([1, -1, -1, -1])
    kept = app.once(locus, motif, position, np.array([1.0, 2, 3, 4]), strand, np.array([10]))
    assert kept.tolist() == [1, 2, 3]
    assert app.once(locus, motif, position, np.ones(4), np.ones(4), np.array([10])).tolist() == [
        0, 1, 2, 3]  # fmt: skip


def test_patterns_lose_the_ends_that_contribute_little():
    scores = np.zeros((4, 6))
    scores[[0, 1, 2, 3], [0, 2, 3, 5]] = [0.2, 1.0, -0.4, 0.1]
    assert of_pattern("p", scores, 0.3).weights.shape == (4, 2)
    assert of_pattern("p", scores, 0.15).weights.shape == (4, 4)
    assert np.square(of_pattern("p", scores, 0).weights).sum() == pytest.approx(1)


def test_patterns_lose_what_lies_far_from_their_core():
    """As where motifs that are often near, at any distance, smear over a pattern's ends."""
    scores = np.zeros((4, 40))
    scores[1, [3, 4, 10, 15, 21, 38]] = [0.5, 0.5, 0.6, 1.0, 0.7, 0.9]
    kept = of_pattern("p", scores, 0.15).weights
    assert kept.shape == (4, 19)  # from the first to the one behind the largest, 5 bases between
    assert kept[1, 12] == pytest.approx(1 / np.sqrt(0.5 + 0.36 + 1 + 0.49))
    scores[1, [21, 22]] = [0, 0.7]  # 6 bases between
    assert of_pattern("p", scores, 0.15).weights.shape == (4, 13)
    assert of_pattern("p", scores, 0).weights.shape == (4, 40)


def test_a_matrix_becomes_the_letters_of_its_logo():
    matrix = np.array([[1, 0.5, 0.25], [0, 0.5, 0.25], [0, 0, 0.25], [0, 0, 0.25]])
    up, down = of_matrix("A B", matrix)
    expected = np.array([[2, 0.5, 0], [0, 0.5, 0], [0, 0, 0], [0, 0, 0]])  # bits
    np.testing.assert_allclose(up.weights, expected / np.sqrt(4.5), atol=1e-12)
    np.testing.assert_array_equal(down.weights, -up.weights)
    assert (up.name, down.name) == ("A_B", "A_B(-)")
    assert of_matrix("flat", np.full((4, 5), 0.25)) == []


def test_motifs_that_do_not_fit_are_left_out(tmp_path, capsys):
    path = write_motifs(tmp_path / "m.meme")
    with pytest.raises(
        CherimoyaError, match=r"motifs=.*m\.meme: no motif in it that can be placed"
    ):
        read_hit_motifs(path, 0.3, WIDTH - 1)
    assert len(read_hit_motifs(path, 0.3, WIDTH)) == 10


def test_instances_that_overlapping_loci_share_are_in_the_genome_once():
    chrom, start = np.array(["a", "a", "b"]), np.array([100, 105, -1])
    hits = Hits(
        [HitMotif("m", np.eye(4))], np.zeros(4, int), np.array([0, 1, 1, 2]),
        np.array([10, 5, 5, 0]), np.array([1, 1, -1, 1]), np.array([1.0, 2, 3, 4]),
        *np.ones((3, 4)), chrom, start, np.ones(3),
    )  # fmt: skip
    assert sorted(hits.of_genome().tolist()) == [1, 2]


@pytest.mark.slow  # Numba compiles
def test_seqlets_say_which_motif_lies_there(asked):
    pytest.importorskip("tangermeme")
    planted = plant(Path("a.h5"), n=12)
    app.hits(asked(seqlets=True))
    rows = rows_of("hits.seqlets.tsv")
    values = read_attributions("a.h5").contributions["counts_0"]
    for row in rows:
        first = int(row["offset"])
        last = first + int(row["end"]) - int(row["start"])
        own = values[int(row["locus"]), first:last].sum()
        assert float(row["contribution"]) == pytest.approx(float(own), rel=1e-2, abs=1e-3)
        assert 0 <= float(row["p_value"]) < 0.01
    named = [row for row in rows if row["motif"]]
    assert len(named) >= 0.7 * len(planted.instances)
    assert any(float(row["contribution"]) < 0 for row in rows)


def test_an_interrupted_fit_goes_on(asked, monkeypatch, capsys):
    plant(Path("a.h5"), n=9)
    app.hits(asked(output="whole.tsv"))
    monkeypatch.setattr(app, "MOST_AT_ONCE", 3)
    real, calls = SparseFit.__call__, []

    def stopped(self, *given):
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, *given)

    monkeypatch.setattr(SparseFit, "__call__", stopped)
    with pytest.raises(KeyboardInterrupt):
        app.hits(asked())
    assert not Path("hits.tsv").exists()
    app.hits(asked())
    assert len(calls) == 4  # of three blocks, one of them twice
    assert "2 blocks" in capsys.readouterr().out
    assert not Path("hits.tsv.partial").exists()
    whole, parts = rows_of("whole.tsv"), rows_of("hits.tsv")
    assert found_in(whole) == found_in(parts)
    app.hits(asked())
    assert len(calls) == 4
    assert "done already: hits.tsv" in capsys.readouterr().out


def test_another_cutoff_is_another_output(asked):
    plant(Path("a.h5"), n=3)
    app.hits(asked())
    with pytest.raises(
        CherimoyaError, match=r"hits\.tsv: exists already, made with another cutoff"
    ):
        app.hits(asked(cutoff=0.8))
    app.hits(asked(cutoff=0.95, overwrite=True))
    assert all(float(row["similarity"]) >= 0.95 for row in rows_of("hits.tsv"))


@pytest.mark.parametrize(("file", "fix"), [
    ("hits.bed", "overwrite=true"), ("hits.html", "page=false"), ("hits.loci.tsv", "overwrite"),
])  # fmt: skip
def test_files_of_others_stay(asked, file, fix):
    plant(Path("a.h5"), n=2)
    Path(file).write_text("mine")
    with pytest.raises(CherimoyaError, match=fix):
        app.hits(asked(page=True))
    assert Path(file).read_text() == "mine"
    assert not Path("hits.tsv").exists()


@pytest.mark.parametrize(("values", "message"), [
    ({"attributions": "none.h5"}, r"none\.h5: no file of attributions"),
    ({"attributions": "five.meme"}, r"five\.meme: no file of attributions"),
    ({"motifs": "none.meme"}, r"motifs=none\.meme: no such file"),
    ({"motifs": "."}, r"motifs=\.: no such file, or a folder without modisco\.h5"),
    ({"motifs": None}, r"motifs=null: there is no a\.counts_0\.motifs"),
    ({"motifs": "a.h5"}, r"motifs=a\.h5: no pattern in it"),
    ({"target": "counts_1"}, r"target=counts_1: not in the attributions, which have counts_0"),
    ({"output": "hits.bed"}, r"output=hits\.bed: the table"),
    ({"output": "a.h5"}, r"output=a\.h5: the table"),
    ({"cutoff": 0.0}, r"cutoff=0"),
])  # fmt: skip
def test_what_cannot_be_is_refused(asked, values, message):
    plant(Path("a.h5"), n=2)
    with pytest.raises(CherimoyaError, match=message):
        app.hits(asked(**values))
    assert not Path("hits.tsv").exists()


def test_one_target_is_named_where_there_are_several(asked):
    plant(Path("a.h5"), n=2, targets=("counts_0", "profile_0"))
    with pytest.raises(CherimoyaError, match=r"there are counts_0, profile_0. Name one: target="):
        app.hits(asked())
    app.hits(asked(target="profile_0"))
    assert rows_of("hits.tsv")


def test_inputs_are_not_written_over(asked):
    plant(Path("a.h5"), n=2)
    write_motifs(Path("x.bed"))
    with pytest.raises(CherimoyaError, match=r"motifs=x\.bed would be overwritten"):
        app.hits(asked(motifs="x.bed", output="x.tsv"))


def test_files_of_motifs_that_are_damaged_end_in_a_message(asked):
    plant(Path("a.h5"), n=2)
    folder = write_patterns(Path("p.motifs"))
    whole = (folder / "modisco.h5").read_bytes()
    rng = np.random.default_rng(0)
    refused = []
    for _ in range(12):
        damaged = bytearray(whole[: rng.integers(100, len(whole))])
        for at in rng.integers(0, len(damaged), 20):
            damaged[at] ^= 1 << rng.integers(8)
        (folder / "modisco.h5").write_bytes(damaged)
        try:
            read_hit_motifs(folder / "modisco.h5", 0.3, 120)
        except CherimoyaError as error:
            refused.append(str(error))
    assert len(refused) > 6
    assert all("p.motifs/modisco.h5" in message for message in refused)


def test_called_names_what_was_planted(asked):
    planted = plant(Path("a.h5"), n=6)
    motifs = read_hit_motifs(Path("five.meme"), 0.3, 120)
    work = app.Work(read_attributions("a.h5"), "counts_0", motifs)
    with_parts = Path("parts")
    with_parts.mkdir()
    found = app._found(work, list(app._fits(work, 0.7, torch.device("cpu"), with_parts)))
    assert rates(called(found), planted.instances)[1] >= 0.9
