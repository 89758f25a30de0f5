"""A run's copy at Weights & Biases, which only the wandb modules of this folder import.

The copy may fail, or be switched off, without harm to the training, which never waits for it for
long.
"""

import csv
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cherimoya.config import options
from cherimoya.errors import CherimoyaError
from cherimoya.loggers.base import Logger, Rows
from cherimoya.loggers.wandb_files import numbers_on_disk, remove_empty
from cherimoya.loggers.wandb_server import REACH_SECONDS, wandb_mode
from cherimoya.records import metrics
from cherimoya.records.sweep import MEMBER
from cherimoya.util import console
from cherimoya.util.console import warning

FINISH_SECONDS = 60.0  # for the last rows to be sent; what is left can be synced later
FLUSH_SECONDS = 1.0  # after which a row is on disk, even if the process is killed
MAX_TABLE_ROWS = 10_000  # of which W&B shows a table at once
MAX_TAG = 64  # characters
VALIDATED = {f"valid/{name}" for name in metrics.VALIDATED}
OWN_FOLDER = r"\d\d-\d\d-\d\d_[0-9a-f]{6}"  # of a run that was not given a folder


class WandbLogger(Logger):
    """A copy at Weights & Biases: online, offline to be synced later, or none, see `wandb_mode`.

    A process may have several at once. The history has the rows of metrics.jsonl by their number,
    each once, also where a run was interrupted and goes on in another process. The summary has the
    best values so far of what is validated, those of the best epoch, and the status.
    """

    Settings = options.Wandb

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder)
        self._settings = options.Wandb(**settings)
        self._mode, self._why = "none", ""
        self._run: Any = None  # W&B's own, until it fails
        self._url: str | None = None
        self._sent: set[int] = set()  # numbers of the rows that W&B has from before
        self._number = 0  # of the next row
        self._standing: dict[str, Any] = {}  # what the summary says of the validation so far

    def check(self) -> None:
        """Decide between online, offline and none."""
        self._mode, self._why = wandb_mode(self._settings)

    def start(self, settings: Mapping[str, Any], earlier_id: str | None, rows: Rows) -> None:
        """Open the W&B run, or the one that had `earlier_id`.

        Raises CherimoyaError when the server refuses it.
        """
        if self._mode == "none":
            return
        import wandb

        if earlier_id:
            if Path(earlier_id).name != earlier_id:  # it becomes a part of names of files
                raise CherimoyaError(
                    f"{self.folder}: its checkpoint holds {earlier_id!r} as the id of a W&B run, "
                    "which cannot be one. Continue it with logger=none."
                )
            remove_empty(self.folder, earlier_id)
        try:
            self._run = self._opened(settings, earlier_id)
        except wandb.errors.Error as error:
            raise CherimoyaError(
                f"W&B refused the run: {str(error).splitlines()[0]} "
                "Use logger.wandb.mode=offline to sync later, or logger=none."
            ) from error
        self.id = self._run.id
        if self._mode == "online":
            self._url, self._sent = self._run.url, set(range(self._run.starting_step))
        elif earlier_id:
            self._sent = numbers_on_disk(self.folder, earlier_id)
        self._attempt(self._begin)
        for row in rows:
            self.row(row)

    def _opened(self, settings: Mapping[str, Any], earlier_id: str | None) -> Any:
        """W&B's run, new or that of `earlier_id`."""
        import wandb

        config = self._settings
        member = (self.folder / MEMBER).is_file()
        swept = member or "WANDB_SWEEP_ID" in os.environ
        return wandb.init(
            project=config.project,
            name=config.run_name or run_name(self.folder, settings),
            group=config.group,
            job_type="sweep" if swept else "train",
            tags=run_tags(config.tags, settings),
            dir=self.folder,
            mode=self._mode,  # type: ignore[arg-type]
            id=earlier_id,
            resume="allow" if earlier_id else None,
            config=dict(settings),
            reinit="create_new",
            settings=wandb.Settings(
                silent=True,
                console="off",
                init_timeout=REACH_SECONDS + 3,
                finish_timeout=FINISH_SECONDS,
                x_transaction_log_flush_interval=FLUSH_SECONDS,
            ),
        )

    def _begin(self) -> None:
        """Say what the metrics are."""
        for name in (metrics.STEP, metrics.EPOCH):
            self._run.define_metric(name, hidden=True)
        self._run.define_metric("*", step_metric=metrics.STEP)
        for name in metrics.VALIDATED:
            # W&B's own min and max would forget the rows from before an interruption.
            self._run.define_metric(f"valid/{name}", step_metric=metrics.STEP, summary="none")
        self._run.summary.update({metrics.STATUS: "running"})

    @property
    def where(self) -> str:
        """Its address, or why it is not online."""
        if self.id is None:
            return f"the run folder only{f' ({self._why})' if self._why else ''}"
        return f"W&B, {self._url if self._mode == 'online' else f'offline ({self._why})'}"

    def row(self, values: Mapping[str, Any]) -> None:
        """Append a row of the history, unless it was sent before an interruption."""
        known = {k: v for k, v in values.items() if v is not None}
        if self._number in self._sent:
            self._number += 1
            self.summary({k: v for k, v in known.items() if k not in VALIDATED})
        else:
            self._log(lambda: known)
        self.summary(self._improved(values))

    def _improved(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What a row changes of the summary; rows come in order."""
        scores = {name: row.get(f"valid/{name}") for name in metrics.VALIDATED}
        known = {name: value for name, value in scores.items() if value is not None}
        changed: dict[str, Any] = {}
        for name, value in known.items():
            key, end = f"valid/{name}", metrics.extreme(name)
            before = self._standing.get(key, {}).get(end)
            if before is None or (value < before if end == "min" else value > before):
                changed[key] = {end: value}
        if known.get("loss", math.inf) < self._standing.get(metrics.best_key("loss"), math.inf):
            changed |= {metrics.best_key(name): value for name, value in known.items()}
            changed[metrics.best_key(metrics.EPOCH)] = row.get(metrics.EPOCH)
        self._standing |= changed
        return changed

    def summary(self, values: Mapping[str, Any]) -> None:
        """Add to the summary."""
        self._attempt(lambda: self._run.summary.update(dict(values)))

    def image(self, name: str, path: Path, step: int) -> None:
        """Send a plot."""

        def content() -> dict[str, Any]:
            import wandb

            return {name: wandb.Image(str(path)), metrics.STEP: step}

        self._log(content)

    def table(self, name: str, path: Path, step: int) -> None:
        """Send a tab-separated file with a header; at most MAX_TABLE_ROWS, evenly spread."""

        def content() -> dict[str, Any]:
            import wandb

            columns, rows = read_table(path)
            if len(rows) > MAX_TABLE_ROWS:
                console.say(f"W&B gets {MAX_TABLE_ROWS:,} of the {len(rows):,} rows of {path}")
                chosen = np.linspace(0, len(rows) - 1, MAX_TABLE_ROWS, dtype=int)
                rows = [rows[i] for i in chosen]
            return {name: wandb.Table(columns=columns, data=rows), metrics.STEP: step}

        self._log(content)

    def model(self, metadata: Mapping[str, Any]) -> None:
        """Send the checkpoint that log_model names, if it names one, by its name as the alias."""
        name = self._settings.log_model

        def send() -> None:
            import wandb

            artifact = wandb.Artifact(f"model-{self.id}", type="model", metadata=dict(metadata))
            path = self.folder / "checkpoints" / f"{name}.pt"
            artifact.add_file(str(path), policy="immutable", skip_cache=True)
            self._run.log_artifact(artifact, aliases=[name])

        if name != "none":
            self._attempt(send)

    def finish(self, state: str, exit_code: int) -> None:
        """Close the run, with how it ended."""
        self.summary({metrics.STATUS: state})
        self._attempt(lambda: self._run.finish(exit_code=exit_code))

    def _log(self, values: Callable[[], dict[str, Any]]) -> None:
        self._attempt(lambda: self._run.log(values(), step=self._number, commit=True))
        self._number += 1

    def _attempt(self, action: Callable[[], object]) -> None:
        """Do it, where there is a run; should W&B fail, say so once and go on without it."""
        if self._run is None:
            return
        try:
            action()
        except Exception as error:
            self._run = None
            console.say(
                warning(
                    f"W&B failed ({type(error).__name__}: {error}). The run goes on; its folder "
                    "still gets everything."
                )
            )


def run_name(folder: Path, settings: Mapping[str, Any]) -> str:
    """The folder's name, which in a sweep is what sets the run apart.

    A folder that is only a time gives data, layers x filters and the end of its own name.
    """
    if not re.fullmatch(OWN_FOLDER, folder.name) or "model" not in settings:
        return folder.name
    model, own = settings["model"], folder.name.split("_")[-1]
    return f"{_data_name(settings)}-{model['n_layers']}x{model['n_filters']}-{own}"


def run_tags(asked: Sequence[str], settings: Mapping[str, Any]) -> list[str]:
    """The tags asked for, the data's name, and cpu or gpu."""
    tags = [*asked]
    if "data" in settings:
        tags += [_data_name(settings), "gpu" if settings.get("gpu") else "cpu"]
    return list(dict.fromkeys(tag[:MAX_TAG] for tag in tags))


def _data_name(settings: Mapping[str, Any]) -> str:
    path = settings["data"]["path"]
    return Path(path).stem if path else str(settings["data"]["source"])


def read_table(path: Path) -> tuple[list[Any], list[list[Any]]]:
    """Header and rows of a tab-separated file; columns of numbers as such, None for no number."""
    with open(path, newline="") as file:
        header, *lines = csv.reader(file, delimiter="\t")
    columns = [_numbers(column) for column in zip(*lines, strict=True)]
    return header, [list(row) for row in zip(*columns, strict=True)]


def _numbers(column: Sequence[str]) -> Sequence[Any]:
    """A column as whole numbers or numbers, if all that is said in it are; else as it is."""
    for kind in (int, float):
        try:
            found = [None if text.lower() in ("", "nan") else kind(text) for text in column]
        except ValueError:
            continue
        return found
    return column
