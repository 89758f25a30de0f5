"""Predictions of a genome while not all are made: on disk, several small chromosomes a part."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cherimoya.genome.fasta import Genome
from cherimoya.genome.sequence import N_CODE
from cherimoya.inference.genome_inputs import Values, Windows
from cherimoya.inference.predictor import to_cpu
from cherimoya.ops.windows import op as gather
from cherimoya.util import console
from cherimoya.util.console import counted
from cherimoya.util.marks import is_whole, marked_folder

BATCHES = 8  # of a part, or more: so that few are not full
BASES = 1 << 24  # of a part, unless one chromosome has more: they are held on the device

Batch = tuple[torch.Tensor, torch.Tensor | None]  # X, and controls if there are some
Predict = Callable[[torch.Tensor, torch.Tensor | None], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, eq=False)
class Shape:
    """Windows and heads of the model."""

    in_window: int
    out_window: int
    signal_groups: list[int]
    track_names: list[str]

    @property
    def flank(self) -> int:
        """Bases that are read beyond the output window, on each side."""
        return (self.in_window - self.out_window) // 2


@dataclass(frozen=True, eq=False)
class Part:
    """Neighbouring chromosomes whose windows are predicted together, and where they are kept."""

    folder: Path
    windows: list[Windows]

    def __len__(self) -> int:
        return sum(len(w.start) for w in self.windows)

    def batches(self, size: int) -> int:
        """How many batches of `size` windows it takes."""
        return -(-len(self) // size)


def kept(parts: Sequence[Part]) -> Iterator[tuple[Windows, Path, slice]]:
    """The windows of each chromosome, the folder of their part, and their rows in its files."""
    for part in parts:
        first = 0
        for w in part.windows:
            yield w, part.folder, slice(first, first + len(w.start))
            first += len(w.start)


def read_kept(folder: Path, rows: slice) -> list[np.ndarray]:
    """Logits (n, tracks, bases) and log counts (n, groups) of a chromosome's windows, on disk."""
    return [np.load(folder / f"{name}.npy", "r")[rows] for name in ("logits", "log_counts")]


def in_parts(
    windows: Sequence[Windows], lengths: Mapping[str, int], least: int, folder: Path
) -> list[Part]:
    """The `windows` of each chromosome, in parts of at least so many, or of BASES."""
    parts: list[Part] = []
    bases = 0
    for w in windows:
        if not parts or len(parts[-1]) >= least or bases + lengths[w.chrom] > BASES:
            parts.append(Part(folder / f"{len(parts):05d}", []))
            bases = 0
        parts[-1].windows.append(w)
        bases += lengths[w.chrom]
    return parts


def predict_missing(
    parts: Sequence[Part],
    predict: Predict,
    shape: Shape,
    genome: Genome,
    controls: Values | None,
    batch_size: int,
    device: torch.device,
) -> None:
    """Leave a folder of predictions for each of `parts` that has none yet, or a damaged one."""
    missing = [part for part in parts if not is_whole(part.folder, console.say)]
    total = sum(part.batches(batch_size) for part in parts)
    todo = sum(part.batches(batch_size) for part in missing)
    if len(missing) < len(parts):
        every, left = (sum(len(part.windows) for part in some) for some in (parts, missing))
        console.say(f"{every - left} of {counted(every, 'chromosome')} are done already")
    bar = iter(console.track(range(todo), "predicting", total, "batch", total - todo))
    for part in missing:
        batches = _batches(part, genome, controls, shape, batch_size, device)
        _keep(part, (to_cpu(predict(*batch)) for batch in batches), shape, bar)
    next(bar, None)


def _batches(
    part: Part,
    genome: Genome,
    controls: Values | None,
    shape: Shape,
    size: int,
    device: torch.device,
) -> Iterator[Batch]:
    """X and control of the windows, cut on the device out of the padded chromosomes."""
    pad, at = shape.in_window, 0
    sequences, tracks, first = [], [], []
    for w in part.windows:
        codes = genome.codes(w.chrom)
        sequences.append(np.pad(codes, pad, constant_values=N_CODE))
        if controls is not None:
            tracks.append(np.pad(controls(w.chrom, len(codes)), ((0, 0), (pad, pad))))
        first.append(w.start - shape.flank + pad + at)
        at += len(sequences[-1])
    sequence = _joined(sequences).to(device)[None]
    table = _joined(tracks).to(device)[None] if tracks else None
    for shift in torch.from_numpy(np.concatenate(first)).to(device).split(size):
        zeros = torch.zeros_like(shift)
        X, X_ctl = gather.one_hot(sequence, zeros, shift, zeros, shape.in_window), None
        if table is not None:
            channels = torch.arange(table.shape[1], device=device).expand(2, -1).contiguous()
            X_ctl = gather.counts(table, channels, zeros, shift, zeros, shape.in_window)
        yield X, X_ctl


def _joined(arrays: list[np.ndarray]) -> torch.Tensor:
    """One after the other along the last axis."""
    return torch.from_numpy(arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=-1))


def _keep(
    part: Part,
    predicted: Iterator[tuple[torch.Tensor, torch.Tensor]],
    shape: Shape,
    bar: Iterator[int],
) -> None:
    """Write logits.npy and log_counts.npy of the part's windows to its folder."""
    n = len(part)
    sizes = {
        "logits": (n, sum(shape.signal_groups), shape.out_window),
        "log_counts": (n, len(shape.signal_groups)),
    }
    with marked_folder(part.folder) as folder, ExitStack() as opened:
        files = [opened.enter_context(open(folder / f"{name}.npy", "wb")) for name in sizes]
        for file, size in zip(files, sizes.values(), strict=True):
            header = {"descr": "<f4", "fortran_order": False, "shape": size}
            np.lib.format.write_array_header_1_0(file, header)
        for values in predicted:
            next(bar, None)
            for file, some in zip(files, values, strict=True):
                file.write(np.asarray(some, "<f4").tobytes())
