r"""In yeast: do hits of ATAC-seq attributions agree with the genome's matches of the motifs?

    cherimoya-train experiment=yeast_atac data.path=atac.h5
    cherimoya-attribute checkpoint=outputs/<date>/<run> data.path=atac.h5 method=deep_lift_shap \
        n_shuffles=5 max_loci=220 'chroms=[chrIV,chrXI]' output=bases.h5
    python experiments/hits/yeast.py bases.h5 --model yeast_atac

The motifs are consensus sequences of Reb1, Abf1, Rap1 and Cbf1 as matrices, below. A site is a
place in the attributed bases, on either strand, whose log-odds against the bases of these loci has
a p-value below 1e-4, exactly (dynamic programming over scores, as FIMO does). Scores, yeast.csv:

precision: of hits, those within one base of a site of the same factor
recall: of the sites whose contributions add up to at least HIGH of the median hit of that factor,
    those with a hit within one base
enrichment: precision over that of as many hits at random places
site contribution: median over the sites, in standard deviations of all places
"""

import argparse
import csv
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from rows import append_row, origin

from cherimoya.genome.sequence import IUPAC, encode, reverse_complement
from cherimoya.records.attributions import read_attributions

HERE = Path(__file__).parent
P_VALUE, HIGH, NEAR = 1e-4, 0.5, 1
KEPT = 0.94  # share of the letters of a consensus, the rest evenly among the other bases
BINS = 1000  # of log-odds
CONSENSUS = {  # after the Saccharomyces Genome Database, and MacIsaac and others (2006)
    "Reb1": "RTTACCCGK",
    "Abf1": "RTCRYNNNNNACG",
    "Rap1": "ACACCCRYACAYM",
    "Cbf1": "RTCACRTGR",
}


def matrix(letters: str) -> np.ndarray:
    """Probabilities (4, width) of a consensus in IUPAC's letters."""
    columns = []
    for letter in letters:
        bases = IUPAC[letter] or "ACGT"
        column = np.full(4, (1 - KEPT) / max(4 - len(bases), 1))
        column[encode(bases)] = (KEPT if len(bases) < 4 else 1) / len(bases)
        columns.append(column)
    return np.array(columns).T


def sites(codes: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """First bases (s, 2), locus and offset, of what scores below P_VALUE on either strand."""
    background = np.bincount(codes.ravel(), minlength=5)[:4] / (codes < 4).sum()
    background = (background + background[::-1]) / 2  # of both strands
    scores = np.log2(probabilities / background[:, None])
    least = threshold(scores, background)
    table = np.concatenate([scores, np.full((1, scores.shape[1]), -np.inf)])
    found = []
    for turned in (False, True):
        own = reverse_complement(codes) if turned else codes
        places = own.shape[1] - scores.shape[1] + 1
        total = sum(table[own[:, i : i + places], i] for i in range(scores.shape[1]))
        locus, at = np.nonzero(total >= least)
        found.append(np.stack([locus, places - 1 - at if turned else at], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def threshold(scores: np.ndarray, background: np.ndarray) -> float:
    """The least score (4, width) whose chance under the background is below P_VALUE."""
    low = scores.min(axis=0).sum()
    step = (scores.max(axis=0).sum() - low) / BINS
    chance = np.zeros(BINS + 2 + scores.shape[1])
    chance[0] = 1
    for column in scores.T:
        shifts = np.round((column - column.min()) / step).astype(int)
        moved = np.zeros_like(chance)
        for shift, p in zip(shifts, background, strict=True):
            moved[shift:] += p * chance[: len(chance) - shift]
        chance = moved
    tail = chance[::-1].cumsum()[::-1]
    return float(low + step * (np.flatnonzero(tail < P_VALUE)[0] - 0.5))


def near(places: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which of `places` (s, 2) have one of `others` in the same locus within NEAR bases."""
    held = set(map(tuple, others.tolist()))
    shifts = range(-NEAR, NEAR + 1)
    return np.array([any((a, b + i) in held for i in shifts) for a, b in places.tolist()], bool)


def called(attributions: Path, cutoff: float) -> list[dict[str, str]]:
    """The hits of the four motifs, as cherimoya-hits finds them."""
    with tempfile.TemporaryDirectory() as folder:
        meme, table = Path(folder) / "four.meme", Path(folder) / "hits.tsv"
        lines = ["MEME version 4", "ALPHABET= ACGT"]
        for name, letters in CONSENSUS.items():
            lines += [f"MOTIF {name}", f"letter-probability matrix: alength= 4 w= {len(letters)}"]
            lines += [" ".join(f"{p:.6f}" for p in row) for row in matrix(letters).T]
        meme.write_text("\n".join(lines) + "\n")
        code = "from cherimoya.cli.commands import hits; hits()"
        asked = [f"attributions={attributions}", f"motifs={meme}", f"cutoff={cutoff}"]
        subprocess.run([sys.executable, "-c", code, *asked, f"output={table}", "page=false"],
                       check=True)  # fmt: skip
        with open(table, newline="") as file:
            next(file)
            return list(csv.DictReader(file, delimiter="\t"))


def scored(
    name: str, codes: np.ndarray, values: np.ndarray, found: list[dict[str, str]], cutoff: float
) -> dict[str, object]:
    """How the hits of a factor agree with the sites of its motif in codes (n, W), of which the
    contributions are `values` (n, W)."""
    letters = CONSENSUS[name]
    own = [row for row in found if row["motif"] == name]
    hits = np.array([(int(r["locus"]), int(r["offset"])) for r in own]).reshape(-1, 2)
    known, width = sites(codes, matrix(letters)), len(letters)
    sums = np.array([values[a, b : b + width].sum() for a, b in known.tolist()])
    every = np.lib.stride_tricks.sliding_window_view(values, width, axis=1).sum(axis=2)
    typical = np.median([float(r["contribution"]) for r in own]) if own else 0.0
    strong = known[sums >= HIGH * typical]
    right = near(hits, known)
    places = values.shape[1] - width + 1
    chance = near(np.stack(np.indices((len(values), places)).reshape(2, -1), 1), known).mean()
    precision = float(right.mean()) if len(right) else float("nan")
    return {
        "factor": name, "loci": len(values), "cutoff": cutoff, "hits": len(hits),
        "sites": len(known), "strong sites": len(strong), "precision": round(precision, 3),
        "recall": round(float(near(strong, hits).mean()), 3) if len(strong) else "",
        "recall of all sites": round(float(near(known, hits).mean()), 3),
        "enrichment": round(float(precision / chance), 1),
        "site contribution": round(float(np.median(sums) / every.std()), 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("attributions", type=Path)
    parser.add_argument("--model", default="", help="what the attributions are of, for the table")
    parser.add_argument("--cutoffs", type=float, nargs="+", default=[0.7, 0.6, 0.5])
    args = parser.parse_args()
    held = read_attributions(args.attributions)
    values = next(iter(held.contributions.values()))
    for cutoff in args.cutoffs:
        found = called(args.attributions, cutoff)
        for name in CONSENSUS:
            row = {"model": args.model, "method": held.settings["method"]}
            row |= scored(name, held.sequence, values, found, cutoff)
            append_row(HERE / "yeast.csv", origin() | row)
            print(row)


if __name__ == "__main__":
    main()
