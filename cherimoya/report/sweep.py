"""The page of a sweep: its configurations side by side, and which one to choose."""

import itertools
import math
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from cherimoya.config.diff import at
from cherimoya.errors import DataError, without_password
from cherimoya.records import sweep as sweeps
from cherimoya.records.layout import read_config
from cherimoya.records.metrics import METRIC_INFO
from cherimoya.records.run import read_run
from cherimoya.records.status import DAMAGED
from cherimoya.records.sweep import LOSS, Configuration, Member
from cherimoya.report import selection
from cherimoya.report.format import Chart, frame, whole, with_spread
from cherimoya.report.plots import sweep as plots_sweep
from cherimoya.report.plots.sweep import Grid, Point
from cherimoya.report.plots.theme import chart
from cherimoya.report.selection import SCORES, number
from cherimoya.util.console import counted

SHOWN = (LOSS, *SCORES)
COMPARED = (LOSS, "profile_pearson", "count_pearson")  # in trade-offs and effects
COSTS = {"parameters": "parameters", "minutes": "training time (min)"}
MOST_LISTED = 12  # values of a key at the top of the page
LONG_VALUE = 6  # letters
MINUTES_DIGITS = 2
MOST_KEYS = 8  # whose effects are drawn


def contents(folder: Path) -> dict[str, Any]:
    """What the template of a sweep's page is filled with."""
    members = sweeps.read_sweep(folder)
    configurations = sweeps.configurations(members)
    choice = selection.recommend(configurations)
    keys = list(dict.fromkeys(key for c in configurations for key in c.values))
    runs = [_run(member) for member in members]
    return {
        **frame(f"sweep {folder.resolve().name}"),
        **_origin(folder, members),
        "states": _states(members),
        "n_runs": len(members),
        "n_configurations": len(configurations),
        "swept": [(key, _range(selection.levels_of(configurations, key))) for key in keys],
        "seeds": sorted({m.overrides[sweeps.SEED] for m in members if sweeps.SEED in m.overrides}),
        "choice": choice,
        "notes": [*filter(None, [sweeps.plan_problem(folder)]), *_notes(members, keys)],
        "columns": [*keys, "runs", "parameters", *(f"{_name(m)}" for m in SHOWN), "minutes"],
        "table": [
            (choice is not None and c is choice.chosen, _cells(c, keys)) for c in configurations
        ],
        "heat_maps": list(_heat_maps(configurations)),
        "trade_offs": list(_trade_offs(configurations, choice)),
        "effects": list(_effects(configurations, keys)),
        "fields": _receptive_fields(members),
        "failed": [run for run in runs if run["member"].state in ("failed", DAMAGED)],
        "runs": runs,
        "run_columns": {m: _name(m) for m in (LOSS, "profile_pearson", "count_pearson")},
    }  # fmt: skip


def _origin(folder: Path, members: Sequence[Member]) -> dict[str, str | None]:
    """The command of the sweep, and the data of the first run that says; None where unknown.

    What is damaged is said elsewhere on the page.
    """
    command = data = None
    with suppress(DataError):
        if plan := sweeps.read_plan(folder):
            command = shlex.join(map(without_password, plan.command))
    for member in members:
        with suppress(DataError):
            if config := read_config(member.folder):
                data = at(config, "data.path") or at(config, "data.source")
                break
    return {"command": command, "data": None if data is None else str(data)}


def _name(measure: str) -> str:
    return "validation loss" if measure == LOSS else METRIC_INFO[measure].label


def _axis(measure: str) -> str:
    """A measure with its split and unit, for an axis."""
    info = METRIC_INFO[measure]
    return f"{'validation' if measure == LOSS else 'test'} {info.axis}"


