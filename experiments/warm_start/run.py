"""Does a start from a model of one half of the yeast loci save three quarters of the steps?

    python experiments/warm_start/run.py atac.h5 outputs/warm_start/atac --recipe yeast_atac

The chromosomes that are neither validated nor tested on are dealt into two halves of about as many
peaks. `source` trains on the first half with the whole recipe; `anew` on the second one, from
random weights; `warm` on the second one from the source (model.init), with a quarter of anew's
steps, and `anew_quarter` from random weights with as few. All are scored on the recipe's test
chromosomes, which none has seen. Rows go to results.csv; the same command goes on where it stopped.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from record import row_of
from rows import append_row

from cherimoya.data import hdf5

RESULTS = Path(__file__).with_name("results.csv")
HELD_OUT = {"chrXVI", "chrIV", "chrXI"}  # of the yeast recipes
EPOCHS = 12


def halves(path: Path) -> tuple[list[str], list[str]]:
    """The chromosomes to train on in two lists of about as many peaks."""
    header = hdf5.read_header(path)
    peaks = header.chrom[header.label == 1]
    names, counts = np.unique(peaks[~np.isin(peaks, sorted(HELD_OUT))], return_counts=True)
    lists: tuple[list[str], list[str]] = ([], [])
    sums = [0, 0]
    for name, count in sorted(zip(names, counts, strict=True), key=lambda one: -one[1]):
        fewer = int(sums[1] < sums[0])
        lists[fewer].append(str(name))
        sums[fewer] += int(count)
    return lists


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipe", default="yeast_atac")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--change", nargs="*", default=[], help="keys of all four runs")
    args = parser.parse_args()
    first, second = halves(args.data)
    quarter = [f"trainer.max_epochs={EPOCHS // 4}", "optim.warmup_epochs=0.25"]
    source = args.folder / f"source_{args.seed}"
    runs = {
        "source": (first, second, []),
        "anew": (second, first, []),
        "anew_quarter": (second, first, quarter),
        "warm": (second, first, [*quarter, f"model.init={source}"]),
    }
    for name, (train, left_out, words) in runs.items():
        folder = args.folder / f"{name}_{args.seed}"
        if (folder / "summary.json").exists():
            continue
        begun = (folder / "config.yaml").exists()
        new = [
            f"experiment={args.recipe}", f"data.path={args.data}", f"seed={args.seed}",
            f"data.train_chroms=[{','.join(train)}]", f"data.exclude_chroms=[{','.join(left_out)}]",
            "logger=none", "trainer.plots=false", f"hydra.run.dir={folder}", *args.change, *words,
        ]  # fmt: skip
        code = "from cherimoya.cli.scripts import train; train()"
        typed = [f"trainer.resume={folder}"] if begun else new
        subprocess.run([sys.executable, "-c", code, *typed], check=True)
        append_row(RESULTS, {"recipe": args.recipe, **row_of(folder, name)})
        print(json.dumps(json.loads((folder / "summary.json").read_text())["test"]), flush=True)


if __name__ == "__main__":
    main()
