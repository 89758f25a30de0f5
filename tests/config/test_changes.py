"""The command that makes a run anew asks for exactly its configuration."""

import shlex

import pytest
from configs import composed, made_of
from hydra.core.override_parser.overrides_parser import OverridesParser

from cherimoya.config.diff import Changes, command, hydra_value, read_changes, write_changes
from cherimoya.config.schema import build, to_dict
from cherimoya.config.train import TrainConfig


@pytest.mark.parametrize(
    "value",
    [
        None, True, False, 3, -1.5, 1e-05, 1e30, "plain", "with space", "/a/b.h5", "1e5", "null",
        "True", "it's", "back\\slash", "end\\", "\\'", "a,b=[c]", "", "ünïcode", "nan", ".5",
        [], ["sim8", "1"], [1, None], {"lr": 0.001, "name": "x y"}, [{"pattern": "*"}], [[]],
    ],
    ids=repr,
)  # fmt: skip
def test_values_survive_hydras_command_line(value):
    override = OverridesParser.create().parse_override(f"key={hydra_value(value)}")
    assert override.value() == value


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["model=tiny", "trainer.max_epochs=3", "seed=4"],
        ["optim=muon_adamw_sgd", "loss=fixed", "logger.wandb.tags=[a b]"],
        ["optim=adamw", "data=hdf5", "data.path=/x y/z.h5", "data.validation_chroms=['1']",
         "data.test_chroms=[]"],
        ["experiment=yeast_atac", "data.keys={sequence: X, signal: y, control: null, label: null, "
         "chrom: null}"],
    ],
    ids=["default", "tiny", "sgd", "hdf5", "keys"],
)  # fmt: skip
def test_the_command_composes_to_the_configuration(overrides):
    wanted = to_dict(build(TrainConfig, composed("train", overrides)))
    made = made_of(overrides)
    program, *words = shlex.split(command(wanted, made.changes()))
    assert program == "cherimoya-train"
    assert to_dict(build(TrainConfig, composed("train", words))) == wanted
    again = made_of(words)  # the command is one that is accepted, and changes the same
    assert not again.without_effect()
    assert again.changes() == made.changes()


def test_defaults_are_those_of_the_chosen_options():
    made = made_of(["data=hdf5", "data.path=/x.h5", "data.validation_chroms=[a]", "model=tiny",
                    "data.test_chroms=[b]", "model.n_layers=6"])  # fmt: skip
    assert made.changes().groups == {
        "data": ("hdf5", "synthetic"), "model": ("tiny", "cherimoya"),
    }  # fmt: skip
    assert made.changes().keys == {
        "model.n_layers": 4, "data.path": "???", "data.validation_chroms": None,
        "data.test_chroms": None,
    }  # fmt: skip


def test_changes_survive_their_file_and_those_of_earlier_releases_are_read(tmp_path):
    made = Changes({"model": ("tiny", "cherimoya")}, {"seed": 0})
    write_changes(tmp_path, made)
    assert read_changes(tmp_path) == made
    (tmp_path / "changed.json").write_text('{"model.n_layers": 9, "seed": 0}')
    assert read_changes(tmp_path) == Changes({}, {"model.n_layers": 9, "seed": 0})
