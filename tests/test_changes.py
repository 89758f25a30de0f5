"""The command that makes a run anew asks for exactly its configuration."""

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from test_house import composed

from cherimoya.changes import changes, command, hydra_value
from cherimoya.config import TrainConfig, resolve, to_dict


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
        ["optim=muon_adamw_sgd", "loss=fixed", "logger=none", "logger.tags=[a b]"],
        ["optim=adamw", "data=hdf5", "data.path=/x y/z.h5", "data.validation_chroms=['1']",
         "data.test_chroms=[]"],
        ["experiment=yeast_atac", "data.keys={sequence: X, signal: y, control: null, label: null, "
         "chrom: null}"],
    ],
    ids=["default", "tiny", "sgd", "hdf5", "keys"],
)  # fmt: skip
def test_the_command_composes_to_the_configuration(overrides):
    wanted = to_dict(resolve(composed("train", overrides), TrainConfig))
    defaults = to_dict(resolve(composed("train", []), TrainConfig))
    program, *words = shlex.split(command(wanted, changes(wanted, defaults)))
    assert program == "cherimoya-train"
    assert to_dict(resolve(composed("train", words), TrainConfig)) == wanted
    assert len(words) >= len(overrides) - 1
