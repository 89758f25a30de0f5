"""Prepare a simulated genome of any size, and record how long it takes and how much memory.

python experiments/prepare/memory.py --gigabases 3 --peaks 75000 --folder /scratch
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pybigtools
import pysam

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))

from rows import append_row  # noqa: E402

from cherimoya.records.provenance import cpu_name  # noqa: E402

# share of the genome, as in human: chromosomes 1 to 22, X, Y
SHARES = [8.1, 7.8, 6.4, 6.2, 5.9, 5.5, 5.2, 4.7, 4.5, 4.3, 4.4, 4.3, 3.7, 3.5, 3.3, 2.9, 2.7]
SHARES += [2.6, 1.9, 2.1, 1.5, 1.6, 5.1, 1.9]
WIDTH = 80  # letters a line
WINDOWS = ["in_window=2114", "out_window=1000", "max_jitter=500"]
COUNTED = 60  # bases with counts around each peak, on each strand
READ = 50  # bases
FIRST = ["date", "commit", "gigabases", "peaks", "reads", "processes", "windows"]
PHASES = ["fasta_s", "cut_s", "write_s"]  # the genome is spooled; windows are cut; HDF5
COLUMNS = [*FIRST, "seconds", *PHASES, "cpu_s", "path_cpu_s", "stream_path_s", "peak_GB"]
COLUMNS += ["peak_own_GB", "output_MB", "machine", "python", "numpy", "pybigtools"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabases", type=float, default=3.0)
    parser.add_argument("--peaks", type=int, default=75_000)
    parser.add_argument("--reads", type=int, default=0, help="of a BAM, instead of two bigWigs")
    parser.add_argument("--processes", type=int, nargs="+", default=[2])
    parser.add_argument("--folder", type=Path, required=True, help="room for twice the genome")
    parser.add_argument("--commit", help="of the code, where it lies in no repository")
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    lengths = {
        f"chr{i}": round(share / sum(SHARES) * asked.gigabases * 1e9)
        for i, share in enumerate(SHARES, 1)
    }
    centers = places(lengths, asked.peaks, rng)
    simulate(asked.folder, lengths, centers, rng)
    signal = f"[{asked.folder}/plus.bw,{asked.folder}/minus.bw]"
    if asked.reads:
        align(asked.folder / "reads.bam", lengths, centers, asked.reads, rng)
        signal = f"[{asked.folder}/reads.bam]"
    command = ["git", "describe", "--always", "--dirty", "--abbrev=7"]
    commit = asked.commit or subprocess.check_output(command, cwd=HERE, text=True).strip()
    known = {"date": date.today(), "commit": commit, "gigabases": asked.gigabases}
    known |= {
        "peaks": asked.peaks,
        "reads": asked.reads,
        "machine": f"{cpu_name()} x{os.cpu_count()}",
    }
    known |= {"python": platform.python_version()}
    known |= {name: version(name) for name in ("numpy", "pybigtools")}
    for processes in asked.processes:
        found = measured(asked.folder, signal, processes)
        record(known | {"processes": processes} | found)


def record(row: dict[str, Any]) -> None:
    """Add a row to memory.csv."""
    append_row(HERE / "memory.csv", row, COLUMNS)
    print(row, flush=True)


def places(lengths: dict[str, int], count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Sorted centres of about `count` peaks, spread over the chromosomes by length."""
    total = sum(lengths.values())
    return {
        name: np.unique(rng.integers(5000, n - 5000, round(count * n / total)))
        for name, n in lengths.items()
    }


