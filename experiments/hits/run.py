r"""On the embedded data, whose truth is known: do hits recover the planted instances?

    cherimoya-train data.synthetic.seed=0
    cherimoya-attribute checkpoint=outputs/<date>/<run> window=null logos=0 \
        method=deep_lift_shap n_shuffles=5 peaks_only=false 'chroms=[sim9,sim10]' output=test.h5
    cherimoya-attribute checkpoint=outputs/<date>/<run> window=null logos=0 \
        method=deep_lift_shap n_shuffles=1 modisco=true motif_file=known.meme output=all.h5
    python experiments/hits/run.py --attributions DeepLIFT=test.h5 --patterns all.counts_0.motifs

The test chromosomes are searched, peaks and background, with the planted motifs and with those of
TF-MoDISco, of all peaks, whose matches are those in known.meme: the planted motifs among 95
shuffled ones (`motif_grammar.known_motifs`). Rows are added to results.csv. With --finemo, where
that package is installed, its own fit of the same motifs is compared.

An instance is what the simulation's own scan finds in the attributed bases. It counts for recall
where removing it changes the simulation's own log(1 + expected counts) by at least EFFECT: what has
no effect, attributions cannot show. A hit is right where an instance of that motif, on that strand,
lies: at the same base for a planted motif, and for a pattern, whose ends are TF-MoDISco's, over at
least half of the motif's bases, whatever its strand is called.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from rows import append_row, origin

from cherimoya.data import motif_grammar
from cherimoya.records.attributions import read_attributions

HERE = Path(__file__).parent
EFFECT = 0.1  # of log(1 + counts): about 10 % of the counts
MEAN_COUNT, OUT_WINDOW = 150.0, 160  # of conf/data/synthetic.yaml
NAMES = [motif.name for motif in motif_grammar.MOTIFS]
WIDTHS = np.array([len(motif.consensus) for motif in motif_grammar.MOTIFS])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--attributions", nargs="+", required=True, help="method=file.h5")
    parser.add_argument("--patterns", type=Path, help="a folder .motifs")
    parser.add_argument("--data", type=int, default=0, help="data.synthetic.seed, for the table")
    parser.add_argument("--cutoffs", type=float, nargs="+", default=[0.5, 0.6, 0.7, 0.8])
    parser.add_argument("--output", type=Path, default=HERE / "results.csv")
    parser.add_argument("--finemo", action="store_true", help="compare finemo's own fit")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        known = write_motifs(Path(folder) / "planted.meme")
        sources = {"planted": known} | ({"TF-MoDISco": args.patterns} if args.patterns else {})
        for named in args.attributions:
            method, _, path = named.partition("=")
            for source, motifs in sources.items():
                for cutoff in args.cutoffs:
                    output = Path(folder) / f"{method}.{source}.{cutoff}.tsv"
                    seconds = call(path, motifs, cutoff, output)
                    scored = score(output, path, source == "planted")
                    row = {"data": args.data, "attributions": method, "motifs": source,
                           "cutoff": cutoff, **scored, "seconds": round(seconds, 1)}  # fmt: skip
                    append_row(args.output, origin() | row)
                    print(row)
            if args.finemo:
                print("finemo:", compare(path, known))


def call(path: str, motifs: Path, cutoff: float, output: Path) -> float:
    """Run cherimoya-hits; the seconds it took."""
    began = time.monotonic()
    code = "from cherimoya.cli.commands import hits; hits()"
    asked = [f"attributions={path}", f"motifs={motifs}", f"cutoff={cutoff}", f"output={output}"]
    subprocess.run([sys.executable, "-c", code, *asked, "page=false"], check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    return time.monotonic() - began


def score(table: Path, path: str, exact: bool) -> dict[str, object]:
    """Precision and recall, of all motifs and of each, of the hits in `table`."""
    codes = read_attributions(path).sequence
    cut = (codes.shape[1] - OUT_WINDOW) // 2
    planted = motif_grammar.scan(codes)
    effects = motif_grammar.removal_effects(
        codes, planted, slice(cut, codes.shape[1] - cut), MEAN_COUNT
    )
    found, right, kinds = np.zeros(len(planted), bool), [], []
    with open(table, newline="") as file:
        next(file)
        for row in csv.DictReader(file, delimiter="\t"):
            name = (row["motif"] if exact else row["match"]).removesuffix("(-)")
            kinds.append(name)
            chosen = matching(row, name, planted, exact)
            found |= chosen
            right.append(bool(chosen.any()))
    shown = np.abs(effects) >= EFFECT
    hits = np.array(right, bool)
    scored: dict[str, object] = {
        "loci": len(codes), "hits": len(hits), "instances": int(shown.sum()),
        "precision": ratio(hits), "recall": ratio(found[shown]),
    }  # fmt: skip
    for i, name in enumerate(NAMES):
        own = np.array([kind == name for kind in kinds], bool)
        scored[f"precision {name}"] = ratio(hits[own])
        scored[f"recall {name}"] = ratio(found[shown & (planted.motif == i)])
    return scored


def matching(
    row: dict[str, str], name: str, planted: motif_grammar.Instances, exact: bool
) -> np.ndarray:
    """Which of the planted instances (m,) a hit is of."""
    if name not in NAMES:
        return np.zeros(len(planted), bool)
    motif, first = NAMES.index(name), int(row["offset"])
    own = (planted.locus == int(row["locus"])) & (planted.motif == motif)
    if exact:
        strand = 1 if row["strand"] == "+" else -1
        return own & (planted.position == first) & (planted.strand == strand)
    last = first + int(row["end"]) - int(row["start"])
    shared = np.minimum(planted.position + WIDTHS[motif], last) - np.maximum(
        planted.position, first
    )
    return own & (2 * shared >= WIDTHS[motif])


def ratio(values: np.ndarray) -> float | str:
    return round(float(values.mean()), 3) if len(values) else ""


def compare(path: str, known: Path) -> dict[str, object]:
    """finemo's fit of the planted motifs beside ours: hits of both, and of either alone."""
    import torch
    from finemo.hitcaller import fit_contribs

    from cherimoya.interpret.hit_motifs import read_hit_motifs
    from cherimoya.interpret.sparse_fit import SparseFit

    held = read_attributions(path)
    values = next(iter(held.contributions.values()))
    motifs = read_hit_motifs(known, 0.3, values.shape[1])
    weights = [m.weights for m in motifs] + [m.weights[::-1, ::-1].copy() for m in motifs]
    began = time.monotonic()
    ours = SparseFit(weights, 0.7)(values, held.sequence).placed
    seconds = time.monotonic() - began
    hot = (held.sequence[:, None] == np.arange(4)[:, None]).astype(np.int8)
    began = time.monotonic()
    theirs, _ = fit_contribs(
        cwms=np.stack(weights).astype(np.float32), contribs=values, sequences=hot,
        cwm_trim_mask=np.ones((len(weights), weights[0].shape[1]), np.int8),
        use_hypothetical=False, lambdas=np.full(len(weights), 0.7), batch_size=len(values),
        device=torch.device("cpu"),
    )  # fmt: skip
    other = {tuple(r[:3]): r[3] for r in theirs.iter_rows()}
    own = {key: c for *key, c in zip(ours.locus, ours.motif, ours.position, ours.coefficient,
                                     strict=True)
           for key in [tuple(map(int, key))]}  # fmt: skip
    both = own.keys() & other.keys()
    apart = max(abs(own[key] - other[key]) / other[key] for key in both)
    return {"both": len(both), "ours alone": len(own) - len(both),
            "theirs alone": len(other) - len(both), "largest relative difference": float(apart),
            "our seconds": round(seconds, 1),
            "their seconds": round(time.monotonic() - began, 1)}  # fmt: skip


def write_motifs(path: Path) -> Path:
    """The planted motifs as a MEME file."""
    lines = ["MEME version 4", "ALPHABET= ACGT"]
    for motif in motif_grammar.MOTIFS:
        matrix = motif_grammar.probabilities(motif)
        lines += [f"MOTIF {motif.name}", f"letter-probability matrix: alength= 4 w= {len(matrix)}"]
        lines += [" ".join(f"{p:.6f}" for p in row) for row in matrix]
    path.write_text("\n".join(lines) + "\n")
    return path


if __name__ == "__main__":
    main()
