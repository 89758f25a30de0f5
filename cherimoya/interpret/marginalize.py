"""cherimoya-marginalize: what a motif does on its own, put into sequences without it."""

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cherimoya.config.interpret import MarginalizeConfig
from cherimoya.errors import ConfigError
from cherimoya.genome.motif import Motif
from cherimoya.genome.sequence import N_CODE, one_hot
from cherimoya.interpret.contrast import asked_contrast, contrast_names, contrast_statistics
from cherimoya.interpret.loci import read_sequences
from cherimoya.interpret.models import EnsemblePredictor, describe
from cherimoya.interpret.motifs import insert, read_motifs
from cherimoya.interpret.target import Target
from cherimoya.metrics import profile_jsd
from cherimoya.prepare.provenance import check_output
from cherimoya.records.marginals import PAIRED, STATISTICS, Marginals, read_table, write_table
from cherimoya.records.overwrite import check_inputs_kept, own_files, to_make
from cherimoya.report.pages import offered
from cherimoya.util import console
from cherimoya.util.console import counted, result
from cherimoya.util.files import lock_output
from cherimoya.util.optional import import_optional
from cherimoya.util.resume import Journal, is_done

Prediction = Sequence[torch.Tensor]  # probabilities, log counts, and with a target of each model


def marginalize(config: MarginalizeConfig) -> Path:
    """Write what `config` says; after an interruption the same command resumes.

    Raises CherimoyaError for anything the user can mend, before any long work.
    """
    output = Path(config.output)
    check_output(output)
    plot = {output.with_suffix(".png"): ", or set profiles=0"} if config.profiles else {}
    check_inputs_kept(config, {output: "", **plot})
    with lock_output(output):
        _marginalize_all(config, output, plot)
    return output


class Backgrounds:
    """What is predicted of background sequences, codes (n, L), with a motif and without.

    target: with one, what each model predicts is there too
    """

    def __init__(
        self, predict: EnsemblePredictor, codes: np.ndarray, seed: int, target: Target | None
    ) -> None:
        self._predict = predict.apart if target else predict
        self._codes, self._seed = codes, seed
        self.signal_groups, self.groups = predict.signal_groups, predict.groups

    def __len__(self) -> int:
        return len(self._codes)

    @cached_property
    def before(self) -> Prediction:
        """Without a motif."""
        return self._predict(torch.from_numpy(self._codes))

    def after(self, motif: Motif) -> Prediction:
        """With the motif in the middle of each."""
        instances = motif.drawn(np.random.default_rng(self._seed), len(self))
        return self._predict(torch.from_numpy(insert(self._codes, instances)))


def _marginalize_all(config: MarginalizeConfig, output: Path, plot: dict[Path, str]) -> None:
    motifs = read_motifs(config.motifs, config.motif_file)
    rival = None if config.against is None else _motif_named(config.against, motifs)
    predict = EnsemblePredictor(config)
    target = asked_contrast(config, predict.signal_groups)
    loci = read_sequences(config, predict.model)
    length = loci.codes.shape[1]
    _check_fit(motifs, length - 2 * predict.model.trimming)
    codes = shuffled(loci.codes, config.seed) if config.shuffle else loci.codes
    backgrounds = Backgrounds(predict, codes, config.seed, target)
    files = loci.files | ({"motif_file": [config.motif_file]} if config.motif_file else {})
    provenance, settings = describe(config, ("profiles",), files, length)
    made = settings | {"profiles": config.profiles}
    done = is_done(output, made, config.overwrite, console.say)
    todo = to_make(output, plot, done)
    if todo is None:
        return
    with own_files(output, todo, config.overwrite, anew=not done):
        if not done:
            more = contrast_names(len(config.checkpoint)) if target else []
            found = _measure(output, motifs, rival, backgrounds, settings, target, more)
            write_table(output, found, provenance, made)
            many = f"{counted(len(motifs), 'motif')} in {counted(len(codes), 'background')}"
            console.say(result(f"{output}: {many}"))
        if todo:
            _offer_plot(output, read_table(output, motifs), backgrounds, config.profiles)


