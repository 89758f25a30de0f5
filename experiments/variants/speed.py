"""How long does cherimoya-variants take, and how long when its random variants are kept?

    python experiments/variants/speed.py outputs/<date>/<run> sacCer3.fa.gz outputs/speed --n 10000

Random single-base changes of that genome, in one VCF file, ranked among `--random` random variants;
both strands, in full fp32. The command is run three times with an empty cache of its own, timed
from its start to its end: the first compiles kernels and predicts the random variants, the second
takes those from the cache, the third writes no page. Rows go to speed.csv.
"""

import argparse
import csv
import datetime
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from rows import append_row

from cherimoya.genome.fasta import spooled_genome
from cherimoya.records.provenance import cpu_name, git_commit, versions

RESULTS = Path(__file__).with_name("speed.csv")
MARGIN = 2000  # bases that a variant keeps from the ends of its chromosome


def write_variants(fasta: Path, n: int, path: Path) -> None:
    """A VCF file of n random changes of one base."""
    rng = np.random.default_rng(0)
    with spooled_genome(fasta) as genome:
        long = {c: genome.codes(c) for c, size in genome.lengths.items() if size > 4 * MARGIN}
        sizes = np.array([len(codes) for codes in long.values()])
        chosen = rng.choice(len(long), n, p=sizes / sizes.sum())
        changes = sorted({_change(name, long[name], rng) for name in np.array([*long])[chosen]})
    with open(path, "w") as file:
        file.write("##fileformat=VCFv4.3\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n")
        for chrom, at, ref, alt in changes:
            file.write(f"{chrom}\t{at + 1}\t.\t{'ACGT'[ref]}\t{'ACGT'[alt]}\t.\t.\t.\n")


def _change(chrom: str, codes: np.ndarray, rng: np.random.Generator) -> tuple[str, int, int, int]:
    """A random position of a chromosome, its base and another one."""
    while True:
        at = int(rng.integers(MARGIN, len(codes) - MARGIN))
        if codes[at] < 4:
            ref = int(codes[at])
            return str(chrom), at, ref, (ref + int(rng.integers(1, 4))) % 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("fasta", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--random", type=int, default=1000)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    file = args.folder / "variants.vcf"
    write_variants(args.fasta, args.n, file)
    cuda = torch.cuda.is_available()
    environment = {**os.environ, "XDG_CACHE_HOME": str(args.folder / "cache")}
    origin = {
        "date": datetime.date.today().isoformat(),
        "machine": torch.cuda.get_device_name() if cuda else f"{cpu_name()}, 1 thread",
        "versions": ", ".join(f"{k} {v}" for k, v in versions().items()),
        "commit": git_commit(), "random": args.random,
    }  # fmt: skip
    for what, more in {"first": [], "again": [], "again, no page": ["page=false"]}.items():
        table = args.folder / f"{what.replace(', ', '_').replace(' ', '_')}.tsv"
        table.unlink(missing_ok=True)
        code = "from cherimoya.cli.scripts import variants; variants()"
        since = time.monotonic()
        subprocess.run(
            [sys.executable, "-c", code, f"checkpoint={args.run}", f"variants={file}",
             f"fasta={args.fasta}", f"random_variants={args.random}", f"output={table}",
             "overwrite=true", *more],
            env=environment, check=True,
        )  # fmt: skip
        seconds = time.monotonic() - since
        with open(table) as lines:
            next(lines)
            done = sum(row["status"] == "ok" for row in csv.DictReader(lines, delimiter="\t"))
        row = origin | {"what": what, "variants": done, "seconds": round(seconds, 1)}
        print(row, flush=True)
        append_row(RESULTS, row)


if __name__ == "__main__":
    main()
