"""cherimoya-attribute, cherimoya-variants and cherimoya-marginalize."""

from typing import Any, TypeVar

from omegaconf import DictConfig

from cherimoya.cli import _main, _plain, _process_wide_switches
from cherimoya.config import resolve
from cherimoya.config_interpret import (
    AskedModels,
    AttributeConfig,
    MarginalizeConfig,
    VariantsConfig,
)

T = TypeVar("T", bound=AskedModels)


def attribute() -> None:
    """cherimoya-attribute."""
    _main("attribute", AttributeConfig, _attribute)


def variants() -> None:
    """cherimoya-variants."""
    _main("variants", VariantsConfig, _variants)


def marginalize() -> None:
    """cherimoya-marginalize."""
    _main("marginalize", MarginalizeConfig, _marginalize)


def _attribute(values: DictConfig) -> None:
    config = _resolved(values, AttributeConfig)
    from cherimoya.analysis.attribute import attribute

    attribute(config)


def _variants(values: DictConfig) -> None:
    config = _resolved(values, VariantsConfig)
    from cherimoya.analysis.variants import variants

    variants(config)


def _marginalize(values: DictConfig) -> None:
    config = _resolved(values, MarginalizeConfig)
    from cherimoya.analysis.marginalize import marginalize

    marginalize(config)


def _resolved(values: DictConfig, cls: type[T]) -> T:
    """The checked configuration, in which one checkpoint need not be written as a list."""
    plain: dict[str, Any] = _plain(values)
    if isinstance(plain["checkpoint"], str) and plain["checkpoint"] != "???":
        plain["checkpoint"] = [plain["checkpoint"]]
    config = resolve(plain, cls)
    _process_wide_switches(config)  # type: ignore[arg-type]
    return config
