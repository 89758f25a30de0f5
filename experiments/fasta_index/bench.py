"""How long one variant on a genome of 300 megabases takes with an index of the FASTA and without.

python experiments/fasta_index/bench.py

Simulates three chromosomes of 100 megabases, plain and as BGZF, with and without an index, and
times opening each and cutting the window of one variant. Rows go to results.csv.
"""

import datetime
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pysam

from cherimoya.genome.fasta_index import genome_on_disk

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))

from rows import append_row  # noqa: E402

MEGABASES, CHROMOSOMES, WINDOW, LINE = 100, 3, 2114, 60


def main() -> None:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=7"]
    commit = subprocess.check_output(command, cwd=HERE, text=True).strip()
    with TemporaryDirectory() as folder:
        plain = simulate(Path(folder) / "g.fa")
        packed = Path(folder) / "g.fa.gz"
        pysam.tabix_compress(str(plain), str(packed))
        cut: dict[str, np.ndarray] = {}
        for indexed in (False, True):
            for path in (plain, packed):
                if indexed:
                    pysam.faidx(str(path))
                for run in range(2):
                    began, cpu = time.perf_counter(), time.process_time()
                    with genome_on_disk(path, lambda _: None) as genome:
                        at = 50_000_000
                        cut[f"{path} {indexed}"] = np.array(genome.codes("chr2")[at : at + WINDOW])
                    row = {
                        "date": datetime.date.today().isoformat(),
                        "commit": commit,
                        "load": round(os.getloadavg()[0], 1),
                        "file": "BGZF" if path == packed else "plain",
                        "index": indexed,
                        "run": run,
                        "seconds": round(time.perf_counter() - began, 4),
                        "cpu_s": round(time.process_time() - cpu, 4),
                    }
                    append_row(HERE / "results.csv", row)
                    print(row, flush=True)
        first, *others = cut.values()
        assert all(np.array_equal(first, other) for other in others)


def simulate(path: Path) -> Path:
    """A genome of random letters in lines."""
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for i in range(CHROMOSOMES):
            letters = np.frombuffer(b"ACGTacgt", np.uint8)[rng.integers(0, 8, MEGABASES * 10**6)]
            file.write(f">chr{i + 1}\n".encode())
            rows = letters[: len(letters) // LINE * LINE].reshape(-1, LINE)
            file.write(np.pad(rows, ((0, 0), (0, 1)), constant_values=10).tobytes())
            file.write(letters[rows.size :].tobytes() + b"\n")
    return path


if __name__ == "__main__":
    main()
