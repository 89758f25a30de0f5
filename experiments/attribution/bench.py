"""On the embedded data, whose truth is known: do attributions find what was planted?

    cherimoya-train
    python experiments/attribution/bench.py outputs/<date>/<run>

Runs cherimoya-attribute with each method and target, on peaks of the test chromosomes, and
TF-MoDISco on what DeepLIFT says of the counts of peaks of all chromosomes. Known motifs are the
five planted ones among 95 whose columns and letters are shuffled. Rows go to scores.csv and
motifs.csv.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from memelite.io import write_meme

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from rows import write_rows

from cherimoya import metrics
from cherimoya.data import motif_grammar
from cherimoya.records.attributions import Attributions, read_attributions

HERE = Path(__file__).parent
MEAN_COUNT = 150.0  # of conf/data/synthetic.yaml
OUT_WINDOW = 160
TARGETS = ("counts", "profile")
PACKAGES = ("tangermeme", "modisco-lite", "memelite")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run folder of the embedded data")
    parser.add_argument("--motif-loci", type=int, default=1200, help="for TF-MoDISco")
    parser.add_argument("--loci", type=int, default=48, help="for everything else")
    args = parser.parse_args()
    scores = []
    with tempfile.TemporaryDirectory() as folder:
        known = Path(folder) / "known.meme"
        write_meme(str(known), motif_grammar.known_motifs())
        for method in ("mutagenesis", "deep_lift_shap", "gradient"):
            output = Path(folder) / f"{method}.h5"
            seconds = timed(
                args.run, output, f"method={method}", f"max_loci={args.loci}",
                "targets=[counts,profile]", "chroms=[sim9,sim10]",
            )  # fmt: skip
            found = read_attributions(output)
            scores += [rated(found, method, target, seconds) for target in TARGETS]
            print(*(f"{row['method']} {row['target']}: {row['auroc']}" for row in scores[-2:]))
        output = Path(folder) / "motifs.h5"
        asked = ["method=deep_lift_shap", "n_shuffles=5", f"max_loci={args.motif_loci}"]
        before = timed(args.run, output, *asked)
        seconds = timed(args.run, output, *asked, "modisco=true", f"motif_file={known}")
        rows = list(csv.DictReader((output.parent / "motifs.counts_0.motifs/motifs.tsv").open(),
                                   delimiter="\t"))  # fmt: skip
    times = {"loci": args.motif_loci, "deep_lift_s": round(before), "modisco_s": round(seconds)}
    write_rows(HERE / "scores.csv", scores, PACKAGES)
    write_rows(HERE / "motifs.csv", [times | row for row in rows], PACKAGES)
    names = {row["match"] for row in rows if float(row["q_value"]) < 0.05}
    print(f"planted motifs recovered: {sorted(names & {m.name for m in motif_grammar.MOTIFS})}")


def timed(run: Path, output: Path, *asked: str) -> float:
    """Run cherimoya-attribute on whole windows; the seconds it took."""
    began = time.monotonic()
    code = "from cherimoya.cli.commands import attribute; attribute()"
    common = [f"checkpoint={run}", "window=null", "logos=0", f"output={output}"]
    subprocess.run([sys.executable, "-c", code, *common, *asked], check=True)
    return time.monotonic() - began


def rated(found: Attributions, method: str, target: str, seconds: float) -> dict[str, object]:
    """How well contributions point at planted bases, and rank what changes of them truly do."""
    name = f"{target}_0"
    planted = inside(found.sequence)
    size = torch.from_numpy(np.abs(found.contributions[name]))
    row = {"method": method, "target": target, "loci": len(planted), "seconds": round(seconds)}
    row["auroc"] = round(float(metrics.auroc(size.ravel(), torch.from_numpy(planted).ravel())), 3)
    row["spearman"] = ""
    if target == "counts" and method == "mutagenesis":
        few = slice(0, len(planted), max(1, len(planted) // 16))  # the truth takes a while
        true, other = true_effects(found.sequence[few])
        effects = found.hypothetical[name][few] - found.contributions[name][few, None]
        chosen = planted[few][:, None] & other
        pair = (torch.from_numpy(values[chosen]) for values in (true, effects))
        row["spearman"] = round(float(metrics.spearman(*pair)), 3)
    return row


def inside(codes: np.ndarray) -> np.ndarray:
    """Whether a base lies in a motif (n, L)."""
    found = motif_grammar.scan(codes)
    made = np.zeros(codes.shape, bool)
    for locus, motif, first in zip(found.locus, found.motif, found.position, strict=True):
        made[locus, first : first + len(motif_grammar.MOTIFS[motif].consensus)] = True
    return made


def true_effects(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Changes of log(1 + expected counts) by each base, and where it is a change: (n, 4, L)."""
    length = codes.shape[1]
    cut = (length - OUT_WINDOW) // 2
    each = np.arange(4 * length)
    found = []
    for one in codes:
        mutants = np.repeat(one[None], 4 * length + 1, axis=0)
        mutants[each, each // 4] = each % 4
        signal = motif_grammar.expected_signal(mutants, MEAN_COUNT)[:, :, cut : length - cut]
        totals = np.log1p(signal.sum((1, 2)))
        found.append((totals[:-1] - totals[-1]).reshape(length, 4).T)
    return np.stack(found), np.arange(4)[:, None] != codes[:, None]


if __name__ == "__main__":
    main()
