"""How long TF-MoDISco takes over a file of attributions, and what it finds.

python experiments/modisco/bench.py out.h5 --loci 600

Run it with the Python of an environment that has modisco-lite or modisco: both install the module
modiscolite, so each needs an environment of its own. The first run of a process compiles what Numba
has not cached, the second one does not. Rows go to results.csv.
"""

import argparse
import datetime
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import h5py
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))

from rows import append_row  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("attributions", type=Path, help="written by cherimoya-attribute")
    parser.add_argument("--loci", type=int, default=600)
    parser.add_argument("--max-seqlets", type=int, default=2000)
    args = parser.parse_args()
    began = time.perf_counter()
    from modiscolite.tfmodisco import TFMoDISco

    importing = time.perf_counter() - began
    X, hypothetical = read(args.attributions, args.loci)
    command = ["git", "describe", "--always", "--dirty", "--abbrev=7"]
    origin = {
        "date": datetime.date.today().isoformat(),
        "commit": subprocess.check_output(command, cwd=HERE, text=True).strip(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load": round(os.getloadavg()[0], 1),
        "package": installed(),
        "leidenalg": version("leidenalg"),
        "loci": len(X),
    }
    for run in ("first", "second"):
        began, cpu = time.perf_counter(), os.times()
        both = TFMoDISco(
            X, hypothetical, max_seqlets_per_metacluster=args.max_seqlets, n_leiden_runs=2
        )
        seconds = time.perf_counter() - began + (importing if run == "first" else 0)
        spent = sum(os.times()[:4]) - sum(cpu[:4])
        found = [
            f"{sign}{i} {consensus(pattern)} {len(pattern.seqlets)}"
            for sign, patterns in zip(("pos", "neg"), both, strict=True)
            for i, pattern in enumerate(patterns or [])
        ]
        row = origin | {"run": run, "seconds": round(seconds, 1), "cpu_s": round(spent, 1)}
        row |= {"patterns": len(found), "found": "; ".join(found)}
        append_row(HERE / "results.csv", row)
        print(row, flush=True)


def read(path: Path, loci: int) -> tuple[np.ndarray, np.ndarray]:
    """One-hot sequences and hypothetical contributions, both (n, W, 4), in a mixed order."""
    with h5py.File(path) as file:
        codes = file["sequence"][:]
        (name,) = file["hypothetical"]
        scores = file[f"hypothetical/{name}"][:]
    order = np.random.default_rng(0).permutation(len(codes))[:loci]
    X = (codes[order][:, :, None] == np.arange(4)).astype(np.float32)
    return X, np.ascontiguousarray(scores[order].transpose(0, 2, 1))


def installed() -> str:
    """The package that the module modiscolite is of, and its version."""
    for name in ("modisco-lite", "modisco"):
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    raise SystemExit("neither modisco-lite nor modisco is installed")


def consensus(pattern: object) -> str:
    """The most frequent base of the positions that contribute."""
    total = np.abs(pattern.contrib_scores).sum(axis=1)
    kept = np.flatnonzero(total >= 0.3 * total.max())
    return "".join("ACGT"[i] for i in pattern.sequence[kept[0] : kept[-1] + 1].argmax(axis=1))


if __name__ == "__main__":
    main()
