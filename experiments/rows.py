"""Results as rows of a CSV file."""

import csv
import datetime
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from cherimoya.records.provenance import cpu_name, git_commit, versions


def append_row(path: Path, row: Mapping[str, object], columns: Sequence[str] | None = None) -> None:
    """Add one line to `path`, with a header if the file is new; `columns` are those of `row`."""
    new = not path.exists() or path.stat().st_size == 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns or list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def origin(packages: Sequence[str] = ()) -> dict[str, str]:
    """The columns in front: date, machine, versions, those of `packages` too, and commit."""
    used = versions() | {name: version(name) for name in packages}
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{cpu_name()}, {os.cpu_count()} cores",
        "versions": ", ".join(f"{name} {number}" for name, number in used.items()),
        "commit": git_commit(),
    }


def write_rows(
    path: Path, rows: Sequence[Mapping[str, object]], packages: Sequence[str] = ()
) -> None:
    """Write all of `rows` anew, each after its `origin`."""
    path.unlink(missing_ok=True)
    for row in rows:
        append_row(path, origin(packages) | row)
