"""A fence that Triton before 3.7.1 leaves out between cp.async and wgmma (sm_90).

cp.async fills shared memory through the generic proxy, wgmma reads it through the asynchronous
one. Waiting for the copy orders only the first of them, so wgmma might read what lay there before;
PTX asks for fence.proxy.async in between (PTX ISA, "Async proxy"). Triton inserts it since 3.7.1
(triton-lang/triton#9610). For older versions it is added to the PTX here.
"""

import re
from collections.abc import Callable, MutableMapping
from typing import Any

FIRST_WITH_FENCE = (3, 7, 1)
WAIT = re.compile(r"^\s*cp\.async\.wait_(?:group\s+\d+|all);$", re.MULTILINE)
FENCE = "\tfence.proxy.async.shared::cta;"


def add_fences(ptx: str) -> str:
    """PTX of a kernel with a fence after each wait for cp.async, if it uses wgmma too."""
    if "wgmma.mma_async" not in ptx:
        return ptx
    return WAIT.sub(lambda wait: f"{wait.group()}\n{FENCE}", ptx)


def install() -> None:
    """Have this process's Triton add the fences, if it is one that leaves them out."""
    import triton

    numbers = re.findall(r"\d+", triton.__version__)[:3]
    if tuple(map(int, numbers)) >= FIRST_WITH_FENCE:
        return
    runtime = triton.knobs.runtime
    if not isinstance(runtime.add_stages_inspection_hook, _Hook):
        runtime.add_stages_inspection_hook = _Hook(runtime.add_stages_inspection_hook)


class _Hook:
    """Triton's hook for the stages of its compiler; another one's hook keeps running."""

    def __init__(self, other: Callable[..., Any] | None) -> None:
        self.other = other

    def __call__(
        self, backend: Any = None, stages: MutableMapping[str, Any] | None = None, *rest: Any
    ) -> tuple[str, str] | None:
        if stages is None:  # Triton asks for what belongs in a kernel's cache key
            key, digest = self.other() if self.other else ("", "")
            return f"{key}{FENCE}", f"{digest}{FENCE}"
        if self.other:
            self.other(backend, stages, *rest)
        if make_ptx := stages.get("ptx"):
            stages["ptx"] = lambda source, metadata: add_fences(make_ptx(source, metadata))
        return None
