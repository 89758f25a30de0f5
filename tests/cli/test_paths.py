"""Any name of a file is read as it is typed, by every key of every command that is a file."""

import json
import shlex
from functools import partial

import pytest
from command_lines import command
from configs import composed
from omegaconf import OmegaConf
from toy import Toy

from cherimoya.cli import commands
from cherimoya.config.command_line import parse, readable
from cherimoya.config.groups import plain_values
from cherimoya.config.keys import known_keys, named_depth, text_depth
from cherimoya.config.train import TrainConfig
from cherimoya.records.sweep import member_name

SCHEMAS = {n: v.args[1] for n, v in vars(commands).items() if isinstance(v, partial)}
SCHEMAS["train"] = TrainConfig
FILES = {
    "prepare": {
        "fasta", "loci", "exclude", "chrom_alias", "signal", "control", "fragments.groups",
        "output",
    },
    "dashboard": set(),
    "evaluate": {"checkpoint", "output", "data.path", "replicate"},
    "predict": {"checkpoint", "output", "fasta", "loci", "chrom_alias", "control"},
    "attribute": {
        "checkpoint", "output", "data.path", "loci", "fasta", "chrom_alias", "motif_file",
    },
    "variants": {"checkpoint", "output", "variants", "fasta", "chrom_alias", "peaks"},
    "marginalize": {
        "checkpoint", "output", "data.path", "loci", "fasta", "chrom_alias", "motif_file",
    },
    "hits": {"attributions", "motifs", "output"},
    "design": {"checkpoint", "output", "data.path", "loci", "fasta", "chrom_alias"},
    "export": {"checkpoint", "output"},
    "train": {
        "model.bias", "model.init", "data.path", "data.cache_dir", "trainer.resume",
        "hydra.run.dir", "hydra.sweep.dir",
    },
}  # fmt: skip
NO_FILES = {  # text of other kinds, by any command
    "bam.duplicates", "bam.mates", "fragments.kind", "genome", "shift", "center", "overlap",
    "project", "entity", "name", "device", "precision", "data.groups", "split", "chroms", "format",
    "values", "track_names", "target", "method", "targets", "groups", "against", "export",
    "model.count_bias", "model.freeze", "data.source", "data.placement", "data.leave_out",
    "data.seen", "trainer.device", "trainer.precision",
}  # fmt: skip
NO_FILES_BELOW = (
    "data.keys.", "model.blocks.", "loss.", "optim.", "logger.", "bias_model.blocks.",
    "data.train_", "data.validation_", "data.test_", "data.exclude_",
)  # fmt: skip
NAMES = [
    "hg38(p14).fa", "a b.fa", "x=y.fa", "a,b.fa", "größe.fa", "基因.fa", "it's.fa", "[x].fa",
    "{x}.fa", 'a"b.fa', "a\\b.fa", "#x.fa", "!x.fa", "a;b.fa", "a&b.fa", "1e5", "123", "true",
    "a:b.fa", "$x.fa", "x${y}.fa", "a|b*.fa", "-x.fa", "s/n_filters=16,n_layers=2/best.pt",
    "lr=1e-3,wd=0.1,seed=0", "ends\\", "chr1.fa~", "100%.fa", "a@b.fa", "x\tz.fa",
]  # fmt: skip
LEFT_OPEN = {  # by a shell, behind = or in quotes
    "~/g.fa": "/home/me/g.fa", "$DATA/g.fa": "/my data/g.fa", "${DATA}/g.fa": "/my data/g.fa",
    "a/$DATA_1(x)/g": "a/one(x)/g", "~": "/home/me", "$ABSENT_1/g.fa": "$ABSENT_1/g.fa",
}  # fmt: skip
CASES = [(name, key) for name, keys in FILES.items() for key in sorted(keys)]


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_key_that_is_text_is_a_file_or_is_none(name):
    """A new key is put among FILES here, or among NO_FILES."""
    schema = SCHEMAS[name]
    text = {k for k in known_keys(schema) if text_depth(schema, k) or named_depth(schema, k)}
    others = {k for k in text if k in NO_FILES or k.startswith(NO_FILES_BELOW)}
    others |= {"motifs"} if name == "marginalize" else set()  # letters there
    assert text - others == {k for k in FILES[name] if not k.startswith("hydra.")}


def forms(name: str, key: str, said: str, wanted: str) -> dict[str, object]:
    """The words by which `key` can be given a file, and their values."""
    schema, bare = SCHEMAS[name], key.startswith("hydra.")
    depth, alone = (0, True) if bare else text_depth(schema, key)
    found: dict[str, object] = {f"{key}={said}": wanted} if alone else {}
    if depth == 1:
        found[f"{key}=[o.x,{said}]"] = ["o.x", wanted]
    if depth == 2:
        found[f"{key}=[[{said},o.x],[{said}]]"] = [[wanted, "o.x"], [wanted]]
        if not said.startswith("["):
            found[f"{key}={said}"] = wanted  # one file is one group of one track
    if not bare and named_depth(schema, key):
        found[f"{key}={{A:[{said}],B:[o.x]}}"] = {"A": [wanted], "B": ["o.x"]}
    return found


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A folder with a file of each name."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"HOME": "/home/me", "DATA": "/my data", "DATA_1": "one"}.items():
        monkeypatch.setenv(name, value)
    for name in NAMES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def composed_value(word: str, name: str) -> object:
    """What the command composes of the word."""
    read = parse(readable(word, SCHEMAS[name], several=name == "train"))
    assert not read.is_sweep_override(), word
    value = read.value()
    value = {str(k): v for k, v in value.items()} if isinstance(value, dict) else value
    return OmegaConf.to_container(OmegaConf.create({"x": value}), resolve=True)["x"]


