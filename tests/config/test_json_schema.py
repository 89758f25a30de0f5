"""The JSON schema of a configuration accepts ours, and refuses what the commands refuse."""

import json
import subprocess
import sys
from functools import partial

import pytest
from configs import made_of
from omegaconf import OmegaConf

from cherimoya.cli import commands
from cherimoya.config.command_line import conf_dir
from cherimoya.config.json_schema import json_schema
from cherimoya.config.schema import to_dict
from cherimoya.config.train import TrainConfig

jsonschema = pytest.importorskip("jsonschema")
SCHEMAS = {n: v.args[1] for n, v in vars(commands).items() if isinstance(v, partial)}
SCHEMAS["train"] = TrainConfig
RECIPES = sorted(path.stem for path in (conf_dir() / "experiment").glob("*.yaml"))


def checker(command: str):
    made = json_schema(command, SCHEMAS[command])
    jsonschema.Draft202012Validator.check_schema(made)
    return jsonschema.Draft202012Validator(made)


def contents(name: str) -> dict:
    return OmegaConf.to_container(OmegaConf.load(conf_dir() / f"{name}.yaml"))


@pytest.mark.parametrize("command", SCHEMAS)
def test_our_own_files_are_accepted(command):
    checker(command).validate(contents(command))


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_are_accepted(recipe):
    checker("train").validate(contents(f"experiment/{recipe}"))


@pytest.mark.parametrize("source", ["synthetic", "hdf5"])
def test_a_whole_configuration_is_accepted(source):
    words = [f"data={source}", "optim=muon_adamw_sgd"]
    words += ["data.path=a.h5", "data.fold=0"] if source == "hdf5" else []
    checker("train").validate(to_dict(made_of(words).config))


@pytest.mark.parametrize(
    ("key", "value", "valid"),
    [
        ("model.n_filters", 96, True),
        ("model.n_filters", "${model.n_layers}", True),
        ("model.n_filters", 0, False),
        ("model.n_filters", 9.5, False),
        ("model.n_filters", "wide", False),
        ("model.n_filter", 96, False),
        ("model.signal_groups", [1, 2], True),
        ("model.signal_groups", [0], False),
        ("model.signal_groups", None, True),
        ("trainer.precision", "bf16", True),
        ("trainer.precision", "bf17", False),
        ("trainer.min_improvement", 1, False),
        ("data.test_chroms", ["chr1", 2], True),
        ("data.fold", 5, False),
        ("optim.muon", None, True),
        ("optim.muon.lr", -1, False),
        ("optim.mine", {"name": "mine:Signs", "lr": 0.1}, True),
        ("optim.routing", [{"pattern": "*", "optimizer": "adamw"}], True),
        ("optim.routing", [{"patern": "*", "optimizer": "adamw"}], False),
        ("loss", {"name": "mine:Scaled", "strength": 2}, True),
        ("seeds", 1, False),
    ],
)
def test_values_are_judged_as_the_command_judges_them(key, value, valid):
    made = OmegaConf.to_container(OmegaConf.from_dotlist([]))
    inner, *path = key.split(".")[::-1]
    made = {inner: value}
    for name in path:
        made = {name: made}
    assert checker("train").is_valid(made) is valid


def test_it_is_printed(tmp_path):
    code = "from cherimoya.cli.train import train; train()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--cfg", "schema"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == json.loads(json.dumps(json_schema("train", TrainConfig)))
