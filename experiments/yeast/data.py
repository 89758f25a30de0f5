"""How many loci, fragments and counts the two experiments in yeast have, as data.csv.

    python experiments/yeast/data.py ../shared/data/yeast stripeseq.h5 atac.h5

The two prepared files are those of the commands in README.md.
"""

import argparse
import csv
import gzip
from pathlib import Path

import h5py
import numpy as np


def peaks(path: Path) -> tuple[int, float]:
    """How many peaks a prepared file has, and their median count in the middle 1,000 bases."""
    with h5py.File(path) as file:
        signal = file["signal"][np.flatnonzero(file["label"][:] == 1)]
    edge = (signal.shape[-1] - 1000) // 2
    middle = signal[..., edge : edge + 1000]
    return len(signal), float(np.median(middle.sum((1, 2))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="with atac/yeast_500k_SRR1822137.frag.gz")
    parser.add_argument("stripeseq", type=Path)
    parser.add_argument("atac", type=Path)
    args = parser.parse_args()
    with gzip.open(args.folder / "atac" / "yeast_500k_SRR1822137.frag.gz", "rt") as file:
        fragments = sum(1 for line in file if not line.startswith("#"))
    with Path(__file__).with_name("data.csv").open("w", newline="") as table:
        rows = csv.writer(table)
        rows.writerow(["data", "loci", "median_counts", "fragments"])
        rows.writerow(["stripeseq", *peaks(args.stripeseq), ""])
        rows.writerow(["atac", *peaks(args.atac), fragments])


if __name__ == "__main__":
    main()
