"""What Hydra calls with each configuration of a command, and what is done about its errors."""

import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from cherimoya import launch, status
from cherimoya.cli_sweep import Sweep
from cherimoya.errors import WARNINGS, CherimoyaError, Interrupted, InUse, LocalError, OtherRun


class Job:
    """What Hydra calls with each configuration, here or in a process that a launcher starts."""

    sweep: Sweep | None = None

    def __init__(self, work: Callable[[DictConfig], None]) -> None:
        self.work = work
        self.problems: list[tuple[str, str]] = []  # of this process's jobs: name and error
        self._command = sys.argv

    def __call__(self, values: DictConfig) -> None:
        """Do the work; in a sweep an error is noted, so that the others get their turn."""
        settings = HydraConfig.get()
        sys.argv = self._command
        if settings.mode != RunMode.MULTIRUN and not self.sweep:
            self._alone(values)
            return
        folder, began = Path(settings.runtime.output_dir), time.time()
        label, before = folder.name, status.read(folder)
        print(f"\n=== {label}", flush=True)
        try:
            self.work(values)
        except InUse as error:
            print(f"left to the process that is at it: {error}", flush=True)
        except Interrupted as error:
            _hand_on(error.signum)
            raise SystemExit(error.exit_code) from None
        except Exception as error:
            if isinstance(error, CherimoyaError):
                complain(error)
            else:
                traceback.print_exc()
            self.problems.append((label, str(error) or repr(error)))
            if self.sweep and not isinstance(error, OtherRun):
                _record(folder, before, began, error)

    def _alone(self, values: DictConfig) -> None:
        try:
            self.work(values)
        except CherimoyaError as error:
            complain(error)
            raise SystemExit(1) from None
        except Interrupted as error:
            raise SystemExit(error.exit_code) from None


def _record(folder: Path, before: dict[str, Any], began: float, error: Exception) -> None:
    """Have status.json tell of an error that the run's own record was too late, or gone, for."""
    now = status.read(folder)
    if now.get("state") != "failed" or now == before:
        folder.mkdir(parents=True, exist_ok=True)
        status.write(folder, "failed", began, error)


def _hand_on(signum: int) -> None:
    """Now that the run is saved, let a scheduler's agent in this process do its part."""
    if signum in WARNINGS and callable(signal.getsignal(signum)):
        signal.raise_signal(signum)


def complain(error: Exception) -> None:
    """Print the message; of what every process met, the first one of a machine alone does."""
    if launch.rank() == 0 and str(error):
        print(f"error: {error}", file=sys.stderr, flush=True)
    elif isinstance(error, LocalError) or (launch.rank() and launch.local_rank() == 0):
        print(f"error in process {launch.rank()}: {error}", file=sys.stderr, flush=True)
