"""Every command but cherimoya-train: cherimoya-prepare is `prepare`, and so on."""

import signal
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from cherimoya.cli.app import main
from cherimoya.cli.scripts import ends_at_once
from cherimoya.cli.train import process_wide_switches
from cherimoya.config.design import DesignConfig
from cherimoya.config.diff import at, changes
from cherimoya.config.export import ExportConfig
from cherimoya.config.groups import plain_values, refuse_without_effect
from cherimoya.config.interpret import (
    AttributeConfig,
    HitsConfig,
    MarginalizeConfig,
    VariantsConfig,
)
from cherimoya.config.models import ModelsConfig
from cherimoya.config.predict import EvaluateConfig, PredictConfig
from cherimoya.config.prepare import PrepareConfig
from cherimoya.config.schema import build
from cherimoya.config.tools import DashboardConfig
from cherimoya.errors import FULL, disk_words
from cherimoya.util import console


def _on_models(name: str, schema: type[ModelsConfig], module: str, function: str) -> None:
    """A command on finished models: `function` of `module`, imported once its words are checked."""

    def work(values: DictConfig) -> None:
        config = build(schema, plain_values(values))
        refuse_without_effect(config, HydraConfig.get().overrides.task)
        process_wide_switches(config.precision, config.autotune)
        with ends_at_once():
            work_on = getattr(import_module(module), function)
        work_on(config)

    _main(name, schema, work)


def _main(name: str, schema: type, work: Callable[[DictConfig], None]) -> None:
    """As `cli.main`; SIGTERM lets temporary files go, and the disk's errors are messages."""

    def guarded(values: DictConfig) -> None:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        try:
            work(values)
        except OSError as error:
            if error.filename is None and error.errno not in FULL:
                raise
            raise disk_words(error) from None

    main(name, schema, guarded)


def _prepare(values: DictConfig) -> None:
    plain = plain_values(values)
    config = build(PrepareConfig, plain)
    refuse_without_effect(config, HydraConfig.get().overrides.task)
    from cherimoya.genome.open_tracks import check_used

    check_used(config, _asked(plain, "prepare"))
    if config.check:
        from cherimoya.prepare.dry_run import inspect

        inspect(config)
        return
    from cherimoya.prepare.prepare import prepare
    from cherimoya.prepare.provenance import plots_of
    from cherimoya.records.overwrite import may_write, own_files

    path = prepare(config)
    for plot in plots_of(path, config):
        if config.overwrite or may_write(plot, path):
            with own_files(path, {plot: ""}, config.overwrite):
                _plot(path, plot)


def _asked(values: dict[str, Any], name: str) -> dict[str, Any]:
    """The dotted keys that differ from conf/<name>.yaml or were typed, and their values."""
    differ = changes(values, plain_values(hydra.compose(name)))
    typed = [o.lstrip("+").partition("=")[0] for o in HydraConfig.get().overrides.task]
    return {key: at(values, key) for key in dict.fromkeys([*differ, *typed])}


def _plot(path: Path, plot: Path) -> None:
    """Draw one of the plots of `plots_of`."""
    is_gc = plot.name.endswith(".gc.png")
    try:
        from cherimoya.report.plots.cut_sites import plot_cut_sites
        from cherimoya.report.plots.gc import plot_gc
    except ImportError:
        what = "GC" if is_gc else "bases at the cuts"
        fix = "matplotlib is missing (pip install 'cherimoya-train[plots]')"
        console.say(console.warning(f"no plot of {what}: {fix}"))
        return
    if is_gc and plot_gc(path):
        console.say(console.result(f"GC of peaks and background: {plot}"))
    if not is_gc and plot_cut_sites(path):
        console.say(console.result(f"bases at the cuts: {plot}"))


def _dashboard(values: DictConfig) -> None:
    config = build(DashboardConfig, plain_values(values))
    from cherimoya.report.dashboard.build import dashboard

    dashboard(config)


def _hits(values: DictConfig) -> None:
    config = build(HitsConfig, plain_values(values))
    refuse_without_effect(config, HydraConfig.get().overrides.task)
    process_wide_switches("fp32", False)
    with ends_at_once():
        from cherimoya.interpret.hits import hits as find_hits
    find_hits(config)


def _export(values: DictConfig) -> None:
    config = build(ExportConfig, plain_values(values))
    refuse_without_effect(config, HydraConfig.get().overrides.task)
    process_wide_switches("fp32", False)
    with ends_at_once():
        from cherimoya.export.export import export as export_model
    export_model(config)


prepare = partial(_main, "prepare", PrepareConfig, _prepare)
dashboard = partial(_main, "dashboard", DashboardConfig, _dashboard)
evaluate = partial(
    _on_models, "evaluate", EvaluateConfig, "cherimoya.evaluation.evaluate", "evaluate_checkpoints"
)
predict = partial(
    _on_models, "predict", PredictConfig, "cherimoya.inference.genome", "predict_genome"
)
attribute = partial(
    _on_models, "attribute", AttributeConfig, "cherimoya.interpret.attribute", "attribute"
)
variants = partial(
    _on_models, "variants", VariantsConfig, "cherimoya.interpret.variants", "variants"
)
marginalize = partial(
    _on_models, "marginalize", MarginalizeConfig, "cherimoya.interpret.marginalize", "marginalize"
)
hits = partial(_main, "hits", HitsConfig, _hits)
design = partial(_on_models, "design", DesignConfig, "cherimoya.interpret.design", "design")
export = partial(_main, "export", ExportConfig, _export)
