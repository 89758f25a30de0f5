"""Launch options: where a choice comes from, what is measured, and what is kept."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command_lines import clean_environment

from cherimoya.cli import train as cli
from cherimoya.ops import autotune

GPU = "Toy GPU 9000"
KEY = {"C": 96, "H": 192, "dtype": "bfloat16", "L": 2048}
LABEL = "conv_stats C=96 H=192 dtype=bfloat16 L=2048"
CANDIDATES = [{"rows": 16}, {"rows": 32}, {"rows": 64}]
MICROSECONDS = {16: 30.0, 32: 10.0, 64: 20.0}


class Gpu:
    """A GPU on which a launch takes MICROSECONDS by its rows; counts what is measured."""

    def __init__(self) -> None:
        self.launched: list[int] = []
        self.capturing = False
        self.errors: dict[int, Exception] = {}
        self.seconds_each = 0.0
        self.now = 0.0

    def run(self, config: autotune.Config) -> None:
        self.launched.append(config["rows"])
        self.now += self.seconds_each
        if config["rows"] in self.errors:
            raise self.errors[config["rows"]]

    def measure(self, run: autotune.Run, config: autotune.Config) -> float:
        run(config)
        return MICROSECONDS[config["rows"]]

    def best(self, **changes: int | str) -> autotune.Config:
        return autotune.best("conv_stats", KEY | changes, CANDIDATES, lambda: self.run)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A process that has chosen nothing, an empty table and an empty cache folder."""
    monkeypatch.setattr(autotune, "_chosen", {})
    monkeypatch.setattr(autotune, "TABLE", tmp_path / "tuned.json")
    monkeypatch.setenv("CHERIMOYA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(autotune.SWITCH, raising=False)
    ship(tmp_path, {})
    return tmp_path


@pytest.fixture
def gpu(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """The toy GPU in place of a real one."""
    pytest.importorskip("triton")
    toy = Gpu()
    monkeypatch.setattr(autotune, "_device_name", lambda: GPU)
    monkeypatch.setattr(autotune, "_can_measure", lambda: os.environ.get(autotune.SWITCH) != "0")
    monkeypatch.setattr(autotune, "_measure", toy.measure)
    monkeypatch.setattr(autotune.time, "monotonic", lambda: toy.now)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: toy.capturing)
    return toy


def ship(folder: Path, table: dict[str, dict[str, autotune.Config] | str]) -> None:
    (folder / "tuned.json").write_text(json.dumps(table))


def cache_file() -> Path:
    return autotune._cache_file(GPU)


def forget() -> None:
    """As a new process begins."""
    autotune._chosen.clear()


def test_the_fastest_is_chosen_kept_and_told(gpu, cache, capsys):
    assert gpu.best() == {"rows": 32}
    assert autotune.chosen() == {LABEL: {"rows": 32}}
    path = cache_file()
    assert path.parent == cache / "cache"
    assert path.name.startswith("kernels-toy-gpu-9000-torch")
    assert json.loads(path.read_text()) == {LABEL: {"rows": 32}}
    assert capsys.readouterr().out.splitlines() == [
        "tuning conv_stats for C=96 H=192 bfloat16 L=2048: 3 choices",
        "tuned conv_stats: rows=32, 10.0 us (default 30.0 us), in 0 s",
    ]


def test_a_second_call_and_a_second_process_do_not_measure(gpu):
    gpu.best()
    gpu.launched.clear()
    assert gpu.best() == {"rows": 32}
    forget()
    assert gpu.best() == {"rows": 32}
    assert gpu.launched == []
    gpu.best(L=4096)
    assert gpu.launched == [16, 32, 64]


def test_the_first_of_equals_wins(gpu, monkeypatch):
    monkeypatch.setattr(autotune, "_measure", lambda run, config: 1.0)
    assert gpu.best() == CANDIDATES[0]


def test_a_choice_of_another_process_meanwhile_is_taken_over(gpu):
    def run(config: autotune.Config) -> None:  # the other process finishes first
        autotune._store(cache_file(), LABEL, {"rows": 64}, CANDIDATES)

    assert autotune.best("conv_stats", KEY, CANDIDATES, lambda: run) == {"rows": 64}


@pytest.mark.parametrize("damage", ["{", "3", "", b"\xff\xfe"])
def test_a_damaged_cache_is_told_once_and_written_anew(damage, gpu, capsys):
    path = cache_file()
    path.parent.mkdir()
    path.write_bytes(damage if isinstance(damage, bytes) else damage.encode())
    gpu.best()
    assert capsys.readouterr().out.count(f"{path} is ignored") == 1
    assert json.loads(path.read_text()) == {LABEL: {"rows": 32}}


def test_a_cache_that_cannot_be_written_costs_one_line(gpu, cache, monkeypatch, capsys):
    (cache / "file").touch()
    monkeypatch.setenv("CHERIMOYA_CACHE", str(cache / "file" / "cache"))
    assert gpu.best() == {"rows": 32}
    assert "Set CHERIMOYA_CACHE" in capsys.readouterr().out


def test_the_budget_ends_the_search_with_the_best_so_far(gpu, capsys):
    gpu.seconds_each = 31.0
    assert gpu.best() == {"rows": 32}
    assert gpu.launched == [16, 32]
    assert "in 1 min 2 s, 1 not timed" in capsys.readouterr().out


def test_the_budget_does_not_end_a_search_that_found_nothing(gpu):
    gpu.seconds_each = 61.0
    gpu.errors = {16: ValueError(), 32: ValueError()}
    assert gpu.best() == {"rows": 64}


def test_a_choice_that_does_not_run_is_left_out(gpu, capsys):
    errors = pytest.importorskip("triton.runtime.errors")
    gpu.errors = {
        16: errors.OutOfResources(300_000, 232_448, "shared memory"),
        32: RuntimeError("PassManager::run failed"),
    }
    assert gpu.best() == {"rows": 64}
    assert "rows=64, 20.0 us (default not timed), in 0 s, 2 not timed" in capsys.readouterr().out


def test_the_last_error_is_raised_if_nothing_runs(gpu):
    gpu.errors = {rows: ValueError(f"rows {rows}") for rows in MICROSECONDS}
    with pytest.raises(ValueError, match="rows 64"):
        gpu.best()
    assert autotune.chosen() == {}


@pytest.mark.parametrize("error", [torch.AcceleratorError, RuntimeError, torch.OutOfMemoryError])
def test_an_error_of_the_gpu_itself_ends_the_search(error, gpu):
    gpu.errors = {32: error("CUDA error: an illegal memory access was encountered")}
    with pytest.raises(error, match="illegal memory access"):
        gpu.best()
    assert gpu.launched == [16, 32]


def test_a_shipped_choice_wins_over_the_cache_and_a_measurement(gpu, cache):
    gpu.best()
    forget()
    gpu.launched.clear()
    ship(cache, {GPU: {LABEL: {"rows": 64}}})
    assert gpu.best() == {"rows": 64}
    assert gpu.launched == []


def test_a_shipped_choice_for_another_gpu_or_length_is_no_reason_not_to_measure(gpu, cache):
    ship(cache, {"Other": {LABEL: {"rows": 64}}, GPU: {f"{LABEL}0": {"rows": 64}}})
    assert gpu.best() == {"rows": 32}


def test_what_is_no_candidate_any_more_is_ignored(gpu, cache, monkeypatch):
    ship(cache, {GPU: {LABEL: {"rows": 128}}})
    autotune._store(cache_file(), LABEL, {"rows": 256}, [{"rows": 256}])
    assert gpu.best() == {"rows": 32}
    assert json.loads(cache_file().read_text()) == {LABEL: {"rows": 32}}
    forget()
    cache_file().unlink()
    monkeypatch.setenv(autotune.SWITCH, "0")
    assert gpu.best() == CANDIDATES[0]


def label(**changes: int | str) -> str:
    return " ".join(["conv_stats", *(f"{k}={v}" for k, v in (KEY | changes).items())])


@pytest.mark.parametrize(
    ("here", "elsewhere", "expected"),
    [
        ({}, {}, 16),
        ({label(L=1024): 32, label(L=8192): 64}, {}, 32),
        ({label(L=512): 32, label(L=4096): 64}, {}, 64),
        ({label(L=1024, H=96): 32, label(L=1024): 64}, {}, 64),  # as near: the same H
        ({label(L=64): 32}, {LABEL: 64}, 32),  # this GPU before others
        ({}, {label(L=64): 32, label(L=1024): 64}, 64),
        ({label(C=64): 32, label(dtype="float32"): 32}, {label(L=64): 64}, 64),
        ({LABEL.replace("conv_stats", "other"): 32}, {}, 16),
        ({label(L=1024): 128, label(L=64): 64}, {}, 64),  # the nearest is no candidate
    ],
)
def test_without_tuning_the_nearest_shipped_choice_counts(
    here, elsewhere, expected, gpu, cache, monkeypatch
):
    monkeypatch.setenv(autotune.SWITCH, "0")
    devices = {"Other": elsewhere, GPU: here}
    ship(cache, {d: {k: {"rows": r} for k, r in part.items()} for d, part in devices.items()})
    assert gpu.best() == {"rows": expected}
    assert gpu.launched == []
    assert autotune.chosen() == {LABEL: {"rows": expected}}


def test_a_cached_choice_counts_without_tuning(gpu, monkeypatch):
    gpu.best()
    forget()
    monkeypatch.setenv(autotune.SWITCH, "0")
    assert gpu.best() == {"rows": 32}


def test_nothing_is_measured_or_kept_while_a_graph_is_captured(gpu):
    gpu.capturing = True
    assert gpu.best() == CANDIDATES[0]
    assert (gpu.launched, autotune.chosen()) == ([], {})
    gpu.capturing = False
    assert gpu.best() == {"rows": 32}
    gpu.capturing = True
    assert gpu.best() == {"rows": 32}


def test_nothing_is_measured_or_kept_while_launches_are_left_out(gpu, monkeypatch):
    monkeypatch.setattr(autotune, "is_precompiling", lambda: True)
    assert gpu.best() == CANDIDATES[0]
    assert (gpu.launched, autotune.chosen()) == ([], {})
    monkeypatch.setattr(autotune, "is_precompiling", lambda: False)
    assert gpu.best() == {"rows": 32}


@pytest.mark.parametrize("interpreted", [False, True])
def test_the_default_without_a_gpu_and_in_the_interpreter(interpreted, cache, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: interpreted)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: GPU)
    monkeypatch.setenv("TRITON_INTERPRET", str(int(interpreted)))
    launched: list[autotune.Config] = []
    assert autotune.best("conv_stats", KEY, CANDIDATES, lambda: launched.append) == CANDIDATES[0]
    assert launched == []


