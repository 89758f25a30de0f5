"""What a run leaves behind: rows, a summary and a status on disk, and the same at W&B.

The run folder is the source of truth; what `loggers.wandb` sends is a copy.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from cherimoya.config.train import LoggerConfig
from cherimoya.errors import CherimoyaError, Interrupted
from cherimoya.loggers.wandb import WandbRun
from cherimoya.loggers.wandb_server import wandb_mode
from cherimoya.records import status
from cherimoya.records.sweep import MEMBER, sync_command
from cherimoya.util.files import jsonable, write_json


class RunLog:
    """The record of one run, opened with `with`: closed with the truth whatever happens.

    metrics.jsonl has one row a line, flushed as it is written; summary.json the end results;
    status.json is running, done, pruned, interrupted, or failed with the traceback.
    """

    def __init__(self, folder: Path, config: LoggerConfig) -> None:
        self.folder = folder
        self.begun = False  # whether it has come to its training
        self.outcome = "done"  # of a run that ends by itself: done, or pruned
        self._config = config
        self._mode, self._why = "none", ""
        self._wandb: WandbRun | None = None
        self._rows_path = folder / "metrics.jsonl"
        self._started = time.time()
        self._earlier: Mapping[str, Any] = {}  # status.json of the process before this one
        self._facts: dict[str, Any] = {}  # of all processes together, where a run goes on
        self._progress: dict[str, Any] = {}

    def __enter__(self) -> "RunLog":
        self._earlier = status.read(self.folder)
        self._write_status("running")
        self._rows = open(self._rows_path, "ab")
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
        try:
            self._rows.close()
            self._write_status(state, error)
        finally:
            if self._wandb is not None:
                self._wandb.finish(state, exit_code)

    def check_wandb(self) -> None:
        """Decide between online, offline and none before any work starts; see `wandb_mode`."""
        if self._config.name == "wandb":
            self._mode, self._why = wandb_mode(self._config)

    def start_wandb(self, settings: Mapping[str, Any], wandb_id: str | None) -> None:
        """Open the W&B run, or the one that had `wandb_id` before an interruption."""
        if self._mode == "none":
            return
        rows = [json.loads(line) for line in self._rows_path.read_text().splitlines()]
        self._wandb = WandbRun(self.folder, self._config, self._mode, settings, wandb_id, rows)

    @property
    def wandb_id(self) -> str | None:
        """The id of the W&B run, if there is one."""
        return self._wandb.id if self._wandb else None

    @property
    def where(self) -> str:
        """One line on where the metrics go."""
        if self._wandb is None:
            return f"the run folder only{f' ({self._why})' if self._why else ''}"
        if self._mode == "online":
            return f"W&B, {self._wandb.url}"
        return f"W&B, offline ({self._why})"

    @property
    def sync_command(self) -> str | None:
        """The command that sends an offline W&B run; None for others, and in a sweep, which ends
        with one for all."""
        if self._wandb is None or self._mode == "online" or (self.folder / MEMBER).is_file():
            return None
        return sync_command(self.folder)

    @property
    def position(self) -> int:
        """Bytes of metrics.jsonl so far."""
        return self._rows.tell()

    def rewind(self, position: int, trained: float = 0) -> None:
        """Forget the rows after `position`: the run goes on from before them.

        trained: seconds of training that the run goes on after; those of its earlier processes
        are no fewer, and count in status.json from now on.

        Raises CherimoyaError when the file is shorter than that.
        """
        if self._rows_path.stat().st_size < position:
            raise CherimoyaError(
                f"{self._rows_path} is shorter than when the checkpoint was written: rows were "
                "removed. Restore the file, or start a new run."
            )
        self._rows.truncate(position)
        self._rows.seek(position)
        self._facts = {
            "seconds_before": max(status.total_seconds(self._earlier), round(trained, 1)),
            "first_started": self._earlier.get("first_started", self._earlier.get("started")),
        }
        self._write_status("running")

    def row(self, values: Mapping[str, Any]) -> None:
        """Append a row; it needs a "step". NaN becomes null, which JSON can say."""
        clean = jsonable(dict(values))
        self._rows.write(json.dumps(clean, allow_nan=False).encode() + b"\n")
        self._rows.flush()
        if self._wandb is not None:
            self._wandb.row(clean)

    def progress(self, **values: Any) -> None:
        """Say in status.json how far the run is; it stays there when the run ends."""
        self.begun = True
        self._progress = jsonable(values)
        self._write_status("running")

    def summary(self, values: Mapping[str, Any]) -> None:
        """Write summary.json, and its numbers to W&B's summary."""
        write_json(self.folder / "summary.json", values)
        if self._wandb is not None:
            self._wandb.summary(jsonable(values))

    def image(self, name: str, path: Path, step: int) -> None:
        """Send a plot to W&B; on disk it is already."""
        if self._wandb is not None:
            self._wandb.image(name, path, step)

    def table(self, name: str, path: Path, step: int) -> None:
        """Send a tab-separated file to W&B, if it was written; very many rows are thinned out."""
        if self._wandb is not None and path.is_file():
            self._wandb.table(name, path, step)

    def model(self, metadata: Mapping[str, Any]) -> None:
        """Send the checkpoint that logger.log_model names to W&B, if it names one."""
        if self._wandb is not None and self._config.log_model != "none":
            path = self.folder / "checkpoints" / f"{self._config.log_model}.pt"
            self._wandb.model(path, jsonable(dict(metadata)))

    def _write_status(self, state: str, error: BaseException | None = None) -> None:
        facts = self._facts | self._progress
        status.write(self.folder, state, self._started, error, **facts)
