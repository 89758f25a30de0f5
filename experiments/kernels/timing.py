"""Timing by CUDA-graph replay over inputs that do not fit the cache. Imports no cherimoya."""

import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import torch
from cases import Case
from torch import Tensor

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
WARMUP, REPLAYS = 3, 11
# Calls in one graph at least, so that the start of a replay weighs nothing.
CALLS = {"conv_norm": 20, "block": 8, "stack": 2}

Forward = Callable[[Tensor], Tensor]
Build = Callable[[Case, list[Tensor]], tuple[Forward, list[Tensor]]]  # forward, its parameters
InputSet = tuple[Tensor, Tensor]  # x and dout


@dataclass(frozen=True)
class Result:
    """One measurement; `peak_mb` is None off the GPU, `error` the worst parity error."""

    ms: float
    timing: str  # graph, eager or cpu
    peak_mb: float | None
    error: float | None = None

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class Ceilings:
    """What this device reaches: bytes through an addition, operations of a matrix product."""

    copy_gbs: float
    gemm_tflops: dict[str, float]  # by dtype; fp32 is TF32 where the device has it

    def floor_ms(self, case: Case) -> float:
        """The time that no version of `case` beats."""
        memory = case.least_bytes / self.copy_gbs / 1e6
        return max(memory, case.flops / self.gemm_tflops[case.dtype] / 1e9)


def autocast(x: Tensor) -> torch.autocast:
    """To the dtype of x, as in training; nothing for fp32."""
    half = x.dtype in (torch.bfloat16, torch.float16)
    # A cast that autocast kept from outside a capture would be stale in its replays.
    options = {"dtype": x.dtype, "cache_enabled": False} if half else {}
    return torch.autocast(x.device.type, enabled=half, **options)


def make_weights(case: Case, device: torch.device) -> list[Tensor]:
    """fp32 parameters of unit gain, the same in every process."""
    generator = torch.Generator(device).manual_seed(1)
    weights = []
    for shape in case.weight_shapes:
        fan_in = 3 if shape[0] == 3 else shape[1]
        weight = torch.randn(shape, generator=generator, device=device) / math.sqrt(fan_in)
        weights.append(weight.requires_grad_())
    return weights


def make_inputs(case: Case, device: torch.device, sets: int) -> list[InputSet]:
    """`sets` pairs of x and dout (N, L, C), x with a gradient where the case asks for one."""
    generator = torch.Generator(device).manual_seed(0)
    shape, options = (case.N, case.L, case.C), {"device": device, "dtype": DTYPES[case.dtype]}
    pairs = []
    for _ in range(sets):
        x, dout = (torch.randn(shape, generator=generator, **options) for _ in range(2))
        pairs.append((x.requires_grad_(case.direction == "fwd_bwd"), dout))
    return pairs


def sets_beyond_cache(case: Case, device: torch.device) -> int:
    """How many input sets exceed twice the L2 cache."""
    if device.type != "cuda":
        return 2
    read = case.N * case.L * case.C * DTYPES[case.dtype].itemsize
    read *= 2 if case.direction == "fwd_bwd" else 1
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    return math.ceil(2 * cache / read)


def measure(build: Build, case: Case, device: torch.device) -> Result:
    """Median time of one call and the memory it adds to inputs and parameters."""
    torch.backends.cuda.matmul.allow_tf32 = case.tf32
    forward, parameters = build(case, make_weights(case, device))
    run = _runner(forward, parameters, case.direction)
    inputs = make_inputs(case, device, sets_beyond_cache(case, device))
    calls = len(inputs) * math.ceil(CALLS[case.work] / len(inputs))
    try:
        _warm_up(run, inputs[0], device)
        peak = _peak_mb(run, inputs[0], device)
        if device.type != "cuda":
            return Result(_cpu_ms(run, inputs, len(inputs)), "cpu", peak)
        try:
            return Result(_graph_ms(run, inputs, calls), "graph", peak)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            print(f"no graph, timed eagerly: {in_one_line(error)}", flush=True)
            return Result(_eager_ms(run, inputs, calls), "eager", peak)
    finally:
        del forward, parameters, run, inputs
        free_memory(device)


def in_one_line(error: BaseException) -> str:
    """Its type and the start of its message."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def free_memory(device: torch.device) -> None:
    """Give back what nothing holds, so that the next process finds it free."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _runner(
    forward: Forward, parameters: list[Tensor], direction: str
) -> Callable[[Tensor, Tensor], object]:
    def infer(x: Tensor, dout: Tensor) -> Tensor:
        with torch.no_grad():
            return forward(x)

    def train(x: Tensor, dout: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(forward(x), [x, *parameters], dout)

    return infer if direction == "fwd" else train


def _warm_up(run: Callable[..., object], inputs: InputSet, device: torch.device) -> None:
    """Compile and tune; on a side stream, as a capture asks for."""
    if device.type != "cuda":
        run(*inputs)
        return
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARMUP):
            run(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()


def _peak_mb(run: Callable[..., object], inputs: InputSet, device: torch.device) -> float | None:
    """Memory at the peak of one eager call beyond what was held before it, outputs included."""
    if device.type != "cuda":
        return None
    free_memory(device)
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    run(*inputs)
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - held) / 1e6


def _call_all(run: Callable[..., object], inputs: Sequence[InputSet], calls: int) -> list[object]:
    """Calls over the inputs in turn; the results of a whole turn live, so none shares memory."""
    kept: list[object] = [None] * len(inputs)
    for i in range(calls):
        kept[i % len(inputs)] = run(*inputs[i % len(inputs)])
    return kept


def _graph_ms(run: Callable[..., object], inputs: Sequence[InputSet], calls: int) -> float:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = _call_all(run, inputs, calls)
    ms = _event_ms(graph.replay) / calls
    del graph, kept
    return ms


def _eager_ms(run: Callable[..., object], inputs: Sequence[InputSet], calls: int) -> float:
    return _event_ms(lambda: _call_all(run, inputs, calls)) / calls


def _event_ms(replay: Callable[[], object]) -> float:
    """Median over replays between CUDA events."""
    for _ in range(2):
        replay()
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(REPLAYS)]
    for start, end in events:
        start.record()
        replay()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in events)


def _cpu_ms(run: Callable[..., object], inputs: Sequence[InputSet], calls: int) -> float:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        _call_all(run, inputs, calls)
        times.append(1e3 * (time.perf_counter() - start) / calls)
    return statistics.median(times)


def measure_ceilings(device: torch.device) -> Ceilings:
    """An addition over 1 GiB (a copy could be a slower memcpy), and products of 8192^3."""
    on_gpu = device.type == "cuda"
    elements, size = (2**28, 8192) if on_gpu else (2**20, 256)

    def timed(call: Callable[[], object]) -> float:
        return _event_ms(call) if on_gpu else _cpu_ms(lambda x, dout: call(), [(None, None)], 3)

    source = torch.randn(elements, device=device)
    target = torch.empty_like(source)
    copy_gbs = 8 * elements / timed(partial(torch.add, source, 1, out=target)) / 1e6
    torch.backends.cuda.matmul.allow_tf32 = True
    gemm = {}
    for name in ("bf16", "fp32"):
        a = torch.randn(size, size, device=device, dtype=DTYPES[name])
        gemm[name] = 2 * size**3 / timed(partial(torch.mm, a, a, out=torch.empty_like(a))) / 1e9
    free_memory(device)
    return Ceilings(copy_gbs, {**gemm, "fp16": gemm["bf16"]})
