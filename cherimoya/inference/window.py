"""The input window of a question to a model: the one that it was trained on, unless asked for."""

from collections.abc import Sequence

from cherimoya.errors import ConfigError
from cherimoya.inference.checkpoints import Checkpoint, trained_windows
from cherimoya.util import console
from cherimoya.util.console import Say

USUAL_OUTPUT = 1000  # bases predicted, where nothing tells what the model was trained on


def known_window(
    checkpoints: Sequence[Checkpoint], key: str, requested: int | None, say: Say = console.say
) -> int | None:
    """Bases of input: `requested`, else those that the models were trained on; says so
    where that is not set, or set otherwise than in training.

    None where neither is known. Raises ConfigError where the runs say several, of which the
    configuration's `key` must choose.
    """
    said = trained_windows(checkpoints)
    if requested is not None:
        others = " or ".join(f"{length:,}" for length in said if length != requested)
        if others:
            say(f"{key:<12} {requested:,} bases, as set; the model was trained on {others}")
        return requested
    if len(said) > 1:
        listed = ", ".join(f"{path} with {length:,}" for length, path in said.items())
        raise ConfigError(
            f"the models were trained with windows of several lengths: {listed}. Choose one with "
            f"{key}; their normalisation spans the whole window."
        )
    trained = next(iter(said), None)
    if trained is not None:
        say(f"{key:<12} {trained:,} bases, as in training")
    return trained


def input_window(
    checkpoints: Sequence[Checkpoint],
    trimming: int,
    key: str,
    requested: int | None,
    otherwise: tuple[int, str] | None = None,
    say: Say = console.say,
) -> int:
    """As `known_window`; where nothing tells, `otherwise`: bases, and what they are.

    Raises ConfigError where that is None, or the model would trim the whole window.
    """
    length = known_window(checkpoints, key, requested, say)
    if length is None and otherwise is None:
        raise ConfigError(
            f"{key} has no value, and {checkpoints[0].path} lies in no run folder that tells. Set "
            f"it to the length that the model was trained on, such as {key}=2114: its "
            "normalisation spans the whole window."
        )
    if length is None:
        assert otherwise is not None
        length, why = otherwise
        say(f"{key:<12} {length:,} bases, {why}: no run says what the model was trained on")
    if length <= 2 * trimming:
        raise ConfigError(
            f"{key}={length}: the model trims {trimming} bases from each side. Set {key} to more "
            f"than {2 * trimming}: what it was trained on."
        )
    return length
