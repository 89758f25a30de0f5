"""Cherimoya: DNA to base-resolution profiles and counts.

import cherimoya

model = cherimoya.load("outputs/<date>/<run>")  # or a file, also of upstream
prediction = cherimoya.predict(model, ["ACGT..."])
prediction.expected_counts, prediction.log_counts
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os

    import torch

    from cherimoya.cheri import CheriBlock
    from cherimoya.genome.sequence import one_hot
    from cherimoya.inference.ensemble import Ensemble
    from cherimoya.inference.predictor import Prediction, predict
    from cherimoya.inference.wrappers import (
        ControlWrapper,
        ExpectedCountsWrapper,
        LogCountWrapper,
        ProfileWrapper,
    )
    from cherimoya.network import Cherimoya

if sys.platform == "win32":
    raise ImportError(
        "cherimoya-train does not run on Windows: it locks files with fcntl and stops by POSIX "
        "signals. Install it in WSL 2."
    )

__version__ = "0.1.0"
__all__ = [
    "CheriBlock",
    "Cherimoya",
    "ControlWrapper",
    "Ensemble",
    "ExpectedCountsWrapper",
    "LogCountWrapper",
    "Prediction",
    "ProfileWrapper",
    "load",
    "one_hot",
    "predict",
]
_HOMES = {
    "CheriBlock": "cheri",
    "Cherimoya": "network",
    "Ensemble": "inference.ensemble",
    **dict.fromkeys(("Prediction", "predict"), "inference.predictor"),
    "one_hot": "genome.sequence",
    **dict.fromkeys(
        ("ControlWrapper", "ExpectedCountsWrapper", "LogCountWrapper", "ProfileWrapper"),
        "inference.wrappers",
    ),
}


def load(
    path: "str | os.PathLike[str]", device: "str | torch.device" = "cpu", bias: bool | None = False
) -> "Cherimoya":
    """The model in a checkpoint of this package or of upstream, on `device`, ready to predict.

    `path` is a file, the folder of a run, of which the best checkpoint is taken, or an address of
    the Hugging Face Hub, hf://owner/name/path/to/file[@revision]. A model that was trained with a
    bias model answers corrected, and with bias=True with it; None: if it has one. Raises
    CherimoyaError if there is no checkpoint, or it is damaged or no such checkpoint, or with
    bias=True if it has no bias model. The model's `in_window` is how many bases it was trained
    with, None where its file does not say.
    """
    from pathlib import Path

    from cherimoya.inference.checkpoints import Checkpoint
    from cherimoya.network import Cherimoya
    from cherimoya.util.hub import fetch, is_address

    path = fetch(str(path)).path if is_address(path) else Path(path)
    file = path / "checkpoints" / "best.pt" if path.is_dir() else path
    model = Cherimoya.load(file, device, bias).eval()
    model.in_window = Checkpoint(file, None).window[0]
    return model


def __getattr__(name: str) -> Any:
    """Import torch only when a model is asked for, so that the command line answers at once."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"cherimoya.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
