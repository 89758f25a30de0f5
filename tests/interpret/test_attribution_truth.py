"""On simulated data, whose truth is known, attributions point at what was planted.

One small network is trained for all of it: 32 filters, 7 blocks, 12 epochs.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from configs import composed
from interpreted import configured

from cherimoya import Cherimoya, metrics
from cherimoya.config.interpret import AttributeConfig
from cherimoya.config.schema import build
from cherimoya.config.train import TrainConfig
from cherimoya.data import motif_grammar
from cherimoya.data.dataset import data_file, load_dataset
from cherimoya.data.loci import Loci, crop
from cherimoya.interpret.attribute import attribute
from cherimoya.interpret.gradients import deep_lift_shap, input_gradients
from cherimoya.interpret.mutagenesis import centred, saturation_mutagenesis
from cherimoya.interpret.target import Target
from cherimoya.records.attributions import at_sequence
from cherimoya.training.run import train

pytestmark = pytest.mark.slow

N_LOCI = 16
MEAN_COUNT = 150.0  # of conf/data/synthetic.yaml
TARGETS = (Target("counts"), Target("profile"))


@dataclass
class Trained:
    """A model and its checkpoint, the file it was trained on, peaks of chromosomes that it has not
    seen, and where their motifs are (n, L)."""

    model: Cherimoya
    checkpoint: Path
    data: Path
    loci: Loci
    planted: np.ndarray


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    asked = ["model.n_filters=32", "model.n_layers=7", "trainer.max_epochs=12", "trainer.threads=1",
             "logger=none", "trainer.plots=false"]  # fmt: skip
    config = build(TrainConfig, composed("train", asked))
    folder = tmp_path_factory.mktemp("run")
    train(config, folder)
    dataset = load_dataset(config.data)
    loci = crop(dataset.loci.take(dataset.peaks("test")[:N_LOCI]), max_jitter=0)
    best = folder / "checkpoints" / "best.pt"
    return Trained(Cherimoya.load(best), best, data_file(config.data), loci, planted(loci))


@pytest.fixture(scope="module")
def effects(trained: Trained) -> np.ndarray:
    """Of every single-base change, on counts and profile: (2, n, 4, L)."""
    return saturation_mutagenesis(trained.model, trained.loci.sequence, TARGETS)


def planted(loci: Loci) -> np.ndarray:
    """Whether a base lies in a motif (n, L)."""
    inside = np.zeros(loci.sequence.shape, bool)
    for row, slot in zip(*np.nonzero(loci.truth["motif"] >= 0), strict=True):
        first = max(loci.truth["motif_start"][row, slot] - loci.start[row], 0)
        width = len(motif_grammar.MOTIFS[loci.truth["motif"][row, slot]].consensus)
        inside[row, first : first + width] = True
    return inside


def area(scores: np.ndarray, labels: np.ndarray) -> float:
    """AUROC over the bases of all loci."""
    return float(metrics.auroc(torch.from_numpy(scores.ravel()), torch.from_numpy(labels.ravel())))


def true_effects(loci: Loci) -> np.ndarray:
    """The change of log(1 + expected counts) by every single-base change: (n, 4, L)."""
    n, length = loci.sequence.shape
    cut = (length - loci.out_window) // 2
    out = slice(cut, length - cut)
    found = []
    for codes in loci.sequence:
        mutants = np.repeat(codes[None], 4 * length + 1, axis=0)
        each = np.arange(4 * length)
        mutants[each, each % length] = each // length
        totals = motif_grammar.expected_signal(mutants, MEAN_COUNT)[:, :, out].sum((1, 2))
        found.append(np.log1p(totals[:-1]) - np.log1p(totals[-1]))
    return np.reshape(found, (n, 4, length))


def test_mutagenesis_puts_planted_motifs_first(trained, effects):
    scores = np.abs(at_sequence(centred(effects.reshape(-1, *effects.shape[2:])),
                                np.concatenate([trained.loci.sequence] * 2)))  # fmt: skip
    counts, profile = scores.reshape(2, *trained.planted.shape)
    print(f"AUROC counts {area(counts, trained.planted)}, profile {area(profile, trained.planted)}")
    assert area(counts, trained.planted) > 0.9
    assert area(profile, trained.planted) > 0.9


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.output)
def test_deep_lift_and_gradients_do_as_well(trained, target):
    pytest.importorskip("tangermeme")
    codes = trained.loci.sequence
    contributions, deltas = deep_lift_shap(trained.model, codes, target, n_shuffles=10)
    assert deltas.max() < 1e-3
    lifted = area(np.abs(at_sequence(contributions, codes)), trained.planted)
    gradients = centred(input_gradients(trained.model, codes, target))
    sloped = area(np.abs(at_sequence(gradients, codes)), trained.planted)
    print(f"AUROC {target.output}: DeepLIFT {lifted}, gradient x input {sloped}")
    assert lifted > 0.9
    assert sloped > 0.85


def test_variants_are_ranked_as_the_truth_ranks_them(trained, effects):
    true = true_effects(trained.loci)
    other = np.arange(4)[:, None] != trained.loci.sequence[:, None]
    inside = trained.planted[:, None] & other  # every single-base change of a planted motif
    found = [torch.from_numpy(values[inside]) for values in (true, effects[0])]
    print(f"Spearman {metrics.spearman(*found)} of {inside.sum()}")
    assert metrics.spearman(*found) > 0.8


def test_modisco_recovers_every_planted_motif(trained, tmp_path):
    write_meme = pytest.importorskip("memelite.io").write_meme
    pytest.importorskip("modiscolite")
    write_meme(str(tmp_path / "known.meme"), motif_grammar.known_motifs())
    asked = configured(
        "attribute", AttributeConfig, checkpoint=[str(trained.checkpoint)],
        data__path=str(trained.data), data__in_window=320, window=None, max_loci=600,
        method="deep_lift_shap", n_shuffles=5, logos=0, modisco=True,
        motif_file=str(tmp_path / "known.meme"), output=str(tmp_path / "out.h5"),
    )  # fmt: skip
    attribute(asked)
    folder = tmp_path / "out.counts_0.motifs"
    with open(folder / "motifs.tsv") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    print(*(f"{row['pattern']} {row['consensus']} {row['match']} {row['q_value']}" for row in rows))
    matched = {row["match"] for row in rows if float(row["q_value"]) < 0.05}
    assert matched >= {motif.name for motif in motif_grammar.MOTIFS}
    page = (folder / "report.html").read_text()
    assert all(row["pattern"] in page for row in rows)
    assert (folder / "modisco.h5").is_file()
