"""cherimoya-predict, after whatever end, goes on to the files of a command left alone."""

import json
import subprocess
import sys
import time

import pytest
from conftest import clean_environment
from interpreted import configured
from test_wrappers import model
from toy import Toy

from cherimoya.analysis.predict import predict_genome
from cherimoya.config_evaluate import PredictConfig
from cherimoya.errors import CherimoyaError


def begun(toy: Toy, output: str, *arguments: str) -> subprocess.Popen:
    environment = clean_environment() | {"TMPDIR": str(toy.folder)}
    return subprocess.Popen(
        [sys.executable, "-c", "from cherimoya.cli_apps import predict; predict()",
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
        return predict_genome(configured("predict", PredictConfig, **(given | values)))

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
