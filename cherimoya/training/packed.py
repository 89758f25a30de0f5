"""Several runs at once in one process: a small network leaves most of a GPU idle."""

import traceback
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from cherimoya.config.diff import Changes
from cherimoya.config.train import TrainConfig
from cherimoya.errors import CherimoyaError, Interrupted, InUse
from cherimoya.records import study
from cherimoya.records.provenance import choose_device
from cherimoya.training.interrupt import stop_request
from cherimoya.training.run import Surroundings, run_in_parts
from cherimoya.util import console


@dataclass
class _Lane:
    """One of the runs, and the stream that its work is asked of."""

    folder: Path
    work: Iterator[None]
    stream: torch.cuda.Stream | None

    def go_on(self) -> None:
        """Until the next pause. Raises what the run raises, StopIteration at its end."""
        with self._on_stream():
            next(self.work)

    def _on_stream(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self.stream) if self.stream else nullcontext()


def run_packed(members: Sequence[tuple[TrainConfig, Path, Changes]]) -> dict[Path, Exception]:
    """Train all members, a stride of steps of each in turn; a member is as it would be alone.

    On a GPU each has a stream of its own, so that their steps overlap. Loci on the device are held
    once. Returns the errors of those that failed, by folder. Raises Interrupted after Ctrl-C or
    SIGTERM, when all have saved.
    """
    failed: dict[Path, Exception] = {}
    interrupted: Interrupted | None = None
    with stop_request() as stop:
        common = Surroundings(bar=False, at_once=len(members), stop=stop)
        going = [_lane(*member, common) for member in members]
        while going:
            for lane in tuple(going):
                try:
                    lane.go_on()
                    continue
                except StopIteration:
                    pass
                except Interrupted as error:
                    interrupted = error
                except InUse as error:
                    _say(lane.folder.name, f"left to the process that is at it: {error}")
                except Exception as error:
                    failed[lane.folder] = error
                    _say(lane.folder.name, f"error: {error}")
                    if not isinstance(error, CherimoyaError):
                        traceback.print_exc()
                going.remove(lane)
    if interrupted:
        raise interrupted
    return failed


def _lane(config: TrainConfig, folder: Path, made: Changes, common: Surroundings) -> _Lane:
    cuda = choose_device(config.trainer.device).type == "cuda"
    around = replace(common, say=partial(_say, folder.name), watch=study.watch(folder))
    stream = torch.cuda.Stream() if cuda else None
    return _Lane(folder, run_in_parts(config, folder, around, made), stream)


def _say(name: str, message: str) -> None:
    """Each line of the message behind the name of the member."""
    for line in message.splitlines():
        console.say(f"[{name}] {line}")