def simulate(
    folder: Path, lengths: dict[str, int], centers: dict[str, np.ndarray], rng: np.random.Generator
) -> None:
    """genome.fa, peaks.bed, plus.bw and minus.bw in `folder`."""
    letters = np.frombuffer(b"ACGTacgtTTAA", np.uint8)
    with open(folder / "genome.fa", "wb") as file:
        for name, n in lengths.items():
            file.write(f">{name}\n".encode())
            for first in range(0, n, WIDTH << 18):
                size = min(WIDTH << 18, n - first)
                drawn = letters[rng.integers(0, len(letters), size, dtype=np.uint8)]
                whole = drawn[: size // WIDTH * WIDTH].reshape(-1, WIDTH)
                lines = np.full((len(whole), WIDTH + 1), ord("\n"), np.uint8)
                lines[:, :WIDTH] = whole
                file.write(lines.tobytes())
                if size % WIDTH:
                    file.write(drawn[size // WIDTH * WIDTH :].tobytes() + b"\n")
    with open(folder / "peaks.bed", "w") as bed:
        for name, there in centers.items():
            bed.writelines(f"{name}\t{at - 100}\t{at + 100}\n" for at in there.tolist())
    for strand in ("plus", "minus"):
        path = str(folder / f"{strand}.bw")
        pybigtools.open(path, "w").write(lengths, entries(centers, rng))


def entries(
    centers: dict[str, np.ndarray], rng: np.random.Generator
) -> Iterator[tuple[str, int, int, float]]:
    """(chrom, start, end, count), sorted: counts of up to 300 around each centre."""
    for name in sorted(centers):
        bases = (centers[name][:, None] + rng.integers(-400, 400, COUNTED)).ravel()
        at = np.unique(bases)
        for base, count in zip(at.tolist(), rng.integers(1, 300, len(at)).tolist(), strict=True):
            yield name, base, base + 1, float(count)


def align(
    path: Path,
    lengths: dict[str, int],
    centers: dict[str, np.ndarray],
    count: int,
    rng: np.random.Generator,
) -> None:
    """A sorted, indexed BAM of `count` reads within 1,000 bases of the centres."""
    total = sum(map(len, centers.values()))
    header = {
        "HD": {"VN": "1.6", "SO": "coordinate"},
        "SQ": [{"SN": name, "LN": n} for name, n in lengths.items()],
    }
    with pysam.AlignmentFile(str(path), "wb", header=header) as file:
        read = pysam.AlignedSegment(file.header)
        read.query_name, read.query_sequence = "read", "A" * READ
        read.cigarstring, read.mapping_quality = f"{READ}M", 40
        for i, there in enumerate(centers.values()):
            starts = rng.choice(there, round(count * len(there) / total))
            starts = np.sort(starts + rng.integers(-1000, 1000, len(starts)))
            read.reference_id = i
            flags = rng.integers(0, 2, len(starts)) * 16
            for start, flag in zip(starts.tolist(), flags.tolist(), strict=True):
                read.reference_start, read.flag = start, flag
                file.write(read)
    pysam.index(str(path))


def measured(
    folder: Path, signal: str, processes: int, more: Sequence[str] = ()
) -> dict[str, float]:
    """Run cherimoya-prepare; its time by phase, and the largest memory of it and its processes."""
    output, partial = folder / "out.h5", folder / "out.h5.partial"
    output.unlink(missing_ok=True)
    command = [sys.executable, "-c", "from cherimoya.cli.commands import prepare; prepare()"]
    command += [f"fasta={folder}/genome.fa", f"loci={folder}/peaks.bed", f"output={output}"]
    command += [f"signal=[{signal}]", f"processes={processes}", "plots=false"]
    command += [*["bam.stranded=true"] * ("reads.bam" in signal), *more]
    began, peak, own = time.monotonic(), 0.0, 0.0
    used: dict[int, float] = {}  # by process, and by -1 the first process's main thread
    reached, before = dict[str, float](), 0.0
    with subprocess.Popen([*command, *WINDOWS]) as process:
        while process.poll() is None:
            family = [process.pid, *children(process.pid)]
            now = [memory(pid) for pid in family]
            peak = max(peak, sum(whole for whole, _ in now))
            own = max(own, sum(anonymous for _, anonymous in now))
            used |= {pid: max(used.get(pid, 0), seconds(f"{pid}/stat")) for pid in family}
            used[-1] = max(used.get(-1, 0), seconds(f"{process.pid}/task/{process.pid}/stat"))
            if (partial / "genome.json").exists():
                if "fasta_s" not in reached:
                    before = path(used, process.pid, processes)
                reached.setdefault("fasta_s", time.monotonic() - began)
            if list(partial.glob(".out.h5.*.tmp")):
                reached.setdefault("cut_s", time.monotonic() - began)
            time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"cherimoya-prepare failed with {process.returncode}")
    import h5py

    with h5py.File(output) as file:
        windows = len(file["sequence"])
    reached["write_s"] = wall = time.monotonic() - began
    whole = path(used, process.pid, processes)
    ends = [0.0, *(reached.get(name, 0.0) for name in PHASES)]
    return {
        "windows": windows,
        "seconds": round(wall, 1),
        **{name: round(b - a, 1) for name, a, b in zip(PHASES, ends, ends[1:], strict=False)},
        "cpu_s": round(sum(used.values()) - used[-1], 1),
        "path_cpu_s": round(whole, 1),
        "stream_path_s": round(whole - before, 1),
        "peak_GB": round(peak / 1e6, 2),
        "peak_own_GB": round(own / 1e6, 2),
        "output_MB": round(output.stat().st_size / 1e6),
    }


def path(used: dict[int, float], first: int, processes: int) -> float:
    """Processor time on the longest path, which is the time it takes where nobody else works.

    The main thread, the busiest of the other processes, and what threads of the first share.
    """
    threads = (used[first] - used[-1]) / processes
    others = [seconds for pid, seconds in used.items() if pid not in (-1, first)]
    return used[-1] + max(others, default=0.0) + threads


def children(pid: int) -> list[int]:
    """The processes that `pid` started, and theirs."""
    try:
        direct = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [p for child in map(int, direct) for p in (child, *children(child))]


def memory(pid: int) -> tuple[int, int]:
    """kB of memory: with its share of mapped files, and its own alone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0, 0
    found = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
    return found.get("Pss", 0), found.get("Pss_Anon", 0)


def seconds(stat: str) -> float:
    """Processor time of the process or thread that `stat` below /proc is of."""
    try:
        fields = Path(f"/proc/{stat}").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