@pytest.mark.parametrize(("name", "key"), CASES, ids=[f"{n}-{k}" for n, k in CASES])
def test_a_name_is_read_as_it_is_typed(name, key, there):
    for said, wanted in ({each: each for each in NAMES} | LEFT_OPEN).items():
        for word, expected in forms(name, key, said, wanted).items():
            assert composed_value(word, name) == expected, word


def test_files_of_configurations_leave_home_and_variables_open(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DATA", "/my data")
    values = composed("train", ["data=hdf5", "data.path='~/x.h5'", "model.init='$DATA/run'"])
    plain = plain_values(OmegaConf.create(values))
    assert plain["data"]["path"] == "/home/me/x.h5"
    assert plain["model"]["init"] == "/my data/run"


def test_a_variable_that_is_not_set_is_named(tmp_path):
    done = command("export", "checkpoint=${ABSENT_1}/a.pt", "output=a.onnx", folder=tmp_path)
    assert "the environment variable ABSENT_1 is not set. Set it" in done.stderr


def test_a_folder_of_configurations_at_home(tmp_path):
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "own.yaml").write_text("# @package _global_\nseed: 7\n")
    for folder in ("~/mine", "$HOME/mine"):
        words = [f"--config-dir={folder}", "experiment=own", "--cfg", "job"]
        done = command("train", *words, folder=tmp_path, HOME=str(tmp_path))
        assert "\nseed: 7\n" in done.stdout, done.stderr


@pytest.mark.parametrize("value", ["0.1", "[0.3, 0.5]", "'a b(c)'", "{x: 1}", "größe", "a/b", "+3"])
def test_folders_of_a_sweep_need_no_quotes(value):
    """In no shell: every sign is one that shells leave alone."""
    made = member_name({"model.n_layers": "3", "optim.muon.lr": value})
    assert shlex.split(made) == [made]
    assert not set(made) & set("()[]{}<>|&;*?!$`\"'\\ \t#~%^")


@pytest.mark.slow
def test_every_command_on_files_of_any_name(toy: Toy, small_data, train_arguments):
    """From tracks to a page, in a folder, with files and as members of a sweep that need quotes."""
    odd = toy.folder / "größe = 2, (v1) it's"
    odd.mkdir()
    toy.fasta()
    toy.bed(*(f"chrA\t{at}\t{at + 1}" for at in range(300, 1500, 100)))
    for name in ("toy.fa", "plus.bw", "minus.bw", "loci.bed"):
        (toy.folder / name).rename(odd / f"a=[1],{name}")

    def run(name: str, *words: str) -> str:
        done = command(name, *words, folder=toy.folder, DATA=str(odd))
        assert done.returncode == 0, done.stderr
        return done.stdout

    bases, loci = "fasta=$DATA/a=[1],toy.fa", f"loci={odd}/a=[1],loci.bed"
    tracks = f"signal=[[{odd}/a=[1],plus.bw,{odd}/a=[1],minus.bw]]"
    run(
        "prepare", bases, loci, tracks, f"output={odd}/o,1.h5", "in_window=100", "out_window=60",
        "max_jitter=4", "background_ratio=0",
    )  # fmt: skip
    small = odd / "small, (1).h5"
    small.write_bytes(small_data.read_bytes())
    words = [w for w in train_arguments if not w.startswith("data.path=")]
    sweep = f"{odd}/s"
    run(
        "train", "-m", *words, "data.path=$DATA/small, (1).h5", f"hydra.sweep.dir={sweep}",
        "trainer.max_epochs=1", "seed=0,1", "model.n_layers=3,4",
    )  # fmt: skip
    members = sorted(p.parent for p in (odd / "s").glob("*/summary.json"))
    assert len(members) == 4
    both = f"checkpoint=[{members[0]},{members[2]}]"
    run("evaluate", both, f"output={odd}/e,(1)")
    scores = json.loads((odd / "e,(1)" / "scores.json").read_text())
    assert len(scores["checkpoints"]) == 2
    run("predict", both, bases, f"output={odd}/p,(1)", "in_window=200")
    one = f"checkpoint={members[0]}"
    run("attribute", one, f"output={odd}/at,1.h5", "max_loci=2", "logos=0")
    run("marginalize", one, f"output={odd}/m,1.tsv", "motifs=[CGGGTAA]", "max_loci=4")
    run("export", one, f"output={odd}/x,(1).safetensors")
    assert "report.html" in run("report", str(members[0]), str(odd / "e,(1)"))
    (members[1] / "summary.json").unlink()
    assert "resumed after" in run("train", f"trainer.resume={members[1]}")
