"""From a training to questions about sequence: the commands, and the same from Python.

Run it in a folder of your own, whole or cell by cell. Everything is on simulated data, whose motifs
are known, so that every answer can be checked.
"""

# %% [markdown]
# ## 1. Train, and score
# A small network on the embedded experiment: initiators (INR) that start transcription, and
# motifs around them. `cherimoya-train` leaves a run folder; `cherimoya-evaluate` needs nothing
# more.

# %%
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

import cherimoya
from cherimoya.data import hdf5

RUN = Path("run")


def command(name: str, *arguments: str) -> None:
    """A console script of this package, run by this interpreter."""
    module = "cli.train" if name == "train" else "cli.commands"
    code = f"from cherimoya.{module} import {name}; {name}()"
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)


if not (RUN / "summary.json").is_file():
    command("train", "model=tiny", "trainer.threads=1", "logger=none", "trainer.plots=false",
            "data.cache_dir=data", f"hydra.run.dir={RUN}")  # fmt: skip
command("evaluate", f"checkpoint={RUN}", "output=scores", "reverse_complement=true",
        "bootstrap=200", "overwrite=true")  # fmt: skip

# %% [markdown]
# scores.json has each metric with its interval, the average profile as the baseline, and here,
# where the truth is known, the ceiling.

# %%
scores = json.loads(Path("scores/scores.json").read_text())
low, high = scores["intervals"]["profile_pearson"]
print(
    f"profile Pearson {scores['model']['profile_pearson']:.3f}, 95 % interval {low:.3f}-{high:.3f}"
)
assert scores["average_profile"]["profile_pearson"] < low < high
assert high < scores["ceiling"]["profile_pearson"]

# %% [markdown]
# ## 2. Predict from Python
# `load` reads any checkpoint, upstream's too. `predict` takes one-hot arrays or letters, and
# returns logits and log counts, from which follow probabilities and expected counts.

# %%
model = cherimoya.load(RUN / "checkpoints" / "best.pt")
loci = hdf5.read(scores["data"])
margin = loci.max_jitter
rows = np.flatnonzero(np.isin(loci.chrom, ["sim9", "sim10"]) & (loci.label == 1))
codes = loci.sequence[rows, margin : margin + loci.in_window]
sequences = ["".join("ACGTN"[code] for code in row) for row in codes]
found = cherimoya.predict(model, sequences)
print(f"{len(rows)} test peaks: expected counts {tuple(found.expected_counts.shape)}")
torch.testing.assert_close(found.expected_counts.sum((1, 2)), found.counts[:, 0])

# %% [markdown]
# These are the numbers of the command: the table of loci has the same log counts. (The command
# above averaged both strands, so both are averaged here, too: an `Ensemble` predicts like a
# model. Several models, such as those of several seeds, go into the same list.)

# %%
both = cherimoya.Ensemble([model], reverse_complement=True)
averaged = cherimoya.predict(both, sequences)
table = np.genfromtxt("scores/loci.tsv", names=True, dtype=None, encoding="utf-8")
peaks = table[table["label"] == 1]
np.testing.assert_allclose(peaks["predicted_log_counts"], averaged.log_counts[:, 0], rtol=1e-4)

# %% [markdown]
# ## 3. Ask what a motif does
# Put the initiator into random sequence, and compare. One base of it changed should undo the
# effect.

# %%
INITIATOR, BROKEN = "CCTCAGTTCG", "CCTCGGTTCG"  # its A is where transcription starts
at = loci.in_window // 2


def planted(motif: str) -> list[str]:
    """The motif in the middle of the same 64 random sequences."""
    random = np.random.default_rng(1).choice(list("ACGT"), (64, loci.in_window))
    texts = ["".join(row) for row in random]
    return [text[:at] + motif + text[at + len(motif) :] for text in texts]


effect = {
    name: cherimoya.predict(both, planted(motif)).log_counts.mean().item()
    for name, motif in (("initiator", INITIATOR), ("broken", BROKEN), ("random", ""))
}
print("mean log counts:", {name: round(value, 2) for name, value in effect.items()})
assert effect["initiator"] > effect["broken"] + 0.3
assert effect["initiator"] > effect["random"] + 0.3

# %% [markdown]
# The profile says where: transcription starts at the initiator's A.

# %%
profile = cherimoya.predict(both, planted(INITIATOR)).expected_counts.mean(0)  # (tracks, bases)
inset = (loci.in_window - loci.out_window) // 2
start = int(profile[0].argmax()) + inset - at
print(f"strongest base of the plus strand: {start} bases into the initiator ({INITIATOR[start]})")
assert INITIATOR[start] == "A"

# %% [markdown]
# ## 4. Ask which bases matter
# A wrapper makes of the model a module with one tensor out, which tangermeme, captum and design
# tools take as it is. Here its gradient, times the input, which should be large where motifs are
# planted. (`cherimoya-attribute` predicts every single-base change instead, and writes HDF5, logos
# and tracks.)

