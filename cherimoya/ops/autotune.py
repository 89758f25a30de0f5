"""Which launch options a kernel gets: measured once per GPU and shape, then remembered.

The choice fixes the order in which a kernel sums, so equal bits need an equal choice. That is why
it is kept on disk, why what tuned.json knows is not measured, and why the batch size is no part
of a key: the last, smaller batch of an epoch must sum as the others do.

tuned.json holds {GPU name: {"conv_stats C=96 H=192 dtype=bfloat16 L=2048": {"rows": 32, ...}}}, a
cache file what tuned.json holds for one GPU. In tuned.json the name of another GPU may stand for
that one's entries.
"""

import json
import math
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import torch

from cherimoya.ops.precompile import is_precompiling
from cherimoya.util.console import duration, say, say_once
from cherimoya.util.files import atomic_write, lock_output

Config = dict[str, int]
Run = Callable[[Config], object]

SWITCH = "CHERIMOYA_AUTOTUNE"  # "0" in the environment: never measure
TABLE = Path(__file__).with_name("tuned.json")
BUDGET_SECONDS = 60.0  # per kernel and key; no other candidate is begun after
KNOWN_OCTAVES = 2.0  # how far tuned.json reaches from the lengths it was measured at
WARMUP_LAUNCHES = 2
TIMED_LAUNCHES = 10
QUEUE_CYCLES = 10_000_000  # about 5 ms, in which the host queues every timed launch

_chosen: dict[str, Config] = {}


def configs(names: Sequence[str], *choices: Sequence[int]) -> list[Config]:
    """Candidates: `choices` of what `names` name."""
    return [dict(zip(names, choice, strict=True)) for choice in choices]


def best(
    kernel: str,
    key: Mapping[str, int | str],
    candidates: Sequence[Config],
    rehearse: Callable[[], Run],
) -> Config:
    """The one of `candidates` to launch `kernel` with for the shapes and dtype in `key`.

    Taken from, in this order: this process, tuned.json, the cache on disk, a measurement, the
    nearest entry of tuned.json, and the first candidate. Entries that are no candidate are
    ignored. `rehearse()` makes a function that launches the kernel with a configuration, on inputs
    that fill the GPU whatever the caller's batch. Raises what that raised if no candidate runs,
    and any error of CUDA.
    """
    label = " ".join([kernel, *(f"{name}={value}" for name, value in key.items())])
    if label not in _chosen:
        config = _remembered(label, candidates)
        if config is None and _can_measure():
            if torch.cuda.is_current_stream_capturing() or is_precompiling():
                return _nearest(label, candidates)  # not kept: a later launch can measure
            config = _tuned(label, candidates, rehearse())
        _chosen[label] = _nearest(label, candidates) if config is None else config
    return _chosen[label]


def chosen() -> dict[str, Config]:
    """Every choice of this process, by "<kernel> C=96 H=192 ..."."""
    return {label: dict(config) for label, config in _chosen.items()}


def _device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def _can_measure() -> bool:
    if os.environ.get(SWITCH) == "0" or not torch.cuda.is_available():
        return False
    import triton

    return not triton.knobs.runtime.interpret


def _remembered(label: str, candidates: Sequence[Config]) -> Config | None:
    """The choice for this GPU: in tuned.json for L within KNOWN_OCTAVES, else in the cache."""
    if device := _device_name():
        known = {device: _table().get(device, {})}
        octaves, config = _nearest_of(known, label, candidates, exact=True)
        if config and octaves <= KNOWN_OCTAVES:
            return config
        entries = _read(_cache_file(device))
        if entries.get(label) in candidates:
            return entries[label]
    return None


def _nearest(label: str, candidates: Sequence[Config]) -> Config:
    """The entry of tuned.json with the nearest L, of this GPU before others, or the default."""
    here = _device_name()
    others = {device: entries for device, entries in _table().items() if device != here}
    for known in ({here: _table().get(here, {})}, others):
        _, config = _nearest_of(known, label, candidates, exact=False)
        if config:
            return config
    return candidates[0]


def _nearest_of(
    table: Mapping[str, Mapping[str, Config]],
    label: str,
    candidates: Sequence[Config],
    exact: bool,
) -> tuple[float, Config | None]:
    """The entry with the nearest L, and how many octaves away that is.

    `exact`: of those that agree in all but L, else of those that agree in C and dtype.
    """
    asked = _fields(label)
    found = []
    for entries in table.values():
        for other, config in entries.items():
            fields = _fields(other)
            unlike = {name for name in asked | fields if asked.get(name) != fields.get(name)}
            fits = unlike <= {"L"} if exact else not unlike & {"kernel", "C", "dtype"}
            if fits and config in candidates:
                octaves = abs(math.log2(int(asked.get("L", 1)) / int(fields.get("L", 1))))
                found.append(((octaves, len(unlike)), config))
    if not found:
        return math.inf, None
    (octaves, _), config = min(found, key=lambda entry: entry[0])
    return octaves, config


