"""Checkpoints are believed only where their checksums hold."""

import os
import random
import shutil
import subprocess
import sys

import pytest
import torch

from cherimoya import Cherimoya
from cherimoya.errors import CherimoyaError, DataError
from cherimoya.records.run import LAST
from cherimoya.training.checkpoint import Checkpoints
from cherimoya.util.torch_file import read_torch_file

FLIPS = 1000


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    model = Cherimoya(n_filters=8, n_layers=2)
    path = tmp_path / "best.pt"
    model.save(path)
    return path, model.state_dict()


def outcomes(path, bits, load):
    """How many files with one of these bits flipped load as before, and how many are refused."""
    content, found = path.read_bytes(), {"same": 0, "refused": 0}
    for bit in bits:
        path.write_bytes(flipped(content, bit))
        try:
            same = load()
        except CherimoyaError:
            found["refused"] += 1
        else:
            assert same, f"bit {bit} changed the model without a word"
            found["same"] += 1
    path.write_bytes(content)
    return found


@pytest.mark.parametrize("where", ["anywhere", "in the directory"])
def test_a_flipped_bit_of_a_model_is_refused_or_changes_nothing(where, checkpoint):
    path, state = checkpoint
    bits = 8 * path.stat().st_size
    first = 0 if where == "anywhere" else bits - 8 * 2500
    draw = random.Random(where)

    def same() -> bool:
        found = Cherimoya.load(path).state_dict()
        return all(torch.equal(found[name], value) for name, value in state.items())

    found = outcomes(path, [draw.randrange(first, bits) for _ in range(FLIPS)], same)
    assert found["refused"] > 0.5 * FLIPS
    assert same()


def test_a_flipped_bit_of_a_training_state_is_refused_or_changes_nothing(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    weights = torch.randn(500)
    checkpoints.save_last({"step": {"model": weights}, "epoch": 3})
    draw = random.Random(0)
    bits = [draw.randrange(8 * (tmp_path / LAST).stat().st_size) for _ in range(FLIPS)]

    def same() -> bool:
        found = checkpoints.load_last(print)
        return found["epoch"] == 3 and torch.equal(found["step"]["model"], weights)

    assert outcomes(tmp_path / LAST, bits, same)["refused"] > 0.4 * FLIPS


def test_a_damaged_checkpoint_says_what_to_do(checkpoint):
    path, _ = checkpoint
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"best.pt is damaged: .*Copy it again"):
        Cherimoya.load(path)
    path.write_bytes(content[:1000])
    with pytest.raises(DataError, match=r"best.pt is damaged"):
        Cherimoya.load(path)


@pytest.mark.parametrize(("at", "marked"), [(38, b"\x10"), (16, bytes(8))], ids=["folder", "empty"])
def test_a_weight_that_pytorch_would_not_fill_is_refused(at, marked, checkpoint):
    path, _ = checkpoint
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"best/data/10") - 46  # of the archive's directory
    content[entry + at : entry + at + len(marked)] = marked
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"damaged: best/data/10 is said to be a folder or empty"):
        Cherimoya.load(path)


def test_files_of_old_versions_of_pytorch_are_read(tmp_path):
    torch.save({"a": torch.ones(3)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(read_torch_file(tmp_path / "old.pt")["a"], torch.ones(3))


def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(checkpoint):
    path, _ = checkpoint
    path.chmod(0)
    code = "import sys; from cherimoya import Cherimoya; Cherimoya.load(sys.argv[1])"
    command = [sys.executable, "-c", code, str(path)]
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("root may read everything, and there is no setpriv here")
        bounded = "-dac_override,-dac_read_search"
        command[:0] = ["setpriv", f"--bounding-set={bounded}", f"--inh-caps={bounded}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert f"{path} may not be read: ask its owner" in done.stderr
