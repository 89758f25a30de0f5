"""How examples reach the device: held there whole, or streamed ahead of their steps."""

import queue
import threading
import time
from collections.abc import Iterator
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
        self._loci, self.waited = loci, 0.0
        self.device = device
        self._ring: Tables | None = None
        self._staging: list[Tables] = []
        self._reader: _Reader | None = None

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
            ring = _taken(self._loci, np.zeros(2 * size, dtype=np.int64))
            self._ring = Tables(ring, self.device)
            self._staging = [self._host_tables(size) for _ in range(2)]
        chunks = [rows[i : i + self._batches].ravel() for i in range(0, steps, self._batches)]
        self._reader = _Reader(self._loci, chunks, self._staging, self.tables)
        self._next = first // self._batches
        self._reader.start(self._next)
        flat = np.arange(steps * n)
        return (flat % (2 * size)).reshape(steps, n)

    def _host_tables(self, size: int) -> Tables:
        tables = Tables(_taken(self._loci, np.zeros(size, dtype=np.int64)), torch.device("cpu"))
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
        assert self._reader is not None
        since = time.monotonic()
        self._reader.take()
        self.waited += time.monotonic() - since
        self._next = chunk + 1

    def centred(self, rows: np.ndarray) -> Batch:
        """The loci at `rows` (N,) as stored: no jitter, forward strand."""
        tables = Tables(_taken(self._loci, rows), self.device)
        return tables.centred(torch.arange(len(rows), device=self.device))

    def close(self) -> None:
        """Stop reading."""
        if self._reader is not None:
            self._reader.stop()
            self._reader = None


Source = Resident | Streamed


class _Reader:
    """The thread that fills the two halves of a ring in turn."""

    def __init__(
        self, loci: Loci, chunks: list[np.ndarray], staging: list[Tables], ring: Tables
    ) -> None:
        self._loci, self._chunks, self._staging, self._ring = loci, chunks, staging, ring
        self._cuda = ring.device.type == "cuda"
        self._stream = torch.cuda.Stream(ring.device) if self._cuda else None
        # A half is free once the event, if any, has passed on the device.
        self._free: queue.Queue[torch.cuda.Event | None] = queue.Queue()
        self._full: queue.Queue[torch.cuda.Event | Exception | None] = queue.Queue()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._taken = 0

    def start(self, first_chunk: int) -> None:
        for _ in range(2):
            self._free.put(self._passed())
        self._thread = threading.Thread(target=self._run, args=(first_chunk,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._free.put(None)
        if self._thread is not None:
            self._thread.join()

    def take(self) -> None:
        """Have the steps that follow wait for the next chunk; the one before is free from here."""
        if self._taken:
            self._free.put(self._passed())
        self._taken += 1
        full = self._full.get()
        if isinstance(full, Exception):
            raise full
        if full is not None:
            torch.cuda.current_stream(self._ring.device).wait_event(full)

    def _passed(self) -> "torch.cuda.Event | None":
        """An event that passes when all that was asked of the device so far is done."""
        if not self._cuda:
            return None
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._ring.device))
        return event

    def _run(self, first_chunk: int) -> None:
        try:
            for chunk in range(first_chunk, len(self._chunks)):
                passed = self._free.get()
                if self._stopped.is_set():
                    return
                if passed is not None:
                    passed.synchronize()
                self._full.put(self._fill(chunk))
        except Exception as error:
            self._full.put(error)

    def _fill(self, chunk: int) -> "torch.cuda.Event | None":
        rows, half = self._chunks[chunk], chunk % 2
        staging, size = self._staging[half], len(self._staging[half].sequence)
        for name in ("sequence", "signal", "control"):
            values = getattr(self._loci, name)
            if values is not None:
                held = getattr(staging, name)[: len(rows)]
                np.take(values, rows, axis=0, out=held.numpy(), mode="clip")
                place = getattr(self._ring, name)[half * size : half * size + len(rows)]
                if self._stream is None:
                    place.copy_(held)
                else:
                    with torch.cuda.stream(self._stream):
                        place.copy_(held, non_blocking=True)
        if self._stream is None:
            return None
        event = torch.cuda.Event()
        event.record(self._stream)
        return event


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

    def prepare(self, batch: int) -> None:
        """Before the step of `batch` is asked for."""
        self.source.prepare(batch)

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


def _taken(loci: Loci, rows: np.ndarray) -> Loci:
    """The loci at `rows`, sequence and signal alone."""
    return replace(
        loci,
        sequence=loci.sequence[rows],
        signal=loci.signal[rows],
        control=None if loci.control is None else loci.control[rows],
    )
