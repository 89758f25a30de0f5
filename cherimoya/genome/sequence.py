"""The alphabet: letters, codes and one-hot, the other strand, and the tracks beside a sequence."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

BASES = "ACGT"  # codes 0-3
N_CODE = 4  # of every other letter; a one-hot column of zeros
IUPAC = {
    "A": "A", "C": "C", "G": "G", "T": "T", "R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT",
    "M": "AC", "B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG", "N": "",
}  # fmt: skip
UNKNOWN = "NRYSWKMBDHV"  # IUPAC's letters for several bases
COMPLEMENT = np.array([3, 2, 1, 0, N_CODE], np.uint8)  # by code
CODES = bytes(BASES.encode().find(bytes([i]).upper()) % (N_CODE + 1) for i in range(256))  # by byte


def encode(letters: str) -> np.ndarray:
    """Letters as codes (L,) uint8: A C G T in either case, anything else an N."""
    return np.frombuffer(bytearray(letters.encode("latin-1", "replace").translate(CODES)), np.uint8)


def decode(codes: np.ndarray) -> str:
    """Codes (L,) as letters."""
    return "".join((*BASES, "N")[code] for code in codes)


def reverse_complement(codes: Any) -> Any:
    """Codes (..., L) of the other strand, as an array or tensor like `codes`."""
    if isinstance(codes, np.ndarray):
        return COMPLEMENT[codes[..., ::-1]]
    turned = codes.flip(-1)  # no table, which would come from the host
    return turned.where(turned == N_CODE, len(BASES) - 1 - turned)


def one_hot(sequences: "str | Sequence[str] | np.ndarray | Tensor") -> "Tensor":
    """Letters of one length, or codes (N, L), as one-hot X (N, 4, L) fp32, in the order A C G T.

    An unknown base is a column of zeros. Codes stay on their device.

    Raises ValueError for letters that are no bases, and for sequences of several lengths.
    """
    import torch

    codes = torch.as_tensor(_codes(sequences) if is_text(sequences) else sequences)
    bases = torch.arange(len(BASES), dtype=codes.dtype, device=codes.device)
    return (codes[:, None] == bases[:, None]).float()


def as_codes(sequences: "np.ndarray | Tensor") -> "Tensor":
    """Codes (N, L) as they are, or one-hot (N, 4, L) as codes; uint8.

    Raises ValueError for anything else.
    """
    import torch

    given = torch.as_tensor(sequences)
    if given.ndim == 2 and (not given.numel() or int(given.max()) <= N_CODE):
        return given.to(torch.uint8)
    if given.ndim == 3 and given.shape[1] == len(BASES):
        columns = given.sum(dim=1)
        if bool(((given == 0) | (given == 1)).all()) and bool((columns <= 1).all()):
            return torch.where(columns == 0, N_CODE, given.argmax(dim=1)).to(torch.uint8)
    raise ValueError(
        f"sequences of shape {tuple(given.shape)}: expected one-hot (N, 4, L), or codes (N, L) "
        "with 0-3 for A C G T and 4 for N"
    )


def is_text(sequences: Any) -> TypeGuard[str | Sequence[str]]:
    """Whether sequences are letters: a string, or a list, tuple or array of strings."""
    if isinstance(sequences, np.ndarray):
        return sequences.dtype.kind == "U"
    if isinstance(sequences, str):
        return True
    return isinstance(sequences, Sequence) and all(isinstance(x, str) for x in sequences)


def _codes(sequences: str | Sequence[str]) -> np.ndarray:
    """Letters as codes (N, L)."""
    texts = [sequences] if isinstance(sequences, str) else list(sequences)
    lengths = sorted({len(text) for text in texts})
    if len(lengths) != 1 or lengths[0] == 0:
        raise ValueError(f"sequences of lengths {lengths}: they must be of one length, over 0")
    known = set(BASES + UNKNOWN + BASES.lower() + UNKNOWN.lower())
    for row, text in enumerate(texts):
        if wrong := set(text) - known:
            at = min(map(text.index, wrong))
            raise ValueError(
                f"sequence {row} has {text[at]!r} at position {at}: letters are {BASES}, or "
                f"{UNKNOWN} for an unknown base"
            )
    return encode("".join(texts)).reshape(len(texts), -1)


def strand_channels(groups: Sequence[int]) -> list[int]:
    """Which channel shows which on the other strand: reversed within each group."""
    order: list[int] = []
    for size in groups:
        order += range(len(order) + size - 1, len(order) - 1, -1)
    return order


def reverse_complement_tracks(values: "Tensor", groups: Sequence[int]) -> "Tensor":
    """Tracks (N, tracks, L) seen from the other strand: both axes reversed within each group."""
    import torch

    # In parts: a list of channels would come from the host, which no captured graph allows.
    return torch.cat([part.flip(1, 2) for part in values.split(list(groups), dim=1)], dim=1)
