"""Clean environments of each version of Python that is here: what of the package needs no PyTorch.

PyTorch itself is not installed there, whose build for CUDA takes gigabytes.
"""

import subprocess
import sys
from pathlib import Path
from shutil import which

import h5py
import numpy as np
import pytest
from command_lines import command
from toy import Toy

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ["hydra-core", "omegaconf", "numpy", "h5py", "tqdm", "pysam"]
ABSENT = {  # packages that modules may lack there, and nothing else
    "torch", "triton", "wandb", "matplotlib", "jinja2", "optuna", "submitit", "tangermeme",
    "modiscolite", "ledidi", "wandb_workspaces", "tensorboard", "huggingface_hub", "safetensors",
    "onnx", "onnxscript", "onnxruntime", "scipy",
}  # fmt: skip
IMPORTED = f"""
import importlib, pkgutil, sys, cherimoya
assert not cherimoya.__file__.startswith({str(ROOT)!r})
found = []
for module in pkgutil.walk_packages(cherimoya.__path__, "cherimoya."):
    if module.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(module.name)
        found.append(module.name)
    except ModuleNotFoundError as error:
        assert error.name.split(".")[0] in {ABSENT!r}, (module.name, error)
print(*found)
"""
TORCHLESS = ["cherimoya.cli.train", "cherimoya.prepare.prepare", "cherimoya.records.run"]


def interpreter(version: str) -> str:
    """The Python of that version; skips where there is none."""
    own = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))
    found = str(own[-1]) if own else which(f"python{version}")
    if not found or subprocess.run([found, "-c", "import venv"]).returncode:
        pytest.skip(f"there is no Python {version}")
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The wheel, which is made of the sdist."""
    folder = tmp_path_factory.mktemp("built")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    assert len(list(folder.glob("*.tar.gz"))) == 1
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_what_needs_no_pytorch_works(version, built, toy: Toy, tmp_path):
    """Every module compiles, and fails to import for want of a package alone; files are equal."""
    folder = tmp_path / "env"
    subprocess.run([interpreter(version), "-m", "venv", folder], check=True)
    python, bin_folder = folder / "bin" / "python", folder / "bin"
    pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    constraints = ["-c", ROOT / "constraints.txt"]
    got = subprocess.run([*pip, *constraints, *PACKAGES], capture_output=True, text=True)
    if got.returncode:
        pytest.skip(f"no packages for Python {version}: {got.stderr.splitlines()[-1]}")
    subprocess.run([*pip, "--no-deps", built], check=True)

    def run(*words: object) -> str:
        done = subprocess.run(
            words, cwd=toy.folder, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    site = next(folder.glob("lib/python*/site-packages"))
    run(python, "-m", "compileall", "-q", site / "cherimoya", site / "hydra_plugins")
    imported = run(python, "-c", IMPORTED).split()
    assert set(TORCHLESS) <= set(imported)
    assert "n_filters: 96" in run(bin_folder / "cherimoya-train", "--cfg", "job")
    assert "model.n_filters=96" in run(bin_folder / "cherimoya-train", "--help")
    toy.fasta()
    toy.bed(*(f"chrA\t{at}\t{at + 1}" for at in range(300, 1500, 100)))
    words = [
        "fasta=toy.fa", "loci=loci.bed", "signal=[[plus.bw,minus.bw]]", "in_window=100",
        "out_window=60", "max_jitter=4", "plots=false", "seed=3",
    ]  # fmt: skip
    run(bin_folder / "cherimoya-prepare", *words, "output=there.h5")
    assert command("prepare", *words, "output=here.h5", folder=toy.folder).returncode == 0
    with h5py.File(toy.folder / "here.h5") as here, h5py.File(toy.folder / "there.h5") as there:
        assert set(here) == set(there)
        for name in here:
            if isinstance(here[name], h5py.Dataset):
                assert np.array_equal(here[name][()], there[name][()]), name
