"""Motifs of attributions: their names, rows and matches, what is kept, and what is refused.

TF-MoDISco itself runs in test_attribution_truth. Where TOMTOM runs, Numba first compiles it.
"""

import csv
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from interpreted import configured, save_model

from cherimoya.config.interpret import AttributeConfig
from cherimoya.data import motif_grammar
from cherimoya.errors import CherimoyaError
from cherimoya.interpret import attribute as app
from cherimoya.interpret import modisco, tfmodisco

pytest.importorskip("memelite")
pytest.importorskip("modiscolite")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "a.pt")


@pytest.fixture
def asked(model: Path, small_data: Path, tmp_path: Path):
    def make(**values) -> AttributeConfig:
        given = {
            "checkpoint": [str(model)], "data__path": str(small_data), "window": 120,
            "max_loci": 3, "logos": 0, "method": "gradient", "output": str(tmp_path / "out.h5"),
        }  # fmt: skip
        return configured("attribute", AttributeConfig, **(given | values))

    return make


@pytest.fixture
def not_run(monkeypatch) -> list[tuple]:
    """What TF-MoDISco would have been asked for."""
    calls: list[tuple] = []
    monkeypatch.setattr(app, "find_motifs", lambda *arguments: calls.append(arguments))
    return calls


def pattern(codes: np.ndarray, name: str = "pos_patterns.pattern_0") -> modisco.Pattern:
    """A pattern of one motif in 100 places, as its bases (width, 4) say."""
    return modisco.Pattern(name, 100, codes, codes)


@pytest.mark.slow
def test_patterns_are_matched_on_either_strand():
    known = motif_grammar.known_motifs()
    forward = [motif_grammar.probabilities(motif) for motif in motif_grammar.MOTIFS]
    turned = [matrix[::-1, ::-1][1:-1] for matrix in forward]
    for matrices in (forward, turned):
        found = modisco.matched([pattern(matrix) for matrix in matrices], known)
        assert [match.motif for match in found] == [motif.name for motif in motif_grammar.MOTIFS]
        assert all(match.p <= match.q < 0.01 for match in found)
    flat = np.full((8, 4), 0.25)
    assert modisco.matched([pattern(flat)], known)[0].q > 0.2


def test_q_values_are_those_of_benjamini_and_hochberg(monkeypatch):
    p = np.array([[0.01, 0.2], [0.03, 0.5]])
    fake = SimpleNamespace(tomtom=lambda queries, targets: (p,))
    monkeypatch.setattr(modisco, "import_optional", lambda name: fake)
    both = [pattern(np.eye(4))] * 2
    found = modisco.matched(both, {"a": np.eye(4), "b": np.eye(4)})
    assert [(m.motif, m.p) for m in found] == [("a", 0.01), ("a", 0.03)]
    assert [m.q for m in found] == pytest.approx([0.01 * 4, 0.03 * 4 / 2])


def test_the_table_has_a_row_for_each_pattern(tmp_path):
    made = [pattern(np.eye(4)), pattern(-np.eye(4)[::-1], "neg_patterns.pattern_0")]
    path = modisco.write_table(tmp_path / "m.tsv", made, [modisco.Match("SP1", 1e-5, 2e-4)] * 2)
    with path.open() as file:
        one, other = csv.DictReader(file, delimiter="\t")
    assert (one["pattern"], one["consensus"]) == ("pos_patterns.pattern_0", "ACGT")
    assert (one["match"], one["p_value"], one["q_value"]) == ("SP1", "1e-05", "0.0002")
    assert float(other["contribution"]) == -4
    empty = modisco.write_table(tmp_path / "none.tsv", made, [])
    assert empty.read_text().splitlines()[1].split("\t")[4:] == ["", "", ""]


def test_bases_that_are_not_clear_are_in_lower_case():
    assert pattern(np.array([[0.6, 0.4, 0, 0], [0.3, 0.4, 0.2, 0.1]])).consensus == "Ac"


def test_ends_that_contribute_little_are_cut():
    scores = np.zeros((6, 4))
    scores[[0, 2, 3, 5], [0, 1, 2, 3]] = [0.2, 1.0, -0.4, 0.1]
    given = SimpleNamespace(seqlets=[None] * 7, contrib_scores=scores, sequence=np.eye(6, 4))
    found = tfmodisco.trimmed("x", given)
    assert found.seqlets == 7
    np.testing.assert_array_equal(found.contributions, scores[2:4])
    np.testing.assert_array_equal(found.probabilities, np.eye(6, 4)[2:4])


def test_seqlets_name_the_rows_of_the_file():
    seqlets = [SimpleNamespace(example_idx=np.int64(i)) for i in (0, 1, 2, 1)]
    inner = SimpleNamespace(seqlets=seqlets[:2], subcluster_to_subpattern=None)
    outer = SimpleNamespace(seqlets=seqlets[:3], subcluster_to_subpattern={0: inner})
    alone = SimpleNamespace(seqlets=seqlets[3:], subcluster_to_subpattern=None)
    tfmodisco.number_loci(([outer], [alone]), np.array([5, 3, 4]))
    assert [seqlet.example_idx for seqlet in seqlets] == [5, 3, 4, 3]


def test_motifs_of_attributions_that_are_there(asked, not_run, monkeypatch, capsys, tmp_path):
    app.attribute(asked())
    assert not not_run
    monkeypatch.setattr(app, "_attribute_all", lambda *_: 1 / 0)
    app.attribute(asked(modisco=True, max_seqlets=500))
    assert not_run == [(tmp_path / "out.h5", 500, None, False)]
    assert "attributed before, with the same settings" in capsys.readouterr().out
    with pytest.raises(CherimoyaError, match=r"out\.h5: exists already, made with another window"):
        app.attribute(asked(modisco=True, window=110))
    assert len(not_run) == 1


