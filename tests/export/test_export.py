"""Exported models answer as the model does, wherever they are read."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_lines import command, fails, python
from configs import composed
from fake_hub import NEW, fake_hub
from interpreted import save_model
from models import model as small_model
from models import sequences

import cherimoya
from cherimoya.config.export import ENDINGS, ExportConfig
from cherimoya.config.schema import build
from cherimoya.errors import CherimoyaError, ConfigError, DataError, PackageError
from cherimoya.export import export as exporting
from cherimoya.export.export import export
from cherimoya.export.formats import FORMATS, OPSET
from cherimoya.inference.checkpoints import find_checkpoint
from cherimoya.network import Cherimoya
from cherimoya.ops.dispatch import plain_pytorch

LENGTH = 150
BLOCKS = {"bpnet": {}, "convnext": {"expansion": 2, "residual_scale": 0.5}}
LOAD = """
import json, sys, torch
sys.modules["cherimoya"] = None  # so that it cannot be imported
facts = {"cherimoya.json": ""}
program = torch.export.load(sys.argv[1], extra_files=facts)
given = torch.load(sys.argv[2])
torch.save(program.module()(*given), sys.argv[3])
print(facts["cherimoya.json"])
"""


def made(path: Path, model: Cherimoya, **told) -> Path:
    torch.save({"config": model.config, "state_dict": model.state_dict(), **told}, path)
    return path


def exported(checkpoint: Path, kind: str, *words: str, name: str = "x") -> Path:
    output = checkpoint.with_name(name + ENDINGS[kind])
    given = [f"checkpoint=[{checkpoint}]", f"output={output}", *words]
    return export(build(ExportConfig, composed("export", given)))


def graph(path: Path, kind: str, *words: str) -> Path:
    return exported(path, kind, f"in_window={LENGTH}", *words)


@torch.no_grad()
def answers(path: Path, kind: str, X: torch.Tensor, X_ctl: torch.Tensor | None = None):
    return FORMATS[kind].read(path)(X, X_ctl)


def assert_same(found, expected, tolerance: float = 1e-5) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert float((a - b).abs().max()) <= tolerance * max(1.0, float(b.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "torch_export"])
def test_groups_and_controls_in_batches_of_any_size(kind, tmp_path, capsys):
    model = small_model(controls=2)
    path = graph(made(tmp_path / "a.pt", model), kind)
    assert "largest difference" in capsys.readouterr().out
    for n in (1, 3, 7):
        X, X_ctl = sequences(n, LENGTH, n), torch.rand(n, 2, LENGTH)
        with torch.no_grad():
            assert_same(answers(path, kind, X, X_ctl), model(X, X_ctl))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "torch_export"])
@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_is_exported(kind, block, tmp_path):
    torch.manual_seed(0)
    model = Cherimoya(8, 2, trimming=20, block={"name": block, **BLOCKS[block]}).eval()
    path = graph(made(tmp_path / "a.pt", model), kind)
    X = sequences(3, LENGTH)
    with torch.no_grad():
        assert_same(answers(path, kind, X), model(X))


@pytest.mark.slow
@pytest.mark.parametrize(("word", "bias"), [
    ("bias=false", False), ("bias=true", True), ("bias=null", True),
])  # fmt: skip
def test_a_bias_model_answers_if_asked(word, bias, tmp_path):
    own = Cherimoya(8, 2, trimming=30, bias_model=Cherimoya(4, 1, trimming=20))
    torch.nn.init.normal_(own.bias_model.linear.bias, 3.0)
    file = made(tmp_path / "a.pt", own)
    path, X = graph(file, "torch_export", word), sequences(2, LENGTH)
    with torch.no_grad():
        assert_same(answers(path, "torch_export", X), cherimoya.load(file, bias=bias)(X))
        other = cherimoya.load(file, bias=not bias)(X)
    assert not torch.allclose(answers(path, "torch_export", X)[1], other[1])


def test_a_safetensors_file_is_the_checkpoint_to_the_bit(tmp_path):
    own = Cherimoya(8, 2, trimming=30, signal_groups=[1, 2], bias_model=Cherimoya(
        4, 1, trimming=20, signal_groups=[1, 2]))  # fmt: skip
    told = {"window": (160, 100), "groups": ["A", "B"], "trained_on": {"chr1": True, "chr2": False}}
    file = made(tmp_path / "a.pt", own, **told)
    path, X = exported(file, "safetensors"), sequences(2, LENGTH)
    for bias in (False, True):
        one, other = cherimoya.load(file, bias=bias), cherimoya.load(path, bias=bias)
        assert one.config == other.config
        with torch.no_grad():
            assert all(torch.equal(a, b) for a, b in zip(one(X), other(X), strict=True))
    found = find_checkpoint(str(path))
    assert (found.window, found.groups) == ((160, 100), ["A", "B"])
    assert found.trained_on() == told["trained_on"]
    again = exported(path, "safetensors", name="y")  # of which nothing is lost
    assert find_checkpoint(str(again)).trained_on() == told["trained_on"]


def test_weights_of_half_precision_are_those_of_load(tmp_path):
    model = small_model(groups=[1])
    half = {name: value.bfloat16() for name, value in model.state_dict().items()}
    file = tmp_path / "a.pt"
    torch.save({"config": model.config, "state_dict": half}, file)
    for kind in ("safetensors", "torch_export"):
        words = [] if kind == "safetensors" else [f"in_window={LENGTH}"]
        path, X = exported(file, kind, *words), sequences(2, LENGTH)
        with torch.no_grad():
            assert_same(answers(path, kind, X), cherimoya.load(file)(X))


def test_the_window_is_that_of_training_and_facts_are_in_the_file(tmp_path):
    onnx = pytest.importorskip("onnx")
    told = {"window": (LENGTH, LENGTH - 40), "groups": ["A", "B"], "trained_on": {"chr1": True}}
    file = made(tmp_path / "a.pt", small_model(), **told)
    path = exported(file, "onnx")
    proto = onnx.load(path)
    assert [one.version for one in proto.opset_import if one.domain == ""] == [OPSET]
    facts = {one.key: json.loads(one.value) for one in proto.metadata_props}
    assert facts["config"] == small_model().config
    assert facts["window"] == [LENGTH, LENGTH - 40]
    assert (facts["groups"], facts["trained_on"]) == (["A", "B"], {"chr1": True})
    assert facts["provenance"]["sources"][0]["name"] == "a.pt"
    shapes = {
        one.name: [d.dim_param or d.dim_value for d in one.type.tensor_type.shape.dim]
        for one in (*proto.graph.input, *proto.graph.output)
    }
    assert shapes == {
        "sequence": ["batch", 4, LENGTH], "profile": ["batch", 3, LENGTH - 40],
        "counts": ["batch", 2],
    }  # fmt: skip
    assert str(Path(cherimoya.__file__).parent).encode() not in path.read_bytes()


@pytest.mark.slow
def test_torch_reads_it_without_this_package(tmp_path):
    model = small_model(controls=1)
    path = graph(made(tmp_path / "a.pt", model), "torch_export")
    given = sequences(4, LENGTH), torch.rand(4, 1, LENGTH)
    torch.save(given, tmp_path / "given.pt")
    done = python(LOAD, str(path), "given.pt", "out.pt", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        assert_same(torch.load(tmp_path / "out.pt"), model(*given))
    facts = json.loads(done.stdout)
    assert facts["config"] == model.config
    assert facts["window"] == [LENGTH, LENGTH - 40]
    assert b"stack_trace" not in path.read_bytes()


def test_pytorch_s_own_operations_are_exported(tmp_path, monkeypatch):
    monkeypatch.setenv("CHERIMOYA_KERNELS", "triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with plain_pytorch(), torch.no_grad():
        expected = small_model(groups=[1])(sequences(2, LENGTH))
    monkeypatch.setattr(exporting, "_difference", lambda *_: 0.0)
    path = graph(made(tmp_path / "a.pt", small_model(groups=[1])), "torch_export")
    program = torch.export.load(path)
    assert not [n for n in program.graph.nodes if str(n.target).startswith("cherimoya")]
    assert_same(answers(path, "torch_export", sequences(2, LENGTH)), expected)


@pytest.mark.parametrize("kind", ["safetensors", "torch_export"])
def test_a_file_that_answers_otherwise_is_not_kept(kind, tmp_path, monkeypatch):
    file = made(tmp_path / "a.pt", small_model())
    real = FORMATS[kind]

    def read(path: Path):
        run = real.read(path)
        return lambda X, X_ctl: tuple(value * 1.001 for value in run(X, X_ctl))

    monkeypatch.setitem(FORMATS, kind, replace(real, read=read))
    words = [] if kind == "safetensors" else [f"in_window={LENGTH}"]
    with pytest.raises(CherimoyaError, match=r"answers differ .* so it is not kept"):
        exported(file, kind, *words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt"]


def test_answers_that_are_not_numbers_are_told(tmp_path):
    model = small_model()
    torch.nn.init.constant_(model.linear.bias, torch.nan)
    with pytest.raises(DataError, match="not finite"):
        exported(made(tmp_path / "a.pt", model), "safetensors")
    assert not (tmp_path / "x.safetensors").exists()


def test_a_block_that_cannot_be_exported_is_named(tmp_path, monkeypatch):
    code = (
        "from torch import nn\n"
        "class Fickle(nn.Module):\n"
        "    def __init__(self, n_filters, dilation):\n"
        "        super().__init__()\n"
        "    def forward(self, x, trim=0):\n"
        "        x = x if float(x.sum()) > 0 else 2 * x\n"
        "        return x[:, trim : x.shape[1] - trim]\n"
    )
    (tmp_path / "fickle.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    model = Cherimoya(4, 1, trimming=20, block={"name": "fickle:Fickle"})
    file = made(tmp_path / "a.pt", model)
    for kind in ("onnx", "torch_export"):
        with pytest.raises(CherimoyaError, match=r"block fickle:Fickle .*cannot be exported"):
            graph(file, kind)
    assert exported(file, "safetensors").is_file()


def test_what_is_there_is_left_or_made_once(tmp_path, capsys):
    file = made(tmp_path / "a.pt", small_model())
    path = exported(file, "safetensors")
    capsys.readouterr()
    exported(file, "safetensors")
    assert "done already" in capsys.readouterr().out
    other = save_model(tmp_path / "b.pt")
    with pytest.raises(DataError, match="exists already, made with another sources"):
        exported(other, "safetensors")
    exported(other, "safetensors", "overwrite=true")
    assert Cherimoya.load(path).config == Cherimoya.load(other).config
    (tmp_path / "mine.safetensors").write_text("mine")
    with pytest.raises(DataError, match=r"mine.safetensors: exists already.*overwrite=true"):
        exported(other, "safetensors", name="mine")
    with pytest.raises(ConfigError, match="would be overwritten"):
        exported(path, "safetensors", "overwrite=true")


@pytest.mark.slow
@pytest.mark.parametrize(("words", "said"), [
    (["output=a.bin"], "its ending says what is written: .safetensors"),
    (["output=a.pt2", "export=onnx"], "with export=onnx its name ends in .onnx"),
    (["output=a.onnx", "checkpoint=[a.pt,b.pt]"], "one model is exported at a time"),
    (["output=a.onnx", "checkpoint=hf://lab"], "checkpoint=hf://lab: it names no repository"),
    (["output=a.onnx", "in_window=40"], "the model trims 20 bases from each side"),
    (["output=a.onnx", "bias=true"], "was trained without a bias model"),
    (["output=a.onnx", "checkpoint=no.pt"], "checkpoint=no.pt: no.pt does not exist"),
])  # fmt: skip
def test_what_cannot_be_ends_in_one_message(words, said, tmp_path):
    made(tmp_path / "a.pt", small_model())
    fails(command("export", "checkpoint=a.pt", *words, folder=tmp_path), said)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.parametrize(("kind", "missing"), [
    ("safetensors", "safetensors"), ("onnx", "onnxscript"), ("onnx", "onnxruntime"),
])  # fmt: skip
def test_the_extra_of_a_package_is_named(kind, missing, tmp_path, monkeypatch):
    file = made(tmp_path / "a.pt", small_model())
    monkeypatch.setitem(sys.modules, missing, None)
    said = rf"{missing} is not installed.*pip install 'cherimoya-train\[export\]'"
    with pytest.raises(PackageError, match=said):
        exported(file, kind)


def test_a_checkpoint_of_the_hub_and_its_commit(tmp_path):
    with fake_hub(tmp_path / "home") as hub:
        named = hub.put("lab/model", "a.pt", save_model(tmp_path / "a.pt").read_bytes())
        words = [f"checkpoint={named}", "output=x.safetensors"]
        done = command("export", *words, folder=tmp_path, **hub.environment)
    assert done.returncode == 0, done.stderr
    with pytest.importorskip("safetensors").safe_open(tmp_path / "x.safetensors", "pt") as file:
        source = json.loads(file.metadata()["provenance"])["sources"][0]
    assert (source["name"], source["commit"]) == (named, NEW)


@pytest.mark.slow
def test_every_command_reads_a_safetensors_file(tmp_path, toy):
    toy.bed("chrA\t1000\t1100")
    file = save_model(toy.folder / "a.pt")
    exported(file, "safetensors")
    for name, output in ((file.name, "p"), ("x.safetensors", "q")):
        done = command("predict", f"checkpoint={name}", "fasta=toy.fa", "loci=loci.bed",
                       "in_window=300", f"output={output}", "device=cpu",
                       folder=toy.folder)  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert np.array_equal(*(h5_logits(toy.folder / folder) for folder in "pq"))


def h5_logits(folder: Path) -> np.ndarray:
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "predictions.h5") as file:
        return np.concatenate([file[n][:].ravel() for n in file if file[n].dtype.kind == "f"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ENDINGS)
@pytest.mark.parametrize("case", ["v010_expansion4_scale05_controls", "v031_groups_controls"])
def test_upstream_s_models_give_upstream_s_numbers(kind, case, shared, tmp_path):
    golden = torch.load(shared / "parity" / f"{case}.pt")
    codes = golden["sequence_codes"].long()
    X = torch.nn.functional.one_hot(codes, 5)[..., :4].transpose(1, 2).float()
    words = [] if kind == "safetensors" else [f"in_window={X.shape[2]}"]
    file = tmp_path / "a.torch"
    file.write_bytes((shared / "parity" / f"{case}.torch").read_bytes())
    profile, counts = answers(exported(file, kind, *words), kind, X, golden["controls"])
    assert_same((profile, counts), (golden["profile_logits"], golden["log_counts"]), 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ENDINGS)
def test_the_default_network_of_its_whole_window(kind, tmp_path, capsys):
    file = save_model(tmp_path / "a.pt", n_filters=96, n_layers=9, signal_groups=[1], trimming=557)
    path = exported(file, kind)
    assert "2,114 bases, for 1,000 predicted" in capsys.readouterr().out
    X = sequences(3, 2114)
    with torch.no_grad():
        assert_same(answers(path, kind, X), cherimoya.load(file)(X), 1e-4)
