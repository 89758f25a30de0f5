"""Several processes that train one model, each on its part of every batch."""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from cherimoya.distributed import launch
from cherimoya.errors import Interrupted

WAITS = timedelta(days=30)  # for a process that trains bias models


@dataclass
class Processes:
    """This process among `world` of them; alone by default, when there is nothing to share."""

    rank: int = 0
    world: int = 1
    on_this_machine: int = 1
    _hosts: Any = None  # the group that talks without the devices
    _pending: Any = None

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def shared(self, model: nn.Module) -> nn.Module:
        """The model, with gradients averaged over the processes while the backward goes on.

        To be called on the stream that steps run on.
        """
        if self.world == 1:
            return model
        from torch.nn.parallel import DistributedDataParallel

        device = next(model.parameters()).device
        on_gpu = [device.index] if device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=on_gpu, gradient_as_bucket_view=True)

    def gradients_shared(self, network: nn.Module, last: bool) -> AbstractContextManager[None]:
        """Where a backward averages gradients: that of the last piece of a batch."""
        return nullcontext() if self.world == 1 or last else network.no_sync()  # type: ignore

    def begin_average(self, values: Tensor) -> None:
        """Average `values` over the processes, in place; they are ready after `end_average`."""
        if self.world > 1:
            values /= self.world
            self._pending = torch.distributed.all_reduce(values, async_op=True)

    def end_average(self) -> None:
        """Wait, on the device, for the average that was begun."""
        if self._pending is not None:
            self._pending.wait()
            self._pending = None

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Average each of `tensors` over the processes, in place, before anything else is done."""
        for tensor in tensors if self.world > 1 else ():
            tensor /= self.world
            torch.distributed.all_reduce(tensor)

    def gathered(self, values: Any) -> list[Any]:
        """`values` of every process, by rank, on every process."""
        if self.world == 1:
            return [values]
        values_by_rank: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(values_by_rank, values, group=self._hosts)
        return values_by_rank

    def part(self) -> None:
        """Leave the other processes."""
        torch.distributed.destroy_process_group()
        # Ends the group's threads, which must not meet Python's tensors while Python itself ends.
        self._hosts = None


@contextmanager
def on_stream(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """On `stream`, which waits for the current one and is waited for; as it is without one."""
    if stream is None:
        yield
        return
    here = torch.cuda.current_stream(stream.device)
    stream.wait_stream(here)
    with torch.cuda.stream(stream):
        yield
    here.wait_stream(stream)


@contextmanager
def joined(device: torch.device, known: Processes | None = None) -> Iterator[Processes]:
    """The processes that a launcher started, as RANK and WORLD_SIZE say; alone without them.

    Where they are `known` already, it is those.
    """
    if known is not None:
        yield known
        return
    rank, world = launch.rank(), launch.world()
    if world == 1:
        yield Processes()
        return
    on_gpu = device.type == "cuda"
    torch.distributed.init_process_group(
        "nccl" if on_gpu else "gloo", device_id=device if on_gpu else None
    )
    here = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    processes = Processes(
        rank, world, here, torch.distributed.new_group(timeout=WAITS, backend="gloo")
    )
    try:
        yield processes
    except Interrupted:
        processes.part()
        raise
    # After another error the others may never come to this; the launcher ends them.
    processes.part()
