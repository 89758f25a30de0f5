"""A run in which code of the user's own fails: it ends with one message, and can go on."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cherimoya import registry
from cherimoya.config.train import TrainConfig
from cherimoya.errors import OutputClosed, OwnError
from cherimoya.training.step import TrainingStep
from cherimoya.training.trainer import Trainer
from cherimoya.util import console
from cherimoya.util.own_code import is_nobodys, is_ours, own_error, said

BACKWARD = f"{TrainingStep.__name__}._backward"


@contextmanager
def own_code_named(config: TrainConfig, begun: Callable[[], Trainer | None]) -> Iterator[None]:
    """Have an error in code of the user's own, and an exit from any, end the run with one message.

    It says where the run stands whose trainer has `begun`, and how it goes on. An error of our own
    code is left as it is.
    """
    try:
        yield
    except OutputClosed:
        raise
    except (Exception, SystemExit) as error:
        told = error if isinstance(error, OwnError) else own_error(error)
        words = str(told) if told else _of_exit(error) or _of_gradient(error, config)
        if words is None:
            raise
        raise OwnError(f"{words}{_how_to_go_on(begun())}") from error


def _how_to_go_on(trainer: Trainer | None) -> str:
    if trainer is None:
        return ""
    state, folder = trainer.state, trainer.checkpoints.folder
    saved = (
        f"what {folder} holds is from before it" if any(folder.iterdir()) else "nothing is saved"
    )
    return (
        f" It was at step {state.step} (epoch {state.epoch}), and {saved}. Correct it, and "
        f"continue with: {console.resume_command(folder.parent)}"
    )


def _of_exit(error: BaseException) -> str | None:
    """What is to be said of sys.exit, which is no way to end a run."""
    if not isinstance(error, SystemExit):
        return None
    last = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"{last.name} ended the program (SystemExit: {error}), in line {last.lineno} of "
        f"{last.filename}. Raise another error there."
    )


def _of_gradient(error: BaseException, config: TrainConfig) -> str | None:
    """What is to be said where the loss is worked on, if it or the block is the user's own.

    Torch raises what is wrong with a gradient when no line of theirs is at work any more.
    """
    ours = [f for f, _ in traceback.walk_tb(error.__traceback__) if is_ours(f)]
    chosen = {"loss": config.loss, "model.blocks": config.model.blocks}
    own = {
        f"{key}.name={one.name}": registry.find(one.group, one.name).forward
        for key, one in chosen.items()
        if not one.is_ours
    }
    if not own or is_nobodys(error) or ours[-1].f_code.co_qualname != BACKWARD:
        return None
    lines = " or ".join(
        f"{f.__qualname__} in line {f.__code__.co_firstlineno} of {f.__code__.co_filename}"
        for f in own.values()
    )
    return (
        f"{' or '.join(own)}: what forward returned, or its gradient, fails: {said(error)}. "
        f"It is of {lines}."
    )
