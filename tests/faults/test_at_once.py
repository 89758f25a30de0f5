"""The same command three times at once in one folder: one works, and nothing of it is changed."""

import subprocess
from pathlib import Path

import pytest
from command_lines import clean_environment, program
from scenes import SCENES, contents, fresh, make_inputs

pytestmark = pytest.mark.slow
IN_USE = ("is in use by process", "is being made by another process", "left to the process that")


def begun(words: tuple[str, ...], folder: Path) -> subprocess.Popen:
    name, *arguments = words
    return subprocess.Popen(
        [*program(name.removeprefix("cherimoya-")), *arguments], cwd=folder, text=True,
        env=clean_environment() | {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder / "tmp")},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["train", "sweep", "prepare", "predict bigWig", "variants"])
def test_three_at_once(name, tmp_path):
    pytest.importorskip("pybigtools")
    inputs, scene = make_inputs(tmp_path / "inputs"), SCENES[name]
    alone, together = fresh(inputs, tmp_path / "alone"), fresh(inputs, tmp_path / "together")
    process = begun(scene.words, alone)
    assert process.wait(120) == 0, process.stdout.read()
    processes = [begun(scene.words, together) for _ in range(3)]
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    codes = [process.returncode for process in processes]
    assert codes.count(0) >= 1, outputs
    for code, said in zip(codes, outputs, strict=True):
        assert "Traceback" not in said
        if code:
            assert code == 1, said
            assert any(words in said for words in IN_USE) or "holds another run" in said, said
    assert contents(together, scene) == contents(alone, scene)
