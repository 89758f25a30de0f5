"""Windows of loci, cut out of tables on the device: one-hot sequence, and counts."""

import torch
from torch import Tensor

from cherimoya.ops.device import dependent_launch
from cherimoya.ops.dispatch import route

BASES = 4  # A C G T, by their codes; any other code is a column of zeros
BLOCK = 512


def one_hot(sequence: Tensor, rows: Tensor, shift: Tensor, flip: Tensor, length: int) -> Tensor:
    """Windows of `length` bases as one-hot X (N, 4, length) fp32.

    sequence (loci, stored) uint8 codes; rows, shift, flip (N,) integers: locus, first base, and
    whether its reverse complement is shown. On a GPU by one kernel.
    """
    if _by_kernel(sequence):
        from cherimoya.ops.windows.kernels import one_hot_kernel

        X = torch.empty(len(rows), BASES, length, device=sequence.device)
        stored = sequence.shape[1]
        with torch.cuda.device_of(sequence):
            one_hot_kernel[len(rows), -(-length // BLOCK)](
                sequence, rows, shift, flip, X, stored, length, BASES, BLOCK,
                **dependent_launch(sequence.device),
            )  # fmt: skip
        return X
    flips = flip.bool()[:, None]
    codes = sequence[rows[:, None], _positions(shift, flips, length)]
    codes = torch.where(flips & (codes < BASES), BASES - 1 - codes, codes)
    bases = torch.arange(BASES, dtype=torch.uint8, device=sequence.device)
    return (codes[:, None, :] == bases[None, :, None]).float()


def counts(
    values: Tensor, channels: Tensor, rows: Tensor, shift: Tensor, flip: Tensor, length: int
) -> Tensor:
    """Windows of `length` positions of values (loci, tracks, stored): (N, tracks, length) fp32.

    rows, shift, flip as in `one_hot`; channels (2, tracks): which track to show as each, forward
    and flipped. On a GPU by one kernel.
    """
    tracks, stored = values.shape[1:]
    if _by_kernel(values):
        from cherimoya.ops.windows.kernels import values_kernel

        out = torch.empty(len(rows), tracks, length, device=values.device)
        with torch.cuda.device_of(values):
            values_kernel[len(rows), -(-length // BLOCK), tracks](
                values, channels, rows, shift, flip, out, stored, length, tracks, BLOCK,
                **dependent_launch(values.device),
            )  # fmt: skip
        return out
    at = _positions(shift, flip.bool()[:, None], length)
    chosen = channels[flip.bool().long()]  # (N, tracks)
    return values[rows[:, None, None], chosen[:, :, None], at[:, None, :]].float()


def _by_kernel(table: Tensor) -> bool:
    return table.shape[0] > 0 and route(table.device, torch.float32).conv_norm


def _positions(shift: Tensor, flips: Tensor, length: int) -> Tensor:
    """Stored positions (N, length) of the windows."""
    steps = torch.arange(length, device=shift.device)
    return shift[:, None] + torch.where(flips, length - 1 - steps, steps)
