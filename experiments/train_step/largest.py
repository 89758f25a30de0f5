"""The search for the largest batch that fits."""

from collections.abc import Callable

FIRST, MOST = 64, 2**16
CLOSE = 1 / 16  # of the answer


def largest_batch(fits: Callable[[int], bool]) -> int:
    """The largest batch that `fits`, a sixteenth less at most; 0 if not even the first does.

    Doubles from FIRST until one does not fit, and halves what lies between.
    """
    fitting, failing = 0, FIRST
    while failing <= MOST and fits(failing):
        fitting, failing = failing, 2 * failing
    while fitting and failing - fitting > CLOSE * fitting:
        middle = (fitting + failing) // 2
        if fits(middle):
            fitting = middle
        else:
            failing = middle
    return fitting
