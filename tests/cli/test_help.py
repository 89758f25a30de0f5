"""--help says what every key is for, which values it takes, and answers at once."""

import re
import subprocess
import sys
from dataclasses import dataclass
from functools import partial

import pytest

from cherimoya import __version__
from cherimoya.cli import commands, help
from cherimoya.config import explain
from cherimoya.config.interpret import HitsConfig
from cherimoya.config.keys import known_fields
from cherimoya.config.schema import checked
from cherimoya.config.train import TrainConfig
from cherimoya.errors import ConfigError

SCHEMAS = {
    name: value.args[1] for name, value in vars(commands).items() if isinstance(value, partial)
} | {"train": TrainConfig}
OPTIONS = {  # that bring in the keys of others
    "train": ["data=hdf5", "optim=recommended", "logger=[wandb,csv]", "model.bias=train"],
}


@dataclass(frozen=True)
class Some:
    """Values of several kinds."""

    n: int = checked(at_least=1, at_most=24)
    share: float | None = checked(above=0, below=1)
    names: list[str] | None = checked()
    kind: str | None = checked(choices=("a", "b", "c"))
    far: int = checked(at_least=-(10**7), at_most=10**9)


def test_types_and_ranges_are_in_words():
    kinds = {key.name: key.kind for key in explain.explained(Some, Some.__annotations__, {})}
    assert kinds == {
        "n": "whole number >= 1 and <= 24",
        "share": "number > 0 and < 1, or null",
        "names": "list of texts, or null",
        "kind": "a, b or c, or null",
        "far": "whole number",
    }


def test_comments_of_a_file_are_read(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "# @package x.y\n# What it is\n# for.\n#   cherimoya-train a=b\n# More.\n"
        "defaults:\n  - model: a # the network\n"
        "a: 1 # one\n     # and more\n# no comment of a key\n"
        "b: 'x # y' # two\n"
        "c: # three\n  d: [1] # four\n  e: null\nf: 5 # five\n"
    )
    found = explain.read_comments(tmp_path / "a.yaml")
    assert found.of_file == "What it is for."
    assert found.of_keys == {
        "defaults": "", "defaults.model": "the network", "a": "one and more", "b": "two",
        "c": "three", "c.d": "four", "c.e": "", "f": "five",
    }  # fmt: skip


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_key_has_a_sentence_a_type_and_a_default(name):
    text = help.help_text(name, SCHEMAS[name], OPTIONS.get(name, []))
    listed = re.split(r"\n(?=  [a-z_][\w.]*=)", text.split("--help KEY explains one):\n")[1])
    assert len(listed) > {"dashboard": 2, "export": 5}.get(name, 10)
    for entry in listed:
        words = " ".join(entry.split())
        assert re.match(r"[a-z_][\w.]*=.*[a-z]{3}.* \([^()]+\)", words), words
    rows = "\n".join(listed).splitlines()
    assert max(len(row) for row in rows if "optim.routing=" not in row) <= help.WIDEST


OWN_NULL = ("data.keys.", "data.path", "bias_model")  # each of whose options sets or refuses it


@pytest.mark.parametrize("name", SCHEMAS)
def test_what_null_means_is_said(name):
    """Of each key that can be null, one is told what it then does."""
    schema = SCHEMAS[name]
    said = explain.sentences(name, {"data": "hdf5"} if name == "train" else None)
    nullable = [
        k for k in explain.explained(schema, known_fields(schema), said) if "null" in k.kind
    ]
    assert nullable
    unsaid = [k.name for k in nullable if not re.search(r"\bnull\b", k.sentence)]
    unsaid = [key for key in unsaid if not key.startswith(OWN_NULL)]
    assert unsaid == (["target"] if name == "design" else [])  # which refuses it


def test_the_values_are_those_that_are_composed():
    text = help.help_text("train", TrainConfig, ["model=recommended", "trainer.max_epochs=3"])
    assert "model.n_filters=128 " in text
    assert "trainer.max_epochs=3 " in text
    assert re.search(r"\n  model +recommended, cherimoya, tiny", text)
    assert "attributions=<required> " in help.help_text("hits", HitsConfig, [])


@pytest.mark.parametrize(
    ("asked", "parts"),
    [
        ("trainer.min_improvement", [
            "trainer.min_improvement=0.0\n", "number >= 0 and < 1\n",
            "it does nothing where trainer.early_stopping=null waits for no improvement: set "
            "trainer.early_stopping=5.",
        ]),
        ("loss.count_weight", ["loss.count_weight\n", "number > 0\n", "a key of loss=fixed"]),
        ("model/blocks", [
            "model/blocks=cheri (chosen)", "model/blocks=bpnet", "BPNet's block",
            "model.blocks.expansion=2",
        ]),
        ("experiment", ["experiment=recommended", "The recipe for data of your own"]),
        ("data.synthetic", ["data.synthetic.seed=0", "data.synthetic.bias=false"]),
        ("logger", ["logger=wandb (chosen)", "logger.wandb.project=cherimoya"]),
    ],
)  # fmt: skip
def test_one_key_or_group_is_explained(asked, parts):
    text = help.help_text("train", TrainConfig, [], asked) + "\n"
    words = " ".join(text.split())
    for part in parts:
        assert part in (text if part.endswith("\n") else words)
    assert len(text.splitlines()) < 40


def test_a_key_that_is_not_there_is_asked_back():
    with pytest.raises(ConfigError, match=r"--help n_filter: .*no such key.* Did you mean"):
        help.help_text("train", TrainConfig, [], "n_filter")


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["-h"], ["--help", "trainer.device"], ["--version"], ["data=hdf5", "--help"]],
)
def test_it_answers_without_the_heavy_packages(arguments):
    code = (
        "import sys; from cherimoya.cli.train import train; train(); "
        "assert not {'torch', 'wandb', 'numpy', 'h5py'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    if arguments == ["--version"]:
        assert re.match(rf"cherimoya-train {re.escape(__version__)} \(Python 3\.", done.stdout)
        assert "torch 2" in done.stdout
    if "trainer.device" in arguments:
        assert done.stdout.startswith("trainer.device=auto\n")


def test_bash_completes_groups_options_and_keys():
    shell = "bash", "--norc", "-c"
    script = "from cherimoya.cli.train import train; train()"
    for line, expected in (
        ("cherimoya-train mod", "model"),
        ("cherimoya-train model=ti", "model=tiny"),
        ("cherimoya-train model.n_f", "model.n_filters="),
    ):
        asked = (
            f"COMP_LINE='{line}' COMP_POINT={len(line)} exec \"$0\" -c '{script}' -sc query=bash"
        )
        done = subprocess.run([*shell, asked, sys.executable], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout.split()
