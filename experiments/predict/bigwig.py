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
from types import SimpleNamespace
from typing import Any

import numpy as np
import pybigtools

from cherimoya.genome.bigwig_writer import Piece, write_bigwig
from cherimoya.inference import writers
from cherimoya.inference.genome import Shape
from cherimoya.inference.genome_inputs import tiles
from cherimoya.records.provenance import cpu_name

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))

from rows import append_row  # noqa: E402

GROUPS, OUT = [2], 1000
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
        simulate(Path(folder), lengths)
        for _ in range(asked.repeats):  # in turn, since others use the machine
            found = {name: measured(Path(folder), name, lengths) for name in WRITERS}
            check(Path(folder), lengths)
            for row in found.values():
                record(known | row)


def simulate(folder: Path, lengths: dict[str, int]) -> None:
    """The predictions that are kept of each chromosome: logits and log counts of each window."""
    rng = np.random.default_rng(0)
    for i, windows in enumerate(tiles(lengths, list(lengths), OUT)):
        part, n = folder / f"{i:05d}", len(windows.start)
        part.mkdir(parents=True)
        np.save(part / "logits.npy", rng.normal(0, 1, (n, 2, OUT)).astype(np.float32))
        np.save(part / "log_counts.npy", rng.normal(4, 1, (n, 1)).astype(np.float32))


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


def measured(folder: Path, writer: str, lengths: dict[str, int]) -> dict[str, Any]:
    """Write both tracks with one of the writers, as the end of cherimoya-predict does."""
    writers.write_bigwig = WRITERS[writer]
    (folder / writer).mkdir(exist_ok=True)
    shape = Shape(2114, OUT, GROUPS, ["plus", "minus"])
    config: Any = SimpleNamespace(kind="bigwig", values="expected")
    windows = tiles(lengths, list(lengths), OUT)
    began, cpu = time.perf_counter(), time.process_time()
    files = writers.write_outputs(config, windows, shape, lengths, folder / writer, folder, {})
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
        files = [folder / writer / f"{name}.expected.bw" for writer in WRITERS]
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
