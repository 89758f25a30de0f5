"""Packages that only some commands need, and the extras that install them."""

import importlib
from typing import Any

from cherimoya.errors import PackageError

EXTRAS = {
    "pysam": "prepare",
    "tangermeme": "interpret", "memelite": "interpret", "modiscolite": "interpret",
    "ledidi": "design",
    "tensorboard": "tensorboard",
    "huggingface_hub": "hub",
    "safetensors": "export", "onnx": "export", "onnxscript": "export", "onnxruntime": "export",
}  # fmt: skip


def import_optional(module: str) -> Any:
    """A module of one of the packages above. Raises PackageError where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        why = "" if error.name in (package, module) else f" as it should be ({error})"
        raise PackageError(
            f"{package} is not installed{why}, which this needs: "
            f"pip install 'cherimoya-train[{EXTRAS[package]}]'"
        ) from None
    except Exception as error:  # of somebody else's code
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise PackageError(
            f"{module} cannot be imported ({said}). Install it anew, or see what has its name on "
            "PYTHONPATH or in this folder."
        ) from None
