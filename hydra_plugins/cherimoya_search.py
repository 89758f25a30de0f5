"""hydra/sweeper=optuna and grids: Hydra accepts plug-ins from the namespace hydra_plugins alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

from cherimoya.errors import CherimoyaError
from cherimoya.util.files import names_file


class CheckedSweeper(BasicSweeper):
    """Hydra's own, without composing all members at once, as each was before the first began."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Nothing is left to check."""

    def sweep(self, arguments: list[str]) -> Any:
        """As Hydra's own, which saves a file of its own: a full disk names the folder."""
        assert self.config is not None
        with names_file(Path(self.config.hydra.sweep.dir)):
            return super().sweep(arguments)


class OptunaSweeper(BasicSweeper):
    """Trials that Optuna asks for, run by whichever launcher is chosen."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(max_batch_size=None)
        self.settings = settings

    def sweep(self, arguments: list[str]) -> None:
        """Search over what `arguments` and the settings' params leave open."""
        from cherimoya.cli.job import print_error
        from cherimoya.sweeps import search

        assert self.config is not None
        assert self.launcher is not None
        try:
            folder = Path(self.config.hydra.sweep.dir)
            search.sweep(self.settings, arguments, self.launcher, folder)
        except CherimoyaError as error:  # of which Hydra would print the traceback
            print_error(error)
            raise SystemExit(1) from None
