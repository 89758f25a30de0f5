"""cherimoya-predict, after whatever end, goes on to the files of a command left alone."""

import json
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
from command_lines import clean_environment
from interpreted import configured
from models import model
from toy import Toy

import cherimoya
from cherimoya.config.predict import PredictConfig
from cherimoya.errors import CherimoyaError
from cherimoya.inference import genome as predict
from cherimoya.util.marks import write_sizes


def begun(toy: Toy, output: str, *arguments: str) -> subprocess.Popen:
    environment = clean_environment() | {"TMPDIR": str(toy.folder)}
    return subprocess.Popen(
        [sys.executable, "-c", "from cherimoya.cli.commands import predict; predict()",
         "checkpoint=model.pt", "fasta=toy.fa", f"output={output}", "in_window=50",
         "batch_size=2", "device=cpu", *arguments],
        cwd=toy.folder, env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bigwig", "hdf5"])
def test_killed_in_the_second_chromosome(toy: Toy, kind):
    model().save(toy.folder / "model.pt")
    # each window is 10 bases out, so that there is time to kill between two chromosomes
    assert begun(toy, "whole", f"format={kind}").wait(120) == 0
    killed = begun(toy, "cut", f"format={kind}")
    parts = toy.folder / "cut" / "parts"
    while not (parts / "00000").is_dir():
        assert killed.poll() is None, "it ended before it was killed"
        time.sleep(0.002)
    killed.kill()
    killed.communicate()
    done = len([p for p in parts.iterdir() if p.is_dir() and not p.name.startswith(".")])
    assert not list((toy.folder / "cut").glob("*.bw")) + list((toy.folder / "cut").glob("*.h5"))
    again = begun(toy, "cut", f"format={kind}")
    said, _ = again.communicate(timeout=120)
    assert again.returncode == 0
    assert f"{done} of 3 chromosomes are done already" in said
    names = json.loads((toy.folder / "whole" / "predictions.json").read_text())["files"]
    assert names
    for name in names:
        cut, whole = ((toy.folder / folder / name).read_bytes() for folder in ("cut", "whole"))
        assert cut == whole
    assert not parts.exists()


@pytest.fixture
def predicted(toy: Toy):
    """Predicts two loci as the command line would."""
    model().save(toy.folder / "model.pt")
    toy.bed("chrA\t1000\t1001", "chrB\t1000\t1001")

    def run(**values: object):
        given = {
            "checkpoint": [str(toy.folder / "model.pt")], "fasta": str(toy.folder / "toy.fa"),
            "output": str(toy.folder / "out"), "in_window": 100, "loci": f"{toy.folder}/loci.bed",
        }  # fmt: skip
        return predict.predict_genome(configured("predict", PredictConfig, **(given | values)))

    run.folder = toy.folder / "out"
    return run


def test_a_mistake_leaves_nothing_that_stands_in_the_way(toy: Toy, predicted):
    toy.bed("chrA\t1000\t900")
    with pytest.raises(CherimoyaError, match=r"loci\.bed, line 1"):
        predicted()
    assert not (toy.folder / "out").exists()
    (toy.folder / "out").mkdir()
    with pytest.raises(CherimoyaError, match=r"loci\.bed, line 1"):
        predicted()
    toy.bed("chrA\t900\t1000")
    assert (predicted() / "predictions.h5").is_file()


def test_a_file_that_was_removed_is_made_again(predicted):
    before = (predicted() / "predictions.h5").read_bytes()
    (predicted() / "predictions.h5").unlink()
    assert (predicted() / "predictions.h5").read_bytes() == before


def test_a_run_is_no_place_for_predictions(toy: Toy, predicted):
    run = toy.folder / "run"
    run.mkdir()
    (run / "config.yaml").write_text("{}")
    with pytest.raises(CherimoyaError, match="a run is there"):
        predicted(output=str(run))
    assert [path.name for path in run.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
@pytest.mark.parametrize("kind", ["bigwig", "hdf5"])
def test_a_file_that_is_not_as_it_was_written_is_made_again(predicted, capsys, damage, kind):
    folder = predicted(format=kind)
    path = next(p for p in folder.iterdir() if p.suffix in (".bw", ".h5"))
    before = path.read_bytes()
    predicted(format=kind)
    assert f"done already: {folder}\n" in capsys.readouterr().out
    if damage == "remove":
        path.unlink()
    else:
        changed = bytearray(before[:1000] if damage == "cut" else before)
        changed[700] ^= 1
        path.write_bytes(changed)
    predicted(format=kind)
    assert f"{path.name} cut short or changed since it was written, so it is made again" in (
        capsys.readouterr().out
    )
    assert path.read_bytes() == before


def test_a_record_that_is_damaged_or_old(predicted, capsys):
    folder = predicted()
    record, before = folder / "predictions.json", (folder / "predictions.h5").read_bytes()
    whole = json.loads(record.read_text())
    record.write_text(json.dumps(whole | {"windows": 3}))
    predicted()
    assert "nothing valid says that it is whole" in capsys.readouterr().out
    assert (folder / "predictions.h5").read_bytes() == before
    old = {k: v for k, v in whole.items() if k != "sha256"} | {"files": ["predictions.h5"]}
    record.write_text(json.dumps(old))
    predicted()
    assert "may not be whole: it has no digests in predictions.json" in capsys.readouterr().out
    record.write_text("{")
    with pytest.raises(CherimoyaError, match=r"predictions\.json, which is damaged\. Choose an"):
        predicted()
    assert (folder / "predictions.h5").read_bytes() == before


def test_parts_of_ones_own_stay(predicted, toy: Toy):
    parts = toy.folder / "out" / "parts"
    parts.mkdir(parents=True)
    for name in ("plan.json", "mine.txt"):
        (parts / name).write_text("mine")
    with pytest.raises(CherimoyaError, match="parts: exists already"):
        predicted()
    predicted(overwrite=True)
    assert (toy.folder / "out" / "parts.damaged" / "mine.txt").read_text() == "mine"
    assert not parts.exists()


def test_what_a_kill_leaves_before_the_plan_is_no_obstacle(predicted, toy: Toy):
    (toy.folder / "out" / "parts").mkdir(parents=True)
    predicted()
    assert not (toy.folder / "out" / "parts").exists()


def test_the_record_of_a_prediction_goes_last(predicted, monkeypatch):
    folder, gone = predicted(), []
    real = predict.remove
    monkeypatch.setattr(predict, "remove", lambda path: (gone.append(path.name), real(path)))
    predicted(overwrite=True)
    assert gone[:2] == ["predictions.h5", "predictions.json"]
    assert (folder / "predictions.json").is_file()


@pytest.mark.parametrize("name", ["..", "", "../theirs"])
@pytest.mark.parametrize("marked", [False, True])
def test_a_record_names_files_of_its_folder_alone(predicted, name, marked):
    folder = predicted()
    record, theirs = folder / "predictions.json", folder.parent / "theirs"
    theirs.write_text("mine")
    facts = json.loads(record.read_text())
    if marked:
        write_sizes(record, {"plan": facts["plan"]}, {name: {"size": 1, "sha256": ""}})
    else:
        record.write_text(json.dumps({"plan": facts["plan"], "files": [name, "gone"]}))
    with pytest.raises(CherimoyaError, match=r"predictions\.json, which is damaged"):
        predicted()
    assert theirs.read_text() == "mine"
    predicted(overwrite=True)
    assert theirs.read_text() == "mine"


@pytest.mark.parametrize("name", ["logits.npy", "log_counts.npy", "done.json", "../plan.json"])
def test_a_damaged_part_is_predicted_again(predicted, monkeypatch, capsys, name):
    before = (predicted() / "predictions.h5").read_bytes()
    real, writer = predict.write_outputs, []

    def interrupted(*_):
        writer.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(predict, "write_outputs", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predicted(overwrite=True)
    monkeypatch.setattr(predict, "write_outputs", real)
    capsys.readouterr()
    path = next((predicted.folder / "parts").glob("0*")) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert (predicted() / "predictions.h5").read_bytes() == before
    said = capsys.readouterr().out
    if name == "../plan.json":
        assert "that it is whole (done.json), so it starts over" in said
    elif name == "done.json":
        assert "nothing valid says that it is whole (done.json), so it is made again" in said
    else:
        assert f"{name} cut short or changed since it was written, so it is made again" in said


@pytest.mark.slow
def test_small_chromosomes_share_batches(toy: Toy, predicted, monkeypatch):
    rng = np.random.default_rng(0)
    toy.bases = {f"s{i}": "".join(rng.choice(list("ACGT"), 30 + i)) for i in range(300)}
    toy.fasta()
    real, sizes = predict.predict_batch, []

    def counted(run, X, *arguments, **more):
        sizes.append(len(X))
        return real(run, X, *arguments, **more)

    monkeypatch.setattr(predict, "predict_batch", counted)
    folder = predicted(loci=None, format="hdf5", batch_size=64, track_names=["a", "b", "c"])
    windows = sum(-(-(30 + i) // 60) for i in range(300))
    assert sum(sizes) == windows
    assert len(sizes) <= 1.2 * windows / 64
    net = model()
    with h5py.File(folder / "predictions.h5") as file:
        chroms = [name.decode() for name in file["chrom"]]
        for row in range(0, windows, 41):
            padded = "N" * 20 + toy.bases[chroms[row]] + "N" * 200
            start = int(file["start"][row])
            found = cherimoya.predict(net, padded[start : start + 100])
            np.testing.assert_allclose(file["logits"][row], found.logits[0], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(
                file["log_counts"][row], found.log_counts[0], rtol=1e-4, atol=1e-5
            )
    predicted(loci=None, format="bigwig", batch_size=64, overwrite=True)
