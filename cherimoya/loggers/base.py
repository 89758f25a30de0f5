"""What a logger has to be: something that is told of a run, besides its folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Rows = Sequence[Mapping[str, Any]]


class Logger:
    """Told of a run as it goes; all of it does nothing here, so a subclass has what it needs.

    Called with the run's folder and its settings, the fields of its dataclass `Settings`, as
    keywords. One that raises while the run goes on is left out from then on, and the run goes on.
    """

    id: str | None = None  # what a run that goes on gives to `start`
    failed: str | None = None  # why it is left out, where it was

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def check(self) -> None:
        """Raise CherimoyaError for what cannot work, before any work starts."""

    def start(self, settings: Mapping[str, Any], earlier_id: str | None, rows: Rows) -> None:
        """Begin, knowing the configuration; of a run that goes on, also its id and its `rows`."""

    @property
    def where(self) -> str:
        """Where the metrics go, in a few words; none if nowhere."""
        return type(self).__name__

    def row(self, values: Mapping[str, Any]) -> None:
        """A row of metrics.jsonl: `step`, `epoch`, `train/loss`, and `valid/`, `lr/`, `loss/`."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """What summary.json says, at the end."""

    def image(self, name: str, path: Path, step: int) -> None:
        """A plot."""

    def table(self, name: str, path: Path, step: int) -> None:
        """A tab-separated file."""

    def model(self, metadata: Mapping[str, Any]) -> None:
        """The run's checkpoints are final."""

    def finish(self, state: str, exit_code: int) -> None:
        """How it ended: done, pruned, interrupted or failed."""
