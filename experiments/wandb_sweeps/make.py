"""Write the sweeps of conf/sweep as W&B sweeps, beside this file.

    python experiments/wandb_sweeps/make.py
    python experiments/wandb_sweeps/make.py --to mine data=hdf5 data.path=/data/my.h5 ...

Words at the end are given to every run. Then `wandb sweep <file>` prints the agents' command.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from cherimoya.cli.train import conf_dir
from cherimoya.config.diff import flat
from cherimoya.records.space import Choices, Numbers
from cherimoya.sweeps.search import settings_of, space_of

OVERRIDE = "override /"
HEADER = """\
# From conf/sweep/{name}.yaml, by make.py: change that one.
#   wandb sweep experiments/wandb_sweeps/{name}.yaml
"""


def document(name: str, words: Sequence[str] = ()) -> str:
    """conf/sweep/<name>.yaml as a W&B sweep whose runs are also given `words`."""
    content: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / "sweep" / f"{name}.yaml"))
    sweeper = content.pop("hydra")["sweeper"]
    options = {
        k.removeprefix(OVERRIDE): v for d in content.pop("defaults", []) for k, v in d.items()
    }
    searched = options.pop("hydra/sweeper", None) == "optuna"
    settings: Any = OmegaConf.load(conf_dir() / "hydra" / "sweeper" / "optuna.yaml")
    settings = settings_of(OmegaConf.to_container(OmegaConf.merge(settings, sweeper)))
    space, _ = space_of(sweeper["params"], [])
    fixed = [f"{key}={value}" for key, value in (options | flat(content)).items()]
    sweep = {
        "name": name,
        "project": OmegaConf.load(conf_dir() / "logger" / "wandb.yaml").project,
        "program": "cherimoya-train",
        "method": "bayes" if searched else "grid",
        "metric": {"name": settings.metric, "goal": settings.direction},
        "parameters": {key: parameter(part) for key, part in space.items()},
        "command": ["${env}", "${program}", *fixed, *words, "${args_no_hyphens}"],
    }
    if searched:
        sweep["run_cap"] = settings.n_trials
        sweep["early_terminate"] = {"type": "hyperband", "min_iter": 3}
    return HEADER.format(name=name) + yaml.safe_dump(sweep, sort_keys=False)


def parameter(part: Numbers | Choices) -> dict[str, Any]:
    """The values of one key, in W&B's words."""
    if isinstance(part, Choices):
        return {"values": [value_of(word) for word in part.words]}
    if part.step:
        count = round((part.high - part.low) / part.step) + 1
        return {"values": [value_of(part.word(part.low + i * part.step)) for i in range(count)]}
    kind = {
        (False, False): "uniform",
        (False, True): "log_uniform_values",
        (True, False): "int_uniform",
        (True, True): "q_log_uniform_values",
    }[part.whole, part.log]
    return {
        "distribution": kind,
        "min": value_of(part.word(part.low)),
        "max": value_of(part.word(part.high)),
    }


def value_of(word: str) -> Any:
    """A word of the command line as a value; 1e-5 too is a number."""
    return OmegaConf.create(f"value: {word}").value


def names() -> list[str]:
    """The sweeps of conf/sweep."""
    return sorted(path.stem for path in (conf_dir() / "sweep").glob("*.yaml"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, default=Path(__file__).parent, help="folder to write to")
    parser.add_argument("words", nargs="*", help="key=value for every run")
    arguments = parser.parse_args()
    arguments.to.mkdir(parents=True, exist_ok=True)
    for name in names():
        path = arguments.to / f"{name}.yaml"
        path.write_text(document(name, arguments.words))
        print(path)


if __name__ == "__main__":
    main()
