"""A command broken off at some of its changes of files goes on; `make test-long` tries all."""

import shutil
import sys

import pytest
from campaign import Machine, Outcome, spread, trial
from scenes import SCENES, contents, fresh, make_inputs

pytestmark = pytest.mark.slow
TRIALS = 3  # of each scene and kind of fault


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    if sys.platform != "linux" or shutil.which("cc") is None:
        pytest.skip("needs Linux and a C compiler")
    for package in ("pybigtools", "matplotlib"):
        pytest.importorskip(package)
    made = Machine(tmp_path_factory.mktemp("faults"))
    yield made
    made.end()


@pytest.mark.parametrize("name", ["train", "prepare", "predict bigWig", "variants", "hits"])
def test_a_broken_command_goes_on(machine, name):
    scene, folder = SCENES[name], machine.work / "scene"
    if not (machine.work / "inputs").is_dir():
        make_inputs(machine.work / "inputs")
    fresh(machine.work / "inputs", folder)
    code, said, total = machine.run(scene.words, folder)
    assert code == 0, said
    assert total > 20
    whole = contents(folder, scene)
    for kind in ("kill", "half", "full", "error"):
        outcome = Outcome()
        for at in spread(total, TRIALS + 2)[1:-1]:
            fresh(machine.work / "inputs", folder)
            trial(machine, scene, folder, kind, at, whole, outcome)
        assert outcome.counts["trials"] == TRIALS
        assert not outcome.notes
