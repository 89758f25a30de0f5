"""`cherimoya-train` itself, timed from outside: its start, and its steps on several devices."""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from ours import Bench
from settings import ROOT, Setup

from cherimoya.data.hdf5 import write
from cherimoya.data.loci import Loci


def loci_file(loci: Loci, folder: Path, most: int) -> Path:
    """An HDF5 file of up to `most` of the training loci, and some to validate."""
    count = len(loci)
    chosen = np.r_[0 : min(most, count - 32), count - 16 : count]
    names = ("sequence", "signal", "label", "chrom", "start", "end")
    small = replace(loci, **{name: getattr(loci, name)[chosen] for name in names})
    return write(folder / "loci.h5", small)


def command(setup: Setup, path: Path, device: str, *more: str) -> list[str]:
    """`cherimoya-train` on `path`, without plots."""
    return [
        sys.executable, "-c", "from cherimoya.cli.train import train; train()", "data=hdf5",
        f"data.path={path}", "data.validation_chroms=[v]", "data.test_chroms=[]",
        "logger=none", f"model.n_filters={setup.n_filters}", "trainer.plots=false",
        f"trainer.precision={setup.precision}", f"trainer.device={device}", *more,
    ]  # fmt: skip


def leave_bytecode(setup: Setup, path: Path, environment: dict[str, str]) -> None:
    """Import all that a run imports, so that Python's bytecode is at hand."""
    imports = "import triton.compiler, triton.experimental.gluon"
    tiny = replace(setup, n_filters=8, precision="fp32")
    for words in (
        [sys.executable, "-c", imports],
        command(tiny, path, "cpu", "trainer.max_steps=1", "trainer.batch_size=8"),
    ):
        subprocess.run(
            words, cwd=path.parent, env=environment, check=True, stdout=subprocess.DEVNULL
        )


def time_start(bench: Bench, setup: Setup) -> None:
    """Seconds from the command until the time left is told, after some steps."""
    folder = Path(tempfile.mkdtemp())
    path = loci_file(bench.data.loci, folder, 4096)
    asked = command(setup, path, bench.args.device, "trainer.autotune=false")
    environment = {**os.environ, "TRITON_CACHE_DIR": str(folder / "cache")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    environment["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    leave_bytecode(setup, path, environment)
    for cache in ("cold", "warm"):
        since = time.monotonic()
        process = subprocess.Popen(
            asked, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        told = "never told"
        for line in process.stdout:
            bench.say(f"after {time.monotonic() - since:.1f} s: {line.rstrip()}")
            if "ms a step" in line:
                told = line
                break
        seconds = time.monotonic() - since
        process.kill()
        process.wait()
        bench.say(f"start with a {cache} cache: {seconds:.1f} s, then {told.strip()}")
        bench.row(f"start, {cache} cache", "ours", setup, seconds=round(seconds, 2))


def time_devices(bench: Bench, setup: Setup) -> None:
    """Milliseconds of a step with 64 sequences for each of 1, 2, 4 and 8 devices."""
    cuda = bench.device.type == "cuda"
    found = torch.cuda.device_count() if cuda else 2
    folder = Path(tempfile.mkdtemp())
    path = loci_file(bench.data.loci, folder, 25_600)
    environment = {**os.environ}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    for devices in (n for n in (1, 2, 4, 8) if n <= found):
        batch = (64 if cuda else 8) * devices
        more = [f"trainer.devices={devices}", f"trainer.batch_size={batch}"]
        more += ["trainer.max_epochs=3", "optim.warmup_epochs=1", f"hydra.run.dir=run{devices}"]
        subprocess.run(
            command(setup, path, bench.args.device, *more), cwd=folder, env=environment, check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        speed = json.loads((folder / f"run{devices}" / "summary.json").read_text())["speed"]
        bench.row(
            f"{devices} devices", "ours", replace(setup, batch_size=batch),
            ms=round(speed["ms_per_step"], 4), waiting=round(speed["waiting_for_data"], 5),
            peak_MB=speed["peak_memory_mb"],
        )  # fmt: skip
