"""Several runs at once in one process: a small network leaves most of a GPU idle."""

import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from cherimoya.config.diff import Changes
from cherimoya.config.train import TrainConfig
from cherimoya.errors import CherimoyaError, Interrupted, InUse
from cherimoya.records import study
from cherimoya.records.provenance import choose_device
from cherimoya.training.interrupt import stop_request
from cherimoya.training.run import RunContext, ready
from cherimoya.training.trainer import Trainer
from cherimoya.util import console
from cherimoya.util.console import warning


class Lane:
    """One of the runs, and the stream that its work is asked of."""

    def __init__(
        self, config: TrainConfig, folder: Path, changes: Changes | None, common: RunContext
    ) -> None:
        cuda = choose_device(config.trainer.device).type == "cuda"
        context = replace(common, say=partial(_say, folder.name), on_epoch=study.watch(folder))
        self.folder, self.open = folder, ExitStack()  # open: what the run's end closes
        self._ready = ready(config, folder, context, changes)
        self._stream = torch.cuda.Stream() if cuda else None
        self._trainer: Trainer | None = None
        self._random = torch.get_rng_state()  # of this run alone, on the host

    def take_turn(self) -> bool:
        """Train for a stride; whether that was not the end. Raises what the run raises."""
        with torch.cuda.stream(self._stream), self._own_random(), ExitStack() as end:
            end.push(self.open)
            if self._trainer is None:
                self._trainer = self.open.enter_context(self._ready)
            more = take_turn(self._trainer)
            if more:
                end.pop_all()
        return more

    @contextmanager
    def _own_random(self) -> Iterator[None]:
        """Random numbers that go on where this run's were."""
        others = torch.get_rng_state()
        torch.set_rng_state(self._random)
        try:
            yield
        finally:
            self._random = torch.get_rng_state()
            torch.set_rng_state(others)


def take_turn(trainer: Trainer) -> bool:
    """The next stride of what `train` does; whether there was one."""
    if trainer.in_epoch and not trainer.batches_left:
        trainer.end_epoch()
    if not trainer.in_epoch:
        if not trainer.goes_on():
            return False
        trainer.begin_epoch()
    trainer.train_stride()
    return True


def train_packed(
    members: Sequence[tuple[TrainConfig, Path, Changes | None]], context: RunContext | None = None
) -> dict[Path, Exception]:
    """Train all members, a stride of steps of each in turn; a member is as it would be alone.

    On a GPU each has a stream of its own, so that their steps overlap. Loci on the device are held
    once. Returns the errors of those that failed, by folder. Raises Interrupted after Ctrl-C or
    SIGTERM, when all have saved.
    """
    failed: dict[Path, Exception] = {}
    interrupted: Interrupted | None = None
    with stop_request() as stop, ExitStack() as open_runs:
        common = replace(
            context or RunContext(), bar=False, at_once=len(members), stop=stop,
        )  # fmt: skip
        going = [Lane(*member, common) for member in members]
        for lane in going:
            open_runs.push(lane.open)
        while going:
            for lane in tuple(going):
                try:
                    if lane.take_turn():
                        continue
                except Interrupted as error:
                    interrupted = error
                except InUse as error:
                    _say(lane.folder.name, warning(f"left to the process that is at it: {error}"))
                except Exception as error:
                    failed[lane.folder] = error
                    _say(lane.folder.name, warning(f"error: {error}"))
                    if not isinstance(error, CherimoyaError):
                        traceback.print_exc()
                going.remove(lane)
    if interrupted:
        raise interrupted
    return failed


def _say(name: str, message: str) -> None:
    """Each line of the message behind the name of the member."""
    for line in message.splitlines():
        console.say(console.like(message, f"[{name}] {line}"))
