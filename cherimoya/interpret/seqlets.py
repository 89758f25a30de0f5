"""Seqlets: stretches of bases whose contributions are large together, by tangermeme."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cherimoya.records.hits import Hits
from cherimoya.util.files import atomic_write
from cherimoya.util.optional import import_optional

MODULE = "tangermeme.seqlet"
COLUMNS = (
    "chrom", "start", "end", "contribution", "p_value", "motif", "locus", "offset"
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Seqlets:
    """s stretches, ordered by locus and first base: locus, first, last, the one behind the last
    base, contribution, their sum, and p, each (s,)."""

    locus: np.ndarray
    first: np.ndarray
    last: np.ndarray
    contribution: np.ndarray
    p: np.ndarray


def check_seqlets() -> None:
    """Raise PackageError where what finds seqlets is not installed."""
    import_optional(MODULE)


def find_seqlets(contributions: np.ndarray, p: float) -> Seqlets:
    """Recursive seqlets of contributions (n, W) with p-values below `p`, of either sign.

    Of two that overlap, one of each sign, the positive one stays, as tangermeme advises. The
    p-values rank: their null takes the bases of all loci as independent.
    """
    up, down = (_found(sign * contributions, p) for sign in (1, -1))
    taken = np.zeros(contributions.shape, bool)
    for locus, first, last in zip(up.locus, up.first, up.last, strict=True):
        taken[locus, first:last] = True
    free = [
        not taken[locus, first:last].any()
        for locus, first, last in zip(down.locus, down.first, down.last, strict=True)
    ]
    kept = np.array(free, bool)
    columns = {name: np.concatenate([values, vars(down)[name][kept]])
               for name, values in vars(up).items()}  # fmt: skip
    columns["contribution"][len(up.locus) :] *= -1
    order = np.lexsort((columns["first"], columns["locus"]))
    return Seqlets(**{name: values[order] for name, values in columns.items()})


def _found(values: np.ndarray, p: float) -> Seqlets:
    if not (values > 0).any():
        empty = np.zeros(0, np.int64)
        return Seqlets(empty, empty, empty, np.zeros(0), np.zeros(0))
    table = import_optional(MODULE).recursive_seqlets(values.astype(np.float32), threshold=p)
    names = ("example_idx", "start", "end", "attribution", "p-value")
    return Seqlets(*(table[name].to_numpy(copy=True) for name in names))


def write_seqlets(path: Path, seqlets: Seqlets, hits: Hits) -> Path:
    """A row for each seqlet, with the motif of the instance that shares most of its bases."""
    with atomic_write(path) as file:
        file.write(("\t".join(COLUMNS) + "\n").encode())
        bounds = np.searchsorted(hits.locus, np.arange(len(hits.chrom) + 1))
        ends = hits.offset + hits.width
        for locus, first, last, total, p in zip(*vars(seqlets).values(), strict=True):
            own = slice(bounds[locus], bounds[locus + 1])
            shared = np.minimum(ends[own], last) - np.maximum(hits.offset[own], first)
            best = own.start + int(shared.argmax()) if len(shared) and shared.max() > 0 else None
            motif = "" if best is None else hits.motifs[hits.motif[best]].name
            start = int(hits.start[locus])
            place = [str(hits.chrom[locus]), str(start + first), str(start + last)]
            cells = place if start >= 0 else ["", "", ""]
            cells += [f"{total:.6g}", f"{p:.3g}", motif, str(locus), str(first)]
            file.write(("\t".join(cells) + "\n").encode())
    return path