# %%
wrapped = cherimoya.LogCountWrapper(both)
X = cherimoya.one_hot(sequences).requires_grad_()
(gradient,) = torch.autograd.grad(wrapped(X).sum(), X)
attribution = (gradient * X).sum(1).abs().detach().numpy()  # (loci, bases)

first = loci.start[rows] + margin  # of the input window on the genome
is_motif = np.zeros(attribution.shape, bool)
names = [motif["name"] for motif in loci.provenance["motifs"]]
for i, row in enumerate(rows):
    kinds, starts = loci.truth["motif"][row], loci.truth["motif_start"][row]
    for kind, begin in zip(kinds, starts, strict=True):
        if kind >= 0 and names[kind] == "INR":
            here = int(begin - first[i])
            is_motif[i, max(here, 0) : max(here + len(INITIATOR), 0)] = True
inside, outside = attribution[is_motif].mean(), attribution[~is_motif].mean()
print(f"mean |gradient x input|: {inside:.4f} in initiators, {outside:.4f} elsewhere")
assert inside > 2 * outside

# %% [markdown]
# ## 5. Predict along a chromosome
# `cherimoya-predict` reads a FASTA file and writes bigWig tracks that a genome browser shows.
# Windows abut, so that each base is predicted once; beyond the ends of a chromosome all is N.

# %%
chromosome = "".join(sequences[:8])
Path("genome.fa").write_text(f">chr1\n{chromosome}\n")
command("predict", f"checkpoint={RUN}", "fasta=genome.fa", "output=tracks", "overwrite=true",
        "track_names=[plus,minus]")  # fmt: skip

try:
    import pybigtools
except ImportError:
    print("pybigtools is missing: the tracks are not read back")
else:
    track = pybigtools.open("tracks/plus.expected.bw").values("chr1", 0, fillna=None)
    n = 3  # the window that starts at base n x out_window
    begin = n * loci.out_window - inset
    own = cherimoya.predict(model, chromosome[begin : begin + loci.in_window]).expected_counts
    written = track[n * loci.out_window : (n + 1) * loci.out_window]
    np.testing.assert_allclose(written, own[0, 0], rtol=1e-3, atol=1e-6)

# %% [markdown]
# ## 6. Score variants
# `cherimoya-variants` reads a VCF file, or a table of variants as here: one that changes the A
# of each initiator on the plus strand, and one that changes a base where no motif is planted.
# The model should find that the first kind lowers the counts, and by more.

# %%
OTHER = {"A": "G", "G": "A", "C": "T", "T": "C"}
broken: list[int] = []
elsewhere: list[int] = []
for i, row in enumerate(rows[:8]):  # the loci that the chromosome above is made of
    truth = (loci.truth[name][row] for name in ("motif", "motif_start", "motif_strand"))
    sites = [(k, int(begin - first[i]), s) for k, begin, s in zip(*truth, strict=True) if k >= 0]
    motifs = {base for _, begin, _ in sites for base in range(begin, begin + len(INITIATOR))}
    predicted = range(inset, loci.in_window - inset)
    free = [base for base in predicted if base not in motifs]
    elsewhere.append(i * loci.in_window + free[len(free) // 2])
    broken += [
        i * loci.in_window + begin + INITIATOR.index("A")
        for kind, begin, strand in sites
        if names[kind] == "INR" and strand == 1 and begin in predicted
    ]
lines = [
    f"chr1\t{at + 1}\t{kind}\t{chromosome[at]}\t{OTHER[chromosome[at]]}\n"
    for kind, places in (("broken", broken), ("elsewhere", elsewhere))
    for at in places
]
Path("variants.tsv").write_text("chrom\tpos\tid\tref\talt\n" + "".join(lines))
command("variants", f"checkpoint={RUN}", "variants=variants.tsv", "fasta=genome.fa",
        "output=effects.tsv", "random_variants=200", "overwrite=true")  # fmt: skip

effects = np.genfromtxt(
    "effects.tsv", names=True, dtype=None, encoding="utf-8", delimiter="\t", skip_header=1
)
scored = effects[effects["status"] == "ok"]
mean = {}
for kind in ("broken", "elsewhere"):
    some = scored[scored["id"] == kind]
    mean[kind] = some["log2_fold_change"].mean()
    percentile = np.median(some["log2_fold_change_percentile"])
    print(f"{len(some)} variants {kind}: log2 fold change {mean[kind]:.2f}, "
          f"larger than {percentile:.0f} % of random ones")  # fmt: skip
assert mean["broken"] < -0.2
assert abs(mean["elsewhere"]) < abs(mean["broken"]) / 2

# %% [markdown]
# ## 7. Take the model elsewhere
# A model with upstream's profile kernel (`experiment=upstream_0_3`) exports to a file that
# upstream's package reads; upstream's files come back with `cherimoya.load`.

# %%
exportable = cherimoya.Cherimoya(16, 3, profile_kernel_size=75)
exportable.export_upstream("for_upstream.torch")
again = cherimoya.Cherimoya.from_upstream("for_upstream.torch")
assert again.config == exportable.config
print("done")
