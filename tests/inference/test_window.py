"""Every command asks a model about windows as long as those that it was trained on."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from configs import composed
from interpreted import configured, save_model
from toy import Toy

import cherimoya
from cherimoya import Cherimoya
from cherimoya.config.interpret import AttributeConfig, MarginalizeConfig, VariantsConfig
from cherimoya.config.predict import EvaluateConfig, PredictConfig
from cherimoya.data import hdf5
from cherimoya.errors import CherimoyaError
from cherimoya.evaluation.evaluate import evaluate_checkpoints
from cherimoya.inference.genome import predict_genome
from cherimoya.interpret.attribute import attribute
from cherimoya.interpret.marginalize import marginalize
from cherimoya.interpret.variants import variants
from cherimoya.records.attributions import read_attributions
from cherimoya.training.checkpoint import Checkpoints

STORED, TRAINED = 200, 160  # bases; the model trims 50 from each side


@pytest.fixture
def run_of(small_data: Path, tmp_path: Path):
    """Makes the folder of a run trained on windows of so many bases of `small_data`."""

    def made(in_window: int | None, name: str = "run") -> Path:
        folder = tmp_path / name
        (folder / "checkpoints").mkdir(parents=True)
        save_model(folder / "checkpoints" / "best.pt")
        arguments = ["data=hdf5", f"data.path={small_data}", "data.validation_chroms=[sim3]",
                     "data.test_chroms=[sim4]"]  # fmt: skip
        if in_window is not None:
            arguments += [f"data.in_window={in_window}", f"data.out_window={in_window - 100}"]
        (folder / "config.yaml").write_text(json.dumps(composed("train", arguments)))
        return folder

    return made


def marginals(run: Path, output: Path, **values) -> dict[str, str]:
    given = {"checkpoint": [str(run)], "motifs": ["GATTACA"], "shuffle": False, "profiles": 0,
             "max_loci": 6, "output": str(output)}  # fmt: skip
    marginalize(configured("marginalize", MarginalizeConfig, **(given | values)))
    with open(output) as file:
        next(file)
        return next(csv.DictReader(file, delimiter="\t"))


@pytest.mark.parametrize("named", [False, True])  # the file, or that of the run
def test_marginalize_takes_the_window_of_training(run_of, small_data, tmp_path, named, capsys):
    run, values = run_of(TRAINED), {"data__path": str(small_data)} if named else {}
    found = marginals(run, tmp_path / "a.tsv", **values)
    said = capsys.readouterr().out
    assert "data.in_window 160 bases, as in training" in said
    assert "the middle 160 of the 216 bases stored in" in said
    asked = marginals(run, tmp_path / "b.tsv", data__in_window=TRAINED, **values)
    assert found == asked
    other = marginals(run, tmp_path / "c.tsv", data__in_window=STORED, **values)
    assert "200 bases, as set; the model was trained on 160" in capsys.readouterr().out
    assert abs(float(other["log2_fold_change"]) - float(found["log2_fold_change"])) > 1e-4


def test_a_model_tells_its_window_outside_of_its_run(small_data, tmp_path, capsys):
    model = Cherimoya.load(save_model(tmp_path / "a.pt"))
    saved = Checkpoints(tmp_path).save_model(model, "best.pt", {"window": (TRAINED, TRAINED - 100)})
    assert cherimoya.load(saved).in_window == TRAINED
    silent = Checkpoints(tmp_path / "silent").save_model(model, "best.pt", {})
    assert cherimoya.load(silent).in_window is None
    data = {"data__path": str(small_data)}
    found = marginals(saved.rename(tmp_path / "b.pt"), tmp_path / "b.tsv", **data)
    assert "data.in_window 160 bases, as in training" in capsys.readouterr().out
    assert found == marginals(
        tmp_path / "a.pt", tmp_path / "a.tsv", data__in_window=TRAINED, **data
    )


def test_attribute_takes_the_window_of_training(run_of, small_data, tmp_path, capsys):
    given = {"checkpoint": [str(run_of(TRAINED))], "data__path": str(small_data), "window": None,
             "max_loci": 3, "logos": 0, "output": str(tmp_path / "a.h5")}  # fmt: skip
    attribute(configured("attribute", AttributeConfig, method="gradient", **given))
    found = read_attributions(tmp_path / "a.h5")
    assert found.sequence.shape == (3, TRAINED)
    assert "data.in_window 160 bases, as in training" in capsys.readouterr().out
    loci = hdf5.read(small_data)
    first = int(np.flatnonzero(loci.label == 1)[0])
    assert np.array_equal(found.sequence[0], loci.sequence[first, 28:188])
    assert found.start[0] == loci.start[first] + 28


@pytest.mark.slow
def test_evaluate_takes_the_window_of_training(run_of, tmp_path, capsys):
    for split in ("test", "all"):
        given = {"checkpoint": [str(run_of(TRAINED, split))], "split": split, "bootstrap": 0}
        given["output"] = str(tmp_path / f"scores {split}")
        folder = evaluate_checkpoints(configured("evaluate", EvaluateConfig, **given))
        window = json.loads((folder / "scores.json").read_text())["window"]
        assert window == {"in": TRAINED, "out": TRAINED - 100}
    assert capsys.readouterr().out.count("data.in_window 160 bases, as in training") == 2


def test_variants_and_predict_take_the_window_of_training(run_of, toy: Toy, tmp_path, capsys):
    run, base = run_of(TRAINED), toy.bases["chrA"][999]
    toy.write("v.tsv", f"chrom\tpos\tref\talt\nchrA\t1000\t{base}\t{'A' if base != 'A' else 'C'}\n")
    files = {"checkpoint": [str(run)], "fasta": f"{toy.folder}/toy.fa"}
    given = {"variants": f"{toy.folder}/v.tsv", "output": str(tmp_path / "v.out.tsv")}
    variants(configured("variants", VariantsConfig, random_variants=0, **files, **given))
    assert "in_window    160 bases, as in training" in capsys.readouterr().out
    given = {"output": str(tmp_path / "predicted"), "chroms": ["chrC"], "format": "hdf5"}
    predict_genome(configured("predict", PredictConfig, **files, **given))
    assert "in_window    160 bases, as in training" in capsys.readouterr().out


def test_runs_that_disagree_are_asked_about_a_window(run_of, toy: Toy, tmp_path, small_data):
    runs = [str(run_of(TRAINED)), str(run_of(180, "other"))]
    given = {"checkpoint": runs, "output": str(tmp_path / "out")}
    several = r"run/checkpoints/best\.pt with 160, .*best\.pt with 180\. Choose one with "
    with pytest.raises(CherimoyaError, match=several + "in_window"):
        predict_genome(configured("predict", PredictConfig, fasta=str(toy.fasta()), **given))
    for app, name, cls in (
        (marginalize, "marginalize", MarginalizeConfig), (attribute, "attribute", AttributeConfig)
    ):  # fmt: skip
        more = {"motifs": ["GATTACA"]} if name == "marginalize" else {}
        with pytest.raises(CherimoyaError, match=several + r"data\.in_window"):
            app(configured(name, cls, data__path=str(small_data), **given, **more))


def test_a_run_without_a_summary_took_what_its_file_stores(run_of, tmp_path, capsys):
    """A run that has not ended, and set no window."""
    marginals(run_of(None), tmp_path / "a.tsv")
    assert "data.in_window 200 bases, as in training" in capsys.readouterr().out


def test_a_file_with_shorter_windows_than_training_is_refused(run_of, small_data, tmp_path):
    run = run_of(240)
    with pytest.raises(CherimoyaError, match=r"in_window=240: .*small\.h5 stores 216 bases\. Prep"):
        marginals(run, tmp_path / "a.tsv", data__path=str(small_data))
    marginals(run, tmp_path / "a.tsv", data__path=str(small_data), data__in_window=216)
