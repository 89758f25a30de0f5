"""How a step is run: replayed as a CUDA graph, or asked for operation by operation."""

from collections.abc import Callable, Iterable

import torch

from cherimoya.data.batches import Batch
from cherimoya.distributed.processes import on_stream
from cherimoya.ops.precompile import compiled_together
from cherimoya.training.step import TrainingStep
from cherimoya.util.console import warning

WARMUP_STEPS = 3  # compile, choose launch options and fill caches before a capture
SHARED_WARMUP_STEPS = 11  # what DistributedDataParallel asks for


class Runner:
    """Makes `step` on what `batch` gathers; on a GPU both are captured once and then replayed.

    A captured step reads and writes the same memory each time. What it does not see, such as
    loss weights that are frozen between epochs, asks for `forget`. What is captured, and what
    several processes share, always runs on one stream of its own: DistributedDataParallel keeps
    the nodes that add up gradients, and those stay on the stream that they were made on.
    """

    def __init__(
        self,
        step: TrainingStep,
        batch: Callable[[], Iterable[Batch]],
        graph: bool,
        say: Callable[[str], None],
    ) -> None:
        self._step, self._batch, self._say = step, batch, say
        graph = graph and step.capturable
        self._capture = graph and step.device.type == "cuda"
        self._warm = False
        self._graph: torch.cuda.CUDAGraph | None = None
        self._shared = step.processes.world > 1
        own = step.device.type == "cuda" and (graph or self._shared)
        self._stream = torch.cuda.Stream(step.device) if own else None

    @property
    def in_words(self) -> str:
        """How steps are run, for people."""
        return "one CUDA graph a step" if self._capture else "operation by operation"

    def __call__(self) -> None:
        """Make one step."""
        if self._graph is None and self._capture:
            self._try_to_capture()
        elif not self._warm and self._shared:
            self._warm_up()  # DistributedDataParallel sums in another order after its first step
        if self._graph is not None:
            self._graph.replay()
        else:
            with on_stream(self._stream if self._shared else None):
                self._step(self._batch())

    def forget(self) -> None:
        """Capture the step anew before the next one."""
        self._graph, self._warm = None, False

    def _try_to_capture(self) -> None:
        self._warm_up()
        graph = torch.cuda.CUDAGraph()
        try:
            # Threads that read ahead or watch other processes may go on meanwhile.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                self._step(self._batch())
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._capture = False
            torch.cuda.synchronize()
            first = str(error).strip().splitlines()[0]
            self._say(
                warning(f"steps run operation by operation, since capturing one failed: {first}")
            )
            return
        self._graph = graph

    def _warm_up(self) -> None:
        with self._step.changing_nothing(), on_stream(self._stream):
            with compiled_together(self._step.device):
                self._step(self._batch())
            for _ in range(SHARED_WARMUP_STEPS if self._shared else WARMUP_STEPS):
                self._step(self._batch())
        self._warm = True
