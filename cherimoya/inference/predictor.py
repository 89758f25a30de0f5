"""Predictions in batches: of one-hot sequences, of strings, and of windows along a chromosome."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from cherimoya.errors import DataError
from cherimoya.genome.sequence import is_text, one_hot
from cherimoya.inference.cuda_graph import CUDAGraphModel
from cherimoya.inference.precision import check_precision, computing_in
from cherimoya.inference.wrappers import expected_counts
from cherimoya.metrics import group_softmax

Sequences = str | Sequence[str] | Tensor | np.ndarray


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says of N sequences, on the CPU, in fp32; unpacks as logits, log_counts.

    logits: (N, tracks, out_window), log_counts: (N, n_groups) of log(1 + counts).
    """

    logits: Tensor
    log_counts: Tensor
    signal_groups: list[int]

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.logits, self.log_counts))

    @property
    def probabilities(self) -> Tensor:
        """(N, tracks, out_window), which add up to 1 over each signal group."""
        return group_softmax(self.logits, self.signal_groups)

    @property
    def counts(self) -> Tensor:
        """(N, n_groups)."""
        return torch.expm1(self.log_counts)

    @property
    def expected_counts(self) -> Tensor:
        """(N, tracks, out_window) counts at each base, which add up to `counts`."""
        return expected_counts(self.logits, self.log_counts, self.signal_groups)


def predict(
    model: nn.Module,
    X: Sequences,
    X_ctl: Tensor | np.ndarray | None = None,
    batch_size: int = 64,
    device: str | torch.device | None = None,
    precision: str = "fp32",
) -> Prediction:
    """Predictions of `model` for every sequence, in batches.

    Parameters
    ----------
    model : nn.Module
        A Cherimoya, or an Ensemble of several or of both strands. It is left in the mode and on
        the device where it was.
    X : Tensor or array (N, 4, L), str, or sequence or array of str
        One-hot sequences, or letters of one length: A C G T in either case, and N or another
        IUPAC letter for an unknown base.
    X_ctl : Tensor or array (N, n_control_tracks, L), optional
        Control signal, for a model that has control tracks.
    batch_size : int
        Sequences at once.
    device : str or torch.device, optional
        Where to predict; by default where the model is.
    precision : str
        fp32, or on a GPU tf32, bf16 or fp16, which take less time and round more.

    Returns
    -------
    Prediction
        Logits and log counts, and from them probabilities, counts and expected counts.

    Raises
    ------
    ValueError
        For letters that are no bases, anything else that is no sequences, numbers that are not
        finite, lengths or shapes that do not fit, or a GPU where none is.
    ConfigError
        For a precision that the device does not have.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1")
    X = _sequences(X)
    control = None if X_ctl is None else torch.as_tensor(X_ctl)
    if control is not None and len(control) != len(X):
        raise ValueError(f"X_ctl has {len(control)} rows, but X has {len(X)}")
    groups: list[int] = list(model.signal_groups)  # type: ignore[arg-type]
    with _at_work(model, device) as here:
        check_precision(precision, here)
        run = CUDAGraphModel(model)
        parts = []
        for start in range(0, len(X), batch_size):
            rows = slice(start, start + batch_size)
            x = X[rows].to(here, torch.float32)
            c = None if control is None else control[rows].to(here, torch.float32)
            parts.append(to_cpu(predict_batch(run, x, c, precision, batch_size)))
        if not parts:
            raise ValueError("X is empty: there is nothing to predict")
    logits, log_counts = (torch.cat(column) for column in zip(*parts, strict=True))
    return Prediction(logits, log_counts, groups)


def _sequences(X: Sequences) -> Tensor:
    """X as a tensor (N, 4, L), though its shape is left to the model."""
    if is_text(X):
        return one_hot(X)
    try:
        found = torch.as_tensor(X)
    except (TypeError, ValueError, RuntimeError):
        found = None
    if found is None or not found.dim() or found.is_complex():
        raise ValueError(
            f"X is of type {type(X).__name__}: expected one-hot sequences (N, 4, L) in a tensor or "
            "array, or letters in a string or a list of strings"
        )
    if found.is_floating_point() and not found.isfinite().all():
        raise ValueError("X has numbers that are not finite. Unknown bases are zeros.")
    return found


def predict_batch(
    run: CUDAGraphModel, X: Tensor, X_ctl: Tensor | None, precision: str, size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Logits and log counts of X (n, 4, L), on its device.

    With a `size`, a batch that is not full is filled up on a GPU, since each size is captured once.
    """
    n = len(X)
    if size and X.device.type == "cuda" and n < size:
        X = torch.cat([X, X.new_zeros(size - n, *X.shape[1:])])
        if X_ctl is not None:
            X_ctl = torch.cat([X_ctl, X_ctl.new_zeros(size - n, *X_ctl.shape[1:])])
    with computing_in(precision, X.device):
        logits, log_counts = run(X, X_ctl)
    return logits[:n], log_counts[:n]


def to_cpu(outputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Logits, or probabilities, and log counts in fp32 on the CPU. Raises as `check_finite`."""
    values, log_counts = (output.float().cpu() for output in outputs)
    check_finite(log_counts)
    return values, log_counts


def check_finite(answers: Tensor) -> None:
    """Raise DataError where a model's answers, any of them, are not finite."""
    if not answers.isfinite().all():
        raise DataError(
            "the model's answers are not finite: it diverged in training, or its weights (over "
            "1,000) or activations are beyond the range of fp16, in which a GPU multiplies. "
            "CHERIMOYA_KERNELS=reference in the environment leaves that to PyTorch."
        )


@contextmanager
def _at_work(model: nn.Module, device: str | torch.device | None) -> Iterator[torch.device]:
    """The model on `device`, in evaluation mode; afterwards as it was."""
    before = next(model.parameters()).device
    here = before if device is None else torch.device(device)
    if here.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={here}, but torch sees no GPU. Use device='cpu'.")
    with evaluating(model):
        try:
            model.to(here)
            yield here
        finally:
            model.to(before)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; afterwards in the one that it was in."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
