"""Does Reb1's motif open chromatin more than each of its one-base mutants, to a trained model?

    python experiments/yeast/marginalize.py outputs/<date>/<run> atac.h5

Runs cherimoya-marginalize: the motif and its 21 mutants, in the same shuffled sequences of the test
chromosomes, which the model has not seen. Rows go to marginals.csv.
"""

import argparse
import csv
import datetime
import subprocess
import sys
import tempfile
from pathlib import Path

from cherimoya.analysis.machine import cpu_name, git_commit, versions

RESULTS = Path(__file__).with_name("marginals.csv")
MOTIF = "CGGGTAA"  # Reb1
BACKGROUNDS = 100


def mutants(motif: str) -> list[str]:
    """Every one-base mutant of `motif`."""
    return [
        motif[:i] + base + motif[i + 1 :]
        for i, own in enumerate(motif)
        for base in "ACGT"
        if base != own
    ]


def effects(run: Path, data: Path) -> list[dict[str, str]]:
    """The rows of cherimoya-marginalize for the motif and its mutants."""
    named = ",".join([f"Reb1:{MOTIF}", *mutants(MOTIF)])
    code = "from cherimoya.cli_apps import marginalize; marginalize()"
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "motifs.tsv"
        arguments = [
            f"checkpoint={run}", f"data.path={data}", f"motifs=[{named}]", "against=Reb1",
            "chroms=[chrIV,chrXI]", f"max_loci={BACKGROUNDS}", "profiles=0", f"output={table}",
        ]  # fmt: skip
        subprocess.run([sys.executable, "-c", code, *arguments], check=True)
        lines = [line for line in table.open() if not line.startswith("#")]
        return list(csv.DictReader(lines, delimiter="\t"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run folder of experiment=yeast_atac")
    parser.add_argument("data", type=Path, help="the prepared file that it was trained on")
    args = parser.parse_args()
    found = effects(args.run, args.data)
    found.sort(key=lambda row: -float(row["log2_fold_change"]))
    origin = {
        "date": datetime.date.today().isoformat(),
        "machine": cpu_name(),
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
        "commit": git_commit(),
    }
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*origin, "rank", *found[0]])
        writer.writeheader()
        for rank, row in enumerate(found, start=1):
            writer.writerow(origin | {"rank": rank} | row)
    reb1 = next(row for row in found if row["motif"] == "Reb1")
    others = [row for row in found if row["motif"] != "Reb1"]
    sharp = [row for row in others if float(row["difference"]) < -2 * float(row["difference_se"])]
    print(
        f"Reb1 {float(reb1['log2_fold_change']):.3f}, rank {found.index(reb1) + 1} of "
        f"{len(found)}; {len(sharp)} of {len(others)} mutants are lower by more than 2 SE"
    )


if __name__ == "__main__":
    main()
