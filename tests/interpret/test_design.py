"""cherimoya-design: designs hold what a known model asks for, and the tables say what they are."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from command_lines import command
from interpreted import configured, save_model
from planted import MOTIF, Planted
from toy import Toy

import cherimoya
from cherimoya import Cherimoya
from cherimoya.config.design import DesignConfig
from cherimoya.data import hdf5
from cherimoya.data.motif_grammar import scan
from cherimoya.errors import CherimoyaError, ConfigError, DataError
from cherimoya.genome.sequence import decode, encode, one_hot, reverse_complement
from cherimoya.interpret import design as app
from cherimoya.interpret.contrast import counts_target
from cherimoya.interpret.designer import Designer, seed_of
from cherimoya.interpret.target import Target
from cherimoya.util import console
from cherimoya.util.optional import EXTRAS

ledidi = pytest.importorskip("ledidi")
LENGTH = 200
QUICK = {
    "change": 1.0, "tolerance": 0.1, "max_iter": 60, "attempts": 1, "edit_weight": 0.01,
    "designs": 8, "page": False,
}  # fmt: skip


def save_sharp(path: Path, seed: int = 0, **shape) -> Path:
    """A model whose counts single bases change by tenths of a natural logarithm."""
    model = cherimoya.load(save_model(path, seed, **shape))
    with torch.no_grad():
        model.linear.weight.mul_(20)
    model.save(path)
    return path


@pytest.fixture
def asked(toy: Toy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_sharp(Path("a.pt"), signal_groups=[1, 2])
    toy.bed("chrA\t1000\t1101\tfirst one\t0\t-", "chrB\t800\t900", "chrC\t3\t9\tat the end")

    def make(**values) -> DesignConfig:
        given = {
            "checkpoint": ["a.pt"], "loci": "loci.bed", "fasta": "toy.fa", "output": "d.tsv",
            "data__in_window": LENGTH, "target": "counts:1", **QUICK,
        }  # fmt: skip
        return configured("design", DesignConfig, **(given | values))

    return make


def table(path) -> list[dict[str, str]]:
    lines = [line for line in Path(path).read_text().splitlines() if not line.startswith("# {")]
    return list(csv.DictReader(lines, delimiter="\t"))


def records(path) -> dict[str, str]:
    """Sequences of a FASTA by all of their header."""
    parts = (part.partition("\n") for part in Path(path).read_text().split(">")[1:])
    return {head: body.replace("\n", "") for head, _, body in parts}


def planted(group: int = 0, editable: slice = slice(0, LENGTH), **values) -> Designer:
    given = {"checkpoint": ["a.pt"], "output": "d.tsv", "change": 2.0} | values
    config = configured("design", DesignConfig, **given)
    return Designer(config, Planted().eval(), Target("counts", group), editable)


def without_motif(seed: int = 0) -> np.ndarray:
    """Codes (LENGTH,) of which no stretch has more than five bases of the motif."""
    codes = np.tile(encode("AC"), LENGTH // 2)
    codes[:: 7 + seed] = 0
    return codes


def test_a_design_of_more_counts_holds_the_motif():
    designer, codes = planted(change=2.4, max_iter=400), without_motif()
    made = designer.design(codes)
    before, after = designer.ask(np.stack([codes, made])).value
    X = one_hot(torch.from_numpy(np.stack([codes, made])))
    assert np.allclose(Planted()(X)[1][:, 0].detach(), [before, after], atol=1e-5)
    assert abs(after - before - 2.4) <= 0.1
    words = (MOTIF, decode(reverse_complement(encode(MOTIF))))
    assert any(word in decode(made) for word in words)
    assert not any(word in decode(codes) for word in words)


def test_each_step_within_a_locus_is_shown(monkeypatch, capsys):
    monkeypatch.setattr(console, "LINE_SECONDS", 0.0)
    planted(max_iter=30, attempts=2, prune=0.05).design(without_motif(), None, "locus 1 of 2")
    said = capsys.readouterr().out.splitlines()
    for attempt in (1, 2):
        of = f"locus 1 of 2, attempt {attempt} of at most 2: step"
        shown = [int(line.split()[-3]) for line in said if line.startswith(of)]
        assert shown == list(range(31)), shown
    assert any(re.match(r"locus 1 of 2, pruning of \d+ edits: prediction 1$", x) for x in said)


def test_fewer_counts_and_an_absolute_goal():
    codes = without_motif()
    codes[100:108] = encode(MOTIF)
    designer = planted(change=None, goal=6.5, max_iter=300)
    made = designer.design(codes)
    assert abs(designer.ask(made[None]).value[0] - 6.5) <= 0.1 or (codes != made).sum() <= 2
    assert MOTIF not in decode(made)
    same = planted(change=None, goal=float(designer.ask(codes[None]).value[0]) + 0.05)
    assert np.array_equal(same.design(codes), codes)  # is there already


def test_a_contrast_is_designed_by_the_difference():
    designer = planted(change=1.0, max_iter=300)
    designer.target = Target("counts", 0, 1)
    codes = without_motif()
    made = designer.design(codes)
    counts = Planted()(one_hot(torch.from_numpy(np.stack([codes, made]))))[1].detach().numpy()
    change = (counts[1, 0] - counts[1, 1]) - (counts[0, 0] - counts[0, 1])
    assert abs(change - 1.0) <= 0.1


def test_edits_stay_within_what_may_be_edited_and_unknown_bases_stay():
    codes = without_motif()
    codes[[5, 95, 101]] = 4
    made = planted(editable=slice(90, 120), max_iter=150, change=3.0).design(codes)
    at = np.flatnonzero(codes != made)
    assert len(at) > 0
    assert ((at >= 90) & (at < 120)).all()
    assert (made[[5, 95, 101]] == 4).all()
    nothing = codes.copy()
    nothing[90:120] = 4
    same = planted(editable=slice(90, 120), max_iter=5).design(nothing)
    assert np.array_equal(same, nothing)


def test_control_tracks_are_those_of_the_locus():
    torch.manual_seed(0)
    groups = [1, 1]
    network = Cherimoya(8, 3, signal_groups=groups, n_control_tracks=2, trimming=20)
    with torch.no_grad():
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    both = cherimoya.Ensemble([network], True, control_groups=[2]).eval()
    config = configured(
        "design", DesignConfig, checkpoint=["a.pt"], output="d.tsv", change=0.3, max_iter=20
    )
    designer = Designer(config, both, Target("counts", 1), slice(0, LENGTH))
    codes, controls = without_motif(), torch.rand(2, LENGTH)
    made = designer.design(codes, controls)
    X = one_hot(torch.from_numpy(np.stack([codes, made])))
    counts = cherimoya.predict(both, X, controls.expand(2, -1, -1)).log_counts[:, 1]
    assert np.allclose(designer.ask(np.stack([codes, made]), controls).value, counts, atol=1e-5)
    other = designer.ask(codes[None], torch.zeros(2, LENGTH)).value[0]
    assert abs(other - float(counts[0])) > 0.02


def test_pruning_undoes_what_hardly_matters_and_keeps_the_goal():
    codes = without_motif()
    best = codes.copy()
    best[50:58], best[150:153] = encode(MOTIF), 1
    designer = planted(prune=0.05)
    value, start = designer.ask(np.stack([best, codes])).value
    for goal, kept in ((value, True), (value + 0.1, False)):
        made = designer._pruned(codes, best, None, goal, "locus")
        at = np.flatnonzero(made != codes)
        assert set(np.flatnonzero(best != codes)) > set(at) if kept else np.array_equal(made, best)
    assert value - start > 2
    assert np.array_equal(planted(prune=0)._pruned(codes, best, None, value, "locus"), best)


def test_of_several_designs_the_one_with_fewest_edits_is_taken():
    codes = without_motif()
    few, many = codes.copy(), codes.copy()
    few[50:58] = many[50:58] = encode(MOTIF)
    many[150] = 1 if codes[150] != 1 else 0
    designer = planted()
    goal = float(designer.ask(few[None]).value[0])
    best, value = designer._chosen(np.stack([codes, many, few]), None, goal)
    assert np.array_equal(best, few)
    assert value == pytest.approx(goal)
    best, _ = designer._chosen(np.stack([codes, many]), None, goal + 9)  # the nearest
    assert np.array_equal(best, many)


def test_the_seed_is_of_the_bases():
    a, b = without_motif(), without_motif(1)
    seeds = {seed_of(s, codes, n) for s in (0, 1) for codes in (a, b) for n in (0, 1)}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**56 for seed in seeds)
    assert seed_of(0, a, 0) == seed_of(0, a.copy(), 0)


def test_the_files_say_what_was_designed(asked, toy, capsys):
    app.design(asked(edit_within=120))
    said = capsys.readouterr().out
    assert "1 of 3 loci left out" in said
    assert "target       log counts of signal group 1" in said
    rows, edits, fasta = table("d.tsv"), table("d.edits.tsv"), records("d.fa")
    assert [row["name"] for row in rows] == ["first one", "locus_2"]
    assert [row["strand"] for row in rows] == ["-", "."]
    first, second = rows
    assert (first["chrom"], first["start"], first["end"]) == ("chrA", "990", "1110")
    assert list(fasta)[:2] == [
        "first_one.original chrA:951-1150",
        "first_one.designed chrA:951-1150",
    ]
    model = cherimoya.Ensemble([cherimoya.load("a.pt")], reverse_complement=True)
    for row, (head, original), (_, designed) in zip(
        rows, list(fasta.items())[::2], list(fasta.items())[1::2], strict=True
    ):
        start = int(head.partition(":")[2].partition("-")[0])
        assert original == toy.bases[row["chrom"]][start - 1 : start - 1 + LENGTH]
        made, own = list(original), [e for e in edits if e["name"] == row["name"]]
        assert {e["locus"] for e in own} == {str(rows.index(row))}
        assert len(own) == int(row["n_edits"]) > 0
        for edit, text in zip(own, row["edits"].split(";"), strict=True):
            at = int(edit["position"]) - start
            assert text == f"{edit['position']}:{edit['ref']}>{edit['alt']}"
            assert made[at] == edit["ref"] != edit["alt"]
            assert int(row["start"]) < int(edit["position"]) <= int(row["end"])
            made[at] = edit["alt"]
            undone = designed[:at] + edit["ref"] + designed[at + 1 :]
            change = cherimoya.predict(model, [designed, undone]).log_counts[:, 1].diff()
            assert float(edit["undone"]) == pytest.approx(float(change), abs=1e-4)
        assert "".join(made) == designed
        before, after = cherimoya.predict(model, [original, designed]).log_counts[:, 1].tolist()
        assert float(row["before"]) == pytest.approx(before, abs=1e-4)
        assert float(row["after"]) == pytest.approx(after, abs=1e-4)
        assert float(row["goal"]) == pytest.approx(before + 1.0, abs=1e-4)
        assert row["reached"] == ("yes" if abs(after - before - 1.0) <= 0.1 else "no")
    assert [first["reached"], second["reached"]] == ["yes", "yes"]
    origin = json.loads(Path("d.tsv").read_text().splitlines()[0][2:])
    assert origin["ledidi"] == ledidi.__version__
    assert [s["key"] for s in origin["sources"]] == ["checkpoint", "loci", "fasta"]


@pytest.mark.slow
def test_a_locus_has_the_same_design_in_whatever_company(asked, toy):
    app.design(asked(output="both.tsv"))
    torch.rand(7)
    app.design(asked(output="again.tsv"))
    for ending in ("edits.tsv", "fa"):
        assert Path(f"both.{ending}").read_bytes() == Path(f"again.{ending}").read_bytes()
    toy.bed("chrB\t800\t900")
    app.design(asked(output="alone.tsv"))
    (alone,), (_, other) = table("alone.tsv"), table("both.tsv")
    assert alone | {"name": "locus_2"} == other
    app.design(asked(output="seed.tsv", seed=1))
    assert table("seed.tsv")[0]["edits"] != alone["edits"]


@pytest.mark.slow
def test_an_interrupted_command_goes_on(asked, monkeypatch, capsys):
    app.design(asked(output="whole.tsv"))
    real, calls = Designer.design, []

    def interrupted(self, *arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, *arguments)

    monkeypatch.setattr(Designer, "design", interrupted)
    with pytest.raises(KeyboardInterrupt):
        app.design(asked())
    app.design(asked())
    assert len(calls) == 3
    said = capsys.readouterr().out
    assert "stopped. Re-run the same command to resume." in said
    assert "1 of 2 loci were done before" in said
    for name in ("tsv", "edits.tsv", "fa"):
        one, other = (Path(f"{n}.{name}").read_text() for n in ("d", "whole"))
        assert one == other
    app.design(asked())
    assert "done already: d.tsv" in capsys.readouterr().out
    assert not list(Path().glob("*partial*"))
    with pytest.raises(DataError, match=r"output=d\.tsv: exists already, made with another seed"):
        app.design(asked(seed=1))


def test_what_is_lost_is_made_again_of_the_table(asked, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    app.design(asked())
    table_before = Path("d.tsv").read_bytes()
    monkeypatch.setattr(Designer, "design", lambda *_: 1 / 0)
    app.design(asked(page=True, examples=1))
    page = Path("d.html").read_text()
    assert page.count("<figure>") == 3
    assert "2 of 2 loci within 0.1 of the goal" in page
    rows, edits = table("d.tsv"), table("d.edits.tsv")
    for row in rows:
        assert f'<td data-sort="{row["n_edits"]}">{row["n_edits"]}</td>' in page
    for edit in edits:
        shown = f'<td class="text">{edit["ref"]}&gt;{edit["alt"]}</td>' in page
        assert shown or edit["name"] != "first one"
    assert Path("d.tsv").read_bytes() == table_before
    for name in ("d.fa", "d.edits.tsv"):
        before = Path(name).read_bytes()
        Path(name).unlink()
        app.design(asked(page=True, examples=1))
        assert Path(name).read_bytes() == before
    assert "done already: d.tsv" in capsys.readouterr().out


def test_a_page_that_cannot_be_drawn_does_not_spoil_the_rest(asked, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    from cherimoya.report import design as report

    with monkeypatch.context() as broken:
        broken.setattr(report, "write_page", lambda *_: 1 / 0)
        app.design(asked(page=True, max_iter=2))
    assert Path("d.tsv").is_file()
    assert not Path("d.html").exists()
    said = capsys.readouterr().out
    assert "no page: ZeroDivisionError('division by zero'). The same command tries again" in said
    monkeypatch.setattr(Designer, "design", lambda *_: 1 / 0)
    app.design(asked(page=True, max_iter=2))
    assert "<html" in Path("d.html").read_text()


def test_names_on_the_page_are_text(asked, toy):
    pytest.importorskip("matplotlib")
    toy.bed("chrA\t1000\t1101\t<script>alert(1)</script>")
    config = asked(page=True, max_iter=2)
    for _ in ("with the table", "of the table"):
        app.design(config)
        assert "<script>alert(1)" not in Path("d.html").read_text()
        assert "&lt;script&gt;alert(1)" in Path("d.html").read_text()
        Path("d.html").unlink()


def test_goals_that_are_not_reached_are_told(asked, capsys):
    app.design(asked(change=40.0, max_iter=3, attempts=1, overwrite=True))
    assert "2 of 2 loci did not reach the goal (reached=no)" in capsys.readouterr().out
    assert [row["reached"] for row in table("d.tsv")] == ["no", "no"]


def test_loci_of_a_prepared_file_and_several_models(asked, small_data, capsys):
    for seed in (0, 1):
        save_sharp(Path(f"s{seed}.pt"), seed, signal_groups=[2])
    config = asked(
        checkpoint=["s0.pt", "s1.pt"], data__path=str(small_data), loci=None, fasta=None,
        max_loci=2, target="counts", reverse_complement=False, data__in_window=None,
    )  # fmt: skip
    app.design(config)
    header, rows = hdf5.read_header(small_data), table("d.tsv")
    peaks = np.flatnonzero(header.label == 1)
    assert [row["name"] for row in rows] == [f"locus_{peaks[0] + 1}", f"locus_{peaks[-1] + 1}"]
    both = [cherimoya.load(f"s{seed}.pt") for seed in (0, 1)]
    sequences = list(records("d.fa").values())
    counts = np.mean([cherimoya.predict(m, sequences).log_counts[:, 0] for m in both], axis=0)
    found = [float(row[name]) for row in rows for name in ("before", "after")]
    assert np.allclose(found, counts, atol=1e-4)


def test_targets_name_groups(asked, capsys):
    asked()
    groups = [1, 2]
    assert counts_target("counts:1", ["a.pt"], groups) == Target("counts", 1)
    assert counts_target("counts:1-0", ["a.pt"], groups) == Target("counts", 1, 0)
    assert counts_target("counts", ["a.pt"], [2]) == Target("counts", 0)
    with pytest.raises(ConfigError, match=r"target=counts: the model has 2 signal groups, 0, 1\."):
        counts_target("counts", ["a.pt"], groups)
    with pytest.raises(ConfigError, match=r"target=counts:5: there is no signal group 5"):
        counts_target("counts:5", ["a.pt"], groups)
    with pytest.raises(ConfigError, match=r"target=profile: write counts:GROUP"):
        counts_target("profile", ["a.pt"], groups)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"change": None}, r"change and goal: neither is set. Set one: change=1\.0"),
        ({"goal": 3.0}, r"change and goal: both are set"),
        ({"change": 0.05}, r"change=0\.05 is no more than tolerance=0\.1, so no base"),
        ({"change": float("nan")}, r"change=nan: must be a finite number"),
        ({"output": "d.h5"}, r"output=d\.h5: the table, such as designed\.tsv"),
        ({"target": None}, r"target=null: what is to change\?"),
        ({"target": "counts:7"}, r"target=counts:7: there is no signal group 7"),
        ({"precision": "bf16"}, r"precision=bf16: must be one of fp32, tf32"),
        ({"loci": "none.bed"}, r"loci=none\.bed: no such file"),
        ({"max_iter": 0}, r"max_iter=0: must be at least 1"),
    ],
)
def test_what_cannot_be_is_refused(asked, values, message):
    with pytest.raises(CherimoyaError, match=message):
        app.design(asked(**values))
    assert not Path("d.tsv").exists()


def test_the_package_is_named_where_it_is_missing(asked, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ledidi", None)
    with pytest.raises(CherimoyaError, match=r"ledidi is not installed.*cherimoya-train\[design\]"):
        app.design(asked())
    assert EXTRAS["ledidi"] == "design"


@pytest.mark.slow  # a minute: trains, and designs three loci
def test_a_trained_model_plants_a_core_promoter_in_background(tmp_path, cherimoya_train):
    from cherimoya.config.data import SyntheticConfig
    from cherimoya.data.synthetic import simulate

    config = SyntheticConfig(
        seed=1, n_chromosomes=4, n_peaks=400, n_background=100, mean_count=200.0
    )
    hdf5.write(tmp_path / "s.h5", simulate(config, in_window=200, out_window=100, max_jitter=8))
    done = cherimoya_train(
        "data=hdf5", "data.path=s.h5", "data.validation_chroms=[sim3]", "data.test_chroms=[sim4]",
        "model=tiny", "model.n_filters=16", "logger=none", "trainer.plots=false",
        "trainer.batch_size=8", "trainer.max_epochs=12", "trainer.threads=1",
        "optim.warmup_epochs=1", "hydra.run.dir=run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    header = hdf5.read_header(tmp_path / "s.h5")
    rows = np.flatnonzero(header.label == 0)[:3]
    lines = [
        f">b{row}\n{decode(hdf5.read(tmp_path / 's.h5', [row]).sequence[0])}\n" for row in rows
    ]
    (tmp_path / "b.fa").write_text("".join(lines))
    (tmp_path / "b.bed").write_text("".join(f"b{row}\t0\t216\tb{row}\n" for row in rows))
    done = command(
        "design", "checkpoint=run", "loci=b.bed", "fasta=b.fa", "change=2.5", "output=d.tsv",
        "device=cpu", "page=false", "max_iter=400", folder=tmp_path, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sequences = list(records(tmp_path / "d.fa").values())
    model = cherimoya.Ensemble([cherimoya.load(tmp_path / "run")], reverse_complement=True)
    counts = cherimoya.predict(model, sequences).log_counts[:, 0].numpy()
    rise = counts[1::2] - counts[::2]
    reached = [row["reached"] == "yes" for row in table(tmp_path / "d.tsv")]
    assert (np.abs(rise - 2.5) <= 0.1).tolist() == reached
    assert sum(reached) >= 2
    original, designed = (np.stack([encode(s) for s in sequences[i::2]]) for i in (0, 1))
    assert len(scan(original)) == 0
    instances = scan(designed)
    assert (instances.motif == 0).any()  # core promoters, which alone begin transcription
