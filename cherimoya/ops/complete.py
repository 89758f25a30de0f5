"""Of which gradient it is known that it is complete although the kernel asked for last may run.

A kernel that reads only such a gradient, and what is older, need not wait for the one before it,
see `conv_norm.kernels.let_next_kernel_start`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

_straight = False
_known: tuple[StorageWeakRef, int] | None = None  # its memory, and how often it was changed


@contextmanager
def straight_backward() -> Iterator[None]:
    """A backward in here is no code of torch.compile's, which changes memory unnoticed."""
    global _straight
    before, _straight = _straight, True
    try:
        yield
    finally:
        _straight = before
        forget()


def note_complete(gradient: Tensor) -> None:
    """The kernel asked for last neither made `gradient` nor changes it, and waited for what did."""
    global _known
    if _straight:
        _known = StorageWeakRef(gradient.untyped_storage()), gradient._version


def forget() -> None:
    """The kernel asked for last makes what a backward may read."""
    global _known
    _known = None


def is_complete(gradient: Tensor) -> bool:
    """Whether it is what was noted last, unchanged, in the backward that goes on.

    What was asked for since may only have read it, or waited as kernels of torch do.
    """
    if _known is None:
        return False
    memory, version = _known
    own = StorageWeakRef(gradient.untyped_storage())
    return own.cdata == memory.cdata and gradient._version == version
