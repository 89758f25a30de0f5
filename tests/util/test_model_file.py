"""Models as safetensors files: what is put in comes out, and what is damaged does not."""

import json
import sys
from pathlib import Path

import pytest
import torch

from cherimoya import Cherimoya
from cherimoya.errors import DataError, PackageError
from cherimoya.util.model_file import read_content, write_safetensors

safetensors = pytest.importorskip("safetensors.torch")
FACTS = {"config": {"n_filters": 4, "scale": 0.1}, "window": [200, 100], "groups": ["K562 ä"]}


def written(path: Path) -> dict[str, torch.Tensor]:
    state = {"a": torch.randn(3, 2).t(), "b": torch.tensor(2.5), "c": torch.zeros(0)}
    write_safetensors(path, state, FACTS)
    return state


def test_weights_and_facts_come_back(tmp_path):
    state = written(tmp_path / "x.safetensors")
    found = read_content(tmp_path / "x.safetensors")
    assert {key: found[key] for key in FACTS} == FACTS
    assert found["state_dict"].keys() == state.keys()
    assert all(torch.equal(found["state_dict"][name], state[name]) for name in state)
    with safetensors.safe_open(tmp_path / "x.safetensors", "pt") as file:  # as others read it
        assert json.loads(file.metadata()["config"]) == FACTS["config"]


def test_the_name_may_be_another(tmp_path):
    """As that of a blob, or of a file that is being written."""
    model = Cherimoya(4, 2, trimming=20)
    write_safetensors(tmp_path / "x", model.state_dict(), {"config": model.config})
    found = Cherimoya.load(tmp_path / "x").state_dict()
    assert all(torch.equal(found[name], value) for name, value in model.state_dict().items())


def test_any_flipped_bit_is_seen(tmp_path):
    path = tmp_path / "x.safetensors"
    written(path)
    content = path.read_bytes()
    for at in range(9, len(content)):
        if content[at : at + 1] == b" ":  # which fills the header up to a multiple of 8
            continue
        path.write_bytes(content[:at] + bytes([content[at] ^ 2]) + content[at + 1 :])
        with pytest.raises(DataError, match=r"x.safetensors.*(damaged|configuration)"):
            read_content(path)


def test_another_s_file_is_told_apart(tmp_path):
    path = tmp_path / "x.safetensors"
    safetensors.save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(DataError, match=r"says no model's configuration.*cherimoya-export"):
        Cherimoya.load(path)


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    written(tmp_path / "x.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(PackageError, match=r"pip install 'cherimoya-train\[export\]'"):
        Cherimoya.load(tmp_path / "x.safetensors")
