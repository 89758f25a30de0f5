"""The members of a sweep: whether each can begin, where it stands, and how all ended."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cherimoya.config.data import DataConfig
from cherimoya.config.diff import differences
from cherimoya.config.groups import compose, composition, initialized, plain_values
from cherimoya.config.schema import build, to_dict
from cherimoya.config.train import FREE_ON_RESUME, TrainConfig
from cherimoya.errors import CherimoyaError, ConfigError, OtherRun
from cherimoya.records import sweep as sweeps
from cherimoya.records.layout import as_asked
from cherimoya.records.own_folders import check_run_folder
from cherimoya.records.status import DAMAGED
from cherimoya.records.sweep import Member, sync_command
from cherimoya.sweeps.data import check_data
from cherimoya.sweeps.plan import Sweep
from cherimoya.util.console import counted, note
from cherimoya.util.files import lock_folder

PATIENCE_SECONDS = 15  # for a process that was just told to stop, to leave its folder


def check(sweep: Sweep, free: tuple[str, ...] = ()) -> None:
    """Compose and check every member before the first begins, and say what a file overrules.

    Raises ConfigError that lists those that cannot be: also those that share a folder, or whose
    folder holds a run with another configuration, though keys that begin with `free` may differ.
    The data of those that are not done are looked at too, if the sweep's runs read them here.
    A key that is not swept may be without effect in some members, as long as it has one in others.
    """
    problems: dict[str, str] = {}
    folders: set[Path] = set()
    idle: list[dict[str, str]] = []
    data: dict[str, tuple[DataConfig, list[str]]] = {}
    notes: dict[str, None] = {}
    with initialized():
        for words in sweep.members:
            folder = sweep.folder_of(words)
            label = ",".join(f"{k}={v}" for k, v in sweep.overrides_of(words).items())
            try:
                if folder in folders:
                    raise ConfigError(f"another run has the folder {folder.name} too")
                folders.add(folder)
                values, choices = compose("train", [*sweep.settings, *words])
                plain = plain_values(values)
                config = build(TrainConfig, plain)
                sweep.check_member(config)
                check_same(folder, to_dict(config), free)
                to_do = not sweeps.read_member(folder).finished
                if to_do:
                    check_run_folder(folder, config.trainer.plots)
                made = composition(config, plain, words, choices)
                made.check_files()
                found = made.without_effect()
                notes |= dict.fromkeys(made.overruled())
                idle.append({k: m for k, m in found.items() if k not in sweep.swept})
                for key in found.keys() & set(sweep.swept):
                    raise ConfigError(found[key])
                if sweep.here and to_do:
                    data.setdefault(repr(config.data), (config.data, []))[1].append(label)
            except CherimoyaError as error:
                problems[label] = str(error)
    if problems:
        listed = "\n".join(f"  {label}: {problem}" for label, problem in problems.items())
        bad = f"{len(problems)} of {counted(len(sweep.members), 'run')}"
        raise ConfigError(f"{bad} cannot be, so none has begun:\n{listed}")
    if data:
        check_data(data.values(), len(sweep.members))
    for key in [key for key in (idle[0] if idle else ()) if all(key in each for each in idle)]:
        raise ConfigError(idle[0][key])
    for said in notes:
        note(said)


def check_same(folder: Path, wanted: Mapping[str, Any], free: tuple[str, ...]) -> None:
    """Raise OtherRun when `folder` holds a run that is not configured as `wanted`."""
    changed = differences(as_asked(folder), wanted, free)
    if changed:
        raise OtherRun(
            f"{folder} holds a run with another configuration: {'; '.join(changed)}. Move it "
            "away, or name another hydra.sweep.dir."
        )


def begin(folder: Path, overrides: Mapping[str, str], wanted: Mapping[str, Any]) -> str:
    """What to do about the member in `folder`, whose configuration is to be `wanted`.

    "done" when it is, "resume" when it was interrupted, "new" else. Raises OtherRun, see
    `check_same`, and InUse when another process is at it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder, PATIENCE_SECONDS):
        check_same(folder, wanted, FREE_ON_RESUME)
        member = sweeps.read_member(folder)
        if not member.finished:
            check_run_folder(folder, page=False)  # which the run itself looks at
        sweeps.note_member(folder, overrides)
        if member.finished:
            return "done"
        saved = ("last.pt", "last.pt.new", "previous.pt")
        if any((folder / "checkpoints" / name).is_file() for name in saved):
            return "resume"
        for left in ("metrics.jsonl", "checkpoints/best.pt"):
            (folder / left).unlink(missing_ok=True)
        return "new"


def finished(sweep: Sweep, problems: Sequence[tuple[str, str]]) -> tuple[str, bool]:
    """The table of the sweep and what is not done in it, as its folder has it; and if all is.

    `problems` are errors, by member, that the folders cannot tell.
    """
    members = sweeps.read_sweep(sweep.folder)
    table = sweeps.table(members) + sweep.ending()
    lines = [f"\n=== sweep {sweep.folder}: {counted(len(members), 'run')}", table]
    bad = [m for m in members if m.state in ("failed", DAMAGED)]
    failed = {m.folder.name: str(m.status.get("error")) for m in bad}
    failed = dict(problems) | failed
    lines += [f"FAILED  {name}: {error}" for name, error in failed.items()]
    for member in members:
        if member.state in ("interrupted", "running") and member.folder.name not in failed:
            lines.append(f"{member.state.upper()}  {member.folder.name}{_why(member)}")
    waiting = sum(m.state == "waiting" for m in members)
    if waiting:
        lines.append(f"WAITING  {waiting} of {len(members)}")
    complete = not failed and all(m.finished for m in members)
    if not complete:
        lines.append("The same command goes on with what is not done.")
    if command := sync_command(sweep.folder, members=True):
        lines.append(f"\nW&B  {command}")
    return "\n".join(lines), complete


def _why(member: Member) -> str:
    status = member.status
    if member.state == "running":
        return f": by process {status.get('pid')} on {status.get('host')}"
    if member.state == "interrupted" and "traceback" not in status:
        return ": its process was killed, perhaps for want of memory"
    return ""
