"""metrics.csv in the run's folder: the rows of metrics.jsonl as a table, for a spreadsheet or R."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cherimoya.loggers.base import Logger, Rows
from cherimoya.util.files import atomic_write

NAME = "metrics.csv"


class CSVLogger(Logger):
    """A column a metric, a line an epoch, empty where a value is not known."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._rows: list[Mapping[str, Any]] = []

    @property
    def where(self) -> str:
        """The file."""
        return NAME

    def start(self, settings: Mapping[str, Any], earlier_id: str | None, rows: Rows) -> None:
        """Write the rows of before."""
        self._rows = list(rows)
        self._write()

    def row(self, values: Mapping[str, Any]) -> None:
        """Add a line; a column that is new is empty in the lines before."""
        self._rows.append(values)
        self._write()

    def _write(self) -> None:
        text = io.StringIO()
        columns = dict.fromkeys(name for row in self._rows for name in row)
        writer = csv.DictWriter(text, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        with atomic_write(self.folder / NAME) as file:
            file.write(text.getvalue().encode())
