"""What a training step does after its gradients, each by one kernel on a GPU.

These change their arguments and take no gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cherimoya.ops.device import dependent_launch, shared_memory
from cherimoya.ops.dispatch import route

PIECE = 1024  # elements of the average that one program moves
MOST_ROWS, MOST_COLUMNS = 128, 256  # of a matrix whose products one multiprocessor holds


def by_kernels(device: torch.device) -> bool:
    """Whether kernels serve the functions of this module."""
    return route(device, torch.float32).conv_norm


def settle(
    losses: Tensor,
    rates: Tensor,
    now: Tensor,
    count: Tensor,
    failed: Tensor,
    found_inf: Tensor,
    sums: Tensor,
) -> None:
    """Decide whether a step counts, and have its numbers read on the device.

    Parameters
    ----------
    losses : Tensor (3,)
        Of this step; if one is not finite, the step fails.
    rates, now : Tensor (steps, K), (1, K)
        A row for each step; `now` becomes that of this one.
    count : Tensor (1,), int64
        The number of this step; one more unless it, or one before, failed.
    failed, found_inf : Tensor ()
        1 from the first failed step on, else 0; both the same.
    sums : Tensor (3,), float64
        What the losses of steps that count are added to.
    """
    if by_kernels(losses.device):
        import triton

        from cherimoya.ops.update.kernels import settle_kernel

        k = rates.shape[1]
        with torch.cuda.device_of(losses):
            settle_kernel[(1,)](
                losses, rates, now, count, failed, found_inf, sums, k,
                triton.next_power_of_2(k), num_warps=1, **dependent_launch(losses.device),
            )  # fmt: skip
        return
    torch.index_select(rates, 0, count, out=now)
    failed.copy_(torch.where(losses.sum().isfinite(), failed, 1.0))
    found_inf.copy_(failed)
    changes = failed == 0
    sums.add_(torch.where(changes, losses, 0.0))
    count.add_(changes)


class AddressTable:
    """Addresses in memory as a tensor on a device, made again when they change."""

    def __init__(self) -> None:
        self._held: tuple[list[Any], Tensor] | None = None

    def of(self, addresses: list[Any], device: torch.device) -> Tensor:
        """`addresses`, numbers or rows of numbers, as int64."""
        if self._held is None or self._held[0] != addresses:
            self._held = addresses, torch.tensor(addresses, device=device)
        return self._held[1]


class Average:
    """Moves tensors towards others of their shapes; by a kernel if all are fp32 and contiguous."""

    def __init__(self, average: Sequence[Tensor], source: Sequence[Tensor]) -> None:
        self._average, self._source = list(average), list(source)
        every = (*self._average, *self._source)
        self._plain = all(t.dtype == torch.float32 and t.is_contiguous() for t in every)
        self._table = AddressTable()

    def move(self, decay: Tensor, found_inf: Tensor) -> None:
        """1 - `decay` () of the way; nothing if `found_inf` () is 1."""
        device = decay.device
        if self._plain and by_kernels(device):
            from cherimoya.ops.update.kernels import average_kernel

            pieces = self._table.of(self._pieces(), device)
            with torch.cuda.device_of(decay):
                average_kernel[(len(pieces),)](
                    pieces, decay, found_inf, PIECE, num_warps=4, enable_fp_fusion=False,
                    **dependent_launch(device),
                )  # fmt: skip
            return
        distance = torch._foreach_sub(self._source, self._average)
        torch._foreach_mul_(distance, torch.where(found_inf == 0, 1 - decay, 0.0))
        torch._foreach_add_(self._average, distance)

    def _pieces(self) -> list[list[int]]:
        """The addresses of source and average, and the number of elements of each piece."""
        return [
            [source.data_ptr() + 4 * first, average.data_ptr() + 4 * first,
             min(PIECE, source.numel() - first)]
            for source, average in zip(self._source, self._average, strict=True)
            for first in range(0, source.numel(), PIECE)
        ]  # fmt: skip


@dataclass(frozen=True)
class MuonSettings:
    """What `muon` is to do with matrices of one shape."""

    beta: float
    weight_decay: float
    ns_steps: int


def fits_muon(parameters: Sequence[Tensor]) -> bool:
    """Whether `muon` takes these matrices, of one shape up to transposition."""
    device, (rows, columns) = parameters[0].device, sorted(parameters[0].shape)
    if not by_kernels(device) or not 0 < rows <= MOST_ROWS or columns > MOST_COLUMNS:
        return False
    plain = all(p.dtype == torch.float32 and p.is_contiguous() for p in parameters)
    padded_rows, widths = _padded(rows, columns)
    return plain and 4 * padded_rows * sum(widths) <= shared_memory(device)


def _padded(rows: int, columns: int) -> tuple[int, tuple[int, int]]:
    """Rows of a program's tile, and columns of its two parts."""
    import triton

    from cherimoya.ops.block.weights import column_widths

    return max(16, triton.next_power_of_2(rows)), column_widths(columns)


def muon(
    parameters: Sequence[Tensor],
    addresses: AddressTable,
    gradients: Tensor,
    momentum: Tensor,
    lr: Tensor,
    found_inf: Tensor,
    n_tall: int,
    settings: MuonSettings,
) -> None:
    """One step of Muon for n matrices, by one kernel, all of it on one multiprocessor each.

    Parameters
    ----------
    parameters : sequence of n Tensor
        The matrices, fp32 and contiguous, the tall ones, (columns, rows), first.
    addresses : AddressTable
        Of these parameters, kept from step to step.
    gradients : Tensor (n, rows * columns)
        Each in its matrix's own layout.
    momentum : Tensor (n, rows, columns)
        Of tall ones transposed; rows <= columns.
    lr, found_inf : Tensor ()
        The rate; and 1 for a step that changes nothing.
    """
    import triton.language as tl

    from cherimoya.ops.update.kernels import muon_kernel

    n, rows, columns = momentum.shape
    padded_rows, widths = _padded(rows, columns)
    dtype = tl.bfloat16 if momentum.is_cuda else tl.float32  # as in `optim.muon`
    table = addresses.of([p.data_ptr() for p in parameters], momentum.device)
    with torch.cuda.device_of(momentum):
        muon_kernel[(n,)](
            table, gradients, momentum, lr, found_inf, n_tall, settings.beta,
            settings.weight_decay, (columns / rows) ** 0.5, rows, columns,
            padded_rows, *widths, settings.ns_steps,
            dtype, num_warps=8, **dependent_launch(momentum.device),
        )  # fmt: skip
