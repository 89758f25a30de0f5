"""Configurations composed as the commands compose them."""

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from cherimoya.cli.train import conf_dir
from cherimoya.config import groups
from cherimoya.config.command_line import checked_arguments
from cherimoya.config.groups import Composition, composition
from cherimoya.config.schema import build
from cherimoya.config.train import TrainConfig


def composed(name: str, overrides: list[str]) -> dict:
    GlobalHydra.instance().clear()
    OmegaConf.register_new_resolver("run_id", lambda: "test", replace=True)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return OmegaConf.to_container(compose(name, overrides), resolve=True)


def made_of(overrides: list[str]) -> Composition:
    """What these words of cherimoya-train compose to."""
    GlobalHydra.instance().clear()
    OmegaConf.register_new_resolver("run_id", lambda: "test", replace=True)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        words = list(checked_arguments(overrides, TrainConfig, several=False))
        values, choices = groups.compose("train", words)
        plain = OmegaConf.to_container(values, resolve=True)
        return composition(build(TrainConfig, plain), plain, words, choices)
