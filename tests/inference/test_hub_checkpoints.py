"""Checkpoints on the Hub in place of files: the same answers, and a record of their commits."""

import hashlib
import json
from pathlib import Path

import h5py
import pytest
import torch
from command_lines import command, fails, python
from configs import composed
from fake_hub import NEW, OLD, fake_hub
from interpreted import save_model

from cherimoya.config.schema import build
from cherimoya.config.train import TrainConfig
from cherimoya.errors import ConfigError
from cherimoya.network import Cherimoya

LOAD = """
import sys, torch, cherimoya
models = [cherimoya.load(named) for named in sys.argv[2:]]
torch.save([model.state_dict() for model in models], sys.argv[1])
"""
TRAINED = ("model=tiny", "logger=none", "trainer.plots=false", "trainer.max_epochs=1",
           "optim.warmup_epochs=0", "data.synthetic.n_peaks=60",
           "data.synthetic.n_background=20", "trainer.device=cpu")  # fmt: skip


@pytest.fixture
def hub(tmp_path: Path):
    with fake_hub(tmp_path / "home") as made:
        made.put("lab/model", "a.pt", save_model(tmp_path / "a.pt").read_bytes())
        made.put("lab/model", "b.pt", save_model(tmp_path / "b.pt", seed=1).read_bytes(), OLD)
        yield made


def toy_predictions(toy, folder: str) -> dict[str, torch.Tensor]:
    with h5py.File(toy.folder / folder / "predictions.h5") as file:
        return {name: torch.from_numpy(file[name][:]) for name in file if file[name].ndim > 1}


def test_load_gives_the_model_also_upstream_s(hub, shared, tmp_path):
    upstream = shared / "parity" / "v031_default_shape.torch"
    named = [f"hf://lab/model/a.pt@{NEW}", "hf://lab/model/b.pt@v1",
             hub.put("lab/upstream", "CAT/v1.torch", upstream.read_bytes())]  # fmt: skip
    python(LOAD, "out.pt", *named, folder=tmp_path, **hub.environment).check_returncode()
    paths = (tmp_path / "a.pt", tmp_path / "b.pt", upstream)
    for state, path in zip(torch.load(tmp_path / "out.pt"), paths, strict=True):
        expected = Cherimoya.load(path).state_dict()
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_an_ensemble_of_the_hub_predicts_and_its_commits_are_noted(hub, toy):
    toy.bed("chrA\t1000\t1100")
    words = ["fasta=toy.fa", "loci=loci.bed", "in_window=300", "device=cpu"]
    named = "checkpoint=[hf://lab/model/a.pt,hf://lab/model/b.pt@v1]"
    local = command("predict", "checkpoint=[a.pt,b.pt]", *words, "output=x", folder=toy.folder)
    assert local.returncode == 0, local.stderr
    done = command("predict", named, *words, "output=y", folder=toy.folder, **hub.environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("hub  ") == 2  # each once
    one, other = (toy_predictions(toy, folder) for folder in "xy")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    noted = json.loads((toy.folder / "y" / "predictions.json").read_text())
    assert noted["commits"] == {"hf://lab/model/a.pt": NEW, "hf://lab/model/b.pt@v1": OLD}
    digests = [hashlib.sha256((toy.folder / f).read_bytes()).hexdigest() for f in ("a.pt", "b.pt")]
    assert [one["sha256"] for one in noted["plan"]["checkpoints"]] == digests
    hub.files["lab/model", "c" * 40] = hub.files["lab/model", NEW]  # the same bytes
    hub.heads["main"] = "c" * 40
    again = command("predict", named, *words, "output=y", folder=toy.folder, **hub.environment)
    assert "done already" in again.stdout, again.stderr


def test_attributions_tell_the_address_and_the_commit(hub, toy):
    toy.bed("chrA\t1000\t1100")
    words = ["fasta=toy.fa", "loci=loci.bed", "data.in_window=300", "method=gradient",
             "window=20", "logos=0", "device=cpu", "output=x.h5"]  # fmt: skip
    for moved, said in ((NEW, "x.h5: 1 locus"), ("c" * 40, "attributed before")):
        hub.files["lab/model", moved] = hub.files["lab/model", NEW]
        hub.heads["main"] = moved
        done = command("attribute", "checkpoint=hf://lab/model/a.pt", *words, folder=toy.folder,
                       **hub.environment)  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert said in done.stdout
    with h5py.File(toy.folder / "x.h5") as file:
        source = json.loads(file.attrs["provenance"])["sources"][0]
    assert (source["key"], source["name"]) == ("checkpoint", "hf://lab/model/a.pt")
    assert (source["commit"], len(source["sha256"])) == (NEW, 64)


def test_a_damaged_file_is_called_by_its_address(hub, toy):
    toy.bed("chrA\t1000\t1100")
    named = hub.put("lab/model", "bad.pt", b"PK\x03\x04 no archive")
    done = command("predict", f"checkpoint={named}", "fasta=toy.fa", "loci=loci.bed",
                   "output=y", folder=toy.folder, **hub.environment)  # fmt: skip
    fails(done, f"error: {named}: ", "is damaged")


@pytest.mark.parametrize(("key", "word"), [
    ("checkpoint", "cherimoya-evaluate"), ("model.init", "train"), ("model.bias", "train"),
])  # fmt: skip
def test_an_address_without_a_file_is_refused_before_anything(key, word, tmp_path):
    name = word.removeprefix("cherimoya-")
    done = command(name, f"{key}=hf://lab/model", folder=tmp_path)
    fails(done, f"{key}=hf://lab/model: it names no file", "hf://owner/name/path/to/file")


def test_all_members_of_a_sweep_are_looked_at_first():
    with pytest.raises(ConfigError, match=r"model.init=hf://lab: it names no repository"):
        build(TrainConfig, composed("train", ["model.init=hf://lab"]))


@pytest.mark.slow
def test_runs_start_from_it_and_are_corrected_by_it(hub, tmp_path):
    def run(*words: str) -> str:
        done = command("train", *TRAINED, *words, folder=tmp_path, **hub.environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("hydra.run.dir=first")
    file = tmp_path / "first" / "checkpoints" / "best.pt"
    named = hub.put("lab/model", "runs/first.pt", file.read_bytes())
    for key, more in (("init", ["data.seen=allow"]), ("bias", [])):
        said = run(f"model.{key}={named}", *more, f"hydra.run.dir={key}")
        assert said.count("hub  ") == 1
        assert named in said.replace("hub  ", "", 1)
        summary = json.loads((tmp_path / key / "summary.json").read_text())
        origin = summary["provenance"][key]
        assert (origin["path"], origin["commit"]) == (named, NEW)
        assert origin["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_what_is_not_there_ends_a_run_before_its_data(hub, tmp_path):
    for key in ("model.init", "model.bias"):
        done = command("train", *TRAINED, f"{key}=hf://lab/model/c.pt", folder=tmp_path,
                       **hub.environment)  # fmt: skip
        fails(done, f"{key}=hf://lab/model/c.pt: ", "has no file c.pt at main. It has a.pt.")
