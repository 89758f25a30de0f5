"""Checkpoints as models to be asked about sequences, one or several, on one strand or both."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cherimoya.errors import DataError
from cherimoya.genome.sequence import one_hot
from cherimoya.inference.checkpoints import find_checkpoint, load_ensemble
from cherimoya.inference.cuda_graph import CUDAGraphModel
from cherimoya.inference.ensemble import Ensemble
from cherimoya.inference.precision import check_precision
from cherimoya.inference.predictor import predict_batch, to_cpu
from cherimoya.metrics import group_softmax
from cherimoya.network import Cherimoya
from cherimoya.prepare.provenance import made_from
from cherimoya.util import console


def checkpoint_files(named: Sequence[str]) -> list[Path]:
    """The file of each checkpoint: a file, or the best one of a run folder."""
    return [find_checkpoint(name).path for name in named]


def load_models(named: Sequence[str], device: torch.device) -> list[Cherimoya]:
    """The models of `checkpoint`, in evaluation mode. Raises CherimoyaError if they disagree."""
    ensemble = load_ensemble([find_checkpoint(name) for name in named], device)
    return list(ensemble.models)  # type: ignore[arg-type]


def check_effects_precision(precision: str, device: torch.device) -> None:
    """Raise ConfigError for one that the device does not have; say which ones round effects."""
    check_precision(precision, device)
    if precision != "fp32":
        console.say(
            f"precision={precision} rounds effects, which are small differences of predictions. "
            "Where they are weak, compare precision=fp32."
        )


class EnsemblePredictor:
    """Predictions of an Ensemble for codes, batch by batch. Controls are zeros."""

    def __init__(
        self, models: Sequence[Cherimoya], both_strands: bool, batch_size: int, precision: str
    ) -> None:
        self.device = next(models[0].parameters()).device
        self.signal_groups = models[0].signal_groups
        self._controls = models[0].n_control_tracks
        self._predict = CUDAGraphModel(Ensemble(models, both_strands).eval())
        self.batch_size, self._precision = batch_size, precision

    @torch.no_grad()
    def __call__(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities (N, tracks, out), which add up to 1 over a group, and log counts (N, G),
        of codes (N, L), both float32 on the CPU."""
        size, parts = self.batch_size, []
        for start in range(0, len(codes), size):
            X, X_ctl = one_hot(codes[start : start + size].to(self.device)), None
            if self._controls:
                X_ctl = X.new_zeros(len(X), self._controls, X.shape[2])
            logits, log_counts = predict_batch(self._predict, X, X_ctl, self._precision, size)
            parts.append(to_cpu((group_softmax(logits.float(), self.signal_groups), log_counts)))
        p, log_counts = (torch.cat(column) for column in zip(*parts, strict=True))
        return p, log_counts


def check_new(output: Path, overwrite: bool) -> None:
    """Raise DataError when `output` should not be written."""
    if output.exists() and not overwrite:
        raise DataError(
            f"output={output}: exists already. Choose another name, or set overwrite=true."
        )


def file_provenance(files: Mapping[str, Sequence[str | Path]]) -> dict[str, Any]:
    """What was read, by key, see `made_from`."""
    return made_from((key, path) for key, paths in files.items() for path in paths)
