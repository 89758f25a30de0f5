"""The page of designed sequences: before and after, edits, and predicted profiles."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cherimoya.errors import printable
from cherimoya.records.designs import Design
from cherimoya.report import pages
from cherimoya.report.format import frame
from cherimoya.report.plots import design as plots
from cherimoya.report.plots.theme import chart
from cherimoya.util.console import counted

MOST_ROWS = 500  # of the table
WIDE, HIGH = 9.0, 2.6  # inches of an example


@dataclass(frozen=True, eq=False)
class Shown:
    """What the page is about: all designs, and expected counts (2, tracks, out) before and after
    of the first of them, in the signal group that the target is of."""

    name: str
    target: str
    tolerance: float
    designs: Sequence[Design]
    profiles: Sequence[np.ndarray]


def write_page(path: Path, shown: Shown) -> Path:
    """Write the page of the designs."""
    return pages.write_page(path, "design.html", _contents(shown))


def _contents(shown: Shown) -> dict[str, Any]:
    designs = shown.designs
    before, after, goal = (
        np.array([getattr(one, name) for one in designs]) for name in ("before", "after", "goal")
    )
    many = np.array([len(one.offsets) for one in designs])
    reached = sum(one.reached for one in designs)
    return {
        **frame(f"designed sequences {shown.name}"),
        "subtitle": [
            shown.target,
            f"{reached:,} of {counted(len(designs), 'locus', 'loci')} within {shown.tolerance:g} "
            "of the goal",
            counted(int(many.sum()), "edit"),
        ],
        "charts": [
            chart("The target before and after", plots.changes, before, after, goal),
            chart("Edits of a locus", plots.edits, many),
        ],
        "rows": [_row(one) for one in designs[:MOST_ROWS]],
        "left_out": max(0, len(designs) - MOST_ROWS),
        "examples": list(_examples(shown)),
    }


def _row(one: Design) -> dict[str, Any]:
    return {
        "name": printable(one.name),
        "where": _where(one),
        "before": one.before,
        "after": one.after,
        "goal": one.goal,
        "reached": "yes" if one.reached else "no",
        "edits": len(one.offsets),
    }


def _where(one: Design) -> str:
    chrom, start, end = one.region(one.editable)
    return f"{printable(chrom)}:{int(start) + 1:,}-{int(end):,}" if start else ""


def _examples(shown: Shown) -> Iterator[dict[str, Any]]:
    for one, profile in zip(shown.designs, shown.profiles, strict=False):
        left = (len(one.original) - profile.shape[2]) // 2  # bases that are not predicted
        first = max(one.start, 0) + left + 1
        where = _where(one)
        yield {
            "title": f"{printable(one.name)}{f', {where}' if where else ''}",
            "said": f"{one.before:.3f} before, {one.after:.3f} after, goal {one.goal:.3f}",
            "chart": chart(
                "Expected counts, and where the edits are", plots.profiles, profile[0],
                profile[1], one.offsets - left, first, width=WIDE, height=HIGH,
            ),
            "edits": [
                {"position": position, "change": f"{ref}>{alt}", "undone": undone}
                for (position, ref, alt), undone in zip(
                    one.edits, one.undone.tolist(), strict=True
                )
            ],
        }  # fmt: skip