def _fields(label: str) -> dict[str, str]:
    """`label` taken apart: the kernel, and every value as text."""
    kernel, *pairs = label.split(" ")
    return {"kernel": kernel} | dict(pair.split("=", 1) for pair in pairs)


def _tuned(label: str, candidates: Sequence[Config], run: Run) -> Config:
    """Measure `candidates` and keep the fastest in the cache; an earlier one wins a tie."""
    kernel, _, shapes = label.replace("dtype=", "").partition(" ")
    say(f"tuning {kernel} for {shapes}: {len(candidates)} choices")
    began = time.monotonic()
    times = _times(candidates, run, began)
    fastest = candidates[times.index(min(times))]
    config = _store(_cache_file(_device_name()), label, fastest, candidates)
    options = " ".join(f"{name}={value}" for name, value in config.items())
    words = ["not timed" if us == math.inf else f"{us:.1f} us" for us in times]
    chosen_us, missing = words[candidates.index(config)], words.count("not timed")
    spent = duration(time.monotonic() - began) + f", {missing} not timed" * (missing > 0)
    say(f"tuned {kernel}: {options}, {chosen_us} (default {words[0]}), in {spent}")
    return config


def _times(candidates: Sequence[Config], run: Run, began: float) -> list[float]:
    """Microseconds of each candidate; inf where it does not run or the budget was used up."""
    times = [math.inf] * len(candidates)
    failure: Exception | None = None
    for i, config in enumerate(candidates):
        if min(times) < math.inf and time.monotonic() - began > BUDGET_SECONDS:
            break
        try:
            times[i] = _measure(run, config)
        except Exception as error:  # asks for too many resources, or does not compile
            if isinstance(error, RuntimeError) and "CUDA" in str(error):
                raise  # the GPU itself failed: no other candidate would run
            failure = error
    if failure is not None and min(times) == math.inf:
        raise failure
    return times


def _measure(run: Run, config: Config) -> float:
    """Median microseconds of a launch, without the host's part in it."""
    run(config)  # compiles
    torch.cuda.synchronize()
    for _ in range(WARMUP_LAUNCHES):
        run(config)
    event = partial(torch.cuda.Event, enable_timing=True)
    marks = [(event(), event()) for _ in range(TIMED_LAUNCHES)]
    cache_bytes = torch.cuda.get_device_properties().L2_cache_size
    flush = torch.empty(2 * cache_bytes, dtype=torch.uint8, device="cuda")
    torch.cuda._sleep(QUEUE_CYCLES)
    for start, end in marks:
        flush.zero_()
        start.record()
        run(config)
        end.record()
    torch.cuda.synchronize()
    return 1000 * median(start.elapsed_time(end) for start, end in marks)


def _table() -> dict[str, dict[str, Config]]:
    """tuned.json, with the entries of each GPU."""
    table = json.loads(TABLE.read_text())
    return {gpu: table[held] if isinstance(held, str) else held for gpu, held in table.items()}


def _cache_file(device: str) -> Path:
    """$CHERIMOYA_CACHE or ~/.cache/cherimoya, a file per GPU, torch and triton."""
    import triton

    folder = Path(os.environ.get("CHERIMOYA_CACHE") or "~/.cache/cherimoya").expanduser()
    slug = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    return folder / f"kernels-{slug}-torch{torch.__version__}-triton{triton.__version__}.json"


def _read(path: Path) -> dict[str, Config]:
    """The entries of a cache file: none if there is no file, or a damaged one."""
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return {}
    except (OSError, TypeError, ValueError) as error:
        say_once(f"{path} is ignored until the next tuning writes it anew: {error}")
        return {}


def _store(path: Path, label: str, config: Config, candidates: Sequence[Config]) -> Config:
    """Add a choice to the cache, unless another process was first; what the cache then holds."""
    try:
        with lock_output(path, math.inf):
            entries = _read(path)
            if entries.get(label) in candidates:
                return entries[label]
            with atomic_write(path) as file:
                text = json.dumps(entries | {label: config}, indent=1, sort_keys=True)
                file.write(text.encode())
    except OSError as error:
        say_once(f"no choice is kept: {error}. Set CHERIMOYA_CACHE to a folder to write in.")
    return config
