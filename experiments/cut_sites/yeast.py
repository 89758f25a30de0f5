"""Record which shift is found in the yeast data, in every state that such files come in.

python experiments/cut_sites/yeast.py ../shared/data/yeast
"""

import csv
import gzip
import sys
import time
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from cherimoya.config.prepare import PrepareConfig
from cherimoya.config.schema import build
from cherimoya.genome.intervals import read_intervals
from cherimoya.genome.open_tracks import open_tracks
from cherimoya.prepare import shift
from cherimoya.prepare.inputs import spooled_genome

HERE = Path(__file__).resolve().parent
CONF = HERE.parents[1] / "conf" / "prepare.yaml"
RESULTS = HERE / "results.csv"
SUBSETS, SHARE = 10, 0.0035  # of the fragments, some 600 of which lie at the peaks
STATES = {  # how a file was shifted before
    "raw": (0, 0), "+4/-5": (4, -5), "+4/-4": (4, -4), "+5/-5": (5, -5), "+4/-5 twice": (8, -10),
}  # fmt: skip


def configured(data: Path, group: list[Path], loci: str) -> PrepareConfig:
    values = OmegaConf.to_container(OmegaConf.load(CONF))
    del values["defaults"], values["hydra"]
    values |= {"fasta": str(data / "genome/sacCer3.fa.gz"), "loci": str(data / loci)}
    values |= {"signal": [[str(path) for path in group]], "output": "-", "check": True}
    return build(PrepareConfig, values)


def look(name: str, config: PrepareConfig, folder: Path) -> dict[str, Any]:
    """What is said of the files of the one group."""
    said: list[str] = []
    genome = spooled_genome(config.fasta, folder, lambda _: None)
    loci = read_intervals(config.loci, "midpoint")
    with open_tracks(config.signal, "signal", config, tell=lambda _: None) as signal:
        began = time.monotonic()
        found = shift.settle_shifts(config, genome, loci, signal, [], said.append)
        seconds = time.monotonic() - began
    row = {"date": date.today().isoformat(), "file": name, "seconds": round(seconds, 2)}
    if not found:
        return row | {"found": "none", "said": said[0]}
    scores = [f"{key}: {value:.3f}" for key, value in found[0]["correlations"].items()]
    added = shift.written(tuple(found[0]["found"]))
    return row | {
        "found": f"{found[0]['enzyme']} {added}",
        "correlations": "; ".join(scores),
        "cuts by strand": found[0]["cuts"],
        "said": said[0],
    }


def main() -> None:
    data = Path(sys.argv[1])
    raw = data / "atac/yeast_500k_SRR1822137.frag.gz"
    lines = [line.split("\t") for line in gzip.decompress(raw.read_bytes()).decode().splitlines()]
    peaks, rows = "atac/cut_peaks.narrowPeak", []
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for state, (plus, minus) in STATES.items():
            path = folder / f"{state.replace('/', '_')}.tsv"
            moved = ((c, int(s) + plus, int(e) + minus) for c, s, e, *_ in lines)
            path.write_text("".join(f"{c}\t{s}\t{e}\n" for c, s, e in moved if s < e))
            rows.append(look(f"fragments, {state}", configured(data, [path], peaks), folder))
        for i in range(SUBSETS):
            path = folder / f"subset {i + 1}.tsv"
            some = np.random.default_rng(i).random(len(lines)) < SHARE
            path.write_text("".join("\t".join(lines[k][:3]) + "\n" for k in np.flatnonzero(some)))
            rows.append(
                look(f"fragments, raw, subset {i + 1}", configured(data, [path], peaks), folder)
            )
        bigwig = [data / "atac/atac_ins.bw"]
        rows.append(look("atac_ins.bw", configured(data, bigwig, peaks), folder))
        starts = [data / f"stripeseq/WT_{strand}.bw" for strand in ("plus", "minus")]
        loci = "stripeseq/WT_tss_loci.bed"
        rows.append(look("STRIPE-seq", configured(data, starts, loci), folder))
    with RESULTS.open("w", newline="") as file:
        names = ("date", "file", "found", "correlations", "cuts by strand", "seconds", "said")
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
