"""The pictures of the gallery and of the README: a locus with its contributions, and the ablation.

    python experiments/gallery/pictures.py locus RUN bases.h5 --motif CCGGAAGT
    python experiments/gallery/pictures.py ablation

The first takes a run and attributions of its test split.
Of the peaks with the motif it draws the one where the motif's bases contribute most.
"""

import argparse
import csv
import os
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import numpy as np

import cherimoya
from cherimoya.data import hdf5
from cherimoya.genome.sequence import decode
from cherimoya.records.attributions import Attributions, read_attributions
from cherimoya.report.plots.interpret import logo
from cherimoya.report.plots.sweep import effect
from cherimoya.report.plots.theme import CHOSEN, OBSERVED, PREDICTED, figure, legend, save_png
from cherimoya.report.selection import Level

HERE = Path(__file__).resolve().parent
AROUND = 30  # bases of the logo on each side of the motif
COMPLEMENT = str.maketrans("ACGT", "TGCA")
NAMES = {
    "test profile_pearson": "test profile Pearson (r)",
    "test count_pearson": "test count Pearson (r)",
}


def strongest(held: Attributions, motif: str) -> tuple[int, int]:
    """The locus, and where in it, of the motif on either strand that contributes most."""
    values = next(iter(held.contributions.values()))
    width, found = len(motif), []
    for locus, codes in enumerate(held.sequence):
        text = decode(codes)
        for at in range(AROUND, len(text) - width - AROUND):
            if text[at : at + width] in (motif, motif.translate(COMPLEMENT)[::-1]):
                found.append((values[locus, at : at + width].sum(), locus, at))
    return max(found)[1:]


def data_of(held: Attributions) -> Path:
    """The file of loci that was attributed: here, or where simulated loci are kept."""
    names = {one["key"]: one["name"] for one in held.settings["sources"]}
    here = Path(names["data.path"])
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "cherimoya"
    return here if here.exists() else cache / here


def locus(run: Path, attributions: Path, motif: str, to: Path) -> None:
    """Observed and predicted counts of a locus, and the contributions around its motif."""
    held = read_attributions(attributions)
    n, at = strongest(held, motif)
    chrom, middle = held.chrom[n], int(held.start[n]) + held.sequence.shape[1] // 2
    loci = hdf5.read(data_of(held))
    (row,) = np.flatnonzero(
        (loci.chrom == chrom) & ((loci.start + loci.end) // 2 == middle) & (loci.label == 1)
    )
    model = cherimoya.load(run)
    window, out = loci.in_window, loci.out_window
    edge, jitter = loci.max_jitter, (loci.signal.shape[-1] - out) // 2
    codes = loci.sequence[row, edge : edge + window]
    predicted = cherimoya.predict(model, [decode(codes)]).expected_counts[0].sum(0).numpy()
    observed = loci.signal[row, :, jitter : jitter + out].sum(0)
    begin = middle - out // 2
    with figure(2, 1, width=8.6, height=2.1) as (made, axes):
        top, bottom = axes[:, 0]
        x = begin + np.arange(out)
        top.fill_between(x, 0, observed, step="mid", color=OBSERVED, label="observed")
        top.plot(x, predicted, color=PREDICTED, linewidth=1.1, label="predicted")
        site = int(held.start[n]) + at
        top.axvspan(
            site - AROUND, site + len(motif) + AROUND, color=CHOSEN, alpha=0.15, linewidth=0
        )
        top.margins(x=0)
        top.set_ylabel("counts a base")
        top.set_title(f"{chrom}:{begin + 1:,}-{begin + out:,}, of a chromosome that was held out")
        top.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        legend(top)
        shown = slice(at - AROUND, at + len(motif) + AROUND)
        values = next(iter(held.contributions.values()))
        logo(bottom, held.sequence[n, shown], values[n, shown])
        bottom.axvspan(
            AROUND - 0.5, AROUND + len(motif) - 0.5, color=CHOSEN, alpha=0.15, linewidth=0
        )
        bottom.set_ylabel("contribution to\nlog counts")
        bottom.set_title(f"which bases the prediction rests on, around {motif}")
        bottom.set_xticks([])
        save_png(made, to)


def ablation(to: Path) -> None:
    """What each part is worth for profiles and counts, over all else."""
    with (HERE.parent / "ablation" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    settings = ("blocks", "loss", "residual_scale", "expansion")
    with figure(len(settings), len(NAMES), height=2.4) as (made, axes):
        for line, key in zip(axes, settings, strict=True):
            for axis, (score, name) in zip(line, NAMES.items(), strict=True):
                means = defaultdict(lambda: defaultdict(list))
                for row in rows:
                    parts = dict(part.split("=") for part in row["run"].split(","))
                    parts.pop("seed")
                    means[parts.pop(key)][tuple(parts.values())].append(float(row[score]))
                levels = [
                    Level(value, [fmean(seeds) for seeds in each.values()])
                    for value, each in sorted(means.items())
                ]
                effect(axis, key, levels, name)
        save_png(made, to)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    one = kinds.add_parser("locus")
    for name in ("run", "attributions"):
        one.add_argument(name, type=Path)
    one.add_argument("--motif", required=True)
    one.add_argument("--to", type=Path, default=HERE / "locus.png")
    kinds.add_parser("ablation")
    args = vars(parser.parse_args())
    if args.pop("kind") == "ablation":
        ablation(HERE / "ablation.png")
    else:
        locus(**args)


if __name__ == "__main__":
    main()
