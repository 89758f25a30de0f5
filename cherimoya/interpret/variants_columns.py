"""The columns of a table of variants, from what the models said of both alleles."""

import math
from dataclasses import dataclass

import numpy as np

from cherimoya.interpret.contrast import contrast_columns
from cherimoya.interpret.target import Target
from cherimoya.interpret.variants_null import p_values, percentile, q_values


@dataclass(frozen=True, eq=False)
class Scored:
    """What the models said of n variants.

    ref, alt: (n, G) log counts, the mean over models; jsd: (n, G) Jensen-Shannon distances of the
    profiles; changes: (K, n, G) alt less ref of each model; shifted: (n,) bool, whether the alleles
    differ in length
    """

    ref: np.ndarray
    alt: np.ndarray
    jsd: np.ndarray
    changes: np.ndarray
    shifted: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray, groups: int, shifted: np.ndarray) -> "Scored":
        """Of rows (n, 3 G), or of K > 1 models (n, 3 G + K G), as `effects_of` makes them."""
        ref, alt, jsd = (rows[:, i * groups : (i + 1) * groups] for i in range(3))
        models = rows.shape[1] // groups - 3
        apart = rows[:, 3 * groups :].reshape(len(rows), models, groups).swapaxes(0, 1)
        return cls(ref, alt, jsd, apart if len(apart) else (alt - ref)[None], shifted)


def columns_of(
    own: Scored, random: Scored, peaks: np.ndarray | None, target: Target | None
) -> dict[str, np.ndarray]:
    """Columns (n,) by name; with several signal groups their number is appended.

    random: of random variants, none or some; peaks: (m, G) log counts of peaks
    """
    found: dict[str, np.ndarray] = {}
    groups = own.ref.shape[1]
    for g in range(groups):
        fold, among = ((one.alt - one.ref)[:, g] / math.log(2) for one in (own, random))
        values = {"ref_log_counts": own.ref[:, g], "alt_log_counts": own.alt[:, g]}
        values["log2_fold_change"] = fold
        if len(own.changes) > 1:
            values["log2_fold_change_sd"] = own.changes[:, :, g].std(axis=0, ddof=1) / math.log(2)
        values["jsd"] = own.jsd[:, g]
        values |= _ranked("log2_fold_change", np.abs(fold), np.abs(among), own, random)
        values |= _ranked("jsd", own.jsd[:, g], random.jsd[:, g], own, random)
        if peaks is not None:
            ordered = np.sort(peaks[:, g])
            values |= _quantiles(own, g, ordered)
            size, others = (_combined(one, g, ordered) for one in (own, random))
            values |= {"combined": size, **_ranked("combined", size, others, own, random)}
        found |= {f"{name}_{g}" if groups > 1 else name: value for name, value in values.items()}
    if target is not None:
        changes, others = (_contrast(one, target) for one in (own, random))
        found |= contrast_columns(changes)
        size, among = (np.abs(one.mean(axis=0)) for one in (changes, others))
        found |= _ranked("contrast", size, among, own, random)
    return found


def _contrast(scored: Scored, target: Target) -> np.ndarray:
    """Change of the target by each model (K, n), log2."""
    change: np.ndarray = scored.changes[:, :, target.group]
    if target.against is not None:
        change = change - scored.changes[:, :, target.against]
    return change / math.log(2)


def _ranked(
    name: str, size: np.ndarray, among: np.ndarray, own: Scored, random: Scored
) -> dict[str, np.ndarray]:
    """How unusual sizes (n,) are `among` those of random variants that change the length too, or
    do not."""
    if not len(among):
        return {}
    rank, p = np.full(len(size), np.nan), np.full(len(size), np.nan)
    for kind in (False, True):
        mine = np.flatnonzero((own.shifted == kind) & ~np.isnan(size))
        others = among[(random.shifted == kind) & ~np.isnan(among)]
        if len(others):
            rank[mine], p[mine] = percentile(size[mine], others), p_values(size[mine], others)
    return {f"{name}_percentile": rank, f"{name}_p": p, f"{name}_q": q_values(p)}


def _combined(scored: Scored, g: int, peaks: np.ndarray) -> np.ndarray:
    """|log2 fold change| x JSD x active allele's quantile, after variant-scorer's
    abs_logfc_x_jsd_x_active_allele_quantile; the quantile is 1 / (m + 1) of m peaks at least, so
    that variants with fewer counts than all peaks can be told apart."""
    fold = np.abs(scored.alt - scored.ref)[:, g] / math.log(2)
    active = _quantiles(scored, g, peaks)["active_allele_quantile"]
    found: np.ndarray = fold * scored.jsd[:, g] * np.maximum(active, 1 / (len(peaks) + 1))
    return found


def _quantiles(scored: Scored, g: int, peaks: np.ndarray) -> dict[str, np.ndarray]:
    """Which part of the peaks, sorted, have fewer predicted counts than the allele with more, and
    by how much that of ALT exceeds that of REF; as variant-scorer (Kundaje lab) defines them."""
    sides = (scored.ref[:, g], scored.alt[:, g])
    before, after = (np.searchsorted(peaks, one, "left") / len(peaks) for one in sides)
    return {"active_allele_quantile": np.maximum(before, after), "quantile_change": after - before}
