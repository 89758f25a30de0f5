"""Checkpoints as models to be asked about sequences, one or several, on one strand or both."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cherimoya.config.interpret import InferenceConfig
from cherimoya.config.models import FREE
from cherimoya.config.schema import to_dict
from cherimoya.genome.sequence import one_hot
from cherimoya.inference.checkpoints import find_checkpoint, load_ensemble, named_sources
from cherimoya.inference.cuda_graph import CUDAGraphModel
from cherimoya.inference.ensemble import Ensemble
from cherimoya.inference.precision import check_precision
from cherimoya.inference.predictor import predict_batch, to_cpu
from cherimoya.interpret.mutagenesis import default_batch
from cherimoya.metrics import group_softmax
from cherimoya.prepare.provenance import made_from
from cherimoya.records.provenance import choose_device
from cherimoya.util import console
from cherimoya.util.console import warning


def check_effects_precision(precision: str, device: torch.device) -> None:
    """Raise ConfigError for one that the device does not have; say which ones round effects."""
    check_precision(precision, device)
    if precision != "fp32":
        console.say(
            warning(
                f"precision={precision} rounds effects, which are small differences of "
                "predictions. Where they are weak, compare precision=fp32."
            )
        )


class EnsemblePredictor:
    """Predictions of the models of `config` as one, for codes, batch by batch. Controls are zeros.

    Raises CherimoyaError for models, a device or a precision that cannot be.
    """

    def __init__(self, config: InferenceConfig) -> None:
        self.device = choose_device(config.device, "device")
        check_effects_precision(config.precision, self.device)
        checkpoints = [find_checkpoint(name) for name in config.checkpoint]
        self.model = load_ensemble(checkpoints, self.device, config.reverse_complement, config.bias)
        self._predict, self.signal_groups = CUDAGraphModel(self.model), self.model.signal_groups
        self.groups = checkpoints[0].groups  # what they are called, where known
        self.batch_size = config.batch_size or default_batch(self.device)
        self._precision = config.precision

    def __call__(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities (N, tracks, out), which add up to 1 over a group, and log counts (N, G),
        of codes (N, L), both float32 on the CPU."""
        return self._predicted(self._predict, codes)

    def apart(self, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same, and the log counts of each model (K, N, G)."""
        if len(self.model.models) == 1:
            p, log_counts = self(codes)
            return p, log_counts, log_counts[None]
        found = [self._predicted(one, codes) for one in self._members]
        p, log_counts = (torch.stack(column) for column in zip(*found, strict=True))
        return p.mean(dim=0), log_counts.mean(dim=0), log_counts

    @cached_property
    def _members(self) -> list[CUDAGraphModel]:
        both = self.model.reverse_complement
        models: list[Any] = list(self.model.models)
        return [CUDAGraphModel(Ensemble([model], both).eval()) for model in models]

    @torch.no_grad()
    def _predicted(self, predict: CUDAGraphModel, codes: Tensor) -> tuple[Tensor, Tensor]:
        size, parts = self.batch_size, []
        for start in range(0, len(codes), size):
            X, X_ctl = one_hot(codes[start : start + size].to(self.device)), None
            if self.model.n_control_tracks:
                X_ctl = X.new_zeros(len(X), self.model.n_control_tracks, X.shape[2])
            logits, log_counts = predict_batch(predict, X, X_ctl, self._precision, size)
            parts.append(to_cpu((group_softmax(logits.float(), self.signal_groups), log_counts)))
        p, log_counts = (torch.cat(column) for column in zip(*parts, strict=True))
        return p, log_counts


def describe(
    config: InferenceConfig,
    free: Sequence[str],
    files: Mapping[str, Sequence[str | Path]],
    length: int,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was read, see `made_from`, and all that decides the result but the keys in `free`.

    files: those that were read besides the checkpoints, by key; length: bases of the input
    """
    checkpoints = [find_checkpoint(name) for name in config.checkpoint]
    files = {"checkpoint": [one.path for one in checkpoints], **files}
    provenance = made_from((key, path) for key, paths in files.items() for path in paths)
    sources = provenance["sources"]  # without commits: another one of the same bytes is the same
    provenance["sources"] = named_sources(sources, checkpoints)
    settings = {k: v for k, v in to_dict(config).items() if k not in (*FREE, *free)}
    if config.bias is False:  # as before there was a choice
        del settings["bias"]
    if config.target is None:  # as before there were contrasts
        del settings["target"]
    return provenance, settings | {"sources": sources, "input": length}
