"""A small untrained model, and commands on it as Python calls."""

from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from cherimoya import Cherimoya
from cherimoya.cli.train import conf_dir
from cherimoya.config.schema import build


def save_model(path: Path, seed: int = 0, **shape: Any) -> Path:
    """A model with weights far from their small beginning, so that effects are large."""
    torch.manual_seed(seed)
    given = {"n_filters": 8, "n_layers": 3, "signal_groups": [2], "trimming": 50} | shape
    model = Cherimoya(**given)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(10)
    model.save(path)
    return path


def configured(name: str, cls: type, **values: Any) -> Any:
    """conf/<name>.yaml with `values` on top, on the CPU, as the checked configuration."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        plain = OmegaConf.to_container(compose(name))
    for key, value in ({"device": "cpu"} | values).items():
        node, *rest = key.split("__")
        if rest:
            plain[node][rest[0]] = value
        else:
            plain[node] = value
    return build(cls, plain)
