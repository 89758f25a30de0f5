"""A sweep on disk: its plan, the folder of each member, what is in it, and the table of all."""

import hashlib
import math
import os
import shlex
import socket
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cherimoya.config.diff import at
from cherimoya.errors import DataError, printable
from cherimoya.records import layout, status
from cherimoya.records.status import DAMAGED
from cherimoya.util import console
from cherimoya.util.files import remove_left, write_json
from cherimoya.util.shapes import Table, read_json, tried

PLAN = "sweep.json"
MEMBER = "member.json"
AT_WORK = ".running"  # how the note of a process ends
LONGEST = 120  # characters of a folder's name
METRICS = {  # column: the number of a member
    "valid loss": "best_valid_loss",
    "test MNLL": "test.profile_mnll",
    "profile r": "test.profile_pearson",
    "count r": "test.count_pearson",
    "minutes": "minutes",
}
LOSS = "loss"  # of validation, by which configurations are chosen
SEED = "seed"
SUMMARY = "summary.json"  # of a run
PRUNED = "pruned"  # stopped by a search, which has heard enough


@dataclass(frozen=True)
class Plan:
    """What a sweep is to do, in its folder's sweep.json."""

    name: str
    command: Sequence[str]
    swept: Sequence[str]  # keys
    members: Sequence[Mapping[str, str]]  # the swept overrides of each; none where unknown


@dataclass(frozen=True)
class Member:
    """One run of a sweep: what sets it apart, how far it came, and what it reached."""

    folder: Path
    overrides: Mapping[str, str]
    state: str  # done, pruned, running, interrupted, failed, waiting, or damaged
    summary: Mapping[str, Any] = field(default_factory=dict)
    status: Mapping[str, Any] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.state in ("done", PRUNED)

    @property
    def error(self) -> str:
        """Why it failed or cannot be read, in one line; empty where nothing says so."""
        lines = str(self.status.get("error", "")).splitlines() or [""]
        return printable(lines[0], 1000)

    def number(self, key: str) -> float:
        """What its summary has at a dotted key, or the minutes of training; NaN where unknown."""
        value = at(self.summary, "train_seconds" if key == "minutes" else key)
        if not isinstance(value, (int, float)):
            return math.nan
        return value / 60 if key == "minutes" else float(value)

    def measure(self, name: str) -> float:
        """The validation loss, a cost, or a score on the loci that were scored; NaN if unknown."""
        own = {LOSS: "best_valid_loss", "minutes": "minutes", "parameters": "parameters"}
        return self.number(own.get(name, f"{self.summary.get('scored_split', 'test')}.{name}"))


@dataclass(frozen=True)
class Configuration:
    """The members of a sweep that differ in nothing but their seed."""

    values: dict[str, str]  # of the swept keys, by short name
    members: Sequence[Member]

    @property
    def done(self) -> list[Member]:
        """Those that have scores."""
        return [m for m in self.members if m.state == "done"]

    @property
    def name(self) -> str:
        """The values in one line."""
        return ", ".join(f"{k}={v}" for k, v in self.values.items()) or "the one configuration"

    def all(self, measure: str) -> list[float]:
        """A measure of each finished member that has it."""
        values = [member.measure(measure) for member in self.done]
        return [value for value in values if not math.isnan(value)]

    def mean(self, measure: str) -> float:
        """The mean over seeds; NaN without any."""
        values = self.all(measure)
        return statistics.fmean(values) if values else math.nan

    def spread(self, measure: str) -> float:
        """The standard deviation over seeds; NaN for fewer than two."""
        values = self.all(measure)
        return statistics.stdev(values) if len(values) > 1 else math.nan


def sweep_name(overrides: Iterable[str], swept: Sequence[str], chosen: str | None) -> str:
    """The folder of a sweep: the same for the same command, whatever the order of its words."""
    arguments = sorted(overrides)
    if chosen and arguments == [f"sweep={chosen}"]:
        return chosen
    keys = chosen or "_".join(sorted(_short(key) for key in swept))
    return f"{keys[:LONGEST]}_{_digest(arguments)}"


