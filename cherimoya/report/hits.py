"""The page of motif instances: counts, logos, places, what goes together, and example loci."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cherimoya.errors import printable
from cherimoya.genome.sequence import BASES, reverse_complement
from cherimoya.records.attributions import Attributions
from cherimoya.records.hits import Hits
from cherimoya.report import pages
from cherimoya.report.format import Chart, frame
from cherimoya.report.plots import hits as plots
from cherimoya.report.plots.interpret import UNITS, busiest
from cherimoya.report.plots.theme import chart
from cherimoya.util.console import counted

MOST_BARS, MOST_LOGOS, MOST_LINES, MOST_PAIRS = 40, 12, 6, 20  # motifs of each chart
NAME = 24  # letters of a motif's name in a chart
SHOWN = 120  # bases of an example
WIDE = 9.0  # inches of an example


def write_page(
    path: Path,
    hits: Hits,
    attributions: Attributions,
    target: str,
    cutoff: float,
    examples: int,
) -> Path:
    """Write the page of the instances in the attributions of a target."""
    contents = _contents(hits, attributions, target, cutoff, examples)
    contents |= frame(f"motif instances {path.stem}")
    return pages.write_page(path, "hits.html", contents)


def _contents(
    hits: Hits, attributions: Attributions, target: str, cutoff: float, examples: int
) -> dict[str, Any]:
    totals = hits.counts.sum(axis=0)
    order = [i for i in np.argsort(-totals, kind="stable").tolist() if totals[i]]
    contributions = attributions.contributions[target]
    return {
        "subtitle": [
            f"contributions to {target}",
            counted(len(hits), "instance"),
            f"{counted(len(order), 'motif')} of {len(hits.motifs):,}",
            counted(len(hits.chrom), "locus", "loci"),
            f"cut-off {cutoff:g}",
        ],
        "rows": list(_rows(hits, order)),
        "overview": list(_overview(hits, order, contributions.shape[1])),
        "pairs": list(_pairs(hits, order)),
        "logos": list(_logos(hits, attributions, contributions, order, target)),
        "examples": list(_examples(hits, attributions, contributions, examples)),
        "without": int((hits.counts.sum(axis=1) == 0).sum()),
        "explained": float(np.median(hits.explained)),
    }


def _name(hits: Hits, motif: int) -> str:
    """The motif, and the known one that it matches, cut to fit."""
    one = hits.motifs[motif]
    match = f" {one.match}" if one.match else ""
    name = printable(one.name.replace("_patterns.pattern_", " ") + match)
    return name if len(name) <= NAME else f"{name[: NAME - 1]}…"


def _rows(hits: Hits, order: list[int]) -> Iterator[dict[str, Any]]:
    counts = hits.counts
    for i in order:
        own = hits.motif == i
        yield {
            "name": hits.motifs[i].name,
            "match": hits.motifs[i].match,
            "instances": int(own.sum()),
            "loci": int((counts[:, i] > 0).sum()),
            "similarity": float(np.median(hits.similarity[own])),
            "contribution": float(hits.contribution[own].mean()),
        }


def _overview(hits: Hits, order: list[int], length: int) -> Iterator[Chart]:
    if not order:
        return
    names = [_name(hits, i) for i in order]
    totals = hits.counts.sum(axis=0)[order]
    shown = slice(0, MOST_BARS)
    yield chart(
        "Instances of each motif", plots.counts, names[shown], totals[shown],
        height=max(2.2, 0.8 + 0.18 * min(len(order), MOST_BARS)),
    )  # fmt: skip
    middle = hits.offset + hits.width / 2 - length / 2
    few = order[:MOST_LINES]
    yield chart(
        "Where the most frequent motifs lie", plots.distances, names[:MOST_LINES],
        [middle[hits.motif == i] for i in few], length / 2,
    )  # fmt: skip
    yield chart("How much of a locus its instances explain", plots.explained, hits.explained)


def _pairs(hits: Hits, order: list[int]) -> Iterator[Chart]:
    few = order[:MOST_PAIRS]
    if len(few) < 2:
        return
    fold, observed = co_occurrence(hits.counts[:, few])
    size = max(4.3, 1.9 + 0.34 * len(few))
    yield chart(
        "Loci that hold both motifs, against what chance would have", plots.together,
        [_name(hits, i) for i in few], fold, observed, width=size, height=0.85 * size,
    )  # fmt: skip


def co_occurrence(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log2 of observed over expected loci with two motifs (m, m), and the observed, of counts
    (n, m).

    Expected: as if the motifs were spread over loci independently. NaN on the diagonal, and where
    nothing is observed or expected.
    """
    has = (counts > 0).astype(np.int64)
    observed = has.T @ has
    expected = np.outer(has.sum(0), has.sum(0)) / len(has)
    with np.errstate(divide="ignore", invalid="ignore"):
        fold = np.log2(observed / expected)
    fold[~np.isfinite(fold)] = np.nan
    np.fill_diagonal(fold, np.nan)
    return fold, observed


