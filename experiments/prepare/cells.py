"""Prepare a simulated fragment file of many cells, and record its time and memory.

python experiments/prepare/cells.py --fragments 100000000 --groups 8 --folder /scratch
"""

import argparse
import os
import platform
import subprocess
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE), str(HERE.parent)]

from memory import PHASES, SHARES, measured, places, simulate  # noqa: E402
from rows import append_row  # noqa: E402

from cherimoya.records.provenance import cpu_name  # noqa: E402

CELLS = 10_000
BLOCK = 1_000_000  # fragments written at a time
COLUMNS = ["date", "commit", "fragments", "groups", "gigabases", "peaks", "processes", "windows"]
COLUMNS += ["seconds", *PHASES, "cpu_s", "peak_GB", "peak_own_GB", "output_MB"]
COLUMNS += ["machine", "python", "numpy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fragments", type=int, default=100_000_000)
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--gigabases", type=float, default=0.3)
    parser.add_argument("--peaks", type=int, default=20_000)
    parser.add_argument("--processes", type=int, nargs="+", default=[2])
    parser.add_argument("--folder", type=Path, required=True, help="room for 65 bytes a fragment")
    asked = parser.parse_args()
    command = ["git", "describe", "--always", "--dirty", "--abbrev=7"]
    known = {"date": date.today(), "fragments": asked.fragments, "groups": asked.groups}
    known |= {"commit": subprocess.check_output(command, cwd=HERE, text=True).strip()}
    known |= {"gigabases": asked.gigabases, "peaks": asked.peaks}
    known |= {"machine": f"{cpu_name()} x{os.cpu_count()}", "python": platform.python_version()}
    known |= {"numpy": version("numpy")}
    for row in prepared(
        asked.folder, asked.fragments, asked.groups, asked.gigabases, asked.peaks, asked.processes
    ):
        kept = {name: value for name, value in (known | row).items() if name in COLUMNS}
        append_row(HERE / "cells.csv", kept, COLUMNS)
        print(kept, flush=True)


def prepared(
    folder: Path, count: int, groups: int, gigabases: float, peaks: int, processes: list[int]
) -> list[dict[str, float]]:
    """Simulate in `folder`, and what `measured` finds for each number of processes."""
    rng, total = np.random.default_rng(0), sum(SHARES)
    lengths = {f"chr{i}": round(s / total * gigabases * 1e9) for i, s in enumerate(SHARES, 1)}
    centers = places(lengths, peaks, rng)
    simulate(folder, lengths, centers, rng)
    barcodes = cells(folder, groups, rng)
    with open(folder / "fragments.tsv", "wb") as file:
        for chrom, length in lengths.items():
            many = round(count * length / sum(lengths.values()))
            for first in range(0, many, BLOCK):
                low, high = (length * i // many for i in (first, min(first + BLOCK, many)))
                start = np.sort(rng.integers(low, max(high, low + 1), min(BLOCK, many - first)))
                end = np.minimum(start + rng.integers(30, 600, len(start)), length)
                start = np.minimum(start, end - 1)
                file.write(lines(chrom, start, end, barcodes[rng.integers(0, CELLS, len(start))]))
    more = [f"fragments.groups={folder}/cells.tsv", "outlier_factor=null"]
    signal = f"[{folder}/fragments.tsv]"
    return [{"processes": n} | measured(folder, signal, n, more) for n in processes]


def cells(folder: Path, groups: int, rng: np.random.Generator) -> np.ndarray:
    """(CELLS, 18) letters of barcodes, and cells.tsv, in which a tenth of them are missing."""
    letters = np.frombuffer(b"ACGT", np.uint8)[rng.integers(0, 4, (CELLS, 18))]
    letters[:, 16:] = np.frombuffer(b"-1", np.uint8)
    with open(folder / "cells.tsv", "wb") as file:
        for i, barcode in enumerate(letters[: CELLS * 9 // 10]):
            file.write(barcode.tobytes() + f"\ttype {i % groups}\n".encode())
    return letters


def lines(chrom: str, start: np.ndarray, end: np.ndarray, barcodes: np.ndarray) -> bytes:
    """The lines of fragments, with numbers of nine digits."""
    n, tab = len(start), np.full((len(start), 1), ord("\t"), np.uint8)
    powers = 10 ** np.arange(8, -1, -1)
    numbers = [(ord("0") + at[:, None] // powers % 10).astype(np.uint8) for at in (start, end)]
    name = np.broadcast_to(np.frombuffer(chrom.encode(), np.uint8), (n, len(chrom)))
    last = np.broadcast_to(np.frombuffer(b"1\n", np.uint8), (n, 2))
    columns = [name, tab, numbers[0], tab, numbers[1], tab, barcodes, tab, last]
    return np.concatenate(columns, axis=1).tobytes()


if __name__ == "__main__":
    main()
