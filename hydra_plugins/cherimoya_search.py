"""hydra/sweeper=optuna and grids: Hydra accepts plug-ins from the namespace hydra_plugins alone."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from cherimoya.errors import CherimoyaError


class CheckedSweeper(BasicSweeper):
    """Hydra's own, without composing all members at once, as each was before the first began."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Nothing is left to check."""


class OptunaSweeper(Sweeper):
    """Trials that Optuna asks for, run by whichever launcher is chosen."""

    launcher: Launcher

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep the folder, and make the launcher that the configuration names."""
        self.folder = Path(config.hydra.sweep.dir)
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Search over what `arguments` and the settings' params leave open."""
        from cherimoya.sweeps import search

        try:
            search.sweep(self.settings, arguments, self.launcher, self.folder)
        except CherimoyaError as error:  # of which Hydra would print the traceback
            print(f"error: {error}", file=sys.stderr, flush=True)
            raise SystemExit(1) from None
