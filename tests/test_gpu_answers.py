"""On a GPU every command answers as it does on the CPU: in full fp32, and about so in bf16.

The models are untrained and their effects small, which bf16 rounds by some percent.
"""

import csv
import json

import h5py
import numpy as np
import pytest
import torch
from interpreted import configured, save_model
from models import model as small_model
from models import sequences
from toy import Toy

from cherimoya import Cherimoya, Ensemble, ExpectedCountsWrapper, ProfileWrapper
from cherimoya.config.interpret import AttributeConfig, MarginalizeConfig, VariantsConfig
from cherimoya.config.predict import EvaluateConfig, PredictConfig
from cherimoya.evaluation import evaluate
from cherimoya.inference import genome as predict
from cherimoya.interpret import attribute, marginalize, variants
from cherimoya.interpret.gradients import deep_lift_shap, input_gradients
from cherimoya.interpret.mutagenesis import saturation_mutagenesis
from cherimoya.interpret.target import Target, targets_of
from cherimoya.records.attributions import read_attributions

pytestmark = pytest.mark.gpu

DEVICES = {"cpu": "fp32", "cuda": "fp32", "cuda bf16": "bf16"}


@pytest.fixture(autouse=True)
def nothing_is_tuned(monkeypatch, tmp_path):
    """The default launch options."""
    monkeypatch.setenv("CHERIMOYA_AUTOTUNE", "0")
    monkeypatch.setenv("CHERIMOYA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def checkpoint(tmp_path):
    return save_model(tmp_path / "model.pt", n_filters=32, n_layers=5, signal_groups=[1, 2])


def on(way: str) -> dict[str, str]:
    """The keys of one of DEVICES."""
    return {"device": way.split()[0], "precision": DEVICES[way]}


def error(found, expected) -> float:
    """Relative root mean square."""
    found, expected = (np.asarray(values, np.float64) for values in (found, expected))
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def assert_the_same(found, read, limit: float = 1e-4, half: float = 0.2) -> None:
    """What `read` takes from each of DEVICES' results agrees with the CPU's."""
    values = {way: read(result) for way, result in found.items()}
    assert error(values["cuda"], values["cpu"]) < limit
    assert error(values["cuda bf16"], values["cpu"]) < half


def rows(path) -> list[dict[str, str]]:
    """Of a table with a line above its header that says where it comes from."""
    with open(path) as file:
        next(file)
        return list(csv.DictReader(file, delimiter="\t"))


def column(table, name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in table])


def test_mutagenesis(checkpoint):
    codes = torch.from_numpy(np.random.default_rng(0).integers(0, 4, (3, 700), np.uint8))
    net = Cherimoya.load(checkpoint)
    targets = targets_of(["counts", "profile"], None, net.signal_groups)
    window = slice(300, 400)  # of 3 x 100 changes a locus, not a multiple of the batch
    expected = saturation_mutagenesis(net, codes, targets, window, bar=False)
    rounded = saturation_mutagenesis(net, codes, targets, window, precision="bf16", bar=False)
    net.cuda()
    found = saturation_mutagenesis(net, codes, targets, window, bar=False)
    again = saturation_mutagenesis(net, codes, targets, window, bar=False)
    half = saturation_mutagenesis(net, codes, targets, window, precision="bf16", bar=False)
    assert np.array_equal(found, again)
    for i, target in enumerate(targets):
        assert error(found[i], expected[i]) < 1e-4, target
        assert error(half[i], expected[i]) < 1.5 * error(rounded[i], expected[i]), target


@pytest.mark.parametrize("output", ["counts", "profile"])
def test_gradients_and_deep_lift(checkpoint, output):
    codes = torch.from_numpy(np.random.default_rng(0).integers(0, 4, (2, 500), np.uint8))
    nets = [Cherimoya.load(checkpoint).to(device) for device in ("cpu", "cuda")]
    target = Target(output, 1)
    expected, found = (input_gradients(net, codes, target, bar=False) for net in nets)
    assert error(found, expected) < 1e-4
    pytest.importorskip("tangermeme")
    lifted = [deep_lift_shap(net, codes, target, n_shuffles=4, bar=False) for net in nets]
    assert error(lifted[1][0], lifted[0][0]) < 1e-3
    assert lifted[1][1].max() < 1e-3


def test_both_strands_of_an_ensemble_and_the_wrappers():
    X, weights = sequences(3, 600), torch.randn(3, 1)
    for make in (
        lambda: Ensemble([small_model(0), small_model(1)], reverse_complement=True),
        lambda: ExpectedCountsWrapper(small_model()),
        lambda: ProfileWrapper(small_model(groups=[2])),
    ):
        answers = []
        for device in ("cpu", "cuda"):
            x = X.to(device).requires_grad_()
            found = make().to(device)(x)
            found = found[0] if isinstance(found, tuple) else found
            score = (found.flatten(1) * weights.to(device)).sum()
            answers.append([t.detach().cpu() for t in (found, *torch.autograd.grad(score, x))])
        for a, b in zip(*answers, strict=True):
            assert error(b, a) < 1e-4


