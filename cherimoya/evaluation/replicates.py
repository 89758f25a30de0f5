"""What a replicate of the experiment tells of the signal: how well one could hope to predict."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cherimoya.config.data import KeysConfig
from cherimoya.data import hdf5
from cherimoya.data.dataset import Dataset
from cherimoya.data.groups import with_groups
from cherimoya.data.loci import Loci
from cherimoya.errors import DataError
from cherimoya.evaluation.baselines import scored_as
from cherimoya.evaluation.scored_loci import SCORED
from cherimoya.evaluation.scores import Scores, log_totals
from cherimoya.genome.fasta import check_exists


def replicate_scores(dataset: Dataset, path: str, keys: KeysConfig | None) -> Scores:
    """The signal of the replicate in the file at `path`, scored as a prediction of this signal.

    Its loci are found by their place on the genome, in any order. The likelihood is left
    undefined: counts that are zero in one replicate are no probability of zero.

    Raises DataError when a scored locus is missing there, or the tracks differ.
    """
    loci, rows = dataset.loci, dataset.rows[SCORED]
    check_exists(Path(path), "replicate")
    try:
        other = hdf5.read(path, keys=keys)
    except DataError as error:  # which speaks of the key that such files are usually named by
        raise DataError(str(error).replace("data.path", "replicate")) from None
    if loci.group_names and set(loci.group_names) <= set(other.group_names):
        other = with_groups(other, loci.group_names, f"replicate={path}")
    if other.signal_groups != loci.signal_groups:
        raise DataError(
            f"replicate={path} has signal groups {other.signal_groups}, but {dataset.path} has "
            f"{loci.signal_groups}. Prepare both alike."
        )
    matches = _matching(loci, rows, other, path, str(dataset.path))
    stored = other.signal.shape[2]
    left = stored // 2 - loci.out_window // 2
    if left < 0:
        raise DataError(
            f"replicate={path} stores {stored} bases of signal a locus, but {loci.out_window} are "
            "scored. Prepare both with the same out_window."
        )
    centre = other.signal[:, :, left : left + loci.out_window]
    signal = torch.from_numpy(centre[matches]).float()
    totals = log_totals(signal, loci.signal_groups, torch.float64)
    scores = scored_as(dataset, rows, signal, totals)
    undefined = torch.full_like(scores.profile["profile_mnll"], torch.nan)
    # a locus that is empty in the replicate has no profile there
    empty = totals == 0
    profile = {k: v.masked_fill(empty, torch.nan) for k, v in scores.profile.items()}
    return replace(scores, profile=profile | {"profile_mnll": undefined})


def _matching(loci: Loci, rows: np.ndarray, other: Loci, path: str, own: str) -> np.ndarray:
    """The rows of `other` that are the same places as `rows` of `loci`."""
    if (loci.start[rows] < 0).any() or (other.start < 0).any():
        raise DataError(
            f"replicate={path}: a file that does not say where its loci are cannot be matched "
            "with another. Use files made by cherimoya-prepare."
        )
    at = {place: row for row, place in enumerate(_places(other))}
    wanted = _places(loci)
    matches = np.array([at.get(wanted[row], -1) for row in rows])
    missing = int((matches < 0).sum())
    if missing:
        chrom, middle = wanted[rows[np.argmax(matches < 0)]]
        raise DataError(
            f"replicate={path} lacks {missing:,} of the {len(rows):,} scored loci of {own}, such "
            f"as the one around {chrom}:{middle:,}. Prepare both from one list of loci, without "
            "outlier_factor and background_ratio, or with the background of the first as loci."
        )
    return matches


def _places(loci: Loci) -> list[tuple[str, int]]:
    """Chromosome and middle base of each locus, which no crop changes."""
    middle = loci.start + loci.sequence.shape[1] // 2
    return list(zip(loci.chrom.tolist(), middle.tolist(), strict=True))
