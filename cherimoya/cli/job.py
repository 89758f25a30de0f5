"""What Hydra calls with each configuration of a command, and what is done about its errors."""

import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from cherimoya.distributed import launch
from cherimoya.errors import WARNINGS, CherimoyaError, Interrupted, InUse, LocalError, OtherRun
from cherimoya.records import status
from cherimoya.sweeps.plan import Sweep
from cherimoya.util import console

InWords = Callable[[Exception], CherimoyaError | None]  # None for what nobody has foreseen


class Job:
    """What Hydra calls with each configuration, here or in a process that a launcher starts."""

    sweep: Sweep | None = None

    def __init__(
        self, work: Callable[[DictConfig], None], in_words: InWords, command: Any = None
    ) -> None:
        self.work, self.in_words, self.command = work, in_words, command
        self.problems: list[tuple[str, str]] = []  # of this process's jobs: name and error
        self._command = sys.argv

    def __call__(self, values: DictConfig) -> None:
        """Do the work; in a sweep an error is noted, so that the others get their turn."""
        console.print_messages()  # a launcher's process too
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
        except Exception as raised:
            _remove_empty(folder)
            found = self.in_words(raised) or raised
            if found is not raised:
                found.__cause__ = raised  # which status.json tells of
            if isinstance(found, CherimoyaError):
                complain(found)
            else:
                traceback.print_exc()
            self.problems.append((label, str(found) or repr(found)))
            if self.sweep and not isinstance(found, OtherRun):
                _record(folder, before, began, found)

    def _alone(self, values: DictConfig) -> None:
        try:
            self.work(values)
        except Interrupted as error:
            raise SystemExit(error.exit_code) from None
        except Exception as error:
            _remove_empty(Path(HydraConfig.get().runtime.output_dir))
            said = self.in_words(error)
            if said is None:
                raise
            complain(said)
            raise SystemExit(1) from None


def _remove_empty(folder: Path) -> None:
    """Remove the folder of a run that never was, and those above that were made for it alone."""
    if launch.rank() or folder == Path.cwd():
        return
    with suppress(OSError):  # not empty, or not there
        folder.rmdir()
        if folder.parent.parent.name == "outputs":
            folder.parent.rmdir()
            folder.parent.parent.rmdir()


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