def member_name(overrides: Mapping[str, str]) -> str:
    """The folder of a member: its swept overrides, such as n_filters=64,n_layers=5."""
    name = ",".join(f"{k}={v}" for k, v in sorted(short_keys(overrides).items()))
    name = "".join(c if c.isalnum() or c in "=,._-+" else "_" for c in name) or "run"
    return name if len(name) <= LONGEST else f"{name[:LONGEST]}_{_digest([name])}"


def _short(key: str) -> str:
    """The last part of a key, or of a group such as model/blocks."""
    return key.replace("/", ".").split(".")[-1]


def short_keys(overrides: Mapping[str, str]) -> dict[str, str]:
    """The overrides by the last part of their key, or by the whole key where two share it."""
    last = [_short(key) for key in overrides]
    return {
        (short if last.count(short) == 1 else key): value
        for (key, value), short in zip(overrides.items(), last, strict=True)
    }


def _digest(texts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:6]


def write_plan(folder: Path, plan: Plan) -> None:
    """Write `plan` into the sweep's folder."""
    members = [{"folder": member_name(m), "overrides": dict(m)} for m in plan.members]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / PLAN, vars(plan) | {"members": members})


def read_plan(folder: Path) -> Plan | None:
    """The plan of the sweep in `folder`; None where there is none. Raises DataError."""
    content = read_json(
        folder / PLAN, layout.PLAN, "The command of the sweep, given again, writes it anew."
    )
    if not content:
        return None
    members = [member["overrides"] for member in content["members"]]
    return Plan(content["name"], content["command"], content["swept"], members)


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Note in the folder of a sweep, while the block runs, that this process is at it.

    What killed processes left there goes.
    """
    remove_left(folder)
    for left in folder.glob(f".*{AT_WORK}"):
        if status.has_ended(_process(left)):
            left.unlink(missing_ok=True)
    own = {"pid": os.getpid(), "host": socket.gethostname()}
    path = folder / f".{own['host']}.{own['pid']}{AT_WORK}"
    write_json(path, own | {"started": time.strftime(status.TIME)})
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def processes(folder: Path) -> list[dict[str, Any]]:
    """Those at work on a sweep, with pid, host and since when; one elsewhere may be gone."""
    noted = [_process(path) for path in sorted(folder.glob(f".*{AT_WORK}"))]
    return [process for process in noted if process and not status.has_ended(process)]


def _process(noted: Path) -> dict[str, Any]:
    """What a process noted of itself; empty where that is gone or damaged."""
    nothing: dict[str, Any] = {}
    return tried([], lambda: read_json(noted, Table(layout.PROCESS)), nothing)


def note_member(folder: Path, overrides: Mapping[str, str]) -> None:
    """Write what sets a member apart into its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / MEMBER, dict(overrides))


def read_member(folder: Path, overrides: Mapping[str, str] | None = None) -> Member:
    """The member in `folder`; `overrides` where it has not begun yet."""
    how = status.read(folder)
    state = how.get("state", "waiting")
    problems: list[str] = []
    summary: dict[str, Any] = {}
    if overrides is None:
        overrides = tried(problems, lambda: read_json(folder / MEMBER, layout.OVERRIDES), summary)
    if state in ("done", PRUNED, DAMAGED):
        summary = tried(problems, lambda: read_json(folder / SUMMARY, layout.SUMMARY), summary)
    if problems:
        state, how = DAMAGED, {"error": " ".join(problems), **how, "state": DAMAGED}
    return Member(folder=folder, overrides=overrides, state=state, summary=summary, status=how)


def plan_problem(folder: Path) -> str | None:
    """What is wrong with the plan of the sweep in `folder`, if it is damaged."""
    try:
        read_plan(folder)
    except DataError as error:
        return str(error)
    return None


