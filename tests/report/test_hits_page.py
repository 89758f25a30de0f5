"""The page of motif instances: its numbers, and names that are text alone."""

from pathlib import Path

import numpy as np
import pytest
from interpreted import configured
from placed_motifs import plant, write_motifs

from cherimoya.config.interpret import HitsConfig

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from cherimoya.genome.sequence import encode
from cherimoya.interpret.hits import hits
from cherimoya.records.hits import HitMotif, Hits
from cherimoya.report.hits import average, co_occurrence


def test_motifs_that_go_together_are_set_against_chance():
    counts = np.array([[1, 2, 0], [3, 1, 0], [0, 0, 1], [0, 0, 0]])
    fold, observed = co_occurrence(counts)
    assert observed.tolist() == [[2, 2, 0], [2, 2, 0], [0, 0, 1]]
    assert fold[0, 1] == fold[1, 0] == pytest.approx(np.log2(2 / (2 * 2 / 4)))
    assert np.isnan(np.diag(fold)).all()
    assert np.isnan(fold[0, 2])  # never observed


def test_the_average_reads_each_instance_on_its_own_strand():
    codes = np.stack([encode("AACGAA"), encode("AACGTT")])
    values = np.array([[0, 0, 2.0, 4.0, 0, 0], [0, 0, 0, 1.0, 3.0, 0]])
    one = np.zeros(2)
    made = Hits(
        [HitMotif("m", np.eye(4)[:, :2])], np.zeros(2, int), np.array([0, 1]), np.array([2, 3]),
        np.array([1, -1]), one, one, one, one, np.array(["a", "a"]), np.array([0, 9]), one,
    )  # fmt: skip
    mean = average(made, codes, values, 0)  # CG as C 2, G 4; GT turned: A 3, C 1
    assert mean.tolist() == [[1.5, 0], [1, 0.5], [0, 2], [0, 0]]


@pytest.mark.slow
def test_the_page_shows_each_motif_and_names_are_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plant(Path("a.h5"), n=30)
    hostile = "<script>alert(1)</script>"
    motifs = write_motifs(Path("m.meme"))
    motifs.write_text(motifs.read_text().replace("MOTIF ETS", f"MOTIF {hostile}"))
    asked = {"attributions": "a.h5", "motifs": "m.meme", "output": "h.tsv", "examples": 2}
    hits(configured("hits", HitsConfig, **asked))
    page = Path("h.html").read_text()
    assert "alert(1)" in page
    assert hostile not in page
    for name in ("INR", "SP1", "ZEB(-)", "NFY"):
        assert name in page
    table = Path("h.tsv").read_text()
    for name in ("INR", "ZEB(-)"):
        many = table.count(f"\t{name}\t")
        assert f'data-sort="{many}">{many}</td>' in page
    assert page.count("<figure>") >= 3 + 2 * 5 + 1 + 2


def test_a_page_that_cannot_be_drawn_does_not_spoil_the_rest(tmp_path, monkeypatch, capsys):
    from cherimoya.report import hits as report

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "write_page", lambda *_: 1 / 0)
    plant(Path("a.h5"), n=2)
    write_motifs(Path("m.meme"))
    hits(configured("hits", HitsConfig, attributions="a.h5", motifs="m.meme", output="h.tsv"))
    assert Path("h.tsv").is_file()
    assert "no page: ZeroDivisionError" in capsys.readouterr().out
