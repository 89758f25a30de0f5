"""A few loci with what was observed and what a model expects there."""

import numpy as np

from cherimoya.data.feed import Source
from cherimoya.data.loci import Loci
from cherimoya.inference.cuda_graph import CUDAGraphModel
from cherimoya.inference.predictor import predict_batch
from cherimoya.inference.wrappers import expected_counts
from cherimoya.records.per_locus import Examples, output_windows

N_EXAMPLE_LOCI = 4


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
