"""What a run folder says about its run: read back without torch, whatever has become of it."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import yaml

from cherimoya.config.diff import CHANGED, Changes, command, read_changes, write_changes
from cherimoya.config.schema import to_dict
from cherimoya.config.train import TrainConfig
from cherimoya.errors import ConfigError
from cherimoya.records import status
from cherimoya.records.bias_quality import read_quality
from cherimoya.records.layout import BIAS_QUALITY, CONFIG, EXAMPLES, SCORED_LOCI, read_config
from cherimoya.records.per_locus import (
    Examples,
    ScoredLoci,
    read_examples,
    read_scored_loci,
)
from cherimoya.records.status import DAMAGED, ROWS, read_rows, total_seconds
from cherimoya.records.sweep import SUMMARY, Member, read_member
from cherimoya.util import console
from cherimoya.util.files import LOCK, atomic_write
from cherimoya.util.shapes import tried

T = TypeVar("T")

LAST, PREVIOUS, BEST, FINAL = "last.pt", "previous.pt", "best.pt", "final.pt"
PLOTS = "plots"
FILE_ENDINGS = (
    ".bw", ".bigwig", ".bedgraph", ".bg", ".wig", ".h5", ".hdf5", ".npz", ".tsv", ".csv", ".txt",
    ".json", ".html", ".gz",
)  # fmt: skip


@dataclass(frozen=True, eq=False, kw_only=True)
class RunFolder(Member):
    """A run as its files tell: what is not there, or not yet true, is empty or None."""

    config: dict[str, Any]
    changes: Changes | None  # of the defaults, if the run noted them
    rows: list[dict[str, Any]]  # of metrics.jsonl
    problems: list[str] = field(default_factory=list)  # what is wrong with damaged files

    @cached_property
    def loci(self) -> ScoredLoci | None:
        """The scores of each locus."""
        return self._of_loci(read_scored_loci, SCORED_LOCI)

    @cached_property
    def examples(self) -> Examples | None:
        """A few loci with their profiles."""
        return self._of_loci(read_examples, EXAMPLES)

    @cached_property
    def bias_quality(self) -> dict[str, Any]:
        """The quality control of its bias model; empty without one."""
        found = self._of_loci(read_quality, BIAS_QUALITY)
        return found or {}

    def _of_loci(self, read: Callable[[Path], T | None], name: str) -> T | None:
        if self.state not in ("done", DAMAGED):
            return None
        return tried(self.problems, lambda: read(self.folder / name), None)

    @property
    def seconds(self) -> float:
        """How long the run took in all, without the time that it stood still."""
        trained = float(self.summary.get("train_seconds") or self.status.get("train_seconds") or 0)
        return max(total_seconds(self.status), trained)

    @property
    def first_started(self) -> str | None:
        """When the first of its processes began."""
        return self.status.get("first_started", self.status.get("started"))

    @property
    def best_row(self) -> dict[str, Any] | None:
        """The row of the epoch with the lowest validation loss so far, of which best.pt is."""
        scored = [row for row in self.rows if row.get("valid/loss") is not None]
        known = self.summary.get("best_epoch", self.status.get("best_epoch"))
        if known is not None:  # since that of a better one may be lost
            scored = [row for row in scored if row["epoch"] == known]
        return min(scored, key=lambda row: row["valid/loss"]) if scored else None

    @property
    def can_resume(self) -> bool:
        """Whether there is something left to do, and a configuration to do it by."""
        return bool(self.config) and self.state != "done"

    @property
    def resume_command(self) -> str:
        """The command that resumes the run."""
        return console.resume_command(self.folder)

    @property
    def new_command(self) -> str | None:
        """The command that makes the run anew; None for a run that did not note its changes."""
        made = self.changes if self.config else None
        return None if made is None else command(self.config, made)


def begin_run(folder: Path, config: TrainConfig, made: Changes | None) -> None:
    """Make `folder`, which this process has locked, that of a new run, as `config` says.

    What a run left there that ended before it had saved anything goes. Raises ConfigError where
    there is more of another run.
    """
    rows = folder / ROWS
    saved = [p for p in folder.glob("checkpoints/*.pt*") if not p.name.startswith(".")]  # whole
    held = [p for p in (*saved, folder / SUMMARY) if p.is_file()]
    if rows.is_file() and rows.stat().st_size:
        held.append(rows)
    if held:
        raise ConfigError(
            f"{folder} holds another run: {held[0].relative_to(folder)} is there. Go on with it: "
            f"{console.resume_command(folder)}. Or name a folder of its own for the new one: "
            "hydra.run.dir=..."
        )
    rows.unlink(missing_ok=True)
    if made:
        write_changes(folder, made)
    write_config(folder, to_dict(config))  # last: with it the run can be gone on with


def forget_run(folder: Path) -> None:
    """Remove what a run wrote into `folder` that could not begin; anything else there stays."""
    for name in (CONFIG, CHANGED, status.NAME, ROWS, LOCK):
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):  # not there, or not empty
        (folder / "checkpoints").rmdir()


def write_config(folder: Path, values: Mapping[str, Any]) -> None:
    """Write config.yaml of the run in `folder`."""
    with atomic_write(folder / CONFIG) as file:
        file.write(yaml.safe_dump(dict(values), sort_keys=False).encode())


def note_moved_data(folder: Path, config: TrainConfig) -> None:
    """Have config.yaml name the file that a resumed run reads, which may have another place now.

    One that was damaged, and removed as the message says, is written anew.
    """
    trainer = replace(config.trainer, resume=None)
    values = read_config(folder) or to_dict(replace(config, trainer=trainer))
    if not (folder / CONFIG).is_file() or values["data"].get("path") != config.data.path:
        values["data"]["path"] = config.data.path
        write_config(folder, values)


def is_run(folder: Path) -> bool:
    """Whether `folder` holds a run, or what is left of one."""
    return any((folder / name).is_file() for name in (CONFIG, status.NAME))


def check_output_folder(output: Path, holds: str) -> None:
    """Raise ConfigError where `output`, a folder to be made that `holds` files, is a file, is named
    as one, or is the folder of a run."""
    if output.exists() and not output.is_dir():
        raise ConfigError(f"output={output}: a file. Name a folder.")
    if output.suffix.lower() in FILE_ENDINGS and not output.is_dir():
        raise ConfigError(
            f"output={output}: the name of a file, but a folder is made, which holds {holds}. Name "
            f"it without the ending: output={output.with_suffix('')}"
        )
    if is_run(output):
        raise ConfigError(f"output={output}: a run is there. Choose another folder.")


def read_run(folder: Path) -> RunFolder:
    """The run in `folder`, as far as its files can be read."""
    member = read_member(folder)
    problems = [str(member.status["error"])] if member.state == DAMAGED else []
    return RunFolder(
        **vars(member),
        config=tried(problems, lambda: read_config(folder), {}),
        changes=tried(problems, lambda: read_changes(folder), None),
        rows=tried(problems, lambda: read_rows(folder / ROWS), []),
        problems=problems,
    )
