"""Kernels compiled side by side: all that a rehearsal asks for, before any of them runs."""

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch

from cherimoya.ops.device import interpreting
from cherimoya.ops.dispatch import route

MOST_THREADS = 16  # Triton's own Python runs one at a time; LLVM, ptxas and gcc do not wait for it

_rehearsal = threading.Event()  # a backward is in a thread of its own, which must know


def is_precompiling() -> bool:
    """Whether launches may be left out now, so that nothing can be measured."""
    return _rehearsal.is_set()


@contextmanager
def compiled_together(device: torch.device) -> Iterator[None]:
    """Inside, a kernel that is not compiled yet does not run; on leaving, all those are compiled.

    They are compiled in threads, for exactly the arguments that they were launched with: of a step
    that is made twice, the first time in here, the second one finds everything. Kernels in
    Triton's cache on disk are only loaded. What is computed in here is whatever was in memory, and
    must be thrown away. A kernel that cannot be compiled is left to its next launch, which says
    why. Where no kernels serve `device`, nothing is left out.
    """
    if interpreting() or is_precompiling() or not route(device, torch.float32).conv_norm:
        yield
        return
    from triton.runtime.jit import JITFunction

    build = getattr(JITFunction, "_do_compile", None)
    if build is None:  # a Triton that does it in another way
        yield
        return
    asked: dict[tuple[Any, Any], Callable[[], Any]] = {}

    def note(kernel: Any, key: Any, *arguments: Any, **more: Any) -> None:
        """In the place of Triton's `_do_compile`: a launch that gets no kernel from it returns.

        A launch would have made the GPU's context current in this thread, which may be autograd's,
        where cuBLAS would be the first to miss it, with a warning.
        """
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        asked[id(kernel), key] = partial(build, kernel, key, *arguments, **more)

    _rehearsal.set()
    JITFunction._do_compile = note
    try:
        yield
    finally:
        JITFunction._do_compile = build
        _rehearsal.clear()
    _make_all_ready(device, list(asked.values()))


def _make_all_ready(device: torch.device, builds: list[Callable[[], Any]]) -> None:
    """The first alone, in which Triton finds out what it then knows for all: its own hash, ..."""
    index = torch.cuda.current_device() if device.type == "cuda" else -1
    kernels = [_compiled(index, build) for build in builds[:1]]
    if rest := builds[1:]:
        threads = min(MOST_THREADS, len(os.sched_getaffinity(0)))
        # Triton changes the filters of warnings and puts them back, which threads do in any order.
        with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
            kernels += pool.map(partial(_compiled, index), rest)
    # One after another: up to Triton 3.6 launchers are modules of one name. Python keeps one module
    # of a name, so that a thread could be given the launcher that another one has just loaded.
    for kernel in kernels:
        with suppress(Exception), torch.cuda.device(index):
            _ = kernel.run


def _compiled(device: int, build: Callable[[], Any]) -> Any:
    """The kernel, with what launches it on disk; None if one of these fails."""
    from triton.runtime import driver

    with suppress(Exception), torch.cuda.device(device):
        kernel = build()
        driver.active.launcher_cls(kernel.src, kernel.metadata)
        return kernel
