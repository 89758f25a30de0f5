"""Single loci: the scores of all as a table, and a few with what a model expects there."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from cherimoya.data.feed import Source
from cherimoya.data.loci import Loci
from cherimoya.evaluation.scores import Scores
from cherimoya.inference.cuda_graph import CUDAGraphModel
from cherimoya.inference.predictor import predict_batch
from cherimoya.inference.wrappers import expected_counts
from cherimoya.records.per_locus import PROFILE_SCORES, Examples, group_column, output_windows
from cherimoya.util.files import atomic_write

N_EXAMPLE_LOCI = 4


def write_scored_loci(path: Path, scores: Scores, loci: Loci, rows: np.ndarray) -> Path:
    """A row for each scored locus: where it is, and per signal group its counts and scores.

    `rows` are those of `loci` that were scored. Columns of several groups end in _0, _1, ...;
    counts are log(1 + counts), an empty cell is a score that is undefined.
    """
    start, end = output_windows(loci, rows)
    columns: dict[str, Iterable[object]] = {
        "chrom": loci.chrom[rows], "start": start, "end": end, "label": scores.label.tolist()
    }  # fmt: skip
    n_groups = scores.log_counts.shape[1]
    for g in range(n_groups):
        values = {
            "observed_log_counts": scores.observed_log_counts,
            "predicted_log_counts": scores.log_counts,
            **{name: scores.profile[name] for name in PROFILE_SCORES},
        }
        for name, value in values.items():
            column = value[:, g].double().tolist()
            columns[group_column(name, g, n_groups)] = [_cell(number) for number in column]
    lines = ["\t".join(columns)]
    lines += ["\t".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    with atomic_write(path) as file:
        file.write("\n".join(lines).encode() + b"\n")
    return path


def _cell(number: float) -> str:
    return f"{number:.7g}" if np.isfinite(number) else ""


def example_loci(
    predict: CUDAGraphModel, source: Source, loci: Loci, peaks: np.ndarray, precision: str
) -> Examples:
    """A few of the loci at `peaks`, evenly spread from the most counts to the median."""
    j, groups = loci.max_jitter, predict.model.signal_groups
    observed = loci.signal[peaks][:, :, j : j + loci.out_window]
    order = peaks[np.argsort(-observed.sum(axis=(1, 2), dtype=np.float64), kind="stable")]
    chosen = order[
        np.linspace(0, (len(order) - 1) // 2, min(N_EXAMPLE_LOCI, len(order)), dtype=int)
    ]
    batch = source.centred(chosen)
    predict.model.eval()
    logits, log_counts = predict_batch(predict, batch.X, batch.control, precision)
    expected = expected_counts(logits, log_counts, groups)  # type: ignore[arg-type]
    sign = [-1 if size == 2 and i == 1 else 1 for size in groups for i in range(size)]  # type: ignore
    start, end = output_windows(loci, chosen)
    return Examples(
        chrom=loci.chrom[chosen].astype(str),
        start=start,
        end=end,
        observed=batch.signal.float().cpu().numpy(),
        expected=expected.cpu().numpy(),
        sign=np.array(sign),
        track_names=np.array(loci.track_names, dtype=str),
    )
