"""What the run runs on: device, processor, versions, commit."""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cherimoya import __version__
from cherimoya.errors import ConfigError, LocalError, without_password
from cherimoya.util.console import counted


def choose_device(requested: str, key: str = "trainer.device") -> torch.device:
    """The device for `key`=`requested`. Raises ConfigError for a GPU that is not there."""
    if requested == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"{key}=cuda, but torch sees no GPU. Use {key}=cpu, or install the "
            f"CUDA build of torch (this is {torch.__version__})."
        )
    if requested == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    here = int(os.environ.get("LOCAL_RANK", 0))
    if here >= torch.cuda.device_count():
        raise LocalError(
            f"process {here} of this machine has no GPU: torch sees {torch.cuda.device_count()}. "
            "Start one process a GPU: trainer.devices is how many."
        )
    torch.cuda.set_device(here)
    return torch.device("cuda", here)


def describe_device(device: torch.device, requested: str, processes: int = 1) -> str:
    """The device, and why it was chosen."""
    times = f"{processes} x " if processes > 1 else ""
    if device.type == "cuda":
        name = times + torch.cuda.get_device_name(device)
        return name if requested == "cuda" else f"{name} (found; trainer.device=cpu to leave it)"
    threads = f"{times}CPU, {counted(torch.get_num_threads(), 'thread')}"
    return f"{threads} (as set)" if requested == "cpu" else f"{threads} (no GPU found)"


def cpu_name() -> str:
    """The processor as Linux names it, else as Python does."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def versions() -> dict[str, str]:
    """The versions that numbers depend on."""
    return {
        "cherimoya-train": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def git_commit() -> str | None:
    """The commit of the checkout this code runs from, with "-dirty" after changes, or None."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def typed(words: Sequence[str]) -> str:
    """The words of a command as they were typed, less the passwords in URLs."""
    return shlex.join(map(without_password, words))


def provenance(fingerprint: str, device: torch.device, precision: str) -> dict[str, Any]:
    """What numbers made now depend on, besides the configuration: data, code and machine."""
    return {
        "data_fingerprint": fingerprint,
        "git_commit": git_commit(),
        "command": typed(sys.argv),
        "versions": versions(),
        "cpu": f"{cpu_name()}, {counted(os.cpu_count() or 1, 'core')}",
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "precision": precision,
    }
