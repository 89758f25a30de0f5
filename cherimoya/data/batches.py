"""Which example, which jitter, which strand: pure functions of (seed, epoch, index)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cherimoya.data.loci import Loci
from cherimoya.genome.sequence import strand_channels
from cherimoya.ops.windows import op as gather

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_ORDER, _BACKGROUND, _JITTER, _STRAND = range(4)


@dataclass(frozen=True)
class EpochPlan:
    """The examples of one epoch, in order.

    locus: (m,) int64 row of the locus; shift: (m,) int64 first base of the window within the
    stored one; flip: (m,) bool, whether the reverse complement is shown.
    """

    locus: np.ndarray
    shift: np.ndarray
    flip: np.ndarray

    def __len__(self) -> int:
        return len(self.locus)


def plan_epoch(
    seed: int,
    epoch: int,
    label: np.ndarray,
    negative_ratio: float,
    max_jitter: int,
    reverse_complement: bool,
) -> EpochPlan:
    """Every peak once and int(peaks * negative_ratio) background draws, shuffled.

    `label` (n,) is 1 for a peak. Peaks are jittered by up to `max_jitter` bases either way,
    background loci never; half of the examples are reverse complements.
    """
    peaks, background = np.flatnonzero(label == 1), np.flatnonzero(label == 0)
    draws = int(len(peaks) * negative_ratio) if len(background) else 0
    rounds = -(-draws // max(len(background), 1))
    ranks = _random_bits(seed, epoch, _BACKGROUND, rounds * len(background))
    drawn = np.argsort(ranks.reshape(rounds, len(background)), axis=1, kind="stable").ravel()
    locus = np.concatenate([peaks, background[drawn[:draws]]])
    locus = locus[np.argsort(_random_bits(seed, epoch, _ORDER, len(locus)), kind="stable")]
    jitter = _random_bits(seed, epoch, _JITTER, len(locus)) % np.uint64(2 * max_jitter + 1)
    shift = np.where(label[locus] == 1, jitter.astype(np.int64), max_jitter)
    strand = _random_bits(seed, epoch, _STRAND, len(locus)) >> np.uint64(63)
    return EpochPlan(locus, shift, (strand == 1) & reverse_complement)


def examples_per_epoch(label: np.ndarray, negative_ratio: float) -> int:
    """How many examples `plan_epoch` will return."""
    peaks = int((label == 1).sum())
    return peaks + (int(peaks * negative_ratio) if (label == 0).any() else 0)


def _random_bits(seed: int, epoch: int, stream: int, n: int) -> np.ndarray:
    """n hashes (uint64) of (seed, epoch, stream, index): SplitMix64 (Steele et al. 2014).

    A hash and not a generator, so that no library version can change what an example is.
    """
    with np.errstate(over="ignore"):
        key = np.zeros((), dtype=np.uint64)
        for part in (seed, epoch, stream):
            key = _mix(key + _GOLDEN + np.uint64(part))
        return _mix(key + _GOLDEN * np.arange(1, n + 1, dtype=np.uint64))


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * _MIX[0]
    x = (x ^ (x >> np.uint64(27))) * _MIX[1]
    return x ^ (x >> np.uint64(31))


@dataclass(frozen=True)
class Batch:
    """One-hot sequence X (N, 4, L), signal (N, tracks, out), control (N, controls, L) or None."""

    X: Tensor
    signal: Tensor
    control: Tensor | None


class Tables:
    """Codes and counts of loci as tensors on a device, from which batches are gathered there."""

    def __init__(self, loci: Loci, device: torch.device) -> None:
        self.in_window, self.out_window = loci.in_window, loci.out_window
        self.max_jitter = loci.max_jitter
        self.sequence = _tensor(loci.sequence, device)  # (n, stored)
        self.signal = _tensor(loci.signal, device)  # (n, tracks, stored)
        self.control = None if loci.control is None else _tensor(loci.control, device)
        self._signal_channels = _strand_channels(loci.signal_groups, device)
        self._control_channels = _strand_channels(loci.control_groups, device)

    def gather(self, rows: Tensor, shift: Tensor, flip: Tensor) -> Batch:
        """The examples (rows, shift, flip), each (N,) integers on the device, see EpochPlan.

        A flipped example is the reverse complement: positions reversed, bases complemented, and
        channels reversed within each group.
        """

        def counts(table: Tensor, channels: Tensor, length: int) -> Tensor:
            return gather.counts(table, channels, rows, shift, flip, length)

        X = gather.one_hot(self.sequence, rows, shift, flip, self.in_window)
        signal = counts(self.signal, self._signal_channels, self.out_window)
        if self.control is None:
            return Batch(X, signal, None)
        return Batch(X, signal, counts(self.control, self._control_channels, self.in_window))

    def centred(self, rows: Tensor) -> Batch:
        """The loci at `rows` (N,) as stored: no jitter, forward strand."""
        return self.gather(rows, torch.full_like(rows, self.max_jitter), torch.zeros_like(rows))


def _tensor(values: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(device)


def _strand_channels(groups: Sequence[int], device: torch.device) -> Tensor:
    """(2, tracks): the channels in order, and reversed within each group."""
    order = strand_channels(groups)
    return torch.tensor([sorted(order), order], dtype=torch.int64, device=device)
