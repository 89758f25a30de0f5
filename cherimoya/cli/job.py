"""What Hydra calls with each configuration of a command, and what is done about its errors."""

import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from cherimoya.distributed import launch
from cherimoya.errors import (
    WARNINGS,
    CherimoyaError,
    Interrupted,
    InUse,
    LocalError,
    OtherRun,
    without_password,
)
from cherimoya.records import status
from cherimoya.sweeps.plan import Sweep
from cherimoya.util import console

InWords = Callable[[Exception], CherimoyaError | None]  # None for what nobody has foreseen


class Job:
    """What Hydra calls with each configuration, here or in a process that a launcher starts.

    in_words: puts an error into words for the command line that this is the job of
    """

    sweep: Sweep | None = None
    in_words: InWords

    def __init__(self, work: Callable[[DictConfig], None]) -> None:
        self.work = work
        self.problems: list[tuple[str, str]] = []  # of this process's jobs: name and error
        self.typed = list(sys.argv)  # which a launcher's process has not

    def __call__(self, values: DictConfig) -> None:
        """Do the work; in a sweep an error is noted, so that the others get their turn."""
        with self.reporting():
            self.work(values)

    def plan(self, arguments: list[str], member_of: Path | None) -> Sweep | None:
        """The sweep that the arguments ask for, if they do, and if the command has any."""
        return None

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Report the errors of the block: of a run alone by the exit code, else in the sweep."""
        settings = HydraConfig.get()
        console.print_messages()  # a launcher's process too
        folder = Path(settings.runtime.output_dir)
        alone = settings.mode != RunMode.MULTIRUN and not self.sweep
        began, before = time.time(), {} if alone else status.read(folder)
        if not alone:
            console.say(f"\n=== {folder.name}")
        try:
            with nullcontext() if alone else console.one_of_several():
                yield
        except Interrupted as error:
            if not alone and error.signum in WARNINGS and callable(signal.getsignal(error.signum)):
                signal.raise_signal(error.signum)  # the run is saved: now a scheduler's agent
            raise SystemExit(error.exit_code) from None
        except Exception as raised:
            if not alone and isinstance(raised, InUse):
                console.say(console.warning(f"left to the process that is at it: {raised}"))
                return
            _remove_empty(folder)
            found = self.in_words(raised)
            if alone:
                if found is None:
                    raise
                print_error(found)
                raise SystemExit(1) from None
            if found is not None and found is not raised:
                found.__cause__ = raised  # which status.json tells of
            self._note(folder, found or raised, before, began)

    def _note(self, folder: Path, error: Exception, before: dict[str, Any], began: float) -> None:
        """Note the error of one of several runs, and have status.json tell of it."""
        if isinstance(error, CherimoyaError):
            print_error(error)
        else:
            print(without_password("".join(traceback.format_exception(error))), file=sys.stderr)
        self.problems.append((folder.name, without_password(str(error) or repr(error))))
        if not self.sweep or isinstance(error, OtherRun):
            return
        now = status.read(folder)
        if now.get("state") != "failed" or now == before:  # the run's record was too late, or gone
            with suppress(OSError):  # a full disk: it is said at the end all the same
                folder.mkdir(parents=True, exist_ok=True)
                status.write(folder, "failed", began, error)


def _remove_empty(folder: Path) -> None:
    """Remove the folder of a run that never was, and those above that were made for it alone."""
    if launch.rank() or folder == Path.cwd():
        return
    with suppress(OSError):  # not empty, or not there
        folder.rmdir()
        if folder.parent.parent.name == "outputs":
            folder.parent.rmdir()
            folder.parent.parent.rmdir()


def print_error(error: Exception) -> None:
    """Print the message; of what every process met, the first one of a machine alone does."""
    if launch.rank() == 0 and str(error):
        print(f"error: {without_password(str(error))}", file=sys.stderr, flush=True)
    elif isinstance(error, LocalError) or (launch.rank() and launch.local_rank() == 0):
        said = without_password(str(error))
        print(f"error in process {launch.rank()}: {said}", file=sys.stderr, flush=True)
