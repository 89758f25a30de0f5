"""What may not be read or written, and what is damaged, ends each command in words."""

import random
import shutil
import subprocess
from pathlib import Path

import pytest
from campaign import TRACEBACK, Machine
from command_lines import unprivileged
from damage import STRUCTURES, damage
from scenes import LOCI, QUICK, SCENES, TRAIN, fresh, make_inputs

pytestmark = pytest.mark.slow
READ = {  # by scene: files that its command reads
    "train": ["small.h5"],
    "prepare": ["loci.bed", "toy.fa", "plus.bw"],
    "predict bigWig": ["model.pt", "toy.fa"],
    "predict HDF5": ["loci.bed"],
    "attribute": ["model.pt", "loci.bed", "toy.fa"],
    "variants": ["model.pt", "toy.fa", "v.vcf"],
    "marginalize": ["model.pt", "loci.bed", "toy.fa"],
    "design": ["model.pt", "loci.bed", "toy.fa"],
    "hits": ["placed.h5", "five.meme"],
    "export": ["model.pt"],
    "evaluate": ["small.pt", "small.h5"],
}
MODEL = ("checkpoint=run", "device=cpu")
ON_FOLDERS = {  # commands that read what others have left, and which folder that is
    "resume": ("run", *TRAIN, QUICK, "trainer.resume=run"),
    "report": ("run", "cherimoya-report", "run"),
    "predict": (
        "run", "cherimoya-predict", *MODEL, *LOCI, "format=hdf5", "output=new",
    ),
    "evaluate": (
        "run", "cherimoya-evaluate", *MODEL, "data.path=small.h5", "chroms=[sim4]",
        "bootstrap=20", "output=new",
    ),
    "status": ("sweep", "cherimoya-sweep", "status", "sweep"),
    "report of a sweep": ("sweep", "cherimoya-report", "sweep"),
    "the sweep again": ("sweep", *SCENES["sweep"].words[:-1], "hydra.sweep.dir=sweep"),
    "report of an evaluation": ("scores", "cherimoya-report", "scores"),
}  # fmt: skip
DAMAGED = 4  # folders for each of them


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    for package in ("pybigtools", "matplotlib"):
        pytest.importorskip(package)
    made = Machine(tmp_path_factory.mktemp("refused"), unprivileged())
    make_inputs(made.work / "inputs")
    yield made
    made.end()


@pytest.fixture(scope="module")
def folders(machine):
    """A run that was killed, a sweep and an evaluation, beside the inputs."""
    left, run = machine.work / "left", (*TRAIN, QUICK, "hydra.run.dir=run")
    fresh(machine.work / "inputs", machine.work / "scene")
    total = machine.run(run, machine.work / "scene")[2]
    scene = fresh(machine.work / "inputs", machine.work / "scene")
    machine.run(run, scene, "kill", total * 3 // 4)
    scores = (*SCENES["evaluate"].words[:-1], "output=scores")
    for words in (ON_FOLDERS["the sweep again"][1:], scores):
        assert machine.run(words, scene)[0] == 0
    return shutil.copytree(scene, left)


def without(path: Path, bits: str) -> None:
    """Take the permissions away."""
    subprocess.run(["chmod", bits, str(path)], check=True)


def is_message(code: int | str, said: str) -> bool:
    return code == 1 and not any(t in said for t in TRACEBACK) and said.count("error:") == 1


@pytest.mark.parametrize("name", READ)
def test_what_may_not_be_read_or_written_is_named(name, machine):
    folder, words = machine.work / "scene", SCENES[name].words
    for file in READ[name]:
        without(fresh(machine.work / "inputs", folder) / file, "000")
        code, said, _ = machine.run(words, folder)
        assert is_message(code, said), said
        assert file in said
        assert "may not be read: ask its owner (chmod)" in said
    (fresh(machine.work / "inputs", folder) / "out").mkdir(mode=0o555)
    code, said, _ = machine.run(words, folder)
    assert is_message(code, said), said
    assert "out" in said
    if name == "prepare":
        without(fresh(machine.work / "inputs", folder) / "toy.fa", "000")
        code, said, _ = machine.run((*words, "check=true"), folder)
        assert is_message(code, said), said


def restored(machine, folders) -> Path:
    """The scene as the commands before have left it."""
    scene = machine.work / "scene"
    shutil.rmtree(scene)
    return shutil.copytree(folders, scene)


@pytest.mark.parametrize("name", ON_FOLDERS)
def test_a_folder_that_may_not_be_read_is_named(name, machine, folders):
    scene, (folder, *words) = restored(machine, folders), ON_FOLDERS[name]
    without(scene / folder, "000")
    code, said, _ = machine.run(words, scene)
    without(scene / folder, "755")
    assert is_message(code, said), said
    assert folder in said
    assert "Permission denied" in said


@pytest.mark.parametrize("name", ON_FOLDERS)
def test_damaged_folders_end_commands_in_words(name, machine, folders):
    folder, *words = ON_FOLDERS[name]
    files = [f for f in (folders / folder).rglob("*") if f.suffix in STRUCTURES]
    draw = random.Random(name)
    for _ in range(DAMAGED):
        scene, file = restored(machine, folders), draw.choice(sorted(files))
        damage(scene / file.relative_to(folders), draw)
        code, said, _ = machine.run(words, scene)
        assert not any(t in said for t in TRACEBACK), said
        assert code in (0, 1), said
