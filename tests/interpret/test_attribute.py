"""cherimoya-attribute: what its file holds, that it goes on, and what it refuses."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_lines import command
from configs import composed
from interpreted import configured, save_model
from omegaconf import OmegaConf
from toy import Toy

from cherimoya import Cherimoya
from cherimoya.config.interpret import AttributeConfig
from cherimoya.data import hdf5
from cherimoya.errors import CherimoyaError, DataError, InUse
from cherimoya.genome.sequence import reverse_complement
from cherimoya.interpret import attribute as app
from cherimoya.interpret.gradients import deep_lift_shap, input_gradients
from cherimoya.interpret.mutagenesis import centred, saturation_mutagenesis
from cherimoya.interpret.target import Target
from cherimoya.records.attributions import read_attributions

WINDOW = slice(90, 110)  # the middle 20 of 200 bases


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "a.pt")


@pytest.fixture
def asked(model: Path, small_data: Path, tmp_path: Path):
    def make(**values) -> AttributeConfig:
        given = {
            "checkpoint": [str(model)], "data__path": str(small_data), "window": 20,
            "max_loci": 3, "logos": 0, "output": str(tmp_path / "out.h5"),
        }  # fmt: skip
        return configured("attribute", AttributeConfig, **(given | values))

    return make


def chosen(small_data: Path) -> hdf5.Loci:
    """The three peaks that max_loci=3 leaves."""
    loci = hdf5.read(small_data)
    peaks = np.flatnonzero(loci.label == 1)
    return loci.take(peaks[[0, round((len(peaks) - 1) / 2), len(peaks) - 1]])


def test_the_file_holds_mutagenesis_by_base(asked, model, small_data):
    app.attribute(asked(targets=["counts", "profile"]))
    found, loci = read_attributions(asked().output), chosen(small_data)
    codes = loci.sequence[:, 8:208]  # less the margin for jitter
    targets = [Target("counts"), Target("profile")]
    expected = centred(
        saturation_mutagenesis(Cherimoya.load(model), codes, targets, WINDOW, bar=False)
    )
    for name, scores in zip(("counts_0", "profile_0"), expected, strict=True):
        np.testing.assert_allclose(found.hypothetical[name], scores, atol=1e-6)
        X = np.eye(4)[codes[:, WINDOW]].transpose(0, 2, 1)
        np.testing.assert_allclose(found.contributions[name], (scores * X).sum(1), atol=1e-6)
    assert np.array_equal(found.sequence, codes[:, WINDOW])
    assert np.array_equal(found.start, loci.start + 8 + 90)
    assert found.chrom.tolist() == loci.chrom.tolist()
    assert found.settings["method"] == "mutagenesis"
    assert [s["key"] for s in found.settings["sources"]] == ["checkpoint", "data.path"]


def test_a_run_brings_its_own_loci(asked, model, train_arguments, tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "best.pt").write_bytes(model.read_bytes())
    values = OmegaConf.create(composed("train", train_arguments))
    OmegaConf.save(values, run / "config.yaml")
    app.attribute(asked())
    named = read_attributions(asked().output)
    app.attribute(asked(checkpoint=[str(run)], data__path=None, output=str(tmp_path / "own.h5")))
    own = read_attributions(tmp_path / "own.h5")
    assert np.array_equal(own.start, named.start)
    assert np.array_equal(own.contributions["counts_0"], named.contributions["counts_0"])


def test_a_window_of_more_than_there_is(asked, capsys):
    app.attribute(asked(window=400, method="gradient"))
    assert read_attributions(asked().output).sequence.shape == (3, 200)
    assert "window=400: the input has 200 bases, so all of them" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["gradient", "deep_lift_shap"])
def test_the_file_holds_gradients_and_deep_lift(asked, model, small_data, method, capsys):
    pytest.importorskip("tangermeme")
    app.attribute(asked(method=method, n_shuffles=3, seed=5))
    loaded, codes = Cherimoya.load(model), chosen(small_data).sequence[:, 8:208]
    if method == "gradient":
        expected = centred(input_gradients(loaded, codes, Target("counts")))
    else:
        expected, deltas = deep_lift_shap(loaded, codes, Target("counts"), n_shuffles=3, seed=5)
        assert f"within {deltas.max():.1g}" in capsys.readouterr().out
    found = read_attributions(asked().output).hypothetical["counts_0"]
    np.testing.assert_allclose(found, expected[..., WINDOW], atol=1e-6)


def test_strands_and_models_are_averaged(asked, model, small_data, tmp_path):
    other = save_model(tmp_path / "b.pt", seed=1)
    app.attribute(asked(checkpoint=[str(model), str(other)], reverse_complement=True))
    codes = torch.from_numpy(chosen(small_data).sequence[:, 8:208])
    parts = []
    for path in (model, other):
        loaded = Cherimoya.load(path)
        parts.append(saturation_mutagenesis(loaded, codes, window=WINDOW)[0])
        turned = saturation_mutagenesis(loaded, reverse_complement(codes), window=WINDOW)[0]
        parts.append(turned[:, ::-1, ::-1])
    found = read_attributions(asked().output).hypothetical["counts_0"]
    np.testing.assert_allclose(found, centred(np.mean(parts, axis=0)), atol=1e-6)


def test_an_interrupted_command_goes_on(asked, monkeypatch, capsys, tmp_path):
    app.attribute(asked(output=str(tmp_path / "whole.h5")))
    monkeypatch.setattr("cherimoya.interpret.mutagenesis.Mutagenesis.loci_at_once", lambda *_: 1)
    calls = []

    def interrupted(self, *arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, *arguments)

    real = app.Mutagenesis.__call__
    monkeypatch.setattr(app.Mutagenesis, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        app.attribute(asked())
    assert not Path(asked().output).exists()
    app.attribute(asked())
    assert len(calls) == 4  # two, one in vain, and the third locus
    said = capsys.readouterr().out
    assert "stopped. Re-run the same command to resume." in said
    assert "2 of 3 loci were done before" in said
    whole, again = (read_attributions(tmp_path / f"{n}.h5") for n in ("whole", "out"))
    assert np.allclose(whole.hypothetical["counts_0"], again.hypothetical["counts_0"], atol=1e-6)
    assert list(tmp_path.glob(".*")) == []


def test_two_commands_do_not_make_one_output(asked, monkeypatch):
    real, refused = app.Mutagenesis.__call__, []

    def meanwhile(self, *arguments):
        if not refused:
            refused.append("tried")
            with pytest.raises(InUse, match=r"out\.h5 is being made by another process"):
                app.attribute(asked(window=10))
            refused.append("in use")
        return real(self, *arguments)

    monkeypatch.setattr(app.Mutagenesis, "__call__", meanwhile)
    app.attribute(asked())
    assert refused == ["tried", "in use"]
    assert read_attributions(asked().output).sequence.shape[1] != 10


def test_other_settings_begin_anew(asked, monkeypatch, tmp_path):
    real = app.Mutagenesis.__call__
    monkeypatch.setattr(app.Mutagenesis, "__call__", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        app.attribute(asked())
    monkeypatch.setattr(app.Mutagenesis, "__call__", real)
    app.attribute(asked(window=10))
    assert read_attributions(asked().output).sequence.shape == (3, 10)


def test_a_bed_file_and_a_genome(toy: Toy, model, tmp_path, capsys):
    bigtools = pytest.importorskip("pybigtools")
    toy.bed("chrA\t1000\t1001", "chrA\t1010\t1011", "chrA\t10\t11", "chrZ\t500\t600")
    config = configured(
        "attribute", AttributeConfig, checkpoint=[str(model)], loci=str(toy.folder / "loci.bed"),
        fasta=str(toy.folder / "toy.fa"), data__in_window=200, window=20, logos=0, bigwig=True,
        output=str(tmp_path / "bed.h5"), method="gradient",
    )  # fmt: skip
    app.attribute(config)
    said = capsys.readouterr().out
    assert "1 of 4 loci left out: the genome has no chrZ" in said
    assert "1 of 4 loci left out: the 200 bases around them reach past an end" in said
    found = read_attributions(config.output)
    assert found.start.tolist() == [990, 1000]
    assert "".join("ACGT"[c] for c in found.sequence[0]) == toy.bases["chrA"][990:1010]
    values = bigtools.open(str(tmp_path / "bed.counts_0.bw")).values("chrA", 985, 1025, fillna=None)
    one, two = found.contributions["counts_0"]
    np.testing.assert_allclose(values[5:15], one[:10], rtol=1e-5)
    np.testing.assert_allclose(values[15:25], (one[10:] + two[:10]) / 2, rtol=1e-4, atol=1e-6)
    assert np.isnan(np.r_[values[:5], values[35:]]).all()
    toy.bed("A\t1000\t1001", "A\t1010\t1011")
    other = replace(config, output=str(tmp_path / "other.h5"), bigwig=False)
    with pytest.raises(DataError, match=r"Proposal: A is chrA\. Accept it with chrom_alias=auto"):
        app.attribute(other)
    app.attribute(replace(other, chrom_alias="auto"))
    same = read_attributions(other.output)
    assert same.chrom.tolist() == ["chrA", "chrA"]
    assert np.array_equal(same.sequence, found.sequence)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data__path": None}, r"no sequences are named. Set data\.path=<file made by"),
        ({"output": "out.bw"}, r"output=out\.bw: the HDF5 file of attributions, such as"),
        ({"chrom_alias": "auto"}, r"chrom_alias=auto is for loci=<BED file>"),
        ({"loci": "a.bed"}, r"data\.path=.*small\.h5 and loci=a\.bed both name loci"),
        ({"chroms": ["chr9"]}, r"chroms=chr9: no locus there. There are sim1, sim2"),
        ({"groups": ["1"]}, r"groups=\[1\]: there is no signal group 1. There is one signal"),
        ({"groups": ["0", "0"]}, r"groups=\[0,0\] names a signal group twice"),
        ({"data__in_window": 90}, r"data\.in_window=90: the model trims 50 bases from each side"),
        ({"data__in_window": 300}, r"data\.in_window=300: .*small\.h5 stores 216 bases"),
        ({"bigwig": True}, r"bigwig=true needs the lengths of the chromosomes"),
        ({"checkpoint": ["none.pt"]}, r"checkpoint=none.pt: .*does not exist"),
        ({"checkpoint": ["a.pt", "a.pt"]}, r"checkpoint names a\.pt twice"),
        ({"targets": ["count"]}, r"targets=count: must be one of counts, profile. Did you mean"),
    ],
)
def test_what_cannot_be_is_refused(asked, values, message):
    with pytest.raises(CherimoyaError, match=message):
        app.attribute(asked(**values))
    assert not Path(asked().output).exists()


def test_models_must_fit_each_other_and_the_controls(asked, model, tmp_path):
    other = save_model(tmp_path / "b.pt", trimming=40)
    with pytest.raises(CherimoyaError, match=r"a\.pt, .*b\.pt .*trimming: \[50, 40\]"):
        app.attribute(asked(checkpoint=[str(model), str(other)]))
    other = save_model(tmp_path / "c.pt", n_control_tracks=1)
    with pytest.raises(CherimoyaError, match=r"has 0 control tracks, the model needs 1"):
        app.attribute(asked(checkpoint=[str(other)]))


def genome_of(small_data: Path, path: Path, shorter: int = 0, rename: str = "sim") -> Path:
    """A FASTA with the chromosomes of the small data, as long as its loci need."""
    loci = hdf5.read(small_data)
    with open(path, "w") as file:
        for chrom in dict.fromkeys(loci.chrom.tolist()):
            length = int(loci.end[loci.chrom == chrom].max()) - shorter
            file.write(f">{chrom.replace('sim', rename)}\n{'A' * length}\n")
    return path


def test_tracks_of_a_prepared_file_take_their_lengths_from_the_genome(asked, small_data, tmp_path):
    pybigtools = pytest.importorskip("pybigtools")
    fasta = str(genome_of(small_data, tmp_path / "g.fa"))
    app.attribute(asked(bigwig=True, fasta=fasta))
    found = read_attributions(asked().output)
    track = pybigtools.open(str(tmp_path / "out.counts_0.bw"))
    at = int(found.start[1])
    values = track.values(str(found.chrom[1]), at, at + 20, fillna=None)
    np.testing.assert_allclose(values, found.contributions["counts_0"][1], rtol=1e-5)


@pytest.mark.parametrize(
    ("genome", "message"),
    [
        ({"shorter": 5000}, r"g\.fa: sim\d has .* bases, but a locus of .*small\.h5 ends at"),
        ({"rename": "chr"}, r"small\.h5 names sim1, sim2, sim3, sim4, which the FASTA does not"),
    ],
)
def test_a_genome_that_does_not_fit_is_refused_before_the_work(
    asked, small_data, tmp_path, monkeypatch, genome, message
):
    monkeypatch.setattr(app, "_attribute_all", lambda *_: pytest.fail("the work was begun"))
    fasta = str(genome_of(small_data, tmp_path / "g.fa", **genome))
    with pytest.raises(CherimoyaError, match=message):
        app.attribute(asked(bigwig=True, fasta=fasta, max_loci=None))
    with pytest.raises(CherimoyaError, match=r"fasta=.*g\.fa is read for loci=<BED file>"):
        app.attribute(asked(fasta=fasta))


def test_tracks_can_be_made_after(asked, small_data, tmp_path, monkeypatch, capsys):
    pytest.importorskip("pybigtools")
    fasta = str(genome_of(small_data, tmp_path / "g.fa"))
    real = app.write_tracks
    monkeypatch.setattr(app, "write_tracks", lambda *_: (_ for _ in ()).throw(DataError("full")))
    with pytest.raises(DataError, match="full"):
        app.attribute(asked(bigwig=True, fasta=fasta))
    assert not (tmp_path / "out.counts_0.bw").exists()
    app.attribute(asked(overwrite=True))  # without tracks at first
    monkeypatch.setattr(app, "write_tracks", real)
    monkeypatch.setattr(app, "_attribute_all", lambda *_: pytest.fail("made again"))
    app.attribute(asked(bigwig=True, fasta=fasta))
    assert "attributed before, with the same settings" in capsys.readouterr().out
    assert (tmp_path / "out.counts_0.bw").is_file()
    (tmp_path / "out.counts_0.bw").unlink()
    app.attribute(asked(bigwig=True, fasta=fasta))
    assert (tmp_path / "out.counts_0.bw").is_file()


def test_an_output_is_not_overwritten_unasked(asked, tmp_path):
    Path(asked().output).write_text("mine")
    with pytest.raises(CherimoyaError, match=r"exists already\. Choose another name"):
        app.attribute(asked())
    app.attribute(asked(overwrite=True, method="gradient"))
    assert read_attributions(asked().output).settings["method"] == "gradient"


def test_letters_are_as_tall_as_their_contributions(asked, tmp_path):
    plots = pytest.importorskip("cherimoya.report.plots.interpret")
    from matplotlib.figure import Figure

    axis = Figure().subplots()
    plots.logo(axis, np.array([0, 3, 4, 2]), np.array([0.5, -2.0, 0.0, 1.0]))
    a, c, g, t = (made.get_paths() for made in axis.collections)
    assert [len(paths) for paths in (a, c, g, t)] == [1, 0, 1, 1]
    assert a[0].get_extents().bounds == pytest.approx((-0.45, 0, 0.9, 0.5))
    assert t[0].get_extents().bounds == pytest.approx((0.55, -2, 0.9, 2))
    assert plots.busiest(np.array([0, 1, -3, 3, 0, 0.5]), 2) == 2
    app.attribute(asked(logos=2, method="gradient"))
    assert (tmp_path / "out.counts_0.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_line(asked, model, small_data, tmp_path):
    given = [f"checkpoint={model}", f"data.path={small_data}", "output=cli.h5", "max_loci=2"]
    done = command("attribute", *given, "window=6", "logos=0", folder=tmp_path)
    assert done.stdout.endswith("cli.h5: 2 loci, counts_0\n"), done.stdout + done.stderr
    assert len(read_attributions(tmp_path / "cli.h5").start) == 2
    wrong = command("attribute", "windw=6", folder=tmp_path)
    assert wrong.returncode == 1
    assert "unknown key windw. Did you mean window?" in wrong.stderr
