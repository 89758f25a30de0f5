"""cherimoya-predict: every base is the model's own prediction, once, also after an interruption."""

import json

import h5py
import numpy as np
import pytest
import torch
from command_lines import command
from configs import composed
from hypothesis import given, settings
from hypothesis import strategies as st
from models import GROUPS, model
from toy import LENGTHS, Toy

import cherimoya
from cherimoya import Ensemble
from cherimoya.config.predict import PredictConfig
from cherimoya.config.schema import build
from cherimoya.errors import CherimoyaError
from cherimoya.inference import genome as module
from cherimoya.inference.genome_inputs import own_bases
from cherimoya.metrics import group_softmax

IN, OUT = 100, 60
CUT = (IN - OUT) // 2


@pytest.fixture
def genome(toy: Toy):
    """A genome with lower-case and unknown letters, and a model beside it."""
    bases = toy.bases["chrA"]
    toy.bases["chrA"] = bases[:500].lower() + "N" * 30 + "nRY" + bases[533:]
    toy.fasta()
    model().save(toy.folder / "model.pt")
    return toy


@pytest.fixture
def predicted(genome, capsys):
    """Predicts as the command line would; returns the folder and what was said."""

    def run(*arguments: str, output: str = "out", **values: object):
        listed = [
            f"checkpoint=[{genome.folder}/model.pt]", f"fasta={genome.folder}/toy.fa",
            f"output={genome.folder}/{output}", f"in_window={IN}", "batch_size=7", *arguments,
        ]  # fmt: skip
        capsys.readouterr()
        config = build(PredictConfig, composed("predict", listed))
        return module.predict_genome(config), capsys.readouterr().out.splitlines()

    return run


def bigwig(path, chrom: str) -> np.ndarray:
    import pybigtools

    return pybigtools.open(str(path)).values(chrom, 0, LENGTHS[chrom], fillna=None)


def around(toy: Toy, chrom: str, start: int) -> str:
    """The letters that the window at `start` reads, N beyond the ends."""
    padded = "N" * IN + toy.bases[chrom] + "N" * IN
    return padded[start - CUT + IN : start - CUT + 2 * IN]


def tiled(net, toy: Toy, chrom: str):
    found = cherimoya.predict(net, [around(toy, chrom, s) for s in range(0, LENGTHS[chrom], OUT)])
    flat = found.expected_counts.transpose(0, 1).flatten(1)[:, : LENGTHS[chrom]]
    return flat.numpy(), found


def test_tiles_are_the_models_predictions_base_for_base(genome, predicted):
    folder, said = predicted()
    assert sorted(p.name for p in folder.iterdir()) == [
        "predictions.json", *(f"track_{i}.expected.bw" for i in range(3)),
    ]  # fmt: skip
    for chrom, length in LENGTHS.items():
        expected, _ = tiled(model(), genome, chrom)
        for track in range(3):
            values = bigwig(folder / f"track_{track}.expected.bw", chrom)
            assert len(values) == length
            np.testing.assert_allclose(values, expected[track], rtol=2e-5, atol=1e-7)
    assert any("6 reach beyond an end" in line for line in said), said


def test_probabilities_and_counts_apart(genome, predicted):
    folder, _ = predicted("values=apart", "chroms=[chrB]", "track_names=[a,b,c]")
    _, found = tiled(model(), genome, "chrB")
    p = found.probabilities.transpose(0, 1).flatten(1)[:, :3000].numpy()
    np.testing.assert_allclose(bigwig(folder / "b.profile.bw", "chrB"), p[1], rtol=2e-5, atol=1e-9)
    counts = found.log_counts.repeat_interleave(OUT, dim=0)[:3000].numpy()
    np.testing.assert_allclose(bigwig(folder / "a.log_counts.bw", "chrB"), counts[:, 0], rtol=1e-5)
    np.testing.assert_allclose(
        bigwig(folder / "b+c.log_counts.bw", "chrB"), counts[:, 1], rtol=1e-5
    )


