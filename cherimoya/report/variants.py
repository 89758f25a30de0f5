"""The page of a table of variants: all effects, the strongest ones, and their tracks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from cherimoya.genome.vcf import Variants
from cherimoya.records.variants import Track
from cherimoya.report.format import Chart, frame
from cherimoya.report.plots import variants as plots
from cherimoya.report.plots.theme import chart
from cherimoya.util.console import counted

MOST_ROWS = 100  # of the table
MOST_GROUPS = 6  # whose effects are drawn
SHOWN = {
    "log2_fold_change": "log2 fold change", "log2_fold_change_sd": "SD over models",
    "log2_fold_change_p": "p", "log2_fold_change_q": "q", "jsd": "JSD", "jsd_p": "p of JSD",
    "active_allele_quantile": "active allele's quantile", "combined_p": "combined p",
    "combined_q": "combined q",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Shown:
    """What the page is about: variants, columns (n,) by name as in the table, and tracks."""

    name: str
    variants: Variants
    columns: Mapping[str, np.ndarray]
    signal_groups: Sequence[int]
    group_names: Sequence[str]
    tracks: Sequence[Track]
    n_random: int
    origin: Mapping[str, Any]


def strongest(columns: Mapping[str, np.ndarray], n: int) -> np.ndarray:
    """Rows of the `n` scored variants with the largest fold change in any signal group."""
    folds = [v for k, v in columns.items() if k.rstrip("0123456789_") == "log2_fold_change"]
    size = np.nan_to_num(np.abs(np.stack(folds)), nan=-1.0).max(axis=0)
    order = np.argsort(-size, kind="stable")[:n]
    return order[size[order] >= 0]


def contents(shown: Shown) -> dict[str, Any]:
    """What the template of the page is filled with."""
    groups = len(shown.signal_groups)
    endings = [""] if groups == 1 else [f"_{g}" for g in range(groups)]
    titles = [
        shown.group_names[g] if len(shown.group_names) == groups else f"signal group {g}"
        for g in range(groups)
    ]
    scored = int(np.isfinite(shown.columns[f"log2_fold_change{endings[0]}"]).sum())
    return {
        **frame(f"variants {shown.name}"),
        "subtitle": [
            f"{scored:,} of {counted(len(shown.variants), 'variant')} scored",
            f"{counted(shown.n_random, 'random variant')} beside them",
        ],
        "effect_charts": list(_effects(shown, endings, titles)),
        "tables": [
            {
                "title": title if groups > 1 else "",
                "header": [t for n, t in SHOWN.items() if n + ending in shown.columns],
                "rows": list(_rows(shown, ending)),
            }
            for ending, title in zip(endings[:MOST_GROUPS], titles, strict=False)
        ],
        "track_charts": list(_tracks(shown, titles)),
        "origin": _origin(shown.origin),
    }


def _effects(shown: Shown, endings: Sequence[str], titles: Sequence[str]) -> Iterator[Chart]:
    for ending, title in zip(endings[:MOST_GROUPS], titles, strict=False):
        of = f", {title}" if len(endings) > 1 else ""
        fold = shown.columns[f"log2_fold_change{ending}"]
        known = np.isfinite(fold)
        if f"log2_fold_change_p{ending}" in shown.columns:
            p, q = (shown.columns[f"log2_fold_change_{x}{ending}"][known] for x in "pq")
            yield chart(
                f"counts{of}: p among random variants of the same kinds",
                plots.volcano, fold[known], p, q,
            )  # fmt: skip
        jsd = shown.columns[f"jsd{ending}"][known]
        yield chart(f"counts and profiles{of}", plots.distances, fold[known], jsd)


def _rows(shown: Shown, ending: str) -> Iterator[dict[str, Any]]:
    own = {f"log2_fold_change{ending}": shown.columns[f"log2_fold_change{ending}"]}
    for row in strongest(own, MOST_ROWS).tolist():
        cells = [shown.columns[n + ending][row] for n in SHOWN if n + ending in shown.columns]
        yield {
            "name": shown.variants.describe(row),
            "id": str(shown.variants.name[row]),
            "cells": [(None if np.isnan(v) else float(v)) for v in cells],
        }


def _tracks(shown: Shown, titles: Sequence[str]) -> Iterator[Chart]:
    ends = np.cumsum([0, *shown.signal_groups])
    for track in shown.tracks:
        change = track.alt.sum(axis=1) - track.ref.sum(axis=1)
        sums = [abs(change[a:b].sum()) for a, b in pairwise(ends)]
        g = int(np.argmax(sums))
        of = f", {titles[g]}" if len(titles) > 1 else ""
        own = slice(ends[g], ends[g + 1])
        yield chart(
            f"{shown.variants.describe(track.row)}{of}",
            plots.tracks, track.ref[own], track.alt[own], track.at,
        )  # fmt: skip


def _origin(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the numbers depend on."""
    read = [(s["key"], f"{s['name']}, SHA-256 {s['sha256']}") for s in provenance["sources"]]
    return [*read, *((key, str(provenance[key])) for key in ("command", "version"))]
