"""Sequences as codes (N, L) uint8, 0-3 for A C G T and 4 for N, and what is done with them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cherimoya.genome.sequence import N_CODE
from cherimoya.ops.windows import op as gather

COMPLEMENT = (3, 2, 1, 0, N_CODE)
LETTERS = "ACGTN"


def one_hot(codes: Tensor) -> Tensor:
    """Codes (N, L) as one-hot (N, 4, L) float32, where they are; an N is a column of zeros."""
    rows = torch.arange(len(codes), device=codes.device)
    zeros = torch.zeros_like(rows)
    return gather.one_hot(codes, rows, zeros, zeros.bool(), codes.shape[1])


def as_codes(sequences: np.ndarray | Tensor) -> Tensor:
    """Codes (N, L) as they are, or one-hot (N, 4, L) as codes; uint8.

    Raises ValueError for anything else.
    """
    given = torch.as_tensor(sequences)
    if given.ndim == 2 and (not given.numel() or int(given.max()) <= N_CODE):
        return given.to(torch.uint8)
    if given.ndim == 3 and given.shape[1] == 4:
        columns = given.sum(dim=1)
        if bool(((given == 0) | (given == 1)).all()) and bool((columns <= 1).all()):
            codes = given.argmax(dim=1)
            return torch.where(columns == 0, N_CODE, codes).to(torch.uint8)
    raise ValueError(
        f"sequences of shape {tuple(given.shape)}: expected one-hot (N, 4, L), or codes (N, L) "
        "with 0-3 for A C G T and 4 for N"
    )


def reverse_complement(codes: Tensor) -> Tensor:
    """Codes (N, L) of the other strand."""
    table = torch.tensor(COMPLEMENT, dtype=torch.uint8, device=codes.device)
    return table[codes.flip(1).long()]


def strand_channels(groups: Sequence[int]) -> list[int]:
    """Which channel shows which on the other strand: reversed within each group."""
    order: list[int] = []
    for size in groups:
        order += range(len(order) + size - 1, len(order) - 1, -1)
    return order


def encode(letters: str) -> np.ndarray:
    """Letters as codes (L,): A C G T in either case, anything else an N."""
    return _CODES[np.frombuffer(letters.encode("latin-1", "replace"), np.uint8)]


def decode(codes: np.ndarray) -> str:
    """Codes (L,) as letters."""
    return "".join(LETTERS[code] for code in codes)


def check_window(model: Any, length: int, where: str) -> None:
    """Raise ValueError unless `length` bases leave the model something to predict."""
    if length <= 2 * model.trimming:
        raise ValueError(
            f"{where}: {length} bases, but the model trims {model.trimming} from each side"
        )


_CODES = np.full(256, N_CODE, np.uint8)  # by letter
for _code, _letter in enumerate("ACGT"):
    _CODES[[ord(_letter), ord(_letter.lower())]] = _code
