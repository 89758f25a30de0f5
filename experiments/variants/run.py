"""Does cherimoya-variants find variants that break planted motifs, and nothing in neutral sequence?

    cherimoya-train logger=none hydra.run.dir=outputs/embedded
    python experiments/variants/run.py outputs/embedded outputs/variants

The simulated genome is that of the embedded data: its loci where they lie on their chromosomes, and
bases of the same GC content between them. `planted` are single-base changes of the most conserved
bases of motif instances in the test peaks, of which the simulation's own rules (`expected_signal`)
say that they change the counts by half a log2 unit or more; `neutral` ones lie outside of all loci
of the test chromosomes. Both go through the command as one VCF file, with peaks as a BED file.
Rows go to results.csv: which part has p under 1e-3, and the Kolmogorov-Smirnov test of the p-values
of the neutral ones against the uniform distribution.
"""

import argparse
import csv
import datetime
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from scipy.stats import kstest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from rows import append_row

from cherimoya.data import hdf5, motif_grammar
from cherimoya.data.dataset import data_file
from cherimoya.data.motif_grammar import MOTIFS
from cherimoya.genome.sequence import decode
from cherimoya.inference.checkpoints import find_checkpoint
from cherimoya.records.provenance import cpu_name, git_commit, versions

RESULTS = Path(__file__).with_name("results.csv")
TEST = ("sim9", "sim10")
STRONG = 0.5  # log2 units of true counts
PLANTED, NEUTRAL = 400, 600


def genome_of(loci: hdf5.Loci, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Codes of each chromosome."""
    found = {}
    for chrom in dict.fromkeys(loci.chrom.tolist()):
        rows = np.flatnonzero(loci.chrom == chrom)
        gc = np.isin(loci.sequence[rows], (1, 2)).mean()
        length = int(loci.end[rows].max()) + 2000
        strong, second = rng.random(length) < gc, rng.integers(0, 2, length)
        codes = np.where(strong, 1 + second, 3 * second).astype(np.uint8)
        for row in rows:
            codes[loci.start[row] : loci.end[row]] = loci.sequence[row]
        found[chrom] = codes
    return found


def true_change(codes: np.ndarray, at: int, base: int, around: slice) -> float:
    """log2 fold change of the expected counts in `around` where `base` is put in at `at`."""
    both = np.stack([codes, codes])
    both[1, at] = base
    counts = motif_grammar.expected_signal(both, 150.0)[:, :, around].sum(axis=(1, 2))
    return math.log2((counts[1] + 1) / (counts[0] + 1))


def planted(loci: hdf5.Loci, rng: np.random.Generator) -> list[tuple[str, int, int, int, str]]:
    """chrom, position, ref, alt and motif of changes that matter, one an instance."""
    margin = loci.max_jitter + (loci.in_window - loci.out_window) // 2
    around = slice(margin, loci.sequence.shape[1] - margin)
    found = []
    for row in np.flatnonzero(np.isin(loci.chrom, TEST) & (loci.label == 1)):
        instances = motif_grammar.scan(loci.sequence[row : row + 1])
        for kind, first in zip(instances.motif, instances.position, strict=True):
            width = len(MOTIFS[kind].consensus)
            at = int(first) + width // 2  # conserved in all of them
            own = int(loci.sequence[row, at])
            base = int(rng.choice([b for b in range(4) if b != own]))
            if abs(true_change(loci.sequence[row], at, base, around)) >= STRONG:
                name = MOTIFS[kind].name
                found.append((str(loci.chrom[row]), int(loci.start[row]) + at, own, base, name))
    chosen = rng.permutation(len(found))[:PLANTED]
    return [found[i] for i in chosen]


def neutral(
    loci: hdf5.Loci, genome: dict[str, np.ndarray], rng: np.random.Generator
) -> list[tuple[str, int, int, int, str]]:
    """The same outside of all loci of the test chromosomes."""
    found = []
    while len(found) < NEUTRAL:
        chrom = str(rng.choice(TEST))
        rows = loci.chrom == chrom
        pos = int(rng.integers(1000, len(genome[chrom]) - 1000))
        if ((loci.start[rows] - 400 < pos) & (pos < loci.end[rows] + 400)).any():
            continue
        own = int(genome[chrom][pos])
        base = int(rng.choice([b for b in range(4) if b != own]))
        found.append((chrom, pos, own, base, "neutral"))
    return found


def write_inputs(folder: Path, run: str) -> None:
    """genome.fa, variants.vcf and peaks.bed."""
    rng, data = np.random.default_rng(0), find_checkpoint(run).data
    assert data is not None
    loci = hdf5.read(data_file(data))
    genome = genome_of(loci, rng)
    with open(folder / "genome.fa", "w") as file:
        for chrom, codes in genome.items():
            file.write(f">{chrom}\n{decode(codes)}\n")
    rows = sorted(planted(loci, rng) + neutral(loci, genome, rng))
    with open(folder / "variants.vcf", "w") as file:
        file.write("##fileformat=VCFv4.3\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n")
        for chrom, pos, ref, alt, name in rows:
            file.write(f"{chrom}\t{pos + 1}\t{name}\t{'ACGT'[ref]}\t{'ACGT'[alt]}\t.\t.\t.\n")
    peaks = np.flatnonzero(loci.label == 1)
    with open(folder / "peaks.bed", "w") as file:
        for row in peaks:
            file.write(f"{loci.chrom[row]}\t{loci.start[row]}\t{loci.end[row]}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--random", type=int, default=2000)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    write_inputs(args.folder, args.run)
    table = args.folder / "effects.tsv"
    code = "from cherimoya.cli.scripts import variants; variants()"
    subprocess.run(
        [sys.executable, "-c", code, f"checkpoint={args.run}", f"output={table}",
         f"variants={args.folder / 'variants.vcf'}", f"fasta={args.folder / 'genome.fa'}",
         f"peaks={args.folder / 'peaks.bed'}", f"random_variants={args.random}", "overwrite=true"],
        check=True,
    )  # fmt: skip
    with open(table) as file:
        next(file)
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["status"] == "ok"]
    origin = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{cpu_name()}, {torch.get_num_threads()} threads",
        "versions": ", ".join(f"{k} {v}" for k, v in versions().items()),
        "commit": git_commit(), "random": args.random,
    }  # fmt: skip
    for name in ("planted", *(motif.name for motif in MOTIFS), "neutral"):
        own = [r for r in rows if r["id"] == name or (name == "planted" and r["id"] != "neutral")]
        if not own:
            continue
        result: dict[str, object] = {"variants": name, "n": len(own)}
        for column in ("log2_fold_change", "jsd", "combined"):
            p = np.array([float(r[f"{column}_p"]) for r in own])
            result[f"{column} p < 1e-3"] = round(float((p < 1e-3).mean()), 4)
            result[f"{column} KS p"] = round(float(kstest(p, "uniform").pvalue), 4)
        print(result)
        append_row(RESULTS, origin | result)


if __name__ == "__main__":
    main()
