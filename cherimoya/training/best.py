"""What becomes of a run that goes on without its best model."""

import math

from cherimoya.errors import CherimoyaError, DataError
from cherimoya.records.run import BEST, FINAL
from cherimoya.training.trainer import Trainer
from cherimoya.util.console import warning
from cherimoya.util.torch_file import read_torch_file


def check_best(trainer: Trainer) -> None:
    """Where best.pt of a resumed run is missing or damaged, make it again, or do without.

    It is that of the state, if its last epoch was the best one; else it is lost, and the best of
    the epochs to come takes its place. Raises CherimoyaError where none is to come.
    """
    state, step, path = trainer.state, trainer.step, trainer.checkpoints.folder / BEST
    if state.best_epoch < 0 or state.stopped:
        return
    try:
        if path.exists() and "state_dict" in read_torch_file(path):
            return
    except (DataError, TypeError):
        pass
    if path.exists() and not path.is_file():
        raise CherimoyaError(f"{path}: something else than a file has its name. Move it away.")
    what = f"{path} is missing or damaged"
    if state.best_epoch == state.epoch - 1 and state.validated == state.step:
        trainer.say(
            warning(f"{what}: it is written again from the state after epoch {state.best_epoch}")
        )
        if trainer.log:
            with step.ema.swapped_in():
                trainer.checkpoints.save_model(step.model, BEST, trainer.told)
    elif trainer.goes_on():
        trainer.say(
            warning(
                f"{what}: the best model so far, of epoch {state.best_epoch}, is lost, and the "
                "best of the epochs from now on takes its place"
            )
        )
        state.best_loss, state.best_epoch = math.inf, -1
    else:
        raise CherimoyaError(
            f"cannot resume: {what}, and no epoch is left that could take the place of the best "
            f"one, {state.best_epoch}. Put the file back, or start a new run. {FINAL}, if it is "
            "there, is the model after the last epoch."
        )
