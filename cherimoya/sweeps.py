"""A sweep on disk: the folder of each member, what is in it, and the table of them all."""

import hashlib
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cherimoya import progress

MEMBER = "member.json"
LONGEST = 120  # characters of a folder's name
METRICS = {  # column: where summary.json has it
    "valid loss": ("best_valid_loss",),
    "test MNLL": ("test", "profile_mnll"),
    "profile r": ("test", "profile_pearson"),
    "count r": ("test", "count_pearson"),
    "minutes": ("train_seconds",),
}
SEED = "seed"
PRUNED = "pruned"  # stopped by a search, which has heard enough


@dataclass(frozen=True)
class Member:
    """One run of a sweep: what sets it apart, how far it came, and what it reached."""

    folder: Path
    overrides: Mapping[str, str]
    state: str  # done, pruned, running, interrupted, failed, or waiting
    summary: Mapping[str, Any] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.state in ("done", PRUNED)

    def metric(self, column: str) -> float:
        """A column of the table; NaN where there is none."""
        value: Any = self.summary
        for key in METRICS[column]:
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is None:
            return math.nan
        return value / 60 if column == "minutes" else float(value)


def sweep_name(overrides: Iterable[str], swept: Sequence[str], chosen: str | None) -> str:
    """The folder of a sweep: the same for the same command, whatever the order of its words."""
    words = sorted(overrides)
    if chosen and words == [f"sweep={chosen}"]:
        return chosen
    keys = chosen or "_".join(sorted(key.split(".")[-1] for key in swept))
    return f"{keys[:LONGEST]}_{_digest(words)}"


def member_name(overrides: Mapping[str, str]) -> str:
    """The folder of a member: its swept overrides, such as n_filters=64,n_layers=5."""
    name = ",".join(f"{k}={v}" for k, v in sorted(short_keys(overrides).items()))
    name = "".join(c if c.isalnum() or c in "=,._-+" else "_" for c in name) or "run"
    return name if len(name) <= LONGEST else f"{name[:LONGEST]}_{_digest([name])}"


def short_keys(overrides: Mapping[str, str]) -> dict[str, str]:
    """The overrides by the last part of their key, or by the whole key where two share it."""
    last = [key.split(".")[-1] for key in overrides]
    return {
        (short if last.count(short) == 1 else key): value
        for (key, value), short in zip(overrides.items(), last, strict=True)
    }


def _digest(words: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:6]


def note_member(folder: Path, overrides: Mapping[str, str]) -> None:
    """Write what sets a member apart into its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MEMBER).write_text(json.dumps(dict(overrides), indent=2) + "\n")


def read_member(folder: Path, overrides: Mapping[str, str] | None = None) -> Member:
    """The member in `folder`; `overrides` where it has not begun yet."""
    status = _json(folder / "status.json")
    return Member(
        folder=folder,
        overrides=overrides or _json(folder / MEMBER),
        state=status.get("state", "waiting"),
        summary=_json(folder / "summary.json") if status.get("state") in ("done", PRUNED) else {},
    )


def read_sweep(folder: Path) -> list[Member]:
    """Every member that has begun, by name."""
    return [read_member(path.parent) for path in sorted(folder.glob(f"*/{MEMBER}"))]


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}


def table(members: Sequence[Member]) -> str:
    """A row for each configuration, best first; seeds are folded into mean and spread."""
    keys = list(dict.fromkeys(key for m in members for key in m.overrides if key != SEED))
    groups: dict[tuple[str, ...], list[Member]] = {}
    for member in members:
        groups.setdefault(tuple(member.overrides.get(k, "") for k in keys), []).append(member)
    order = sorted(groups.items(), key=lambda item: _first(item[1]))
    short = list(short_keys(dict.fromkeys(keys, "")))
    header = [*(short or ["run"]), "state", "parameters", *METRICS]
    rows = []
    for values, group in order:
        done = [m for m in group if m.state == "done"]
        counts = [f"{len(done)} of {len(group)} done" if len(group) > 1 else group[0].state]
        size = f"{done[0].summary['parameters']:,}" if done else "-"
        cells = [_spread([m.metric(column) for m in done]) for column in METRICS]
        rows.append([*(values or (group[0].folder.name,)), *counts, size, *cells])
    return progress.table(header, rows)


def _first(group: Sequence[Member]) -> float:
    """What rows are ordered by: the mean validation loss, those without one last."""
    losses = [m.metric("valid loss") for m in group if m.state == "done"]
    return statistics.fmean(losses) if losses else math.inf


def _spread(values: Sequence[float]) -> str:
    if not values or any(math.isnan(v) for v in values):
        return "-"
    mean = statistics.fmean(values)
    digits = 1 if abs(mean) >= 10 else 3
    words = f"{mean:.{digits}f}"
    if len(values) > 1:
        words += f" +- {statistics.stdev(values):.{digits}f}"
    return words
