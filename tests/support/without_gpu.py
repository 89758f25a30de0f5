"""A process without a GPU that takes itself for one with an H100: kernels compile, none runs.

Its tensors are on the CPU, and a launch is only noted. To be imported before cherimoya's
operations, in a process of its own.
"""

import os
import random
import sys
import threading
import time
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from cherimoya.ops import device as gpu
from cherimoya.ops import dispatch

SHARED_BYTES = 227 * 1024
launched: list[str] = []  # kernels that would have run


class Driver:
    """What Triton asks of a GPU's driver."""

    utils = SimpleNamespace(
        get_device_properties=lambda device: {"max_shared_mem": SHARED_BYTES},
        load_binary=lambda name, binary, shared, device: (1, 1, 0, 0, 1024),
    )

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    launcher = SimpleNamespace()

    def launcher_cls(self, source: Any, metadata: Any) -> Callable[..., str]:
        """As Triton 3.6, whose launchers are modules of one name, hence one module."""
        self.launcher.launch = lambda *arguments: metadata.name
        time.sleep(0.01)
        return self.launcher.launch


driver.set_active(Driver())
os.environ["CHERIMOYA_AUTOTUNE"] = "0"
assert not any(name.startswith("cherimoya.ops.block.op") for name in sys.modules)
dispatch._obstacle = lambda device, dtype: None
gpu.capability = lambda device: (9, 0)
gpu.multiprocessors = lambda device: 132
gpu.shared_memory = lambda device: SHARED_BYTES
gpu.total_memory = lambda device: 80 * 2**30
gpu.fast_tanh = lambda device: True
gpu.operand_dtype = lambda x: torch.float16 if x.dtype == torch.float32 else x.dtype

# What is imported from here on takes these for the GPU's answers.
from configs import composed  # noqa: E402

from cherimoya.config.schema import build  # noqa: E402
from cherimoya.config.train import TrainConfig  # noqa: E402
from cherimoya.data.batches import Batch  # noqa: E402
from cherimoya.network import build_model  # noqa: E402
from cherimoya.ops.windows import op as gather  # noqa: E402
from cherimoya.training.step import TrainingStep  # noqa: E402


class NoCompiler:
    """In the place of Triton's: notes what it is asked to compile, and where, and fails for some.

    Kernels that were compiled before count no more.
    """

    def __init__(self, failing: Collection[str] = ()) -> None:
        self.failing, self.asked = failing, []  # type: ignore[var-annotated]
        triton.compiler.compile = self
        for name in [name for name in sys.modules if name.startswith("cherimoya.ops.")]:
            for kernel in vars(sys.modules[name]).values():
                if isinstance(kernel, JITFunction):
                    kernel.device_caches.clear()

    def __call__(self, source: Any, target: GPUTarget, options: dict[str, Any]) -> Any:
        main = threading.current_thread() is threading.main_thread()
        self.asked.append((source.name, source.hash() + str(options), main))
        with warnings.catch_warnings():  # as Triton does for every line of a kernel
            warnings.simplefilter("default")
            time.sleep(random.random() / 100)
        if source.name in self.failing:
            raise RuntimeError(f"{source.name} does not compile")
        return Kernel(source, SimpleNamespace(name=source.name))


@dataclass
class Kernel:
    """What Triton's compiler returns, which gets its launcher when it is first asked for."""

    src: Any
    metadata: Any
    function: None = None
    packed_metadata: None = None
    launcher: Callable[..., str] | None = None

    @property
    def run(self) -> Callable[..., None]:
        if self.launcher is None:
            self.launcher = driver.active.launcher_cls(self.src, self.metadata)
        return self.launch

    def launch(self, *arguments: Any) -> None:
        assert self.launcher is not None
        own, name = self.metadata.name, self.launcher(*arguments)
        launched.append(own if name == own else f"{own} by the launcher of {name}")

    def launch_metadata(self, *arguments: Any) -> None:
        """Nothing."""


def training_step(
    *overrides: str, n: int, window: int, trimming: int, precision: str = "bf16"
) -> tuple[TrainingStep, Callable[[], list[Batch]]]:
    """A step for batches of n windows of this length, and what gathers one."""
    torch.manual_seed(0)
    config = build(TrainConfig, composed("train", [*overrides]))
    groups = config.model.signal_groups or [1]
    model = build_model(config.model, groups, config.model.n_control_tracks or 0, trimming)
    step = TrainingStep(model, config.loss, config.optim, 100, config.trainer.max_epochs, precision)
    sequence = torch.zeros(n, window, dtype=torch.uint8)
    signal = torch.ones(n, sum(groups), window - 2 * trimming, dtype=torch.int16)
    control = torch.ones(n, model.n_control_tracks, window) if model.n_control_tracks else None
    example = torch.arange(n), torch.zeros(n).long(), torch.zeros(n).long()

    def counts(values: Tensor) -> Tensor:
        channels = torch.arange(values.shape[1]).repeat(2, 1)
        return gather.counts(values, channels, *example, values.shape[2])

    def batch() -> list[Batch]:
        X = gather.one_hot(sequence, *example, window)
        return [Batch(X, counts(signal), None if control is None else counts(control))]

    return step, batch
