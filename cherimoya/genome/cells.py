"""The table that says which barcodes of a fragment file are of which group, such as a cell type."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from cherimoya.config.group_names import fault_of, in_order
from cherimoya.errors import DataError, printable
from cherimoya.genome.fasta import check_exists, text_lines
from cherimoya.util.console import counted, table

KEY = "fragments.groups"
HEADERS = ("", "barcode", "barcodes", "cell", "cell_id", "cellid", "cell_barcode", "index", "cb")
MOST_GROUPS = 1000


@dataclass(frozen=True)
class Cells:
    """The groups of a table in order, and the number of each barcode's."""

    path: Path
    names: list[str]
    group_of: dict[bytes, int]

    @cached_property
    def rows(self) -> dict[bytes, int]:
        """The number of each barcode."""
        return {barcode: row for row, barcode in enumerate(self.group_of)}

    @cached_property
    def groups(self) -> np.ndarray:
        """The group of each of `rows`, and behind them -1, of a barcode that is not one (-1)."""
        return np.array([*self.group_of.values(), -1])

    def mismatch(self, example: bytes) -> str:
        """What is said where a fragment file has none of the barcodes, but such as `example`."""
        own, theirs = (printable(b.decode("utf-8", "replace")) for b in (self._first, example))
        return (
            f"none of its fragments is of the {counted(len(self.group_of), 'barcode')} of "
            f"{KEY}={self.path}, such as {own}; they are such as {theirs}. Write barcodes as the "
            "fragment file has them: often an ending such as -1 differs, or a sample's name in "
            "front."
        )

    @property
    def _first(self) -> bytes:
        return next(iter(self.group_of))

    def check_all_there(self, depths: list[int], path: Path) -> None:
        """Raise DataError for a group of which the file at `path` has no fragments."""
        for name, depth in zip(self.names, depths, strict=True):
            if not depth:
                raise DataError(
                    f"{KEY}={self.path}: {path} has no fragments of group {name}. Leave its "
                    "barcodes out of the table, or write them as the fragment file has them."
                )

    def described(
        self, path: Path, listed: list[int], absent: list[int], depths: list[int]
    ) -> Iterator[str]:
        """What there is to say of the file at `path`: fragments that are of a group, of all, which
        rows of the table it has no fragment of, and the cuts of each group."""
        left_out = "" if listed[0] == listed[1] else ", and the others are left out"
        yield (
            f"{path.name}: {listed[0]:,} of {counted(listed[1], 'fragment')} are of the "
            f"{counted(len(self.group_of), 'barcode')} in {self.path.name}{left_out}"
        )
        barcodes, gone = Counter(self.group_of.values()), Counter(self.groups[absent].tolist())
        rows = [
            [name, f"{barcodes[g]:,}", f"{barcodes[g] - gone[g]:,}", f"{depth:,}"]
            for g, (name, depth) in enumerate(zip(self.names, depths, strict=True))
        ]
        yield table(["group", "barcodes", "found", "cuts"], rows)
        if absent:
            first = printable([*self.group_of][absent[0]].decode("utf-8", "replace"))
            yield (
                f"warning: {counted(len(absent), 'barcode')} of {self.path.name} "
                f"{'is' if len(absent) == 1 else 'are'} not in {path.name}, such as {first}. Write "
                "barcodes as the fragment file has them, or leave these out."
            )


def read_cells(path: Path) -> Cells:
    """The table at `path`: barcode and group in tab-separated columns, plain or gzip.

    A header, comments that begin with # and further columns are passed over. Raises DataError,
    naming the line, for a barcode of two groups and for what is no such table.
    """
    check_exists(path, KEY)
    of: dict[str, str] = {}
    for number, line in text_lines(path, f"{KEY}={path}"):
        if not line.strip() or line.startswith("#"):
            continue
        barcode, _, rest = line.partition("\t")
        name = rest.partition("\t")[0].strip()
        where, barcode = f"{KEY}={path}, line {number:,}", barcode.strip()
        if not of and barcode.lower() in HEADERS and rest:
            continue
        if not barcode or not name:
            raise DataError(
                f"{where}: {printable(line[:80])!r} is not a barcode and its group, separated by a "
                "tab. Leave lines of cells without a group out."
            )
        if fault := fault_of(name):
            raise DataError(f"{where}: group {printable(name[:80])!r}: {fault}. Rename it.")
        if of.setdefault(barcode, name) != name:
            raise DataError(
                f"{where}: barcode {printable(barcode)} is of group {name}, and in a line before "
                f"of {of[barcode]}. Each barcode is of one group: correct the table."
            )
    if not of:
        raise DataError(f"{KEY}={path}: no barcodes in it. Its columns are barcode and group.")
    names = in_order(list(of.values()))
    if len(names) > MOST_GROUPS:
        raise DataError(
            f"{KEY}={path}: {len(names):,} groups, such as {names[0]} and {names[1]}, more than "
            f"{MOST_GROUPS:,}. The first column is the barcode, the second its group."
        )
    numbers = {name: number for number, name in enumerate(names)}
    return Cells(path, names, {b.encode(): numbers[name] for b, name in of.items()})
