"""What the run runs on: device, processor, versions, commit."""

import platform
import subprocess
from pathlib import Path

import numpy as np
import torch

from cherimoya import __version__
from cherimoya.errors import ConfigError


def choose_device(asked: str) -> torch.device:
    """The device for trainer.device. Raises ConfigError for a GPU that is not there."""
    if asked == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "trainer.device=cuda, but torch sees no GPU. Use trainer.device=cpu, or install the "
            f"CUDA build of torch (this is {torch.__version__})."
        )
    return torch.device("cuda" if asked != "cpu" and torch.cuda.is_available() else "cpu")


def describe_device(device: torch.device, asked: str) -> str:
    """The device, and why it was chosen."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        return name if asked == "cuda" else f"{name} (found; trainer.device=cpu to leave it)"
    threads = f"CPU, {torch.get_num_threads()} threads"
    return f"{threads} (as asked)" if asked == "cpu" else f"{threads} (no GPU found)"


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