def _run(member: Member) -> dict[str, Any]:
    """A row of the list of runs; its page is relative to the sweep's."""
    page = member.folder / "report.html"
    return {
        "member": member,
        "name": member.folder.name,
        "page": f"{quote(member.folder.name)}/report.html" if page.is_file() else None,
        "error": str(member.status.get("error") or "").strip(),
        "traceback": str(member.status.get("traceback") or ""),
        "measures": {m: member.measure(m) for m in (*SHOWN, "minutes")},
    }


def _states(members: Sequence[Member]) -> list[tuple[str, int]]:
    """How many runs are in which state, the finished ones first."""
    order = ["done", "pruned", "running", "waiting", "interrupted", "failed", DAMAGED]
    counted = Counter(m.state for m in members)
    return sorted(counted.items(), key=lambda item: (order.index(item[0]) if item[0] in order
                                                     else len(order), item[0]))  # fmt: skip


def _notes(members: Sequence[Member], keys: Sequence[str]) -> Iterator[str]:
    """What a reader has to know before comparing numbers."""
    without = sum(m.state != "done" for m in members)
    if without:
        yield (
            f"{without} of {counted(len(members), 'run')} {'has' if without == 1 else 'have'} no "
            "scores; means are over those that have."
        )
    done = [m.summary for m in members if m.state == "done"]
    origins = [summary.get("provenance", {}) for summary in done]
    machines = {origin.get("gpu") or origin.get("cpu") for origin in origins}
    if len(machines) > 1:
        listed = ", ".join(sorted(str(m) for m in machines))
        yield f"Training times are from different machines and do not compare: {listed}."
    together = [origin.get("runs_at_once", 1) for origin in origins]
    if max(together, default=1) > 1:
        yield (
            f"Up to {max(together)} runs at once shared a device: training times are longer than "
            "alone, and compare only roughly."
        )
    data = {origin.get("data_fingerprint") for origin in origins}
    windows = {str(s.get("window")) for s in done} if all("window" in s for s in done) else set()
    if len(data) > 1 or len({w.rsplit(",", 1)[0] for w in windows}) > 1:
        yield (
            "The runs read different data or windows: losses and scores do not compare across "
            "these."
        )
    splits = {s.get("scored_split") for s in done}
    if splits == {"validation"}:
        yield "No test chromosomes were set: the scores are of the validation loci."


def _cells(configuration: Configuration, keys: Sequence[str]) -> list[tuple[str, float | str]]:
    """The cells of a row of the table: what is written, and what it is sorted by."""
    cells: list[tuple[str, float | str]] = []
    for key in keys:
        value = configuration.values.get(key, "")
        known = not math.isnan(number(value))
        cells.append((value, number(value) if known else value))
    n_done, n = len(configuration.done), len(configuration.members)
    state = configuration.members[0].state if n == 1 else f"{n_done} of {n} done"
    cells.append((state, n_done))
    size = configuration.mean("parameters")
    cells.append((whole(size), size))
    for measure in (*SHOWN, "minutes"):
        mean = configuration.mean(measure)
        digits = MINUTES_DIGITS if measure == "minutes" else None
        cells.append((with_spread(mean, configuration.spread(measure), digits), mean))
    return cells


def _heat_maps(configurations: Sequence[Configuration]) -> Iterator[tuple[str, list[Chart]]]:
    """For each pair of numeric keys, a heat map of each measure."""
    numeric = selection.numeric_keys(configurations)
    for y_key, x_key in itertools.combinations(numeric, 2):
        others = [key for c in configurations for key in c.values if key not in (x_key, y_key)]
        over = f", mean over {', '.join(dict.fromkeys(others))}" if others else ""
        charts = []
        for measure in (*SHOWN, "minutes"):
            grid = _grid(configurations, x_key, y_key, measure)
            if not np.isfinite(grid.values).any() or not grid.is_grid:
                continue
            minutes = measure == "minutes"
            title = "training time (min)" if minutes else _axis(measure)
            higher = not minutes and METRIC_INFO[measure].higher_is_better
            caption = f"{title}{over}: brighter is better, the best is framed"
            height = min(max(1.2 + 0.36 * len(grid.y), 2.4), 6.0)
            charts.append(chart(caption, plots_sweep.heat_map, grid, title, higher, height=height))
        if charts:
            yield f"{y_key} by {x_key}", charts