def test_motifs_that_are_there_stay(asked, monkeypatch, capsys, tmp_path):
    ran, folder = [], modisco.folder_of(tmp_path / "out.h5", "counts_0")

    def run(output, attributions, target, max_seqlets, path):
        ran.append(max_seqlets)
        path.write_text("patterns")
        return []

    monkeypatch.setattr(modisco, "_run", run)
    for _ in range(2):
        app.attribute(asked(modisco=True, max_seqlets=500))
    assert ran == [500]
    assert f"{folder}: done already" in capsys.readouterr().out
    with pytest.raises(CherimoyaError, match=r"out\.counts_0\.motifs: exists already"):
        app.attribute(asked(modisco=True, max_seqlets=501))
    app.attribute(asked(modisco=True, max_seqlets=501, overwrite=True))
    assert ran == [500, 501]


def test_a_report_that_fails_keeps_the_patterns(asked, monkeypatch, capsys, tmp_path):
    folder = modisco.folder_of(tmp_path / "out.h5", "counts_0")

    def run(output, attributions, target, max_seqlets, path):
        path.write_text("patterns")
        return [pattern(np.eye(4))]

    monkeypatch.setattr(modisco, "_run", run)
    monkeypatch.setattr(modisco, "_report", lambda *_: 1 / 0)
    app.attribute(asked(modisco=True, max_seqlets=500))
    assert "no report: ZeroDivisionError" in capsys.readouterr().out
    assert (folder / "motifs.tsv").is_file()
    monkeypatch.setattr(modisco, "_run", lambda *_: pytest.fail("run again"))
    monkeypatch.setattr(modisco, "_report", lambda made, _: (made / "report.html").touch())
    app.attribute(asked(modisco=True, max_seqlets=500))
    assert (folder / "report.html").is_file()


def test_too_little_is_said_and_the_attributions_stay(asked, tmp_path):
    with pytest.raises(CherimoyaError, match=r"found too little in 3 loci .* The attributions are"):
        app.attribute(asked(modisco=True))
    assert (tmp_path / "out.h5").is_file()
    assert not modisco.folder_of(tmp_path / "out.h5", "counts_0").exists()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"window": 99}, r"window=99: modisco=true needs 100 bases or more"),
        ({"motif_file": "none.meme"}, r"motif_file=none\.meme: no such file"),
        ({"motif_file": __file__}, r"test_modisco\.py: no motif in it|not a text file"),
        ({"motif_file": "a.meme", "modisco": False}, r"is what modisco=true compares motifs with"),
        ({"max_seqlets": 99}, r"max_seqlets=99"),
    ],
)
def test_what_cannot_be_is_refused(asked, values, message):
    with pytest.raises(CherimoyaError, match=message):
        app.attribute(asked(**({"modisco": True} | values)))
    assert not Path(asked().output).exists()


HOSTILE = [
    "<script>alert(1)</script>",
    "'\"><img src=x onerror=alert(2)>",
    "../../a</code> & <script>alert(3)</script>",
]


class Elements(HTMLParser):
    """The scripts and handlers of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.active: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        handlers = [name for name, value in attrs if name.startswith("on") and "alert" in value]
        self.active += handlers or ["script"] * (tag == "script")

    def handle_data(self, data):
        self.text += data


@pytest.mark.slow
def test_names_of_motifs_are_text_on_the_page_and_no_paths(tmp_path):
    pytest.importorskip("logomaker")
    rng, folder = np.random.default_rng(0), tmp_path / "above" / "folder"
    folder.mkdir(parents=True)
    with h5py.File(folder / "modisco.h5", "w") as file:
        group = file.create_group("pos_patterns/pattern_0")
        for name in ("sequence", "contrib_scores", "hypothetical_contribs"):
            group[name] = np.eye(4)[rng.integers(0, 4, 12)]
        group["seqlets/n_seqlets"] = [3]
    known = {name: rng.dirichlet(np.ones(4), 9).T for name in HOSTILE}
    modisco._report(folder, known)
    page = Elements((folder / "report.html").read_text())
    assert page.active == []
    for name in HOSTILE:
        assert name.replace("/", "_").replace(" ", "_") in page.text
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == [
        "modisco.h5",
        "report.html",
    ]


def test_names_of_motifs_are_printed_without_control_characters(capsys):
    match = modisco.Match("\x1b]0;title\x07evil", 0.1, 0.2)
    modisco._tell("counts", [pattern(np.eye(4))], [match])
    assert "\x1b" not in capsys.readouterr().out


def test_logos_stand_above_and_below_as_tall_as_their_weights(monkeypatch):
    weights = pytest.importorskip("cherimoya.report.plots.weights")
    drawn = {}
    monkeypatch.setattr(
        weights, "letters", lambda axis, base, at, below, tall: drawn.update({base: (below, tall)})
    )
    with weights.figure() as (_, axes):
        weights.weights_logo(axes[0, 0], np.array([[2.0, 1.0, -3.0, -1.0]]), clamp=False)
        assert axes[0, 0].get_ylim() == (-4, 3)
        weights.weights_logo(axes[0, 0], np.array([[2.0, 1.0, -3.0, 1.0]]), clamp=True)
        assert axes[0, 0].get_ylim() == (0, 1)
    weights.weights_logo(axes[0, 0], np.array([[2.0, 1.0, -3.0, -1.0]]), clamp=False)
    assert {base: (below[0], tall[0]) for base, (below, tall) in drawn.items()} == {
        0: (1, 2), 1: (0, 1), 2: (-1, -3), 3: (0, -1)
    }  # fmt: skip
