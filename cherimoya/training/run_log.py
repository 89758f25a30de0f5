"""What a run leaves behind: rows, a summary and a status on disk, and the same at W&B.

The run folder is the source of truth; W&B, which only this module imports, is a copy that may
fail or be switched off without harm to the training.
"""

import json
import math
import netrc
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlparse

from cherimoya import status
from cherimoya.config import LoggerConfig
from cherimoya.errors import CherimoyaError, Interrupted
from cherimoya.files import appearing

REACH_SECONDS = 4.0


def wandb_mode(config: LoggerConfig) -> tuple[str, str]:
    """ "online" or "offline", and why. Only asks; nothing is started.

    Raises CherimoyaError within seconds when online is wanted and cannot be.
    """
    import wandb

    if config.mode == "offline" or os.environ.get("WANDB_MODE") == "offline":
        return "offline", "as asked"
    settings = wandb.setup().settings
    url = settings.base_url
    if not settings.api_key and not _has_netrc_entry(url):
        if config.mode == "auto":
            return "offline", "no API key"
        raise CherimoyaError(
            f"logger.mode=online, but there is no API key for {url}. Run `wandb login`, set "
            "WANDB_API_KEY, or use logger.mode=offline."
        )
    problem = _unreachable(url)
    if problem:
        raise CherimoyaError(
            f"a W&B API key is set, but {url} cannot be reached ({problem}). Use "
            "logger.mode=offline to sync later, or logger=none."
        )
    return "online", url


def _has_netrc_entry(url: str) -> bool:
    try:
        file = netrc.netrc(os.environ.get("NETRC"))
    except (OSError, netrc.NetrcParseError):
        return False
    return file.authenticators(urlparse(url).hostname or "") is not None


def _unreachable(url: str) -> str | None:
    """Why `url` does not answer within seconds, or None: any HTTP answer will do."""
    outcome: list[str | None] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(url, timeout=REACH_SECONDS).close()
            outcome.append(None)
        except urllib.error.HTTPError:
            outcome.append(None)
        except OSError as error:
            outcome.append(str(getattr(error, "reason", error)))

    thread = threading.Thread(target=ask, daemon=True)  # a name server may never answer
    thread.start()
    thread.join(REACH_SECONDS + 1)
    return outcome[0] if outcome else f"no answer in {REACH_SECONDS:.0f} s"


class RunLog:
    """The record of one run, opened with `with`: closed with the truth whatever happens.

    metrics.jsonl has one row a line, flushed as it is written; summary.json the end results;
    status.json is running, done, pruned, interrupted, or failed with the traceback.
    """

    def __init__(self, folder: Path, config: LoggerConfig) -> None:
        self.folder = folder
        self.wandb_id: str | None = None
        self.outcome = "done"  # of a run that ends by itself: done, or pruned
        self._config = config
        self._mode, self._why = "none", ""
        self._wandb: Any = None
        self._rows_path = folder / "metrics.jsonl"
        self._started = time.time()
        self._progress: dict[str, Any] = {}

    def __enter__(self) -> "RunLog":
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
                self._wandb.summary["status"] = state
                self._wandb.finish(exit_code=exit_code)

    def check_wandb(self) -> None:
        """Decide between online and offline before any work starts; see `wandb_mode`."""
        if self._config.name == "wandb":
            self._mode, self._why = wandb_mode(self._config)

    def start_wandb(self, settings: Mapping[str, Any], wandb_id: str | None) -> None:
        """Open the W&B run, or the one that had `wandb_id` before an interruption."""
        if self._mode == "none":
            return
        import wandb

        try:
            self._wandb = wandb.init(
                project=self._config.project,
                name=self._config.run_name or self.folder.name,
                group=self._config.group,
                tags=self._config.tags,
                dir=self.folder,
                mode=self._mode,  # type: ignore[arg-type]
                id=wandb_id,
                resume="allow" if wandb_id else None,
                config=dict(settings),
                reinit="finish_previous",
                settings=wandb.Settings(silent=True, console="off", init_timeout=REACH_SECONDS + 3),
            )
        except wandb.errors.Error as error:
            raise CherimoyaError(
                f"W&B refused the run: {str(error).splitlines()[0]} "
                "Use logger.mode=offline to sync later, or logger=none."
            ) from error
        self.wandb_id = self._wandb.id
        self._wandb.define_metric("*", step_metric="step")

    @property
    def where(self) -> str:
        """One line on where the metrics go."""
        if self._wandb is None:
            return "the run folder only"
        if self._mode == "online":
            return f"W&B, {self._wandb.url}"
        return f"W&B, offline ({self._why})"

    @property
    def sync_command(self) -> str | None:
        """The command that sends an offline W&B run, or None."""
        if self._wandb is None or self._mode == "online":
            return None
        return f"wandb sync {Path(self._wandb.settings.sync_dir)}"

    @property
    def position(self) -> int:
        """Bytes of metrics.jsonl so far."""
        return self._rows.tell()

    def rewind(self, position: int) -> None:
        """Forget the rows after `position`: the run goes on from before them.

        Raises CherimoyaError when the file is shorter than that.
        """
        if self._rows_path.stat().st_size < position:
            raise CherimoyaError(
                f"{self._rows_path} is shorter than when the checkpoint was written: rows were "
                "removed. Restore the file, or start a new run."
            )
        self._rows.truncate(position)
        self._rows.seek(position)

    def row(self, values: Mapping[str, Any]) -> None:
        """Append a row; it needs a "step". NaN becomes null, which JSON can say."""
        clean = _jsonable(dict(values))
        self._rows.write(json.dumps(clean, allow_nan=False).encode() + b"\n")
        self._rows.flush()
        if self._wandb is not None:
            self._wandb.log({k: v for k, v in clean.items() if v is not None})

    def progress(self, **values: Any) -> None:
        """Say in status.json how far the run is; it stays there when the run ends."""
        self._progress = _jsonable(values)
        self._write_status("running")

    def summary(self, values: Mapping[str, Any]) -> None:
        """Write summary.json, and its numbers to W&B's summary."""
        clean = _jsonable(dict(values))
        with appearing(self.folder / "summary.json") as file:
            file.write(json.dumps(clean, indent=2, allow_nan=False).encode() + b"\n")
        if self._wandb is not None:
            self._wandb.summary.update(clean)

    def image(self, name: str, path: Path, step: int) -> None:
        """Send a plot to W&B; on disk it is already."""
        if self._wandb is not None:
            import wandb

            self._wandb.log({name: wandb.Image(str(path)), "step": step})

    def _write_status(self, state: str, error: BaseException | None = None) -> None:
        status.write(self.folder, state, self._started, error, **self._progress)


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
