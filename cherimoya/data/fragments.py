"""Fragment files as tracks: both ends of each fragment are cuts."""

import gzip
import json
import os
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from cherimoya import progress
from cherimoya.config_prepare import FragmentsConfig
from cherimoya.data import sources
from cherimoya.data.track import Cuts, Track, stem
from cherimoya.errors import DataError
from cherimoya.files import write_json

KIND = "fragments"
BLOCK = 1 << 24
NOTED = "fragments.json"
COLUMNS = "chrom, start, end, and with counts also barcode and count, separated by tabs"


class Fragments(Track):
    """The cuts of a fragment file, one chromosome in memory at a time.

    Cuts lie at start + shift_plus and end + shift_minus of the coordinates as written. `spool`
    is a folder for the cuts of each chromosome, as the file need not have an index.
    """

    kind = KIND

    def __init__(
        self, path: Path, key: str, config: FragmentsConfig, spool: Path, tell: sources.Say
    ) -> None:
        self._files: dict[str, Path] = {}
        self._spool, self._config = spool, config
        self.ends: dict[str, int] = {}  # the largest end on each chromosome
        self._where = f"{key}={path}"
        noted = spool / NOTED
        if noted.is_file():  # an interrupted run has read it
            found = json.loads(noted.read_text())
            self._files = {name: spool / cuts for name, cuts in found["files"].items()}
            self.ends = found["ends"]
        else:
            self._read_all(path, tell)
            files = {name: cuts.name for name, cuts in self._files.items()}
            write_json(noted, {"files": files, "ends": self.ends})
        super().__init__(path, stem(path), dict.fromkeys(self._files))
        self._chrom, self._cuts = "", Cuts(np.zeros(0, np.int32))

    def rename(self, aliases: Mapping[str, str]) -> None:
        super().rename(aliases)
        self.ends = {aliases.get(name, name): end for name, end in self.ends.items()}

    def _values(self, chrom: str, start: int, end: int) -> np.ndarray:
        if chrom != self._chrom:
            self._chrom = chrom
            self._cuts = Cuts(np.fromfile(self._files[chrom], np.int32))
        return self._cuts.values(start, end)

    def _read_all(self, path: Path, tell: sources.Say) -> None:
        for left in self._spool.iterdir():  # by a run that was killed here
            left.unlink()
        try:
            self._read(path, tell)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            message = f"{self._where}: truncated or damaged ({error}). Copy it again."
            raise DataError(message) from None
        if not self._files:
            raise DataError(f"{self._where}: no fragments in it.")
        for cuts in self._files.values():
            with open(cuts, "rb") as file:
                os.fsync(file.fileno())

    def _read(self, path: Path, tell: sources.Say) -> None:
        rest, number = b"", 1
        with sources.opened(path, "rb") as file:
            blocks = iter(lambda: file.read(BLOCK), b"")
            label = f"reading {path.name}"
            for block in progress.shown(blocks, label, None, "piece", tell=tell):
                whole, newline, rest = (rest + block).rpartition(b"\n")
                number += self._add(whole + newline, number)
            self._add(rest, number)

    def _add(self, lines: bytes, number: int) -> int:
        """Spool the cuts of whole lines, the first of which has this `number`; their number."""
        rows = lines.split(b"\n")
        if rows[-1] == b"":
            rows.pop()
        cuts = defaultdict(list)
        for at, row in enumerate(rows, number):
            if not row.strip() or row.startswith((b"#", b"track", b"browser")):
                continue
            columns = row.split(b"\t")
            try:
                start, end = int(columns[1]), int(columns[2])
                count = int(columns[4]) if self._config.counts else 1
                if not 0 <= start < end or count < 1:
                    raise ValueError
            except (ValueError, IndexError):
                raise DataError(self._complaint(row, at)) from None
            chrom = columns[0]
            cuts[chrom].append((start, end, count))
        for name, found in cuts.items():
            self._append(name.decode("utf-8", "replace"), np.array(found, np.int64))
        return len(rows)

    def _append(self, chrom: str, rows: np.ndarray) -> None:
        """Spool the cuts of (n, 3) `rows` of start, end and count."""
        start, end, count = rows.T
        both = [start + self._config.shift_plus, end + self._config.shift_minus]
        cuts = np.repeat(np.stack(both, axis=1), count, axis=0)
        self.ends[chrom] = max(self.ends.get(chrom, 0), int(end.max()))
        where = self._files.setdefault(chrom, self._spool / f"{len(self._files)}.cuts")
        with open(where, "ab") as file:
            cuts.astype(np.int32).tofile(file)

    def _complaint(self, row: bytes, number: int) -> str:
        line = row.decode("utf-8", "replace").strip()[:80]
        return (
            f"{self._where}, line {number}: {line!r} is not a fragment. Columns are {COLUMNS}; "
            "0 <= start < end; counts are 1 or more (fragments.counts=false does not need them). "
            "Start a header with #."
        )


@contextmanager
def opened(
    path: Path, key: str, config: FragmentsConfig, spool: Path | None, tell: sources.Say
) -> Iterator[list[Track]]:
    """The one track of the fragment file at `path`, read from front to back.

    Its cuts are kept in the folder `spool`, and not read again if they are there; None: in one of
    the system's meanwhile.
    """
    if spool is not None:
        spool.mkdir(exist_ok=True)
        yield [Fragments(path, key, config, spool, tell)]
        return
    with tempfile.TemporaryDirectory(prefix="fragments-") as folder:
        yield [Fragments(path, key, config, Path(folder), tell)]
