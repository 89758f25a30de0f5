"""In-silico saturation mutagenesis: what each possible change of one base does.

The normalisation of every block spans the whole example, so each mutant is predicted in full.
Only codes, positions and alleles are kept: mutants are made, batched and reduced on the device.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from cherimoya.genome.sequence import BASES, as_codes, one_hot
from cherimoya.inference.cuda_graph import CUDAGraphModel
from cherimoya.inference.predictor import check_finite, evaluating, predict_batch
from cherimoya.interpret.target import Target, all_of
from cherimoya.util import console

FULL_BATCHES = 16  # of a call, for each that may be part empty


def saturation_mutagenesis(
    model: nn.Module,
    sequences: np.ndarray | Tensor,
    targets: Sequence[Target] = (Target("counts"),),
    window: slice | None = None,
    controls: Tensor | None = None,
    batch_size: int | None = None,
    precision: str = "fp32",
    bar: bool = True,
) -> np.ndarray:
    """The effect of each single-base change on each target.

    Parameters
    ----------
    model : Cherimoya
        On the device to work on. Its mode and weights are left as they are.
    sequences : codes (N, L) or one-hot (N, 4, L)
    targets : sequence of Target
        What is read from each prediction; all of them from the same predictions.
    window : slice, optional
        The positions that are mutated; by default all.
    controls : Tensor (N, controls, L), optional
        For models with control tracks.
    batch_size : int, optional
        Mutants predicted at once; by default 512 on a GPU, 16 on a CPU, whose caches are small.
    precision : str
        bf16, fp16, tf32 or fp32, as trainer.precision.
    bar : bool
        Whether progress is shown.

    Returns
    -------
    ndarray (T, N, 4, W) float32, or float64 of a model in it
        Target of the sequence with that base there, less that of the sequence as it is; 0 for
        the base that is there. Where the sequence has an N all four bases are tried.
    """
    device = next(model.parameters()).device
    codes = as_codes(sequences).to(device)
    mutate = Mutagenesis(model, targets, batch_size or default_batch(device), precision)
    positions = range(codes.shape[1])[window or slice(None)]
    step = mutate.loci_at_once(len(positions))
    parts = [torch.zeros(len(targets), 0, len(BASES), len(positions))]
    for row in console.track(
        range(0, len(codes), step), "mutagenesis", len(codes), "locus", bar=bar
    ):
        rows = slice(row, row + step)
        own = None if controls is None else controls[rows].to(device)
        parts.append(mutate(codes[rows], positions, own).cpu())
    return torch.cat(parts, dim=1).numpy()


def default_batch(device: torch.device) -> int:
    """Sequences predicted at once."""
    return 512 if device.type == "cuda" else 16


class Mutagenesis:
    """Saturation mutagenesis of loci, one call after another with one captured network."""

    def __init__(
        self, model: nn.Module, targets: Sequence[Target], batch_size: int, precision: str
    ) -> None:
        self.model, self.targets = model, targets
        self._batch_size, self._precision = batch_size, precision
        self._predict = CUDAGraphModel(model)
        self._dtype = next(model.parameters()).dtype
        self._groups: list[int] = model.signal_groups  # type: ignore[assignment]

    def loci_at_once(self, window: int) -> int:
        """Loci in a call that fill their batches, but for the last."""
        return max(1, FULL_BATCHES * self._batch_size // (len(BASES) * window))

    @torch.no_grad()
    def __call__(self, codes: Tensor, positions: range, controls: Tensor | None) -> Tensor:
        """Effects (T, n, 4, W) at `positions` of codes (n, L), on their device."""
        n = len(codes)
        rows, at, allele = mutants(codes, positions)
        # the sequences as they are go first, in the same batches
        own = torch.arange(n, device=codes.device)
        changes = zip((own, own * 0, codes[:, 0]), (rows, at, allele), strict=True)
        with evaluating(self.model):
            scores = self._scores(codes, controls, *(torch.cat(both) for both in changes))
        effects = scores.new_zeros(len(self.targets), n, len(BASES), len(positions))
        effects[:, rows, allele, at - positions.start] = scores[:, n:] - scores[:, rows]
        return effects

    def _scores(
        self, codes: Tensor, controls: Tensor | None, rows: Tensor, at: Tensor, base: Tensor
    ) -> Tensor:
        """Targets (T, m) of the loci at `rows` (m,) with `base` at position `at`."""
        size, parts = self._batch_size, []
        for start in range(0, len(rows), size):
            chosen = slice(start, start + size)
            mutated = codes[rows[chosen]]
            mutated.scatter_(1, at[chosen, None], base[chosen, None].to(codes.dtype))
            X_ctl = None if controls is None else controls[rows[chosen]]
            X = one_hot(mutated).to(self._dtype)
            prediction = predict_batch(self._predict, X, X_ctl, self._precision, size)
            parts.append(all_of(self.targets, prediction, self._groups))
        scores = torch.cat(parts, dim=1)
        check_finite(scores)
        return scores


def mutants(codes: Tensor, positions: range) -> tuple[Tensor, Tensor, Tensor]:
    """Row, position and new base of every single-base change at `positions` of codes (n, L)."""
    here = codes[:, positions.start : positions.stop]
    bases = torch.arange(len(BASES), dtype=codes.dtype, device=codes.device)
    rows, at, allele = (here[:, :, None] != bases).nonzero(as_tuple=True)
    return rows, at + positions.start, allele


def centred(effects: np.ndarray) -> np.ndarray:
    """Effects (..., 4, W) less their mean over the four bases: what motif finders expect.

    At the base that is there it is its contribution: how much is lost, on average, by changing it.
    """
    return effects - effects.mean(axis=-2, keepdims=True)
