"""Where the members of a sweep run: in several processes of this machine, or on SLURM's nodes."""

import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from typing import Any

from omegaconf import DictConfig

from cherimoya.records import sweep as sweeps
from cherimoya.records.status import DAMAGED
from cherimoya.sweeps.plan import MEMBER_OF, Sweep
from cherimoya.training.interrupt import stop_request
from cherimoya.util import console
from cherimoya.util.console import counted
from cherimoya.util.files import open_owned

TRAIN = "from cherimoya.cli.scripts import train; train()"
PARENT = "CHERIMOYA_PARENT"
OUTPUT = "output.log"
LOOK_SECONDS = 0.1
SUBMITTED_LOOK_SECONDS = 1.0
LAST_SECONDS = 10  # that processes have after a second Ctrl-C
FOR_MEMBERS = ("hydra.searchpath=", "hydra.job.env_set")  # of Hydra's own overrides


@dataclass(frozen=True)
class Slot:
    """What one of several processes has for itself."""

    gpus: tuple[str, ...]  # as CUDA_VISIBLE_DEVICES names them
    cores: tuple[int, ...]
    on_cpu: bool

    @property
    def environment(self) -> dict[str, str]:
        """What a process in this slot is told."""
        threads = {"OMP_NUM_THREADS": str(len(self.cores)), PARENT: str(os.getpid())}
        return threads if self.on_cpu else {**threads, "CUDA_VISIBLE_DEVICES": ",".join(self.gpus)}