def _logos(
    hits: Hits, attributions: Attributions, contributions: np.ndarray, order: list[int], target: str
) -> Iterator[tuple[str, Chart, Chart]]:
    unit = UNITS.get(target.partition("_")[0], "")
    for i in order[:MOST_LOGOS]:
        mean = average(hits, attributions.sequence, contributions, i)
        own = int((hits.motif == i).sum())
        yield (
            _name(hits, i),
            chart("looked for", plots.matrix_logo, hits.motifs[i].weights, "", height=1.5),
            chart(f"mean of {counted(own, 'instance')}", plots.matrix_logo, mean, unit, height=1.5),
        )


def average(hits: Hits, codes: np.ndarray, contributions: np.ndarray, motif: int) -> np.ndarray:
    """Mean contributions (4, w) of the bases of a motif's instances, as its own strand reads them,
    of contributions (n, W) of `codes` (n, W)."""
    rows = np.flatnonzero(hits.motif == motif)
    width = hits.motifs[motif].weights.shape[1]
    bases = hits.offset[rows, None] + np.arange(width)
    read, values = (
        codes[hits.locus[rows, None], bases],
        contributions[hits.locus[rows, None], bases],
    )
    turned = hits.strand[rows] < 0
    read[turned] = reverse_complement(read[turned])
    values[turned] = values[turned, ::-1]
    hot = read[:, None] == np.arange(len(BASES))[None, :, None]
    return (hot * values[:, None]).mean(axis=0)


def _examples(
    hits: Hits, attributions: Attributions, contributions: np.ndarray, many: int
) -> Iterator[Chart]:
    """Loci with most contributions in instances."""
    inside = np.zeros(len(hits.chrom))
    np.add.at(inside, hits.locus, np.abs(hits.contribution))
    shown = min(SHOWN, contributions.shape[1])
    for locus in np.argsort(-inside, kind="stable")[:many].tolist():
        if not inside[locus]:
            return
        first = busiest(contributions[locus], shown)
        part = slice(first, first + shown)
        spans = [
            (max(int(hits.offset[h]) - first, 0), min(int(end) - first, shown), _name(hits, m))
            for h, m, end in zip(*_of(hits, locus), strict=True)
            if hits.offset[h] < first + shown and end > first
        ]
        start = int(attributions.start[locus])
        begin = start + first
        where = f"{attributions.chrom[locus]}:{begin:,}-{begin + shown:,}, " if start >= 0 else ""
        yield chart(
            f"{where}locus {locus}", plots.example, attributions.sequence[locus, part],
            contributions[locus, part], spans, begin if start >= 0 else -1, width=WIDE, height=1.9,
        )  # fmt: skip


def _of(hits: Hits, locus: int) -> tuple[list[int], list[int], list[int]]:
    """Rows, motifs and ends of the instances of a locus."""
    rows = np.flatnonzero(hits.locus == locus)
    return rows.tolist(), hits.motif[rows].tolist(), (hits.offset + hits.width)[rows].tolist()
