"""Results as rows of a CSV file."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path


def append_row(path: Path, row: Mapping[str, object], columns: Sequence[str] | None = None) -> None:
    """Add one line to `path`, with a header if the file is new; `columns` are those of `row`."""
    new = not path.exists() or path.stat().st_size == 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns or list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)
