"""status.json of a run: how it goes or ended, and whether the process that wrote it is there."""

import json
import os
import socket
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from cherimoya.errors import DataError, DiskError, without_password
from cherimoya.records import layout
from cherimoya.util.files import atomic_write, open_owned
from cherimoya.util.shapes import read_json, read_json_lines

NAME, ROWS = "status.json", "metrics.jsonl"
TIME = "%Y-%m-%dT%H:%M:%S%z"
DAMAGED = "damaged"  # the state where a file that tells of it cannot be read
SLACK_SECONDS = 2  # between clocks that count from the start and from 1970
BEAT_SECONDS = 30.0  # between two signs of life
SILENT_SECONDS = 600  # after so long without one, a run elsewhere is taken to be gone


def write(
    folder: Path,
    state: str,
    started: float,
    error: BaseException | None = None,
    **facts: Any,
) -> None:
    """Write the state, whose it is and since when, `facts`, and the error with its traceback."""
    status: dict[str, Any] = {
        "state": state,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": time.strftime(TIME, time.localtime(started)),
        "seconds": round(time.time() - started, 1),
        **facts,
    }
    if error is not None:
        status["error"] = without_password(str(error) or type(error).__name__)
        status["traceback"] = without_password("".join(traceback.format_exception(error)))
    try:
        with atomic_write(folder / NAME) as file:
            file.write(json.dumps(status, indent=2).encode() + b"\n")
    except OSError:
        if state != "running":
            with suppress(OSError, DiskError):  # what is raised says why
                _write_over(folder / NAME, status)
        raise


def _write_over(path: Path, status: Mapping[str, Any]) -> None:
    """Write in the room that a status has already: a full disk has no other, and it must be true.

    What there is no room for is left out.
    """
    with open_owned(path, "r+b") as file:
        room = len(file.read())
        for left_out in (["traceback"], ["traceback", "error"]):
            kept = {key: value for key, value in status.items() if key not in left_out}
            content = json.dumps(kept, separators=(",", ":")).encode()
            if len(content) < room:
                file.seek(0)
                file.write(content.ljust(room))
                return


def read(folder: Path) -> dict[str, Any]:
    """status.json of the run in `folder`, empty where there is none; of one that is damaged the
    state says so, and the error what to do.

    A run whose process is gone from this machine without a word is interrupted, not running; and
    one of another machine that has given no sign of life (`Heartbeat`) for ten minutes.
    """
    try:
        status = read_json(folder / NAME, layout.STATUS)
    except DataError as error:
        return {"state": DAMAGED, "error": str(error)}
    if status.get("state") == "running" and (has_ended(status) or _is_silent(folder, status)):
        status["state"] = "interrupted"
    return status


class Heartbeat:
    """A sign of life of a running process, until `stop`: it sets the time of status.json."""

    def __init__(self, folder: Path) -> None:
        self._path, self._stopped = folder / NAME, threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def stop(self) -> None:
        """Give no more."""
        self._stopped.set()

    def _beat(self) -> None:
        while not self._stopped.wait(BEAT_SECONDS):
            with suppress(OSError):  # not there, or its disk is not
                os.utime(self._path, follow_symlinks=False)


def _is_silent(folder: Path, status: Mapping[str, Any]) -> bool:
    """Whether the run is of another machine, and has given no sign of life for long."""
    if status.get("host") == socket.gethostname():
        return False
    return time.time() - (folder / NAME).stat().st_mtime > SILENT_SECONDS


def total_seconds(status: Mapping[str, Any]) -> float:
    """Seconds of all processes of a run, one after another where it was interrupted."""
    return float(status.get("seconds", 0) + status.get("seconds_before", 0))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl; without the last one if a killed process left it half written.

    Raises DataError.
    """
    return read_json_lines(path, layout.ROW)


def has_ended(status: Mapping[str, Any]) -> bool:
    """Whether the process that `status` is of was one of this machine, and is gone."""
    if status.get("host") != socket.gethostname() or not layout.PROCESS.keys() <= status.keys():
        return False
    try:
        os.kill(status["pid"], 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass
    began = _began(status["pid"])  # another process may have got its number
    try:
        started = datetime.strptime(status["started"], TIME).timestamp()
    except ValueError:
        return False
    return began is not None and began > started + SLACK_SECONDS


def _began(pid: int) -> float | None:
    """When a process began, in seconds since 1970; None where /proc does not tell."""
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])
        up = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return time.time() - up + ticks / os.sysconf("SC_CLK_TCK")
