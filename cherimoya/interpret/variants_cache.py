"""What models said of random variants and of peaks, kept in the user's cache for the next file."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from cherimoya.errors import CherimoyaError
from cherimoya.genome.vcf import Variants
from cherimoya.util.files import atomic_write, lock_output, user_cache
from cherimoya.util.marks import mark_of, read_mark, write_mark

PATIENCE = 60  # seconds that another process may take to write the same file
DECISIVE = ("reverse_complement", "bias", "precision", "input")  # keys, besides the files read


def names_of(variants: Variants) -> list[str]:
    """Each variant as one text, chrom:pos:ref:alt."""
    columns = (variants.chrom, variants.pos, variants.ref, variants.alt)
    return [":".join(map(str, one)) for one in zip(*columns, strict=True)]


def decided_by(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of all that decides a table of variants what decides the effect of one."""
    sources = [(one["key"], one["sha256"]) for one in settings["sources"]]
    found: dict[str, Any] = {key: settings.get(key) for key in DECISIVE}
    return found | {"sources": [one for one in sources if one[0] in ("checkpoint", "fasta")]}


class Known:
    """Rows (width,) by name, of what models predict; `decisive` is all that decides them."""

    def __init__(self, what: str, decisive: Mapping[str, Any], width: int) -> None:
        text = json.dumps({**decisive, "width": width}, sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.path, self._width = user_cache() / f"{what}-{key}.npz", width
        self._rows: dict[str, np.ndarray] = {}
        self._read()

    def missing(self, names: Sequence[str]) -> list[int]:
        """Which of `names` are not known, by number."""
        return [number for number, name in enumerate(names) if name not in self._rows]

    def of(self, names: Sequence[str]) -> np.ndarray:
        """The rows (n, width) of `names`, all of them known."""
        return np.array([self._rows[name] for name in names]).reshape(len(names), self._width)

    def keep(self, names: Sequence[str], rows: np.ndarray) -> None:
        """Know the rows (n, width) of `names`, and keep them in the cache where possible."""
        if not len(names):
            return
        self._rows |= dict(zip(names, np.array(rows), strict=True))
        with suppress(CherimoyaError, OSError), lock_output(self.path, PATIENCE):
            self._read()  # what other processes have kept meanwhile
            with atomic_write(self.path) as file:
                np.savez(file, names=np.array(list(self._rows)), rows=self.of(list(self._rows)))
            write_mark(mark_of(self.path), {}, [self.path])

    def _read(self) -> None:
        mark = read_mark(mark_of(self.path))
        if mark is None or mark.damaged():
            return
        with suppress(OSError, ValueError, KeyError), np.load(self.path) as file:
            rows = file["rows"]
            if rows.shape == (len(file["names"]), self._width):
                self._rows |= dict(zip(file["names"].tolist(), rows, strict=True))
