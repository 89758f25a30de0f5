"""How fast cherimoya-predict writes bigWig files, beside figwig, pyBigWig and a tuple a value.

python experiments/predict/bigwig.py --megabases 12 --repeats 3
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pybigtools

from cherimoya.genome.bigwig_writer import Piece, write_bigwig
from cherimoya.records.provenance import cpu_name

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))

from rows import append_row  # noqa: E402

OUT, PIECE = 1000, 64_000  # bases of a window, and of what is handed over at once
COLUMNS = ["date", "commit", "writer", "values", "seconds", "values_per_s", "cpu_s", "MB"]
COLUMNS += ["load", "machine", "python", "numpy", "torch", "pybigtools", "figwig"]
LIBRARIES = ("numpy", "torch", "pybigtools", "figwig")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabases", type=float, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    lengths = {f"chr{i}": round(asked.megabases * 1e6 * i / 10) for i in range(1, 5)}
    command = ["git", "describe", "--always", "--dirty", "--abbrev=7"]
    known = {
        "date": date.today(),
        "machine": f"{cpu_name()} x{os.cpu_count()}",
        "python": platform.python_version(),
    }
    known |= {"commit": subprocess.check_output(command, cwd=HERE, text=True).strip()}
    known |= {name: version(name) if find_spec(name) else "" for name in LIBRARIES}
    with TemporaryDirectory() as folder:
        tracks = {name: simulated(lengths, i) for i, name in enumerate(("plus", "minus"))}
        for _ in range(asked.repeats):  # in turn, since others use the machine
            found = {name: measured(Path(folder), name, lengths, tracks) for name in WRITERS}
            check(Path(folder), lengths)
            for row in found.values():
                record(known | row)


def simulated(lengths: Mapping[str, int], seed: int) -> list[Piece]:
    """Expected counts at each base, as windows with profiles and totals of their own."""
    rng, pieces = np.random.default_rng(seed), []
    for chrom, length in lengths.items():
        windows = -(-length // OUT)
        share = np.exp(rng.normal(0, 1, (windows, OUT)).astype(np.float32))
        share *= np.exp(rng.normal(4, 1, (windows, 1))) / share.sum(axis=1, keepdims=True)
        values = share.ravel()[:length].astype(np.float32)
        pieces += [
            (chrom, np.arange(i, min(i + PIECE, length)), values[i : i + PIECE])
            for i in range(0, length, PIECE)
        ]
    return pieces


def one_tuple_a_value(path: Path, lengths: Mapping[str, int], pieces: Iterable[Piece]) -> Path:
    """The writer of the first version, equal values beside each other in one entry."""
    pybigtools.open(str(path), "w").write(dict(lengths), entries(pieces))
    return path


def entries(pieces: Iterable[Piece]) -> Iterator[tuple[str, int, int, float]]:
    for chrom, at, values in pieces:
        new = np.flatnonzero((np.diff(at) != 1) | (np.diff(values) != 0)) + 1
        first, last = np.concatenate([[0], new]), np.concatenate([new, [len(at)]]) - 1
        starts, ends = at[first].tolist(), (at[last] + 1).tolist()
        yield from zip(repeat(chrom), starts, ends, values[first].tolist(), strict=False)


def arrays(path: Path, lengths: Mapping[str, int], pieces: Iterable[Piece]) -> Path:
    """By pyBigWig, which takes an array of values side by side."""
    import pyBigWig

    file = pyBigWig.open(str(path), "w")
    file.addHeader(list(lengths.items()))
    for chrom, at, values in pieces:
        file.addEntries(chrom, int(at[0]), values=values, span=1, step=1)
    file.close()
    return path


def figwig_dense(path: Path, lengths: Mapping[str, int], pieces: Iterable[Piece]) -> Path:
    """By figwig, which takes values side by side too."""
    import figwig

    with figwig.BigWigWriter(path, dict(sorted(lengths.items())), level=1) as file:
        for chrom, at, values in pieces:
            file.write(chrom, [int(at[0])], values[None].astype(np.float32), missing=np.nan)
    return path


WRITERS = {"tuples": one_tuple_a_value, "blocks": write_bigwig}
if find_spec("figwig"):
    WRITERS["figwig"] = figwig_dense
if find_spec("pyBigWig"):
    WRITERS["arrays"] = arrays


def measured(
    folder: Path, writer: str, lengths: dict[str, int], tracks: dict[str, list[Piece]]
) -> dict[str, Any]:
    """Write both tracks with one of the writers."""
    (folder / writer).mkdir(exist_ok=True)
    began, cpu = time.perf_counter(), time.process_time()
    files = [
        WRITERS[writer](folder / writer / f"{name}.bw", lengths, pieces)
        for name, pieces in tracks.items()
    ]
    seconds, values = time.perf_counter() - began, 2 * sum(lengths.values())
    return {
        "writer": writer,
        "values": values,
        "seconds": round(seconds, 2),
        "values_per_s": round(values / seconds),
        "cpu_s": round(time.process_time() - cpu, 2),
        "MB": round(sum(path.stat().st_size for path in files) / 1e6, 1),
        "load": round(os.getloadavg()[0], 1),
    }


def check(folder: Path, lengths: dict[str, int]) -> None:
    """All writers' files hold the same values, to the bit."""
    for name in ("plus", "minus"):
        files = [folder / writer / f"{name}.bw" for writer in WRITERS]
        opened = [pybigtools.open(str(path)) for path in files]
        for chrom, length in lengths.items():
            one, *others = (file.values(chrom, 0, length, fillna=None) for file in opened)
            assert len(one) == length
            for other in others:
                np.testing.assert_array_equal(one, other)


def record(row: dict[str, Any]) -> None:
    """Add a row to bigwig.csv."""
    append_row(HERE / "bigwig.csv", row, COLUMNS)
    print(json.dumps(row, default=str), flush=True)


if __name__ == "__main__":
    main()
