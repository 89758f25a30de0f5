"""Checkpoints as models to be asked about sequences, one or several, on one strand or both."""

import hashlib
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cherimoya import __version__
from cherimoya.analysis.checkpoints import find_checkpoint
from cherimoya.analysis.sequences import one_hot
from cherimoya.captured import CapturedModel
from cherimoya.ensemble import Ensemble
from cherimoya.errors import ConfigError, DataError
from cherimoya.metrics import group_softmax
from cherimoya.network import Cherimoya
from cherimoya.training.precision import autocast


def checkpoint_files(named: Sequence[str]) -> list[Path]:
    """The file of each checkpoint: a file, or the best one of a run folder."""
    return [find_checkpoint(name).path for name in named]


def load_models(named: Sequence[str], device: torch.device) -> list[Cherimoya]:
    """The models of `checkpoint`, in evaluation mode. Raises CherimoyaError if they disagree."""
    paths = checkpoint_files(named)
    models = [Cherimoya.load(path, device).eval() for path in paths]
    for path, model in zip(paths, models, strict=True):
        for key in ("signal_groups", "n_control_tracks", "trimming"):
            if model.config[key] != models[0].config[key]:
                raise ConfigError(
                    f"checkpoint: {path} has {key}={model.config[key]}, {paths[0]} has "
                    f"{models[0].config[key]}. Name models that were trained on the same windows."
                )
    return models


class Averaged:
    """Predictions of an Ensemble for codes, batch by batch. Controls are zeros."""

    def __init__(
        self, models: Sequence[Cherimoya], both_strands: bool, batch_size: int, precision: str
    ) -> None:
        self.device = next(models[0].parameters()).device
        self.signal_groups = models[0].signal_groups
        self._controls = models[0].n_control_tracks
        self._predict = CapturedModel(Ensemble(models, both_strands).eval())
        self.batch_size, self._precision = batch_size, precision

    @torch.no_grad()
    def __call__(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities (N, tracks, out), which add up to 1 over a group, and log counts (N, G),
        of codes (N, L), both float32 on the CPU."""
        parts = [self._batch(codes[i : i + self.batch_size]) for i in self._starts(codes)]
        p, log_counts = zip(*parts, strict=True)
        return torch.cat(p), torch.cat(log_counts)

    def _starts(self, codes: Tensor) -> range:
        return range(0, len(codes), self.batch_size)

    def _batch(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        codes, kept = codes.to(self.device), len(codes)
        if self.device.type == "cuda":  # one shape, captured once
            codes = torch.cat([codes, codes[:1].expand(-kept % self.batch_size, -1)])
        X, X_ctl = one_hot(codes), None
        if self._controls:
            X_ctl = X.new_zeros(len(X), self._controls, X.shape[2])
        with autocast(self._precision, self.device):
            logits, log_counts = self._predict(X, X_ctl)
        p = group_softmax(logits.float(), self.signal_groups)
        return p[:kept].cpu(), log_counts[:kept].float().cpu()


def check_output(output: Path, overwrite: bool) -> None:
    """Raise DataError when `output` cannot or should not be written."""
    if output.is_dir():
        raise DataError(f"output={output}: a folder. Name the file to write.")
    if output.exists() and not overwrite:
        raise DataError(
            f"output={output}: exists already. Choose another name, or set overwrite=true."
        )
    folder = next(parent for parent in output.absolute().parents if parent.exists())
    if not os.access(folder, os.W_OK):
        raise DataError(f"output={output}: {folder} cannot be written to. Choose another folder.")


def provenance(files: Mapping[str, Sequence[str | Path]]) -> dict[str, Any]:
    """The name, size and SHA-256 of each file by key, the command and the tool's version."""
    return {
        "sources": [_described(key, Path(path)) for key, paths in files.items() for path in paths],
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "version": __version__,
    }


def _described(key: str, path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"key": key, "name": path.name, "size": path.stat().st_size, "sha256": digest}
