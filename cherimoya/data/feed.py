"""How examples reach the device: held there whole, or streamed ahead of their steps."""

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from cherimoya.data.batches import Batch, EpochPlan, Tables
from cherimoya.data.loci import Loci

FREE_SHARE = 0.5  # of the device's free memory that resident loci may take
CHUNK_EXAMPLES = 2048  # read ahead at once: tens of MB


class Resident:
    """Every locus is on the device.

    waited: seconds that steps waited for examples
    """

    def __init__(self, loci: Loci, device: torch.device) -> None:
        self.tables = Tables(loci, device)
        self.device, self.waited = device, 0.0

    def begin_epoch(self, rows: np.ndarray, first: int) -> np.ndarray:
        """Where the tables hold the loci at `rows` (steps, N): there."""
        return rows

    def prepare(self, batch: int) -> None:
        """Nothing is to be waited for."""

    def centred(self, rows: np.ndarray) -> Batch:
        """The loci at `rows` (N,) as stored: no jitter, forward strand."""
        return self.tables.centred(torch.from_numpy(rows).to(self.device))

    def close(self) -> None:
        """Nothing is open."""


class Streamed:
    """Loci in the host's memory, copied to the device by a thread, a chunk ahead of the steps.

    The tables are a ring of two chunks: while steps read one, the other is filled, through pinned
    memory and on a stream of its own. The order of examples is that of Resident, to the bit.
    """

    def __init__(self, loci: Loci, device: torch.device) -> None:
        self._loci, self.waited = replace(loci, truth={}), 0.0  # of no use on the device
        self.device = device
        self._ring: Tables | None = None
        self._staging: list[Tables] = []
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._reader: ThreadPoolExecutor | None = None

    @property
    def tables(self) -> Tables:
        """The ring; of no use before an epoch begins."""
        assert self._ring is not None, "no epoch has begun"
        return self._ring

    def begin_epoch(self, rows: np.ndarray, first: int) -> np.ndarray:
        """Where the ring will hold the loci at `rows` (steps, N), when they are needed.

        Reading starts with the batch `first`.
        """
        self.close()
        steps, n = rows.shape
        self._batches = min(max(1, CHUNK_EXAMPLES // n), steps)  # of a chunk
        size = self._batches * n
        if self._ring is None:
            ring = self._loci.take(np.zeros(2 * size, dtype=np.int64))
            self._ring = Tables(ring, self.device)
            self._staging = [self._host_tables(size) for _ in range(2)]
        self._chunks = [rows[i : i + self._batches].ravel() for i in range(0, steps, self._batches)]
        self._first = self._next = first // self._batches
        self._reader, self._ahead = ThreadPoolExecutor(1), deque[Future[torch.cuda.Event | None]]()
        for chunk in (self._first, self._first + 1):
            self._read_ahead(chunk)
        flat = np.arange(steps * n)
        return (flat % (2 * size)).reshape(steps, n)

    def _host_tables(self, size: int) -> Tables:
        tables = Tables(self._loci.take(np.zeros(size, dtype=np.int64)), torch.device("cpu"))
        if self.device.type == "cuda":
            for name in ("sequence", "signal", "control"):
                values = getattr(tables, name)
                setattr(tables, name, None if values is None else values.pin_memory())
        return tables

    def prepare(self, batch: int) -> None:
        """Wait until the chunk of `batch` is on its way to the device; before its step."""
        chunk = batch // self._batches
        if chunk < self._next:
            return
        since = time.monotonic()
        if chunk > self._first:  # the half of the chunk before is free from here
            self._read_ahead(chunk + 1)
        full = self._ahead.popleft().result()
        if full is not None:
            torch.cuda.current_stream(self.device).wait_event(full)
        self.waited += time.monotonic() - since
        self._next = chunk + 1

    def centred(self, rows: np.ndarray) -> Batch:
        """The loci at `rows` (N,) as stored: no jitter, forward strand."""
        tables = Tables(self._loci.take(rows), self.device)
        return tables.centred(torch.arange(len(rows), device=self.device))

    def close(self) -> None:
        """Stop reading."""
        if self._reader is not None:
            self._reader.shutdown(cancel_futures=True)
            self._reader = None

    def _read_ahead(self, chunk: int) -> None:
        """Have the thread fill a half of the ring, once the steps asked for so far are done."""
        if chunk < len(self._chunks):
            assert self._reader is not None
            free = torch.cuda.current_stream(self.device).record_event() if self._stream else None
            self._ahead.append(self._reader.submit(self._fill, chunk, free))

    def _fill(self, chunk: int, free: "torch.cuda.Event | None") -> "torch.cuda.Event | None":
        """Copy a chunk to its half of the ring; the event that passes when it is there."""
        if free is not None:
            free.synchronize()
        rows, half = self._chunks[chunk], chunk % 2
        staging, size = self._staging[half], len(self._staging[half].sequence)
        for name in ("sequence", "signal", "control"):
            values = getattr(self._loci, name)
            if values is not None:
                held = getattr(staging, name)[: len(rows)]
                np.take(values, rows, axis=0, out=held.numpy(), mode="clip")
                place = getattr(self.tables, name)[half * size : half * size + len(rows)]
                if self._stream is None:
                    place.copy_(held)
                else:
                    with torch.cuda.stream(self._stream):
                        place.copy_(held, non_blocking=True)
        return self._stream.record_event() if self._stream else None


Source = Resident | Streamed


class Feed:
    """The batches of one epoch after another, gathered on the device from its own step counter.

    Of each batch, this process takes part `rank` of `world`, in `parts` pieces one after another.
    """

    def __init__(
        self, source: Source, batch_size: int, steps: int, parts: int, rank: int, world: int
    ) -> None:
        self.source, self._steps, self._parts = source, steps, parts
        self._batch_size, self._rank, self._world = batch_size, rank, world
        self._size = batch_size // world
        self._plan: Tensor | None = None

    def begin_epoch(self, plan: EpochPlan, rows: np.ndarray, first: int) -> None:
        """Take the examples of `plan`, whose loci are at `rows` of the data, from batch `first`."""
        own = slice(self._rank * self._size, (self._rank + 1) * self._size)

        def cut(values: np.ndarray) -> np.ndarray:
            whole = values[: self._steps * self._batch_size]
            return whole.reshape(self._steps, self._batch_size)[:, own]

        places = self.source.begin_epoch(np.ascontiguousarray(cut(rows)), first)
        packed = np.stack([places, cut(plan.shift), cut(plan.flip)], axis=1).astype(np.int64)
        if self._plan is None:
            self._plan = torch.empty(packed.shape, dtype=torch.int64, device=self.source.device)
        self._plan.copy_(torch.from_numpy(packed))  # (steps, 3, N): a captured step reads it here

    def batch(self, step: Tensor) -> Iterator[Batch]:
        """The pieces of the batch at `step` (1,), counted over all epochs."""
        assert self._plan is not None, "no epoch has begun"
        chosen = self._plan.index_select(0, step % self._steps)[0]
        for piece in chosen.chunk(self._parts, dim=1):
            yield self.source.tables.gather(*piece)


def place(loci: Loci, device: torch.device, asked: str) -> tuple[Source, str]:
    """The loci on `device`, resident or streamed as `data.placement` asks; and why, in words."""
    size = sum(v.nbytes for v in (loci.sequence, loci.signal, loci.control) if v is not None)
    resident, why = asked != "stream", ", as asked"
    if device.type != "cuda":
        why = ""
    elif asked == "auto":
        free, _ = torch.cuda.mem_get_info(device)
        resident, why = size <= FREE_SHARE * free, f", {free / 2**30:.1f} GiB are free"
    kind, how = (Resident, "held on") if resident else (Streamed, "streamed to")
    return kind(loci, device), f"{how} the device ({size / 2**20:,.0f} MiB{why})"
