"""The files of a run's or sweep's folder that something else may have written stay."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cherimoya.config.diff import CHANGED, SHAPE
from cherimoya.errors import ConfigError, DataError, OtherRun, disk_words
from cherimoya.records import layout, status
from cherimoya.records import sweep as sweeps
from cherimoya.records.layout import BIAS_QUALITY, CONFIG, EXAMPLES, PAGE, SCORED_LOCI, read_config
from cherimoya.records.study import NOTE
from cherimoya.records.sweep import MEMBER, SUMMARY
from cherimoya.util import console
from cherimoya.util.marks import set_aside
from cherimoya.util.shapes import read_json, tried

MADE_BY = b"by cherimoya-train"  # what says that a page is ours
OF_RUNS = {"seed", "model", "loss", "optim", "data", "trainer", "logger"}  # keys of config.yaml
WRITTEN_BY_RUNS = (
    CONFIG, status.ROWS, SUMMARY, SCORED_LOCI, EXAMPLES, BIAS_QUALITY, "metrics.csv",
    *(f"plots/{name}.png" for name in ("learning_curves", "counts", "profiles")),
    *(f"checkpoints/{name}.pt" for name in ("last", "previous", "best", "final")),
    "profile/trace.json", "profile/table.txt",
)  # fmt: skip
MULTIRUN = "multirun.yaml"  # which Hydra writes into a sweep's folder


def check_run_folder(folder: Path, page: bool) -> None:
    """Raise DataError where something that no run wrote has the name of a file of a run's.

    A folder with the configuration of a run is that run's, but for its `page`, if it gets one.
    """
    if page:
        check_page(folder)
    nothing: dict[str, Any] = {}
    if set(tried([], lambda: read_config(folder), nothing)) >= OF_RUNS:
        return
    begun: dict[str, Callable[[], Any]] = {  # what a run may have left that did not come so far
        MEMBER: lambda: read_json(folder / MEMBER, layout.OVERRIDES),
        CHANGED: lambda: read_json(folder / CHANGED, SHAPE),
        NOTE: lambda: read_json(folder / NOTE, layout.TRIAL_NOTE),
        status.NAME: lambda: read_json(folder / status.NAME, layout.STATUS),
    }
    there = [name for name in begun if (folder / name).is_file()]
    own = {name for name in there if tried([], begun[name], None) is not None}
    if own >= {MEMBER, status.NAME}:  # a sweep's, which writes the configuration anew
        return
    for name in (*WRITTEN_BY_RUNS, *begun):
        if os.path.lexists(folder / name) and name not in own:
            raise OtherRun(
                f"{folder / name}: exists already, and no run wrote it. Move it away, or name "
                "another folder: hydra.run.dir=..., or of a sweep hydra.sweep.dir=..."
            )


def check_sweep_folder(folder: Path) -> None:
    """Raise ConfigError where something that no sweep wrote has the name of a file of a sweep's.

    A plan that is damaged, in a folder with members, is set aside.
    """
    check_page(folder)
    plan = tried([], lambda: sweeps.read_plan(folder), None)
    for name in (sweeps.PLAN, MULTIRUN) if plan is None else ():
        if not os.path.lexists(folder / name):
            continue
        if not any(folder.glob(f"*/{MEMBER}")):
            raise ConfigError(
                f"{folder / name}: exists already, and no sweep wrote it. Move it away, or name "
                "another folder: hydra.sweep.dir=..."
            )
        if name == sweeps.PLAN:
            set_aside(folder / name, console.say)


def check_page(folder: Path) -> None:
    """Raise DataError where a file in `folder` has the name of its page, and is none of ours."""
    path = folder / PAGE
    if path.is_dir():
        error = IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise disk_words(error, "another folder")
    if os.path.lexists(path) and not is_page(path):
        raise DataError(f"{path}: exists already, and is no page of cherimoya's. Move it away.")


def is_page(path: Path) -> bool:
    """Whether the file at `path` is a page that we made."""
    return path.is_file() and MADE_BY in path.read_bytes()
