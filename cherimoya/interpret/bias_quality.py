"""The quality control of a model with a bias model: numbers, and whether each is as it should."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from cherimoya.data.dataset import Dataset
from cherimoya.data.feed import Source
from cherimoya.data.loci import Loci
from cherimoya.evaluation.scores import Scores, evaluate, score_profiles
from cherimoya.genome.cut_sites import LIKE
from cherimoya.genome.sequence import one_hot
from cherimoya.inference.cuda_graph import CUDAGraphModel
from cherimoya.inference.predictor import predict
from cherimoya.interpret.enzyme_motif import Seen, groups_of, seen_around
from cherimoya.interpret.footprints import (
    MOTIFS,
    BiasAlone,
    Footprint,
    footprints,
    limits,
    middle,
)
from cherimoya.network import Cherimoya
from cherimoya.records.bias_quality import KINDS
from cherimoya.util.console import counted

BACKGROUNDS = 100  # that motifs are put into
SCORED = 1000  # peaks, and background loci, that the bias model is scored on
MOST_DRAWN = 4  # signal groups
METRICS = ("profile_pearson", "profile_mnll", "count_pearson")
# Pearson of counts in peaks below which ChromBPNet's report warns of a bias model that has learned
# AT content (make_html_bias.py). It says nothing of one that has learned what opens chromatin.
LEAST_COUNTS = -0.3
KEY = "bias_model.background_below, or data.background_below of a bias run"
BETTER = f"Train the bias model on background of fewer counts (a lower {KEY})"
MORE = (
    "Give the bias model more background (background_ratio of cherimoya-prepare, or "
    "data.synthetic.n_background)"
)


def bias_quality(
    model: Cherimoya,
    dataset: Dataset,
    source: Source,
    batch_size: int = 64,
    precision: str = "fp32",
    most_counts: float = 0.3,
    next_best: str | None = None,
) -> dict[str, Any]:
    """Quality control of `model`, which has a bias model, as JSON-ready values.

    `most_counts` is the highest Pearson correlation of the bias model's counts with those of peaks
    that is good, and `next_best` the bias model to try where this one is not.
    enzyme: that cut, where it is known; backgrounds: sequences that motifs were put into;
    limits: of `footprints`, by signal group; footprints: by motif, the largest of the mean profile
    near it, by kind and group, and the profile itself; scores: of the bias model alone in
    validation peaks and background, by group; motifs: around its cuts, by group; checks: what is
    as it should be, and why.
    """
    loci = dataset.loci
    enzyme, names = enzyme_of(loci), loci.group_names or _numbered(loci.signal_groups)
    codes = _backgrounds(dataset)
    tried = [enzyme] if enzyme else [name for name in MOTIFS if name != "simulated"]
    motifs = {motif: name for name in tried for motif in MOTIFS[name]}
    fits = [motif for motif in motifs if len(motif) <= loci.out_window]
    prints = footprints(model, codes, [*fits, ""], batch_size, precision)
    most = limits(loci.signal_groups, loci.out_window)
    scores = _scores(model, dataset, source, batch_size, precision)
    seen = _motifs(model, codes, enzyme == "simulated", batch_size, precision)
    residuals = _residuals(prints, motifs)
    checks = [
        _check_footprints(residuals, prints[-1], most, names, next_best),
        _check_profiles(scores, names),
        _check_counts(scores, names, most_counts),
        _check_motifs(seen, enzyme, names),
    ]
    return {
        "enzyme": enzyme,
        "groups": names,
        "signal_groups": loci.signal_groups,
        "backgrounds": len(codes),
        "limits": most,
        "footprints": [_described(one, motifs.get(one.motif)) for one in prints],
        "residuals": residuals,
        "scores": scores,
        "motifs": [_as_values(one) for one in seen],
        "checks": checks,
    }


def enzyme_of(loci: Loci) -> str | None:
    """The enzyme that cut, as the data file says: simulated, Tn5, DNase I; None if it does not."""
    made = loci.provenance
    if made.get("bias") and made.get("generator") == "cherimoya.data.synthetic":
        return "simulated"
    seen = {one["enzyme"] for one in made.get("cut_sites") or ()} & set(MOTIFS)
    return seen.pop() if len(seen) == 1 else None


def _numbered(groups: Sequence[int]) -> list[str]:
    return [str(g) for g in range(len(groups))]


def _backgrounds(dataset: Dataset) -> np.ndarray:
    """Codes (n, in_window) of some background: of validation, and of training if that is few."""
    loci, rng = dataset.loci, np.random.default_rng(0)
    chosen = np.zeros(0, dtype=np.int64)
    for split in ("validation", "train"):
        rows = dataset.rows[split]
        rows = rng.permutation(rows[loci.label[rows] == 0])
        chosen = np.concatenate([chosen, rows])[:BACKGROUNDS]
    first = loci.max_jitter
    return np.ascontiguousarray(loci.sequence[chosen, first : first + loci.in_window])


def _residuals(prints: Sequence[Footprint], motifs: Mapping[str, str]) -> dict[str, Any]:
    """By enzyme and kind the mean over its motifs of the largest of the profile, by group."""
    found: dict[str, Any] = {}
    for enzyme in dict.fromkeys(motifs.values()):
        own = [one for one in prints if motifs.get(one.motif) == enzyme]
        if own:
            found[enzyme] = {
                kind: np.mean([one.largest(kind) for one in own], axis=0).tolist() for kind in KINDS
            }
    return found


def _scores(
    model: Cherimoya, dataset: Dataset, source: Source, batch_size: int, precision: str
) -> dict[str, Any]:
    """Scores of the bias model alone, by signal group: in peaks, in background, and there those of
    a flat profile."""
    loci, rows = dataset.loci, dataset.rows["validation"]
    alone, found = CUDAGraphModel(BiasAlone(model)), {}
    for name, label in (("peaks", 1), ("background", 0)):
        own = rows[loci.label[rows] == label]
        if not len(own):
            continue
        own = own[np.linspace(0, len(own) - 1, min(len(own), SCORED)).astype(int)]
        ones = np.ones(len(loci), dtype=np.int64)  # metrics are those of peaks
        scores = evaluate(alone, source, own, ones, batch_size, precision)
        found[name] = _by_group(scores)
        if label == 0:
            j = loci.max_jitter
            signal = torch.from_numpy(loci.signal[own][:, :, j : j + loci.out_window]).float()
            flat = torch.ones_like(signal)
            flat_scores = score_profiles(
                flat, signal, loci.signal_groups, scores.log_counts, scores.label
            )
            found["flat"] = _by_group(flat_scores, ("profile_mnll",))
    return found


def _by_group(scores: Scores, names: Sequence[str] = METRICS) -> list[dict[str, float]]:
    groups = (scores.group(g).metrics() for g in range(scores.log_counts.shape[1]))
    return [{name: one[name] for name in names} for one in groups]


def _motifs(
    model: Cherimoya, codes: np.ndarray, simulated: bool, batch_size: int, precision: str
) -> list[Seen]:
    """What the bias model reads, by signal group."""
    said = predict(
        BiasAlone(model), one_hot(torch.from_numpy(codes)), None, batch_size, None, precision
    )
    parts = groups_of(said.probabilities.double().numpy(), model.signal_groups)
    return [seen_around(part, codes, simulated) for part in parts]


def _check_footprints(
    residuals: Mapping[str, Any],
    without: Footprint,
    most: Sequence[float],
    names: Sequence[str],
    next_best: str | None,
) -> dict[str, Any]:
    if not residuals:
        return _check("footprints", False, "the predicted windows are shorter than every motif")
    worst = max(
        (values["corrected"][g] / most[g], enzyme, g)
        for enzyme, values in residuals.items()
        for g in range(len(most))
    )
    _, enzyme, g = worst
    before, after = (residuals[enzyme][kind][g] for kind in ("with_bias", "corrected"))
    said = (
        f"the profile at motifs of {_named(enzyme)} reaches {after:.2g} when corrected and "
        f"{before:.2g} with the bias model, the limit is {most[g]:.2g}{_in_group(g, names)}"
    )
    if after < most[g]:
        said += ": the enzyme's preference is gone" if before >= most[g] else ": neither is much"
        return _check("footprints", True, said)
    flat = without.largest("corrected")[g]
    if flat >= most[g]:
        said += f". Without a motif it is {flat:.2g}, so this is not the enzyme alone"
    fix = f"{_lower(MORE)}, or train it longer"
    if next_best:
        fix = f"take the next one by the rule, model.bias={next_best}. If that is no better, {fix}"
    return _check("footprints", False, f"{said}. The bias model has not learned all of it: {fix}")


def _check_profiles(scores: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    if "background" not in scores:
        return _check("profiles", False, f"validation has no background to score. {MORE}")
    gains = [
        flat["profile_mnll"] - own["profile_mnll"]
        for own, flat in zip(scores["background"], scores["flat"], strict=True)
    ]
    g = int(np.argmin(gains))
    r = scores["background"][g]["profile_pearson"]
    said = (
        f"its profiles of background are {abs(gains[g]):.2f} nats a locus "
        f"{'better' if gains[g] > 0 else 'worse'} than flat ones, Pearson {r:.3f}"
        f"{_in_group(g, names)}"
    )
    if gains[g] > 0:
        return _check("profiles", True, said)
    return _check("profiles", False, f"{said}: it has not learned where the enzyme cuts. {MORE}")


def _check_counts(scores: Mapping[str, Any], names: Sequence[str], most: float) -> dict[str, Any]:
    if "peaks" not in scores:
        return _check("counts", False, "validation has no peaks to score")
    values = np.array([one["count_pearson"] for one in scores["peaks"]])
    if np.isnan(values).all():
        return _check("counts", True, "its counts are the same in all peaks")
    g = int(np.nanargmax(np.maximum(LEAST_COUNTS - values, values - most)))
    said = f"its counts and those of peaks have Pearson {values[g]:.2f}{_in_group(g, names)}"
    if values[g] < LEAST_COUNTS:
        why = f"below {LEAST_COUNTS}: it takes AT content for the enzyme's preference"
        fix = f"Train it on background of more counts (a higher {KEY})"
    elif values[g] > most:
        why = f"above {most:g}: it has learned what opens chromatin"
        fix = BETTER
    else:
        within = f"between {LEAST_COUNTS} and {most:g}"
        return _check("counts", True, f"{said}, {within}: it knows little of what opens chromatin")
    return _check("counts", False, f"{said}, {why}. {fix}")


def _check_motifs(seen: Sequence[Seen], enzyme: str | None, names: Sequence[str]) -> dict[str, Any]:
    g = int(np.argmin([one.correlation for one in seen]))
    one, where = seen[g], _in_group(g, names)
    if one.is_like and enzyme in (None, one.enzyme):
        said = f"around its cuts lies the motif of {_named(one.enzyme)}"
        return _check("motif", True, f"{said} (correlation {one.correlation:.2f}){where}")
    said = (
        f"around its cuts lies no motif of {_named(enzyme or 'a known enzyme')}{where} (that of "
        f"{_named(one.enzyme)} is nearest, correlation {one.correlation:.2f}, {LIKE} is needed)"
    )
    fix = f"{MORE}, or, if cuts are counted at another base, prepare with shift=auto"
    return _check("motif", False, f"{said}. {fix}")


def _check(name: str, good: bool, why: str) -> dict[str, Any]:
    return {"name": name, "good": good, "why": why[0].upper() + why[1:] + "."}


def _named(enzyme: str) -> str:
    return "the simulated enzyme" if enzyme == "simulated" else enzyme


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]


def _in_group(g: int, names: Sequence[str]) -> str:
    return (
        f" in signal group {names[g]}, the worst of {counted(len(names), 'group')}"
        if (len(names) > 1)
        else ""
    )


def _described(one: Footprint, enzyme: str | None) -> dict[str, Any]:
    """A footprint as values; profiles near the motif, of the first groups, times 1,000."""
    tracks = sum(one.signal_groups[:MOST_DRAWN])
    near = middle(one.profiles[KINDS[0]].shape[1])
    return {
        "motif": one.motif,
        "enzyme": enzyme,
        "largest": {kind: one.largest(kind) for kind in KINDS},
        "profiles": {
            kind: (1000 * values[:tracks, near]).round(4).tolist()
            for kind, values in one.profiles.items()
        },
    }


def _as_values(seen: Seen) -> dict[str, Any]:
    values = vars(replace(seen, frequencies=seen.frequencies.round(6).clip(1e-6).tolist()))
    return values | {"shift": list(seen.shift), "correlation": round(seen.correlation, 4)}