def test_an_ensemble_on_both_strands(genome, predicted):
    model(1).save(genome.folder / "second.pt")
    both = f"checkpoint=[{genome.folder}/model.pt,{genome.folder}/second.pt]"
    folder, _ = predicted("chroms=[chrC]", both, "reverse_complement=true")
    expected, _ = tiled(Ensemble([model(), model(1)], reverse_complement=True), genome, "chrC")
    values = bigwig(folder / "track_2.expected.bw", "chrC")
    np.testing.assert_allclose(values, expected[2], rtol=2e-5, atol=1e-7)


def test_a_stopped_prediction_goes_on(genome, predicted, monkeypatch):
    whole, _ = predicted(output="whole")
    own, calls = module.predict_batch, []

    def interrupted(*arguments, **more):
        calls.append(arguments)
        if len(calls) == 15:  # in the second chromosome: the first has ten batches
            raise KeyboardInterrupt
        return own(*arguments, **more)

    monkeypatch.setattr(module, "predict_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predicted()
    calls.clear()
    calls.extend([()] * 100)
    folder, said = predicted()
    assert "1 of 3 chromosomes are done already" in said
    assert len(calls) - 100 == 12  # of seven windows each, on both of the small ones
    for path in whole.glob("*.bw"):
        assert (folder / path.name).read_bytes() == path.read_bytes()
    assert not (folder / "parts").exists()
    _, said = predicted()
    assert said == [f"done already: {folder}"]
    with pytest.raises(CherimoyaError, match="another reverse_complement"):
        predicted("reverse_complement=true")
    predicted("overwrite=true", "track_names=[x,y,z]")
    assert sorted(p.name for p in folder.glob("*.bw")) == [f"{n}.expected.bw" for n in "xyz"]


def test_loci_are_rows_in_the_order_of_the_file(genome, predicted):
    genome.bed("chrB\t2990\t3000", "chrA\t700\t703", "chrB\t0\t4", "chrA\t400\t600")
    folder, said = predicted(f"loci={genome.folder}/loci.bed")
    starts = [2995 - 30, 701 - 30, 2 - 30, 500 - 30]
    chroms = ["chrB", "chrA", "chrB", "chrA"]
    found = cherimoya.predict(
        model(), [around(genome, c, s) for c, s in zip(chroms, starts, strict=True)]
    )
    with h5py.File(folder / "predictions.h5") as file:
        assert [c.decode() for c in file["chrom"]] == chroms
        assert file["start"][:].tolist() == starts
        assert (file["end"][:] - file["start"][:]).tolist() == [OUT] * 4
        np.testing.assert_allclose(file["logits"], found.logits, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(file["log_counts"], found.log_counts, rtol=1e-4, atol=1e-5)
        assert json.loads(file.attrs["signal_groups"]) == GROUPS
        assert file.attrs["format"] == "cherimoya-predictions"
    assert any("2 reach beyond" in line for line in said)


def test_other_names_are_read_as_the_genomes_when_accepted(genome, predicted):
    model(controls=2).save(genome.folder / "model.pt")
    genome.bed("chrB\t1500\t1510", "chrA\t700\t703")
    loci = f"loci={genome.folder}/loci.bed"
    own = f"control=[[{genome.folder}/plus.bw,{genome.folder}/minus.bw]]"
    whole, _ = predicted(loci, own, output="whole")
    for name, values in (("p.bw", genome.plus), ("m.bw", genome.minus)):
        genome.bigwig(name, {chrom.removeprefix("chr"): v for chrom, v in values.items()})
    control = f"control=[[{genome.folder}/p.bw,{genome.folder}/m.bw]]"
    proposal = r"p\.bw and fasta.*differently.*A is chrA, .*Accept it with chrom_alias=auto"
    with pytest.raises(CherimoyaError, match=proposal):
        predicted(loci, control)
    genome.bed("B\t1500\t1510", "A\t700\t703")
    with pytest.raises(
        CherimoyaError, match=r"loci\.bed and fasta.*Proposal: B is chrB, A is chrA\. Acc"
    ):
        predicted(loci, own)
    folder, said = predicted(loci, control, "chrom_alias=auto")
    assert any(line.endswith("loci.bed: B is chrB, A is chrA") for line in said)
    with (
        h5py.File(folder / "predictions.h5") as found,
        h5py.File(whole / "predictions.h5") as expected,
    ):
        for name in ("chrom", "start", "logits", "log_counts"):
            assert np.array_equal(found[name], expected[name])


def test_overlapping_loci_share_the_bases_between_them(genome, predicted):
    genome.bed("chrA\t1040\t1041", "chrA\t1000\t1001", "chrA\t1040\t1041", "chrA\t5\t6")
    folder, _ = predicted(f"loci={genome.folder}/loci.bed", "format=bigwig")
    values = bigwig(folder / "track_1.expected.bw", "chrA")
    wanted = np.full(LENGTHS["chrA"], np.nan)
    for start, first, end in ((970, 970, 1020), (1010, 1020, 1070), (-25, 0, 35)):
        found = cherimoya.predict(model(), around(genome, "chrA", start)).expected_counts[0, 1]
        wanted[first:end] = found[first - start : end - start]
    np.testing.assert_allclose(values, wanted, rtol=2e-5, atol=1e-7)  # nan where no locus is


@given(
    st.lists(st.integers(-20, 120), min_size=1, max_size=12), st.integers(1, 30)
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_each_base_belongs_to_the_window_with_the_nearest_middle(starts, out):
    start, length = np.sort(np.array(starts)), 100
    owner: dict[int, int] = {}
    for i, (first, end) in enumerate(own_bases(start, out, length).tolist()):
        for base in range(first, end):
            assert base not in owner
            assert 0 <= base - start[i] < out
            owner[base] = i
    for base in range(length):
        near = [abs(s + out / 2 - base - 0.5) for s in start if 0 <= base - s < out]
        assert (base in owner) == bool(near)
        if near:
            assert abs(start[owner[base]] + out / 2 - base - 0.5) == min(near)


def test_controls_are_read_along(genome, predicted):
    net = model(controls=2)
    net.save(genome.folder / "model.pt")
    listed = f"control=[[{genome.folder}/plus.bw,{genome.folder}/minus.bw]]"
    folder, _ = predicted("chroms=[chrC]", listed)
    tracks = np.stack([genome.plus["chrC"], genome.minus["chrC"]])
    padded = np.pad(tracks, ((0, 0), (IN, IN))).astype(np.float32)
    starts = range(0, 2000, OUT)
    control = np.stack([padded[:, s - CUT + IN : s - CUT + 2 * IN] for s in starts])
    X = [around(genome, "chrC", s) for s in starts]
    found = cherimoya.predict(net, X, control).expected_counts
    expected = found.transpose(0, 1).flatten(1)[0, :2000]
    values = bigwig(folder / "track_0.expected.bw", "chrC")
    np.testing.assert_allclose(values, expected, rtol=2e-5, atol=1e-7)
    with pytest.raises(CherimoyaError, match="has 2 control tracks"):
        predicted(output="other")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fasta=absent.fa"], "fasta=absent.fa: no such file"),
        (["loci=absent.bed"], "loci=absent.bed: no such file"),
        (["chroms=[chrZ]"], "names chrZ, which the FASTA does not have"),
        (["chroms=[A]"], "name chromosomes differently: A is chrA. Rename one"),
        (["in_window=40"], "in_window to more than 40"),
        (["in_window=null"], "such as in_window=2114"),
        (["track_names=[a]"], "predicts 3 tracks"),
        (["track_names=[a,a,b]"], "unlike the others"),
        (["control=[[x.bw]]"], "has no control tracks"),
        (["output=chrM.bw"], r"output=chrM\.bw: the name of a file, but a folder .*: output=chrM$"),
        (["chroms=[]"], "is empty"),
        (["chroms=[chrA,chrB,chrA]"], "chroms names chrA twice"),
        (["chroms=[chrA]", "loci={tmp}/loci.bed"], "both set"),
        (["loci={tmp}/loci.bed"], "lies beyond the end of chrC"),
        (["output={tmp}/toy.fa"], "a file. Name a folder"),
    ],
)
def test_a_mistake_is_one_message(genome, predicted, arguments, words):
    genome.bed("chrC\t2000\t2001")
    with pytest.raises(CherimoyaError, match=words):
        predicted(*(a.format(tmp=genome.folder) for a in arguments))


@pytest.mark.slow
def test_the_command_names_the_tracks_of_the_run(genome, small_data, tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    torch.manual_seed(0)
    net = cherimoya.Cherimoya(8, 2, signal_groups=[2], trimming=50)
    net.save(run / "checkpoints" / "best.pt")
    values = composed("train", ["data=hdf5", f"data.path={small_data}",
                                "data.validation_chroms=[sim3]", "data.test_chroms=[sim4]",
                                "data.in_window=200", "data.out_window=100"])  # fmt: skip
    (run / "config.yaml").write_text(json.dumps(values))
    fasta = f"fasta={genome.folder}/toy.fa"
    given = [f"checkpoint={run}", fasta, "output=made", "chroms=[chrC]"]
    done = command("predict", *given, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    with h5py.File(small_data) as file:
        names = json.loads(file.attrs["track_names"])
    files = [tmp_path / "made" / f"{name}.expected.bw" for name in names]
    assert all(path.is_file() for path in files)
    padded = "N" * 50 + genome.bases["chrC"] + "N" * 50
    found = cherimoya.predict(net, [padded[s : s + 200] for s in range(0, 2000, 100)])
    p = group_softmax(found.logits, [2]) * torch.expm1(found.log_counts)[:, :, None]
    values = bigwig(files[1], "chrC")
    np.testing.assert_allclose(values, p[:, 1].flatten(), rtol=2e-5, atol=1e-8)


def test_an_edited_table_of_names_is_another_prediction(genome, predicted):
    genome.bed("one\t1500\t1510", "two\t700\t703")
    names = genome.write("names.tsv", "chrA\tone\nchrB\ttwo\n")
    arguments = (f"loci={genome.folder}/loci.bed", f"chrom_alias={names}")
    predicted(*arguments)
    genome.write("names.tsv", "chrB\tone\nchrA\ttwo\nchrC\tthree\n")
    with pytest.raises(CherimoyaError, match="holds a prediction with another chrom_alias"):
        predicted(*arguments)


def test_a_control_track_of_another_assembly_is_refused(genome, predicted):
    model(controls=2).save(genome.folder / "model.pt")
    genome.bigwig("other.bw", {c: np.r_[v, 1.0] for c, v in genome.plus.items()})
    with pytest.raises(
        CherimoyaError, match=r"other\.bw: chrC has 2,001 bases, but 2,000 in fasta"
    ):
        predicted("chroms=[chrC]", f"control=[[{genome.folder}/plus.bw,{genome.folder}/other.bw]]")
    genome.bigwig("some.bw", {"chrA": genome.plus["chrA"]})
    _, said = predicted(
        "chroms=[chrC]", f"control=[[{genome.folder}/plus.bw,{genome.folder}/some.bw]]"
    )
    assert "some.bw has no chrC: zeros there" in said


def test_what_is_there_stays_until_the_inputs_are_checked(genome, predicted):
    folder, _ = predicted("chroms=[chrC]")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(CherimoyaError, match=r"chrom_alias=gone\.tsv: no such file"):
        predicted("chroms=[chrC]", "overwrite=true", "chrom_alias=gone.tsv")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    _, said = predicted("chroms=[chrC]", "chrom_alias=auto")  # nothing to rename
    assert said == [f"done already: {folder}"]


def test_names_of_other_chromosomes_are_proposed_too(genome, predicted):
    model(controls=2).save(genome.folder / "model.pt")
    for name, values in (("p.bw", genome.plus), ("m.bw", genome.minus)):
        genome.bigwig(name, {"A": values["chrA"], "B": values["chrB"]})
    control = f"control=[[{genome.folder}/p.bw,{genome.folder}/m.bw]]"
    with pytest.raises(CherimoyaError, match=r"Proposal: A is chrA, B is chrB\. Accept it"):
        predicted("chroms=[chrC]", control)
    _, said = predicted("chroms=[chrC]", control, "chrom_alias=auto")
    assert "p.bw has no chrC: zeros there" in said
