"""Predictions of windows as bigWig files, a value a base, or as one HDF5 file."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cherimoya.config.predict import PredictConfig
from cherimoya.genome.bigwig_writer import Piece, write_bigwig
from cherimoya.inference.genome_inputs import own_bases
from cherimoya.inference.genome_parts import Part, Shape, kept, read_kept
from cherimoya.inference.wrappers import expected_counts
from cherimoya.metrics import group_softmax
from cherimoya.records.predictions import Rows, write_predictions
from cherimoya.util import console

HDF5 = "predictions.h5"
AT_ONCE = 1024  # windows in memory

Tracks = Callable[[Tensor, Tensor], Tensor]  # logits and log counts to values (n, tracks, bases)


def output_names(config: PredictConfig, shape: Shape) -> list[str]:
    """The names of the files that `write_outputs` writes."""
    return [HDF5] if config.kind == "hdf5" else [f"{n}.bw" for n in _bigwigs(config.values, shape)]


def write_outputs(
    config: PredictConfig,
    parts: Sequence[Part],
    shape: Shape,
    lengths: Mapping[str, int],
    folder: Path,
    plan: Mapping[str, Any],
) -> list[Path]:
    """Write what `config` asks for out of the kept predictions; returns the files."""
    if config.kind == "hdf5":
        return [_hdf5(parts, shape, folder / HDF5, plan)]
    files = []
    windows = [w for w, _, _ in kept(parts)]
    total = sum(-(-len(w.start) // AT_ONCE) for w in windows)
    for name, values in _bigwigs(config.values, shape).items():
        pieces = _pieces(parts, shape, lengths, values)
        pieces = console.track(pieces, f"writing {name}.bw", total, "piece")
        held = {w.chrom: lengths[w.chrom] for w in windows}
        files.append(write_bigwig(folder / f"{name}.bw", dict(sorted(held.items())), pieces))
    return files


def _bigwigs(values: str, shape: Shape) -> dict[str, Tracks]:
    """The files by name, and what is in them."""
    groups, names = shape.signal_groups, shape.track_names

    def of(track: int, what: Tracks) -> Tracks:
        return lambda logits, counts: what(logits, counts)[:, track]

    if values == "expected":
        whole: Tracks = lambda logits, counts: expected_counts(logits, counts, groups)  # noqa: E731
        return {f"{name}.expected": of(i, whole) for i, name in enumerate(names)}
    apart: Tracks = lambda logits, counts: group_softmax(logits, groups)  # noqa: E731
    files = {f"{name}.profile": of(i, apart) for i, name in enumerate(names)}
    first = np.cumsum([0, *groups])
    for g, size in enumerate(groups):
        name = "+".join(names[first[g] : first[g] + size])
        files[f"{name}.log_counts"] = lambda logits, counts, g=g: counts[:, g, None].expand(  # type: ignore
            -1, logits.shape[2]
        )
    return files


def _pieces(
    parts: Sequence[Part],
    shape: Shape,
    lengths: Mapping[str, int],
    values: Tracks,
) -> Iterator[Piece]:
    """Positions and values of one track, base by base, chromosomes sorted."""
    for w, folder, rows in sorted(kept(parts), key=lambda found: found[0].chrom):
        order = np.argsort(w.start, kind="stable")
        start = w.start[order]
        bases = own_bases(start, shape.out_window, lengths[w.chrom])
        logits, counts = read_kept(folder, rows)
        for begin in range(0, len(order), AT_ONCE):
            some = slice(begin, begin + AT_ONCE)
            chosen = order[some]
            predicted = values(torch.from_numpy(logits[chosen]), torch.from_numpy(counts[chosen]))
            at = start[some, None] + np.arange(shape.out_window)
            own = (at >= bases[some, :1]) & (at < bases[some, 1:])
            yield w.chrom, at[own], predicted.numpy()[own]


def _hdf5(parts: Sequence[Part], shape: Shape, path: Path, plan: Mapping[str, Any]) -> Path:
    n = sum(len(part) for part in parts)
    chrom, start = np.empty(n, dtype=object), np.empty(n, np.int64)
    for w, _, _ in kept(parts):
        chrom[w.row], start[w.row] = w.chrom, w.start

    def rows() -> Iterator[Rows]:
        for w, folder, held in kept(parts):
            logits, counts = read_kept(folder, held)
            for begin in range(0, len(w.row), AT_ONCE):
                some = slice(begin, begin + AT_ONCE)
                yield w.row[some], logits[some], counts[some]

    groups, names = shape.signal_groups, shape.track_names
    attributes = {
        "in_window": shape.in_window, "out_window": shape.out_window, "signal_groups": groups,
        "track_names": names, "provenance": dict(plan),
    }  # fmt: skip
    sizes = (len(names), len(groups), shape.out_window)
    return write_predictions(path, chrom, start, sizes, rows(), attributes)