def slots(
    wanted: int | None, gpus: Sequence[str], cores: Sequence[int], devices: int, members: int
) -> list[Slot]:
    """How the machine is shared out: `wanted` processes, or as many as GPUs, or else as cores.

    Each has `devices` GPUs, the same as others where there are more processes, and a share of
    the cores.
    """
    groups = [tuple(gpus[i : i + devices]) for i in range(0, len(gpus) - devices + 1, devices)]
    groups = groups or ([tuple(gpus)] if gpus else [])
    n = max(min(wanted or len(groups) or len(cores), members), 1)
    shares = [tuple(cores[i * len(cores) // n : (i + 1) * len(cores) // n]) for i in range(n)]
    return [
        Slot(
            groups[i % len(groups)] if groups else (),
            share or (cores[i % len(cores)],),
            on_cpu=not groups,
        )
        for i, share in enumerate(shares)
    ]


@dataclass(frozen=True)
class Pool:
    """Several members at once, each in a process of its own with its GPU or share of the cores.

    Unlike a pool of workers it survives that one is killed, and has all of them save on Ctrl-C.
    What a process prints is in its run folder's output.log.
    """

    sweep: Sweep
    problems: list[tuple[str, str]]  # which it adds to, by member
    config: DictConfig
    wanted: int | None  # processes, see `slots`

    def run(self, jobs: Sequence[Sequence[str]]) -> None:
        """Run each job whose member is not done yet, and wait for all of them.

        Raises SystemExit after a signal, when all have saved.
        """
        waiting = deque(not_done(self.sweep, jobs))
        total, trainer = len(waiting), self.config.trainer
        gpus = _gpus() if waiting and trainer.device != "cpu" else []
        free = slots(self.wanted, gpus, _cores(), trainer.devices, total)
        if waiting:
            at_once = f"{len(free)} at a time{_in_words(free[0])}"
            console.say(f"{counted(total, 'run')} to do, {at_once}")
        running: list[_Process] = []
        told = False
        with stop_request() as stop, _all_stopped(running):
            while running or (waiting and not stop.signum):
                while waiting and free and not stop.signum:
                    running.append(self._start(waiting.popleft(), free.pop(0)))
                for ended in [p for p in running if p.process.poll() is not None]:
                    running.remove(ended)
                    free.insert(0, ended.slot)
                    self._tell(ended, f"{total - len(waiting) - len(running)} of {total}")
                if stop.signum and not told:
                    told = True
                    _signal(running, stop.signum)
                time.sleep(LOOK_SECONDS)
        if stop.signum:
            raise SystemExit(128 + stop.signum)

    def _start(self, words: Sequence[str], slot: Slot) -> "_Process":
        folder = self.sweep.folder_of(words)
        folder.mkdir(parents=True, exist_ok=True)
        hydras = [w for w in self.config.hydra.overrides.hydra if w.startswith(FOR_MEMBERS)]
        command = [sys.executable, "-P", "-c", TRAIN, MEMBER_OF, str(self.sweep.folder)]
        console.say(f"start  {folder.name}")
        with open_owned(folder / OUTPUT, "ab") as output, _pinned(slot):
            process = subprocess.Popen(
                [*command, *words, *hydras], env=_all_said() | slot.environment,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        return _Process(process, slot, folder)

    def _tell(self, ended: "_Process", how_far: str) -> None:
        """Say how a process ended; the sweep's folder alone counts, unless it knows nothing."""
        member, code = sweeps.read_member(ended.folder), ended.process.returncode
        state = "failed" if code == 1 and not member.finished else member.state  # also before a run
        words = f"{state:6} {ended.folder.name}"
        if member.finished:
            words += f"  in {console.duration(time.monotonic() - ended.since)}"
        elif member.state in ("failed", DAMAGED):
            words += f": {member.error}"
        else:
            words += f": {_how(code)}, see {ended.folder / OUTPUT}"
        said = f"{words}  ({how_far})"
        console.say(said if member.finished else console.warning(said))
        if code == 1 and member.state != "failed":
            self.problems.append((ended.folder.name, f"see {ended.folder / OUTPUT}"))


def _all_said() -> dict[str, str]:
    """This process's environment for one whose messages go to a file, which gets them all."""
    return {k: v for k, v in os.environ.items() if k != console.LEVEL}


@dataclass(frozen=True)
class _Process:
    """A member that is being trained."""

    process: "subprocess.Popen[bytes]"
    slot: Slot
    folder: Path
    since: float = field(default_factory=time.monotonic)


def not_done(sweep: Sweep, jobs: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """The jobs that there is something to do for; says which are done already."""
    left = []
    for words in jobs:
        folder = sweep.folder_of(words)
        if sweeps.read_member(folder).finished:
            console.say(f"done already: {folder}")
        else:
            left.append(words)
    return left


def wait_for(jobs: Sequence[Any], folder: str) -> None:
    """Wait until submitit's jobs have ended; Ctrl-C stops the waiting alone."""
    left = list(jobs)
    listed = ", ".join(str(job.job_id) for job in jobs)
    console.say(f"{counted(len(jobs), 'job')} submitted: {listed}")
    console.say(f"logs    {Path(jobs[0].paths.folder).parent}")
    console.say(f"status  cherimoya-sweep status {folder}")
    try:
        while left:
            for job in [j for j in left if j.done()]:
                left.remove(job)
                how_far = f"{len(jobs) - len(left)} of {len(jobs)}"
                console.say(f"ended   job {job.job_id}  ({how_far})")
            time.sleep(SUBMITTED_LOOK_SECONDS)
    except KeyboardInterrupt:
        go_on = counted(len(left), "job goes on by itself", "jobs go on by themselves")
        console.say(console.result(f"no longer waiting; {go_on}"))
        raise


def end_with_parent() -> None:
    """Stop and save, as after SIGTERM, when the launcher that started this process is gone."""
    parent = os.environ.pop(PARENT, None)
    if parent:
        threading.Thread(target=_watch, args=(int(parent),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os.kill(os.getpid(), SIGTERM)


@contextmanager
def _all_stopped(running: Sequence[_Process]) -> Iterator[None]:
    """Leave no process behind, whatever happens here, such as a second Ctrl-C."""
    try:
        yield
    finally:
        _signal(running, SIGTERM)
        end = time.monotonic() + LAST_SECONDS
        for each in running:
            with suppress(subprocess.TimeoutExpired):
                each.process.wait(max(end - time.monotonic(), 0))
        _signal(running, SIGKILL)


def _signal(running: Sequence[_Process], signum: int) -> None:
    for each in running:
        each.process.send_signal(signum)  # which does nothing where it has ended


@contextmanager
def _pinned(slot: Slot) -> Iterator[None]:
    """What is started inside runs on the slot's cores, where the system can do that."""
    if not slot.on_cpu or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, slot.cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _gpus() -> list[str]:
    """The GPUs that torch sees, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    found = range(torch.cuda.device_count())
    return [named[i] if i < len(named) else str(i) for i in found]


def _in_words(slot: Slot) -> str:
    if slot.gpus:
        return f", on {counted(len(slot.gpus), 'GPU')} each"
    return f", on {counted(len(slot.cores), 'core')} each"


def _how(code: int) -> str:
    return f"killed by {Signals(-code).name}" if code < 0 else f"exit code {code}"
