"""How a sweep is going, in words: what is done, runs, failed or waits, and the time left."""

import math
import os
import shlex
import socket
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cherimoya.errors import printable
from cherimoya.records import status
from cherimoya.records import sweep as sweeps
from cherimoya.records.status import DAMAGED
from cherimoya.records.sweep import Member
from cherimoya.util import console
from cherimoya.util.console import counted
from cherimoya.util.shapes import tried

ORDER = ("running", "failed", DAMAGED, "interrupted", "done", "pruned", "waiting")
OPEN = ("running", "interrupted", "waiting")  # with something left to do; a failed one may fail on
SILENT_SECONDS = 600  # after which the last sign of a run is told
LONGEST = 100  # characters of an error


def describe(folder: Path, height: int | None = None) -> str:
    """The sweep in `folder` as lines, at most `height` of them: counts, time left, a table."""
    members = sweeps.read_sweep(folder)
    counts = Counter(m.state for m in members)
    listed = ", ".join(f"{counts[s]} {s}" for s in ORDER if counts[s])
    head = [f"sweep      {folder}: {counted(len(members), 'run')}, {listed}"]
    best = min(members, key=_loss, default=None)
    if best and _loss(best) < math.inf:
        head.append(f"best       {best.folder.name}, valid loss {_loss(best):.4g}")
    head += [f"damaged    {words}" for words in [sweeps.plan_problem(folder)] if words]
    head += [f"time left  {words}" for words in [time_left(members)] if words]
    if not any(m.state == "running" for m in members) and not all(m.finished for m in members):
        head.append(_who_goes_on(folder))
    room = None if height is None else max(height - len(head) - 4, 1)  # blank, table's head, cut
    return "\n".join([*head, "", _table(members, best, room)])


def _who_goes_on(folder: Path) -> str:
    """What to expect where no member is being trained."""
    plan = tried([], lambda: sweeps.read_plan(folder), None)
    command = f": {shlex.join(plan.command)}" if plan else ""
    again = f"the same command goes on with what is not done{command}"
    at_work = sweeps.processes(folder)
    here = [p for p in at_work if p["host"] == socket.gethostname()]
    if here:
        return f"the next run is about to begin, by process {here[0]['pid']}"
    if at_work:
        other = at_work[0]
        return f"process {other['pid']} on {other['host']} is at it; should it be gone, {again}"
    return f"nothing runs; {again}"


def anything_runs(folder: Path) -> bool:
    """Whether a member of the sweep in `folder` is being trained, or about to be."""
    running = any(m.state == "running" for m in sweeps.read_sweep(folder))
    return running or bool(sweeps.processes(folder))


def anything_left(folder: Path) -> bool:
    """Whether a member of the sweep in `folder` has not ended, well or badly."""
    return any(m.state in OPEN for m in sweeps.read_sweep(folder))


def time_left(members: Sequence[Member]) -> str:
    """How long until all have ended, as far as those that have trained can tell."""
    running = [m for m in members if m.state == "running"]
    if not running:
        return ""
    totals = [total for m in members if (total := _total(m)) is not None]
    if not totals:
        return "not known before a run has ended an epoch"
    typical, left = statistics.fmean(totals), 0.0
    for member in members:
        if member.state in OPEN:
            so_far = float(member.status.get("train_seconds", 0)) + _since_then(member)
            left += max((_total(member) or typical) - so_far, 0)
    each = f" with {len(running)} at a time" if len(running) > 1 else ""
    guess = ", if the others take as long" if len(totals) < len(members) else ""
    return f"about {console.duration(left / len(running))}{each}{guess}"


def _total(member: Member) -> float | None:
    """Seconds of training, in all, of a member that has ended an epoch; else None."""
    how = member.status
    if member.finished:
        return float(member.summary.get("train_seconds") or 0)
    if how.get("epoch") and {"train_seconds", "epochs"} <= how.keys():
        return float(how["train_seconds"] / how["epoch"] * how["epochs"])
    return None


def _since_then(member: Member) -> float:
    """Seconds since a running member last told how far it is."""
    if member.state != "running" or not (member.folder / status.NAME).is_file():
        return 0
    return max(time.time() - os.path.getmtime(member.folder / status.NAME), 0)


def _table(members: Sequence[Member], best: Member | None, room: int | None) -> str:
    """A row for each member, those with news first where there is no `room` for all."""
    keys = list(dict.fromkeys(key for m in members for key in m.overrides))
    names = [printable(key, LONGEST) for key in sweeps.short_keys(dict.fromkeys(keys, ""))]
    shown = list(members)
    if room is not None and len(members) > room:
        shown = sorted(members, key=lambda m: (ORDER.index(m.state), _loss(m)))[:room]
    header = [*(names or ["run"]), "state", "epoch", "ms a step", "valid loss", ""]
    rows = []
    for member in shown:
        values = [printable(member.overrides.get(key, ""), LONGEST) for key in keys]
        values = values or [member.folder.name]
        loss = _loss(member)
        cells = [_epochs(member.status), _speed(member.status), _number(_loss_so_far(member))]
        word = "best" if member is best and loss < math.inf else _note(member)
        rows.append([*values, member.state, *cells, word])
    lines = console.table(header, [[*row[:-1], ""] for row in rows]).splitlines()
    notes = ["", "", *(row[-1] for row in rows)]
    lines = [f"{line}  {note}".rstrip() for line, note in zip(lines, notes, strict=True)]
    if len(shown) < len(members):
        lines.append(f"... and {len(members) - len(shown)} more")
    return "\n".join(lines)


def _note(member: Member) -> str:
    how = member.status
    if member.state == "failed":
        return member.error[:LONGEST]
    if member.state == DAMAGED:
        return member.error
    if member.state == "running":
        silent = _since_then(member)
        words = f"on {printable(str(how.get('host')))}"
        return (
            f"{words}, silent for {console.duration(silent)}" if silent > SILENT_SECONDS else words
        )
    return ""


def _loss(member: Member) -> float:
    loss = member.number("best_valid_loss") if member.state == "done" else math.nan
    return math.inf if math.isnan(loss) else loss


def _loss_so_far(member: Member) -> float:
    """The least validation loss that the member has reached; infinite where nothing tells."""
    if member.state == "done":
        return _loss(member)
    nothing: list[dict[str, Any]] = []
    rows = tried([], lambda: status.read_rows(member.folder / status.ROWS), nothing)
    losses = [row.get("valid/loss") for row in rows]
    return min((x for x in losses if isinstance(x, float) and not math.isnan(x)), default=math.inf)


def _epochs(how: Mapping[str, Any]) -> str:
    return f"{how['epoch']} of {how['epochs']}" if {"epoch", "epochs"} <= how.keys() else "-"


def _speed(how: Mapping[str, Any]) -> str:
    speed = how.get("ms_per_step")
    return "-" if speed is None else f"{speed:.1f}"


def _number(value: float) -> str:
    return "-" if value == math.inf else f"{value:.4g}"