def _grid(configurations: Sequence[Configuration], x_key: str, y_key: str, measure: str) -> Grid:
    x, y = selection.levels_of(configurations, x_key), selection.levels_of(configurations, y_key)
    values, missing = np.full((len(y), len(x)), np.nan), {}
    for row, column in np.ndindex(values.shape):
        here = [
            c
            for c in configurations
            if (c.values.get(x_key), c.values.get(y_key)) == (x[column], y[row])
        ]
        known = [c.mean(measure) for c in here if not math.isnan(c.mean(measure))]
        if known:
            values[row, column] = np.mean(known)
        elif here:
            missing[row, column] = here[0].members[0].state
    return Grid(x_key, y_key, x, y, values, missing)


def _trade_offs(
    configurations: Sequence[Configuration], choice: selection.Choice | None
) -> Iterator[Chart]:
    for cost, label in COSTS.items():
        for measure in COMPARED:
            known = [
                c for c in configurations
                if not math.isnan(c.mean(cost)) and not math.isnan(c.mean(measure))
            ]  # fmt: skip
            if len(known) < 2 or len({c.mean(cost) for c in known}) < 2:
                continue
            points = [
                Point(
                    " x ".join(map(_short, c.values.values())), c.mean(cost), c.mean(measure),
                    _or_zero(c.spread(cost)), _or_zero(c.spread(measure)),
                )
                for c in known
            ]  # fmt: skip
            higher = METRIC_INFO[measure].higher_is_better
            best = selection.front([(p.cost, p.score) for p in points], higher)
            chosen = known.index(choice.chosen) if choice and choice.chosen in known else None
            named = " x ".join(known[0].values)
            spread = "; bars: SD over seeds" if any(p.score_spread for p in points) else ""
            caption = f"{_name(measure)} against {label}; names: {named}{spread}"
            axes = label, _axis(measure)
            yield chart(caption, plots_sweep.trade_off, points, best, chosen, *axes, higher)


def _range(levels: Sequence[str]) -> str:
    """The values of a key, or of many the first and the last."""
    if len(levels) <= MOST_LISTED:
        return ", ".join(levels)
    return f"{len(levels)} values from {_short(levels[0])} to {_short(levels[-1])}"


def _short(value: str) -> str:
    """A value for a chart: of a long number three digits."""
    known = len(value) > LONG_VALUE and not math.isnan(number(value))
    return f"{number(value):.3g}" if known else value


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def _effects(configurations: Sequence[Configuration], keys: Sequence[str]) -> Iterator[Chart]:
    for key in keys[:MOST_KEYS]:
        for measure in COMPARED:
            levels = selection.effect(configurations, key, measure)
            if len(levels) > 1:
                caption = f"{_name(measure)} by {key}, over all configurations"
                yield chart(caption, plots_sweep.effect, key, levels, _axis(measure))


def _receptive_fields(members: Sequence[Member]) -> Chart | None:
    """The receptive field of each depth beside the window, if there are several that runs noted."""
    depths: dict[int, int] = {}
    windows: dict[str, int] = {}
    for member in members:
        window = member.summary.get("window")
        layers = read_run(member.folder).config.get("model", {}).get("n_layers")
        if window and isinstance(layers, int):
            depths[layers] = max(window["receptive_field"], depths.get(layers, 0))
            windows = {"input window": window["in"], "output window": window["out"]}
    if len(depths) < 2:
        return None
    beyond = [str(d) for d, field in sorted(depths.items()) if field > windows["input window"]]
    note = f"; wider than the input at {', '.join(beyond)} blocks" if beyond else ""
    caption = f"input bases that one predicted base depends on{note}"
    points = zip(*sorted(depths.items()), strict=True)
    return chart(caption, plots_sweep.receptive_fields, *points, windows)
