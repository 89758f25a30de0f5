"""What a run leaves behind: rows, a summary and a status on disk, and the same at its loggers.

The run folder is the source of truth; what the loggers get is a copy.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from cherimoya.config.schema import Choice
from cherimoya.errors import CherimoyaError, Interrupted
from cherimoya.loggers.base import Logger
from cherimoya.records import status
from cherimoya.records.sweep import MEMBER, sync_command
from cherimoya.util import console
from cherimoya.util.console import warning
from cherimoya.util.files import jsonable, names_file, open_owned, write_json
from cherimoya.util.shapes import Table, read_json_lines


class RunLog:
    """The record of one run, opened with `with`: closed with the truth whatever happens.

    metrics.jsonl has one row a line, flushed as it is written; summary.json the end results;
    status.json is running, done, pruned, interrupted, or failed with the traceback.
    """

    def __init__(self, folder: Path, loggers: Mapping[str, Choice]) -> None:
        self.folder = folder
        self.begun = False  # whether it has come to its training
        self.outcome = "done"  # of a run that ends by itself: done, or pruned
        self._loggers: dict[str, Logger] = {
            name: choice.make(folder) for name, choice in loggers.items()
        }
        self._told: dict[str, Logger] = {}  # those that have begun
        self._rows_path = folder / "metrics.jsonl"
        self._started = time.time()
        self._earlier: Mapping[str, Any] = {}  # status.json of the process before this one
        self._facts: dict[str, Any] = {}  # of all processes together, where a run goes on
        self._progress: dict[str, Any] = {}

    def __enter__(self) -> "RunLog":
        self._earlier = status.read(self.folder)
        if self._earlier.get("state") == status.DAMAGED:
            console.say(warning(f"{self.folder / status.NAME} cannot be read, and is written anew"))
        self._write_status("running")
        self._rows = open_owned(self._rows_path, "r+b" if self._rows_path.exists() else "w+b")
        self._rows.seek(0, os.SEEK_END)
        self._alive = status.Heartbeat(self.folder)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        state, exit_code = self.outcome, 0
        if isinstance(error, Interrupted):
            state, exit_code = "interrupted", error.exit_code
        elif isinstance(error, (KeyboardInterrupt, SystemExit)):
            state, exit_code = "interrupted", 130
        elif error is not None:
            state, exit_code = "failed", 1
        self._alive.stop()
        try:
            with suppress(OSError):  # what it could not write was said when it was due
                self._rows.close()
            self._write_status(state, error)
        finally:
            self._each(lambda logger: logger.finish(state, exit_code))

    def check_loggers(self) -> None:
        """Have each logger say what cannot work, before any work starts."""
        for logger in self._loggers.values():
            logger.check()

    def start_loggers(self, settings: Mapping[str, Any], ids: Mapping[str, str | None]) -> None:
        """Begin their copies, or go on with the ones that had `ids` before an interruption."""
        rows = read_json_lines(self._rows_path, Table())
        for name, logger in self._loggers.items():
            try:
                logger.start(settings, ids.get(name), rows)
            except CherimoyaError:
                raise
            except (Exception, SystemExit) as error:
                raise CherimoyaError(
                    f"logger {name} did not begin ({type(error).__name__}: {error}). Mend it, or "
                    "leave it out of logger=[...]."
                ) from error
            self._told[name] = logger

    @property
    def ids(self) -> dict[str, str | None]:
        """The id of each logger's copy, with which it goes on."""
        self._each(_check_told)
        return {name: logger.id for name, logger in self._loggers.items()}

    @property
    def where(self) -> str:
        """One line on where the metrics go."""
        self._each(_check_told)
        places = [str(logger.where) for logger in self._loggers.values()]
        return "; ".join(places) or "the run folder only"

    @property
    def sync_command(self) -> str | None:
        """The command that sends an offline W&B run; None for others, and in a sweep, which ends
        with one for all."""
        return None if (self.folder / MEMBER).is_file() else sync_command(self.folder)

    def _each(self, action: Callable[[Logger], None]) -> None:
        """Tell every logger; one that fails is told nothing from then on."""
        for name, logger in [*self._told.items()]:
            try:
                action(logger)
            except (Exception, SystemExit) as error:
                del self._told[name], self._loggers[name]
                console.say(
                    warning(
                        f"logger {name} failed ({type(error).__name__}: {error}). The run goes on "
                        "without it; its folder still gets everything."
                    )
                )

    def rows(self, size: int | None = None) -> str:
        """metrics.jsonl so far, or its first `size` bytes.

        Raises CherimoyaError where it is shorter.
        """
        content = self._rows_path.read_bytes()[:size]
        if size is not None and len(content) < size:
            raise CherimoyaError(
                f"{self._rows_path} is shorter than when the checkpoint was written: rows were "
                "removed. Restore the file, or start a new run."
            )
        return content.decode(errors="replace")

    def restore(self, saved: Mapping[str, Any], trained: float) -> None:
        """`rewind` to what a training state was `saved` with."""
        if "log" in saved:
            self.rewind(saved["log"], trained)
        else:  # an earlier version noted how many bytes they have
            self.rewind(self.rows(saved["log_position"]), trained)

    def rewind(self, rows: str, trained: float = 0) -> None:
        """Have metrics.jsonl hold `rows` alone, after which the run goes on.

        trained: seconds of training that the run goes on after; those of its earlier processes
        are no fewer, and count in status.json from now on.
        """
        content = rows.encode()
        if not self._rows_path.read_bytes().startswith(content):
            console.say(
                warning(f"{self._rows_path} was changed: its rows are put back as they were")
            )
        self._rows.seek(0)
        self._rows.write(content)
        self._rows.truncate()
        self._rows.flush()
        self._facts = {
            "seconds_before": max(status.total_seconds(self._earlier), round(trained, 1)),
            "first_started": self._earlier.get("first_started", self._earlier.get("started")),
        }
        self._write_status("running")

    def row(self, values: Mapping[str, Any]) -> None:
        """Append a row; it needs a "step". NaN becomes null, which JSON can say."""
        clean = jsonable(dict(values))
        with names_file(self._rows_path):
            self._rows.write(json.dumps(clean, allow_nan=False).encode() + b"\n")
            self._rows.flush()
        self._each(lambda logger: logger.row(clean))

    def progress(self, **values: Any) -> None:
        """Say in status.json how far the run is; it stays there when the run ends."""
        self.begun = True
        self._progress = jsonable(values)
        self._write_status("running")

    def summary(self, values: Mapping[str, Any]) -> None:
        """Write summary.json, and tell the loggers."""
        write_json(self.folder / "summary.json", values)
        clean = jsonable(values)
        self._each(lambda logger: logger.summary(clean))

    def image(self, name: str, path: Path, step: int) -> None:
        """Tell the loggers of a plot; on disk it is already."""
        self._each(lambda logger: logger.image(name, path, step))

    def table(self, name: str, path: Path, step: int) -> None:
        """Tell the loggers of a tab-separated file, if it was written."""
        if path.is_file():
            self._each(lambda logger: logger.table(name, path, step))

    def model(self, metadata: Mapping[str, Any]) -> None:
        """Tell the loggers that the checkpoints are final."""
        clean = jsonable(dict(metadata))
        self._each(lambda logger: logger.model(clean))

    def _write_status(self, state: str, error: BaseException | None = None) -> None:
        facts = self._facts | self._progress
        status.write(self.folder, state, self._started, error, **facts)


def _check_told(logger: Logger) -> None:
    """Raise TypeError for a logger that does not say where it writes, or by which id."""
    if callable(logger.where):
        raise TypeError("its where is a method: write @property above it")
    if type(logger.id) not in (str, int, type(None)):
        raise TypeError(f"its id is {type(logger.id).__name__}: expected text")
