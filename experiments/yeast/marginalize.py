"""Does Reb1's motif open chromatin more than each of its one-base mutants, to a trained model?

    python experiments/yeast/marginalize.py outputs/<date>/<run> atac.h5 sacCer3.fa.gz atac_ins.bw \
        --model "32 filters"

Runs cherimoya-marginalize: the motif and every mutant, in the same shuffled sequences of the test
chromosomes, which the model has not seen. Beside it stands what the experiment itself shows: the
cuts in 400 bp around each place of the genome with those letters. Rows go to marginals.csv, in
place of earlier ones of that model and motif.
"""

import argparse
import csv
import datetime
import gzip
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pybigtools
import torch

from cherimoya.metrics import spearman
from cherimoya.records.provenance import cpu_name, git_commit, versions

RESULTS = Path(__file__).with_name("marginals.csv")
BACKGROUNDS = 100
AROUND = 400
RDNA = (451_400, 469_000)  # of chrXII


def mutants(motif: str) -> list[str]:
    """Every one-base mutant of `motif`."""
    return [
        motif[:i] + base + motif[i + 1 :]
        for i, own in enumerate(motif)
        for base in "ACGT"
        if base != own
    ]


def rows_of(table: Path) -> list[dict[str, str]]:
    lines = [line for line in table.open() if not line.startswith("#")]
    return list(csv.DictReader(lines, delimiter="\t"))


def effects(run: Path, data: Path, motif: str) -> list[dict[str, str]]:
    """The rows of cherimoya-marginalize for the motif and its mutants."""
    named = ",".join([f"Reb1:{motif}", *mutants(motif)])
    code = "from cherimoya.cli.commands import marginalize; marginalize()"
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "motifs.tsv"
        arguments = [
            f"checkpoint={run}", f"data.path={data}", f"motifs=[{named}]", "against=Reb1",
            "chroms=[chrIV,chrXI]", f"max_loci={BACKGROUNDS}", "profiles=0", f"output={table}",
        ]  # fmt: skip
        subprocess.run([sys.executable, "-c", code, *arguments], check=True)
        return rows_of(table)


def cuts_around(genome: Path, bigwig: Path, motifs: list[str]) -> dict[str, float]:
    """Mean cuts in AROUND bp around the places of each motif, on either strand, without chrM and
    the rDNA."""
    totals = {}
    text = gzip.decompress(genome.read_bytes()).decode()
    with pybigtools.open(str(bigwig)) as file:
        records = [r.split("\n", 1) for r in text.split(">")[1:]]
        for name, lines in ((header.split()[0], lines) for header, lines in records):
            bases = lines.replace("\n", "").upper()
            if name != "chrM":
                values = file.values(name, 0, len(bases), fillna=0.0)
                totals[name] = bases, np.concatenate([[0], np.cumsum(values)])
    found = {}
    for motif in motifs:
        turned = motif.translate(str.maketrans("ACGT", "TGCA"))[::-1]
        cuts = []
        for name, (bases, total) in totals.items():
            for match in re.finditer(f"(?={motif}|{turned})", bases):
                first = match.start() + len(motif) // 2 - AROUND // 2
                masked = name == "chrXII" and RDNA[0] <= match.start() < RDNA[1]
                if not masked and 0 <= first <= len(bases) - AROUND:
                    cuts.append(total[first + AROUND] - total[first])
        found[motif] = float(np.mean(cuts))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run folder of experiment=yeast_atac")
    parser.add_argument("data", type=Path, help="the prepared file that it was trained on")
    parser.add_argument("genome", type=Path, help="sacCer3.fa.gz")
    parser.add_argument("cuts", type=Path, help="atac_ins.bw")
    parser.add_argument("--motif", default="CGGGTAA", help="of Reb1: %(default)s")
    parser.add_argument("--model", required=True, help='of the rows, as "32 filters"')
    parser.add_argument("--table", type=Path, help="of the same command on another machine")
    parser.add_argument("--machine", default=cpu_name(), help="where the command ran")
    parser.add_argument("--versions", help="of what it ran with; by default those here")
    args = parser.parse_args()
    found = rows_of(args.table) if args.table else effects(args.run, args.data, args.motif)
    cuts = cuts_around(args.genome, args.cuts, [row["letters"] for row in found])
    found = [row | {"cuts": f"{cuts[row['letters']]:.1f}"} for row in found]
    found.sort(key=lambda row: -float(row["log2_fold_change"]))
    here = ", ".join(f"{name} {version}" for name, version in versions().items())
    origin = {
        "date": datetime.date.today().isoformat(),
        "machine": args.machine,
        "versions": args.versions or here,
        "commit": git_commit(),
    }
    rows = list(csv.DictReader(RESULTS.open())) if RESULTS.exists() else []
    of = {"model": args.model, "of": args.motif}
    rows = [row for row in rows if {name: row[name] for name in of} != of]
    rows += [origin | of | {"rank": rank} | row for rank, row in enumerate(found, start=1)]
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    reb1 = next(row for row in found if row["motif"] == "Reb1")
    others = [row for row in found if row["motif"] != "Reb1"]
    sharp = [row for row in others if float(row["difference"]) < -2 * float(row["difference_se"])]
    pair = [torch.tensor([float(row[k]) for row in found]) for k in ("log2_fold_change", "cuts")]
    more = sum(float(row["cuts"]) > float(reb1["cuts"]) for row in others)
    print(
        f"Reb1 {float(reb1['log2_fold_change']):.3f}, rank {found.index(reb1) + 1} of "
        f"{len(found)}, in the experiment {more + 1}; {len(sharp)} of {len(others)} mutants are "
        f"lower by more than 2 SE; Spearman with the experiment {float(spearman(*pair)):.2f}"
    )


if __name__ == "__main__":
    main()