def _measure(
    output: Path,
    motifs: list[Motif],
    rival: Motif | None,
    backgrounds: Backgrounds,
    settings: dict[str, Any],
    target: Target | None,
    more: list[str],
) -> Marginals:
    """The effects of the motifs, beside those of the `rival` if there is one; `more` are the names
    of what is said of the target."""
    names = STATISTICS if rival is None else STATISTICS + PAIRED
    groups = backgrounds.signal_groups
    width = len(names) * len(groups)
    with Journal(output, settings, (width + len(more),)) as journal:
        before = backgrounds.before
        compared = None if rival is None else fold_changes(before, backgrounds.after(rival))
        for row in journal.missing(len(motifs), "motifs", "motifs", "motif"):
            after = backgrounds.after(motifs[row.start])
            effects = statistics(before, after, groups, compared)
            own = contrast_statistics(before, after, target) if target else ()
            journal.append(np.concatenate([effects.ravel(), own])[None])
        rows = np.array(journal.rows)
    columns = rows[:, :width].reshape(len(motifs), len(names), -1).swapaxes(0, 1)
    values = dict(zip(names, columns, strict=True))
    contrast = dict(zip(more, rows[:, width:].T, strict=True))
    return Marginals(motifs, values, len(backgrounds), contrast)


def shuffled(codes: np.ndarray, seed: int) -> np.ndarray:
    """Each sequence (n, L) with its bases in another order, but the same dinucleotides."""
    X = one_hot(torch.from_numpy(codes))
    shuffle = import_optional("tangermeme.ersatz").dinucleotide_shuffle
    made = shuffle(X, n=1, random_state=seed, allow_N=True)[:, 0]
    is_n = made.sum(dim=1) == 0
    return torch.where(is_n, N_CODE, made.argmax(dim=1)).to(torch.uint8).numpy()


def fold_changes(before: Prediction, after: Prediction) -> np.ndarray:
    """log2 fold change of the predicted counts + 1 in each background: (n, G) float64."""
    return (after[1] - before[1]).double().numpy() / math.log(2)


def statistics(
    before: Prediction, after: Prediction, groups: list[int], compared: np.ndarray | None = None
) -> np.ndarray:
    """STATISTICS of the change over n backgrounds, (5, G) float64; with the fold changes
    `compared` (n, G) of another motif in the same backgrounds also PAIRED, (7, G)."""
    fold = fold_changes(before, after)
    distance = profile_jsd(before[0], after[0], groups).numpy()
    ddof = min(len(fold) - 1, 1)
    up = (fold > 0).mean(0)
    rows = [fold.mean(0), fold.std(0, ddof=ddof), up, distance.mean(0), distance.std(0, ddof=ddof)]
    if compared is not None:
        difference = fold - compared
        rows += [difference.mean(0), difference.std(0, ddof=ddof) / math.sqrt(len(fold))]
    return np.stack(rows)


def _motif_named(name: str, motifs: list[Motif]) -> Motif:
    for motif in motifs:
        if motif.name == name:
            return motif
    raise ConfigError(
        f"against={name}: no motif of that name. "
        f"There are {', '.join(motif.name for motif in motifs[:20])}."
    )


def _check_fit(motifs: list[Motif], out: int) -> None:
    for motif in motifs:
        if len(motif.letters) > out:
            raise ConfigError(
                f"motif {motif.name} has {len(motif.letters)} letters, but only {out} bases are "
                "predicted. Leave it out."
            )


def _offer_plot(output: Path, marginals: Marginals, backgrounds: Backgrounds, n: int) -> None:
    """The plot beside the table, with profiles of the `n` strongest motifs; a line where it cannot
    be drawn, which must not spoil the table."""
    with offered("plot"):
        from cherimoya.report.plots.interpret import effects_page

        strongest = np.argsort(
            -np.abs(marginals.values["log2_fold_change"]).max(axis=1), kind="stable"
        )
        shown = [marginals.motifs[i] for i in strongest[:n]]
        groups = backgrounds.signal_groups
        before = _counts(backgrounds.before, groups)
        after = {m.name: _counts(backgrounds.after(m), groups) for m in shown}
        plot = output.with_suffix(".png")
        path = effects_page(marginals, before, after, plot, backgrounds.groups)
        console.say(result(f"{path}: effects, and profiles of the strongest"))


def _counts(prediction: Prediction, groups: list[int]) -> np.ndarray:
    """Expected counts a base, the mean over backgrounds: (tracks, out)."""
    p, log_counts = prediction[:2]
    sizes = torch.tensor(groups)
    totals = torch.expm1(log_counts).clamp_min(0).repeat_interleave(sizes, dim=1)
    return (p * totals[:, :, None]).mean(0).numpy()
