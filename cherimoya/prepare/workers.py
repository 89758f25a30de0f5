"""The same work on many things, in this process or spread over several."""

import hashlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

from cherimoya.errors import ProcessError
from cherimoya.util.files import open_owned

T = TypeVar("T")
Job = TypeVar("Job")
Result = TypeVar("Result")


class Workers:
    """Processes that work until the end of the block; none for a `count` of one.

    They start at once, which takes as long as reading a small genome, and end with this process,
    however that ends. `folder` is for what they share.
    """

    def __init__(self, count: int, folder: Path) -> None:
        self.count, self._folder = count, folder
        self._executor: ProcessPoolExecutor | None = None
        self._shared = 0

    def __enter__(self) -> "Workers":
        if self.count > 1:
            context = multiprocessing.get_context("spawn")
            self._executor = ProcessPoolExecutor(self.count, context, _begin)
            for _ in range(self.count):
                self._executor.submit(int)
        return self

    def __exit__(self, *error: object) -> None:
        if self._executor:
            self._executor.shutdown(cancel_futures=True)

    def map(
        self, function: Callable[[T, Job], Result], shared: T, jobs: Iterable[Job]
    ) -> Iterator[Result]:
        """function(shared, job) of each of `jobs`, in order. Raises what `function` raises, and
        ProcessError for a process that was killed."""
        if self._executor is None:
            yield from (function(shared, job) for job in jobs)
            return
        path = self._folder / f"shared-{self._shared}.pickle"
        self._shared += 1
        content = pickle.dumps(shared)
        with open_owned(path, "wb") as file:
            file.write(content)
        work = partial(_work, function, path, hashlib.sha256(content).digest())
        try:
            yield from self._executor.map(work, jobs)
        except BrokenProcessPool:
            raise ProcessError(
                "a process that read signal was killed, probably out of memory. Re-run the same "
                "command to resume, with fewer processes at once: processes=1. "
                "(A script that calls prepare() must do so under if __name__ == '__main__':)"
            ) from None


def core_count() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process answers it
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(function: Callable[[Any, Job], Result], path: Path, digest: bytes, job: Job) -> Result:
    return function(_loaded(path, digest), job)


@lru_cache(maxsize=1)
def _loaded(path: Path, digest: bytes) -> Any:
    """What the first process shares; its digest came through a pipe, as only that one's does."""
    content = path.read_bytes()
    if hashlib.sha256(content).digest() != digest:  # to unpickle it would be to run it
        raise ProcessError(
            f"{path}: changed meanwhile, by another process. Let no one else write to its folder."
        )
    return pickle.loads(content)