@pytest.mark.parametrize(("value", "expected"), [(None, True), ("1", True), ("0", False)])
def test_the_environment_switches_measuring_off(value, expected, cache, monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    if value is not None:
        monkeypatch.setenv(autotune.SWITCH, value)
    assert autotune._can_measure() is expected


@pytest.mark.parametrize(
    ("configured", "before", "after"),
    [(True, None, "1"), (False, None, "0"), (True, "0", "0"), (False, "1", "0")],
)
def test_the_configuration_switches_measuring(configured, before, after, monkeypatch):
    monkeypatch.setattr(torch, "set_deterministic_debug_mode", lambda mode: None)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setenv(autotune.SWITCH, before or "")
    cli.process_wide_switches("fp32", configured)
    assert os.environ[autotune.SWITCH] == after


WRITER = f"""
import sys, torch
from cherimoya.ops import autotune
autotune._device_name = lambda: {GPU!r}
autotune._can_measure = lambda: True
autotune._measure = lambda run, config: config["rows"]
torch.cuda.is_current_stream_capturing = lambda: False
print("ready", flush=True)
sys.stdin.readline()
for L in map(int, sys.argv[1:]):
    autotune.best("conv_stats", {KEY!r} | {{"L": L}}, {CANDIDATES!r}, lambda: None)
"""


@pytest.mark.slow
def test_processes_that_write_at_once_lose_nothing(gpu, cache):
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, *map(str, range(first, 400, 2))],
            env=clean_environment() | {"CHERIMOYA_CACHE": str(cache / "cache")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for first in (100, 101)
    ]
    assert [writer.stdout.readline() for writer in writers] == ["ready\n"] * 2
    for writer in writers:
        writer.stdin.write("\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=120)
        assert writer.returncode == 0
    entries = json.loads(cache_file().read_text())
    assert entries == {label(L=L): {"rows": 16} for L in range(100, 400)}
    assert gpu.best(L=123) == {"rows": 16}  # this process takes what another measured
    assert gpu.launched == []


def test_a_gpu_may_be_served_as_another_is(gpu, cache):
    ship(cache, {GPU: "Toy GPU 9001", "Toy GPU 9001": {LABEL: {"rows": 64}}})
    assert gpu.best() == {"rows": 64}
    assert gpu.launched == []


def test_an_h100_is_served_as_an_h200_is():
    table = autotune._table()
    assert table["NVIDIA H100 80GB HBM3"] == table["NVIDIA H200"] != {}


def test_what_is_shipped_can_be_read():
    for device, entries in autotune._table().items():
        for text, config in entries.items():
            assert int(autotune._fields(text).get("L", 1)) > 0, f"{device}: {text}"
            assert all(type(value) is int for value in config.values()), f"{device}: {text}"


@pytest.mark.gpu
def test_a_gpu_tells_little_work_from_much(cache):
    x = torch.zeros(1 << 26, device="cuda")
    much, little = {"n": 1 << 26}, {"n": 1 << 20}

    def run(config: autotune.Config) -> None:
        x[: config["n"]].add_(1)

    assert autotune.best("add", {"L": 1}, [much, little], lambda: run) == little
    assert 0 < autotune._measure(run, little) < autotune._measure(run, much) / 4


@pytest.mark.parametrize(("length", "measured"), [(512, 0), (8192, 0), (16384, 3), (256, 3)])
def test_the_shipped_table_reaches_two_octaves_from_its_lengths(cache, gpu, length, measured):
    ship(cache, {GPU: {LABEL: {"rows": 64}}})
    gpu.best(L=length)
    assert len(gpu.launched) == measured
    assert gpu.best(L=length) == ({"rows": 32} if measured else {"rows": 64})


def test_a_multiprocessor_holds_every_program_of_the_backward_march_at_once(monkeypatch):
    launch = pytest.importorskip("cherimoya.ops.conv_norm.launch")
    if torch.version.hip:
        pytest.skip("registers are bounded on NVIDIA GPUs")
    monkeypatch.setattr(launch, "multiprocessors", lambda device: 1)
    for config in launch.BACKWARD:
        granted = -(-launch.registers(config)["maxnreg"] // 8) * 8  # by a GPU, in eights
        programs = launch._resident(torch.device("cuda"), config)
        assert programs * granted * 32 * config["num_warps"] <= 65_536, config


def test_a_small_batch_leaves_no_program_many_sums_of_weights(monkeypatch):
    launch = pytest.importorskip("cherimoya.ops.conv_norm.launch")
    monkeypatch.setattr(launch, "multiprocessors", lambda device: 132)
    x = torch.empty(1, 301, 96)
    for config in launch.BACKWARD[:3]:
        programs = [
            len(launch.backward_march(x, 1, config, shares)[2]) for shares in (1, 576, 10**6)
        ]
        assert programs[0] < 48
        assert programs[1] >= min(576, programs[2])
        assert programs[2] <= launch._resident(x.device, config)
