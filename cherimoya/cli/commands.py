"""Every command but cherimoya-train."""

import errno
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from cherimoya.cli.app import main, plain_values
from cherimoya.cli.train import process_wide_switches
from cherimoya.config.diff import at, changes
from cherimoya.config.groups import refuse_without_effect
from cherimoya.config.interpret import AttributeConfig, MarginalizeConfig, VariantsConfig
from cherimoya.config.models import ModelsConfig
from cherimoya.config.predict import EvaluateConfig, PredictConfig
from cherimoya.config.prepare import PrepareConfig
from cherimoya.config.tools import DashboardConfig
from cherimoya.config.train import resolve
from cherimoya.errors import CherimoyaError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

T = TypeVar("T", bound=ModelsConfig)


def prepare() -> None:
    """cherimoya-prepare."""
    _main("prepare", PrepareConfig, _prepare)


def evaluate() -> None:
    """cherimoya-evaluate."""
    _main("evaluate", EvaluateConfig, _evaluate)


def predict() -> None:
    """cherimoya-predict."""
    _main("predict", PredictConfig, _predict)


def attribute() -> None:
    """cherimoya-attribute."""
    _main("attribute", AttributeConfig, _attribute)


def variants() -> None:
    """cherimoya-variants."""
    _main("variants", VariantsConfig, _variants)


def marginalize() -> None:
    """cherimoya-marginalize."""
    _main("marginalize", MarginalizeConfig, _marginalize)


def dashboard() -> None:
    """cherimoya-dashboard."""
    _main("dashboard", DashboardConfig, _dashboard)


def _main(name: str, schema: type, work: Callable[[DictConfig], None]) -> None:
    """As `cli.main`; SIGTERM lets temporary files go, and the disk's errors are messages."""

    def guarded(values: DictConfig) -> None:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        try:
            work(values)
        except OSError as error:
            if error.filename is None and error.errno not in DISK_FULL:
                raise
            where = "" if error.filename is None else f"{error.filename}: "
            advice = "Free space there, or choose" if error.errno in DISK_FULL else "Choose"
            raise CherimoyaError(f"{where}{error.strerror}. {advice} another output.") from None

    main(name, schema, guarded)


def _prepare(values: DictConfig) -> None:
    plain = plain_values(values)
    config = resolve(plain, PrepareConfig)
    refuse_without_effect(config, HydraConfig.get().overrides.task)
    from cherimoya.genome.open_tracks import check_used

    check_used(config, _asked(plain, "prepare"))
    if config.check:
        from cherimoya.prepare.dry_run import inspect

        inspect(config)
        return
    from cherimoya.prepare.prepare import prepare

    path = prepare(config)
    if config.plots and config.background_ratio > 0:
        _plot_gc(path)


def _asked(values: dict[str, Any], name: str) -> dict[str, Any]:
    """The dotted keys that differ from conf/<name>.yaml or were typed, and their values."""
    differ = changes(values, plain_values(hydra.compose(name)))
    typed = [o.lstrip("+").partition("=")[0] for o in HydraConfig.get().overrides.task]
    return {key: at(values, key) for key in dict.fromkeys([*differ, *typed])}


def _plot_gc(path: Path) -> None:
    try:
        from cherimoya.report.plots.gc import plot_gc
    except ImportError:
        print("no plot of GC: matplotlib is missing (pip install 'cherimoya-train[plots]')")
        return
    if plot := plot_gc(path):
        print(f"GC of peaks and background: {plot}")


def _evaluate(values: DictConfig) -> None:
    config = _resolved(values, EvaluateConfig)
    from cherimoya.evaluation.evaluate import evaluate_checkpoints

    evaluate_checkpoints(config)


def _predict(values: DictConfig) -> None:
    config = _resolved(values, PredictConfig)
    from cherimoya.inference.genome import predict_genome

    predict_genome(config)


def _attribute(values: DictConfig) -> None:
    config = _resolved(values, AttributeConfig)
    from cherimoya.interpret.attribute import attribute

    attribute(config)


def _variants(values: DictConfig) -> None:
    config = _resolved(values, VariantsConfig)
    from cherimoya.interpret.variants import variants

    variants(config)


def _marginalize(values: DictConfig) -> None:
    config = _resolved(values, MarginalizeConfig)
    from cherimoya.interpret.marginalize import marginalize

    marginalize(config)


def _dashboard(values: DictConfig) -> None:
    config = resolve(plain_values(values), DashboardConfig)
    from cherimoya.report.dashboard.build import dashboard

    dashboard(config)


def _resolved(values: DictConfig, cls: type[T]) -> T:
    config = resolve(plain_values(values), cls)
    refuse_without_effect(config, HydraConfig.get().overrides.task)
    process_wide_switches(config.precision, config.autotune)
    return config
