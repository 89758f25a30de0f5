"""cherimoya-predict, killed at any moment, goes on to the files of a command left alone."""

import json
import subprocess
import sys
import time

import pytest
from conftest import clean_environment
from test_wrappers import model
from toy import Toy

pytestmark = pytest.mark.slow


def begun(toy: Toy, output: str, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", "from cherimoya.cli_apps import predict; predict()",
         "checkpoint=model.pt", "fasta=toy.fa", f"output={output}", "in_window=50",
         "batch_size=2", "device=cpu", *arguments],
        cwd=toy.folder, env=clean_environment(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


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
