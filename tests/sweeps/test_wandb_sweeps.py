"""The sweeps for W&B's agents: as conf/sweep has them, and with commands that train."""

import importlib.util

import pytest
import yaml
from command_lines import REPOSITORY
from configs import composed
from wandb.sdk.launch.sweeps import utils

from cherimoya.config.diff import flat
from cherimoya.config.schema import build, to_dict
from cherimoya.config.train import TrainConfig
from cherimoya.records.metrics import METRICS

FOLDER = REPOSITORY / "experiments" / "wandb_sweeps"
spec = importlib.util.spec_from_file_location("make", FOLDER / "make.py")
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)


def test_they_are_those_of_conf_sweep():
    written = {path.stem: path.read_text() for path in FOLDER.glob("*.yaml")}
    wanted = {name: make.document(name) for name in make.names()}
    assert written == wanted, "run python experiments/wandb_sweeps/make.py"


def test_another_folder_and_words_of_ones_own(tmp_path, monkeypatch):
    arguments = ["make.py", "--to", str(tmp_path / "mine"), "data=hdf5", "data.path=my.h5"]
    monkeypatch.setattr("sys.argv", arguments)
    make.main()
    sweep = yaml.safe_load((tmp_path / "mine" / "depth_width_small.yaml").read_text())
    assert sweep["command"][2:5] == ["trainer.max_epochs=4", "data=hdf5", "data.path=my.h5"]
    assert sweep["parameters"]["model.n_layers"] == {"values": [3, 5, 7]}


@pytest.mark.parametrize("name", make.names())
def test_an_agents_command_is_one_of_ours(name):
    """As W&B's own client fills it in, at both ends of each parameter."""
    sweep = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    env, program, *fixed, macro = utils.create_sweep_command(sweep["command"])
    assert [env, program, macro] == ["${env}", "${program}", "${args_no_hyphens}"]
    assert sweep["metric"]["name"] in {f"valid/{metric}" for metric in ("loss", *METRICS)}
    for end in (0, -1):
        values = {
            key: ([part["min"], part["max"]] if "min" in part else part["values"])[end]
            for key, part in sweep["parameters"].items()
        }
        args = {key: {"value": value} for key, value in values.items()}
        words = utils.create_sweep_command_args({"args": args})["args_no_hyphens"]
        config = build(TrainConfig, composed("train", fixed + words))
        made = flat(to_dict(config))
        chosen = {key: key.replace("/", ".") for key in values}
        chosen = {k: v if v in made else f"{v}.name" for k, v in chosen.items()}
        assert {key: made[chosen[key]] for key in values} == values


def test_numbers_in_wandbs_words():
    parts = {
        "log": make.Numbers(1e-5, 0.1, log=True),
        "whole": make.Numbers(2, 9, whole=True),
        "steps": make.Numbers(0.1, 0.3, step=0.1),
        "words": make.Choices(("1e-4", "true", "muon")),
    }
    assert {key: make.parameter(part) for key, part in parts.items()} == {
        "log": {"distribution": "log_uniform_values", "min": 1e-5, "max": 0.1},
        "whole": {"distribution": "int_uniform", "min": 2, "max": 9},
        "steps": {"values": [0.1, 0.2, 0.3]},
        "words": {"values": [1e-4, True, "muon"]},
    }