def read_sweep(folder: Path) -> list[Member]:
    """Every member, in the order of the plan, and then those that it does not name."""
    plan = tried([], lambda: read_plan(folder), None)
    planned = {member_name(m): m for m in plan.members} if plan else {}
    begun = {path.parent.name for path in folder.glob(f"*/{MEMBER}")}
    return [
        *(read_member(folder / name, overrides) for name, overrides in planned.items()),
        *(read_member(folder / name) for name in sorted(begun - planned.keys())),
    ]


def table(members: Sequence[Member]) -> str:
    """A row for each configuration, best first; seeds are folded into mean and spread."""
    found = configurations(members)
    keys = list(found[0].values) if found else []
    rows = []
    for one in found:
        size = f"{one.mean('parameters'):,.0f}" if one.done else "-"
        cells = [_spread([m.number(key) for m in one.done]) for key in METRICS.values()]
        names = one.values.values() or [_seeds(one.members)]
        rows.append([*names, _states(one.members), size, *cells])
    return console.table([*(keys or ["run"]), "state", "parameters", *METRICS], rows)


def tsv(members: Sequence[Member]) -> str:
    """A line for each run, tab-separated: its folder, the swept keys, its state and its numbers."""
    keys = list(dict.fromkeys(key for m in members for key in m.overrides))
    numbers = ["parameters", *METRICS.values()]
    lines = [["run", *keys, "state", *numbers]]
    for member in members:
        found = [member.number(name) for name in numbers]
        cells = ["" if math.isnan(value) else f"{value:.6g}" for value in found]
        own = [member.overrides.get(key, "") for key in keys]
        lines.append([member.folder.name, *own, member.state, *cells])
    return "\n".join("\t".join(printable(cell, 1000) for cell in line) for line in lines)


def _seeds(group: Sequence[Member]) -> str:
    """What members are called that differ in nothing but their seeds."""
    if len(group) == 1:
        return group[0].folder.name
    return f"seed={','.join(m.overrides.get(SEED, '?') for m in group)} (mean +- SD)"


def _states(group: Sequence[Member]) -> str:
    """done; or of several: 1 of 3 done, 2 failed."""
    if len(group) == 1:
        return group[0].state
    counts = Counter(m.state for m in group)
    others = [f"{n} {state}" for state, n in sorted(counts.items()) if state != "done"]
    return ", ".join([f"{counts['done']} of {len(group)} done", *others])


def configurations(members: Sequence[Member]) -> list[Configuration]:
    """The members by the swept keys but the seed, the lowest mean validation loss first.

    Those without a loss are the last.
    """
    keys = list(dict.fromkeys(key for m in members for key in m.overrides if key != SEED))
    groups: dict[tuple[str, ...], list[Member]] = {}
    for member in members:
        groups.setdefault(tuple(member.overrides.get(k, "") for k in keys), []).append(member)
    short = list(short_keys(dict.fromkeys(keys, "")))
    found = [Configuration(dict(zip(short, v, strict=True)), group) for v, group in groups.items()]
    return sorted(found, key=lambda one: (math.isnan(one.mean(LOSS)), one.mean(LOSS)))


def _spread(values: Sequence[float]) -> str:
    if not values or any(math.isnan(v) for v in values):
        return "-"
    mean = statistics.fmean(values)
    digits = 1 if abs(mean) >= 10 else 3
    text = f"{mean:.{digits}f}"
    if len(values) > 1:
        text += f" +- {statistics.stdev(values):.{digits}f}"
    return text


def sync_command(folder: Path, members: bool = False) -> str | None:
    """The command that sends the offline W&B runs in a run's or, with `members`, a sweep's folder.

    None if there is nothing to send. The parts of a run that was resumed arrive as one.
    """
    below = "*/wandb" if members else "wandb"
    runs = [path.parent for path in folder.glob(f"{below}/offline-run-*/*.wandb")]
    if all(list(run.glob("*.wandb.synced")) for run in runs):
        return None
    return f"wandb sync {shlex.quote(str(folder))}/{below}"
