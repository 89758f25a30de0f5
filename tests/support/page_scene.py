"""Files under the names that the pages use, and small: genomes, loci, signals, motifs, variants."""

import gzip
import shutil
from pathlib import Path

import h5py
import numpy as np
from command_lines import command
from toy_cuts import CutGenome

from cherimoya import Cherimoya
from cherimoya.genome.sequence import decode

LENGTH = 36_000
PEAKS = (3000, 7000, 11000, 15000)
HUMAN = {f"chr{i}": LENGTH for i in range(1, 10)}
YEAST = {chrom: LENGTH for chrom in ("chrI", "chrII", "chrIV", "chrXI", "chrXVI")}
QUIET = {"WANDB_MODE": "disabled", "PYTHONWARNINGS": "ignore"}
MOTIF = """MEME version 4

ALPHABET= ACGT

MOTIF Reb1
letter-probability matrix: alength= 4 w= 7
0.05 0.85 0.05 0.05
0.05 0.05 0.85 0.05
0.05 0.05 0.85 0.05
0.05 0.05 0.85 0.05
0.05 0.05 0.05 0.85
0.85 0.05 0.05 0.05
0.85 0.05 0.05 0.05
"""
TINY = (
    "model.n_filters=8", "model.n_layers=3", "trainer.max_epochs=1", "trainer.batch_size=8",
    "optim.warmup_epochs=0.5", "trainer.threads=1", "trainer.plots=false",
)  # fmt: skip


def build(folder: Path) -> None:
    """All files that a page's commands begin with, and a run on one of them."""
    _genome(folder, HUMAN, ["genome.fa", "hg38.fa"], "genome.fa.gz")
    yeast = CutGenome(folder, None, lengths=YEAST, peaks=PEAKS, each=0.03, seed=1)
    _fasta(yeast, ["sacCer3.fa"], "sacCer3.fa.gz")
    for name in ("WT_tss_loci.bed", "cut_peaks.narrowPeak"):
        _narrow(folder / name, YEAST)
    for name, strand in (("WT_plus.bw", 0), ("WT_minus.bw", 1)):
        yeast.bigwig(name, (strand,))
    yeast.bigwig("atac_ins.bw")
    (folder / "JASPAR.meme").write_text(MOTIF)
    for name, signal, jitter in (
        ("my", "cuts.bw", 256), ("named", "{atac:[cuts.bw]}", 256), ("wide", "cuts.bw", 500)
    ):  # fmt: skip
        _prepared(folder, f"{name}.h5", f"signal={signal}", f"max_jitter={jitter}")
    shutil.copy(folder / "my.h5", folder / "other.h5")
    shutil.copy(folder / "my.h5.done.json", folder / "other.h5.done.json")
    _plain(folder / "plain.h5")
    train(folder, "base", "data.path=my.h5", "trainer.plots=true")
    train(folder, "named", "data.path=named.h5")
    for name in ("a.pt", "b.pt", "other.pt"):
        shutil.copy(folder / "named" / "checkpoints" / "best.pt", folder / name)
    Cherimoya(8, 3, profile_kernel_size=75, trimming=557).export_upstream(folder / "a.torch")


def _plain(path: Path) -> None:
    """A file of another tool: one-hot sequences and counts, no more."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["X"] = np.eye(4, dtype=np.int8)[rng.integers(0, 4, (60, 2114))].transpose(0, 2, 1)
        file["y"] = rng.poisson(0.1, (60, 1, 1000))


def _genome(folder: Path, lengths: dict[str, int], plain: list[str], packed: str) -> None:
    import pysam

    genome = CutGenome(folder, "Tn5", lengths=lengths, peaks=PEAKS, each=0.03)
    _fasta(genome, plain, packed)
    _narrow(folder / "peaks.narrowPeak", lengths)
    _narrow(folder / "peaks.bed", lengths)
    genome.bigwig("cuts.bw")
    for name in ("reads.bam", "chip.bam", "input.bam"):
        pysam.index(str(genome.bam(name)))
    lines = genome.fragments().read_text().splitlines()
    with gzip.open(folder / "fragments.tsv.gz", "wt") as file:
        file.writelines(
            line.replace("\tAC\t", f"\t{('AC', 'GT')[i % 2]}\t") + "\n"
            for i, line in enumerate(lines)
        )
    (folder / "cells.tsv").write_text("AC\tT\nGT\tB\n")
    _variants(folder / "snps.vcf", genome)
    pysam.tabix_index(str(folder / "snps.vcf"), preset="vcf", force=True)


def _fasta(genome: CutGenome, plain: list[str], packed: str) -> None:
    import pysam

    text = (genome.folder / "cut.fa").read_text()
    for name in plain:
        (genome.folder / name).write_text(text)
    pysam.tabix_compress(str(genome.folder / "cut.fa"), str(genome.folder / packed), force=True)


def _narrow(path: Path, lengths: dict[str, int]) -> None:
    path.write_text("".join(
        f"{chrom}\t{at - 200}\t{at + 200}\tp\t0\t.\t1\t2\t3\t200\n"
        for chrom in lengths for at in PEAKS
    ))  # fmt: skip


def _variants(path: Path, genome: CutGenome) -> None:
    """A change in the middle of each peak of the first chromosomes."""
    lines = ["##fileformat=VCFv4.2", *(f"##contig=<ID={c}>" for c in genome.lengths),
             "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"]  # fmt: skip
    for chrom in list(genome.lengths)[:2]:
        for at in PEAKS:
            ref = decode(genome.codes[chrom][at - 1 : at])
            lines.append(f"{chrom}\t{at}\t.\t{ref}\t{'ACGT'[('ACGT'.index(ref) + 1) % 4]}\t.\t.\t.")
    path.write_text("\n".join(lines) + "\n")


def _prepared(folder: Path, name: str, *words: str) -> None:
    done = command(
        "prepare", "fasta=genome.fa.gz", "loci=peaks.narrowPeak", "center=summit", *words,
        f"output={name}", folder=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def train(folder: Path, run: str, *words: str) -> None:
    """A short run in a folder of its own."""
    done = command(
        "train", "experiment=recommended", "data.fold=0", f"hydra.run.dir={run}", *TINY, *words,
        folder=folder, **QUIET,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def before(folder: Path, line: str) -> None:
    """Make what a command of a page needs and no other command of the page made."""
    if "seed0.pt" in line:
        (best,) = folder.glob("outputs/*/*/checkpoints/best.pt")
        for seed in range(3):
            shutil.copy(best, folder / f"seed{seed}.pt")
    if "my_lab" in line and not (folder / "my_lab").exists():
        text = (Path(__file__).resolve().parents[2] / "docs" / "configuring.md").read_text()
        (folder / "my_lab" / "experiment").mkdir(parents=True)
        recipe = text.split("```yaml\n")[1].split("```")[0]
        (folder / "my_lab" / "experiment" / "mine.yaml").write_text(recipe)
    if line.startswith("cherimoya-hits seqlets") and not (folder / "bases.h5").exists():
        done = command("attribute", "checkpoint=base", "max_loci=4", "method=gradient", "logos=0",
                       "output=bases.h5", folder=folder)  # fmt: skip
        assert done.returncode == 0, done.stderr