def test_attribute(checkpoint, small_data, tmp_path):
    found = {}
    for way in DEVICES:
        output = tmp_path / f"{way}.h5"
        attribute.attribute(configured(
            "attribute", AttributeConfig, checkpoint=[str(checkpoint)], data__path=str(small_data),
            window=40, max_loci=3, logos=0, targets=["counts", "profile"], output=str(output),
            reverse_complement=True, **on(way),
        ))  # fmt: skip
        found[way] = read_attributions(output)
    for name in found["cpu"].hypothetical:
        assert_the_same(found, lambda result, name=name: result.hypothetical[name])


def test_evaluate(checkpoint, small_data, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "offer_report", lambda folder, overwrite=False: None)
    alone = save_model(tmp_path / "one.pt", n_filters=32, n_layers=5)
    scores = {}
    for way in DEVICES:
        folder = evaluate.evaluate_checkpoints(configured(
            "evaluate", EvaluateConfig, checkpoint=[str(alone)], data__path=str(small_data),
            split="all", bootstrap=0, output=str(tmp_path / way), **on(way),
        ))  # fmt: skip
        scores[way] = json.loads((folder / "scores.json").read_text())["model"]
    for name, expected in scores["cpu"].items():
        assert scores["cuda"][name] == pytest.approx(expected, rel=2e-4, abs=2e-4), name
        assert scores["cuda bf16"][name] == pytest.approx(expected, rel=0.02, abs=0.02), name


def test_predict_tracks_and_windows(checkpoint, toy: Toy, tmp_path):
    toy.fasta()
    tracks, windows = {}, {}
    loci = toy.write("loci.bed", "".join(f"chrA\t{s}\t{s + 50}\n" for s in range(300, 1200, 90)))
    for way in DEVICES:
        common = {"checkpoint": [str(checkpoint)], "fasta": str(toy.folder / "toy.fa"),
                  "in_window": 400, "batch_size": 7, **on(way)}  # fmt: skip
        for form, more in (("bigwig", {"chroms": ["chrB"]}), ("hdf5", {"loci": str(loci)})):
            output = str(tmp_path / f"{form} {way}")
            folder = predict.predict_genome(
                configured("predict", PredictConfig, output=output, format=form, **common, **more)
            )
            if form == "bigwig":
                import pybigtools

                path = folder / "track_1.expected.bw"
                tracks[way] = np.nan_to_num(
                    pybigtools.open(str(path)).values("chrB", 0, len(toy.bases["chrB"]), fillna=0)
                )
            else:
                with h5py.File(next(folder.glob("*.h5"))) as file:
                    windows[way] = {name: file[name][:] for name in ("logits", "log_counts")}
    assert_the_same(tracks, lambda track: track, half=0.02)
    for name in windows["cpu"]:
        assert_the_same(windows, lambda result, name=name: result[name], half=0.02)


def test_variants(checkpoint, toy: Toy, tmp_path):
    toy.fasta()
    bases = toy.bases["chrA"]
    other = {"A": "C", "C": "G", "G": "T", "T": "A"}
    lines = [f"chrA\t{i}\t.\t{bases[i - 1]}\t{other[bases[i - 1]]}\t.\t.\t." for i in
             range(500, 1500, 50)]  # fmt: skip
    header = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    vcf = toy.write("v.vcf", header + "\n".join(lines) + "\n")
    found = {}
    for way in DEVICES:
        output = tmp_path / f"{way}.tsv"
        variants.variants(configured(
            "variants", VariantsConfig, checkpoint=[str(checkpoint)], variants=str(vcf),
            fasta=str(toy.folder / "toy.fa"), in_window=400, output=str(output),
            random_variants=0, **on(way),
        ))  # fmt: skip
        found[way] = rows(output)
    for name in ("log2_fold_change_0", "jsd_1", "ref_log_counts_0"):
        assert_the_same(found, lambda table, name=name: column(table, name), 1e-3)


def test_marginalize(checkpoint, small_data, tmp_path):
    pytest.importorskip("tangermeme")
    found = {}
    for way in DEVICES:
        output = tmp_path / f"{way}.tsv"
        marginalize.marginalize(configured(
            "marginalize", MarginalizeConfig, checkpoint=[str(checkpoint)],
            data__path=str(small_data), max_loci=6, motifs=["GATTACA", "TCCGGGTAA"], profiles=0,
            output=str(output), **on(way),
        ))  # fmt: skip
        found[way] = rows(output)
    for name in ("log2_fold_change_0", "jsd_1"):
        assert_the_same(found, lambda table, name=name: column(table, name), 1e-3)
