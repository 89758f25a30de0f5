"""Whether a bias model takes away what an enzyme prefers and leaves the rest: on simulated data.

    python experiments/bias/run.py outputs/bias --seeds 0,1,2

The simulation knows what the counts would be without the enzyme (truth/unbiased). For each seed a
network without correction and one with model.bias=train are trained on the same loci, and both are
compared with that truth on the test loci. The enzyme's favourite sequence, and each planted motif,
is put into background loci: what that changes in the mean predicted profile is its marginal effect.
The folder gets the runs and scores.csv.
"""

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))
import cherimoya  # noqa: E402
from cherimoya.config.data import DataConfig  # noqa: E402
from cherimoya.config.schema import build  # noqa: E402
from cherimoya.data import motif_grammar  # noqa: E402
from cherimoya.data.dataset import data_file  # noqa: E402
from cherimoya.genome.sequence import encode, one_hot  # noqa: E402
from cherimoya.records.layout import read_config  # noqa: E402

DATA = [
    "data.synthetic.bias=true", "data.synthetic.n_background=3000",
    "data.synthetic.mean_count=600",
]  # fmt: skip
KINDS = {  # all of the background is cut alike, so that the threshold may be high
    "uncorrected": [], "corrected": ["model.bias=train", "bias_model.background_below=[1,2]"],
}  # fmt: skip
TEST = ("sim9", "sim10")
NEAR = 64  # bases on each side of a motif in which its footprint lies


def train(folder: Path, kind: str, seed: int, words: list[str]) -> subprocess.Popen[bytes] | None:
    run = folder / f"{kind}_{seed}"
    if (run / "summary.json").exists():
        return None
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, "-m", "cherimoya.cli", *DATA, *KINDS[kind], f"seed={seed}", "logger=none",
        "trainer.plots=false", f"hydra.run.dir={run}", *words,
    ]  # fmt: skip
    return subprocess.Popen(
        command, stdout=(run.parent / f"{run.name}.txt").open("w"), stderr=subprocess.STDOUT
    )


def effect(predict: Any, codes: np.ndarray, motif: str) -> np.ndarray:
    """What `motif` in the middle of the loci changes of the mean profile: (2, 2 NEAR)."""
    middle = codes.shape[1] // 2
    planted = codes.copy()
    first = middle - len(motif) // 2
    planted[:, first : first + len(motif)] = encode(motif)
    change = predict(planted).mean(axis=0) - predict(codes).mean(axis=0)
    centre = change.shape[1] // 2
    return change[:, centre - NEAR : centre + NEAR]


def scores(run: Path, held: dict[str, np.ndarray], bias: bool | None) -> Iterator[dict[str, Any]]:
    model = cherimoya.load(run, "cuda" if torch.cuda.is_available() else "cpu", bias=bias)

    def predict(codes: np.ndarray) -> np.ndarray:
        return cherimoya.predict(model, one_hot(codes)).probabilities.numpy().astype(np.float64)

    def true(codes: np.ndarray) -> np.ndarray:
        background = motif_grammar.BACKGROUND * 10
        rates = motif_grammar.expected_signal(codes, 600.0, background)
        cut = model.trimming
        rates = rates[:, :, cut : rates.shape[2] - cut]
        return rates / rates.sum(axis=(1, 2), keepdims=True)

    peaks = held["label"] == 1
    said = cherimoya.predict(model, one_hot(held["codes"][peaks]))
    p, t = said.probabilities.numpy().reshape(peaks.sum(), -1), held["unbiased"][peaks]
    t = t.reshape(len(t), -1).astype(np.float64)
    profile = [np.corrcoef(a, b)[0, 1] for a, b in zip(p, t, strict=True)]
    yield {"what": "profile Pearson with the truth without bias", "value": np.mean(profile)}
    counts = np.corrcoef(said.log_counts[:, 0].numpy(), np.log1p(t.sum(axis=1)))[0, 1]
    yield {"what": "count Pearson with the truth without bias", "value": counts}
    background = held["codes"][~peaks][:200]
    favourite = "".join("ACGT"[i] for i in motif_grammar.ENZYME.argmax(axis=1))
    change = effect(predict, background, favourite)
    cut = (0, NEAR)  # 4 bases of the motif lie before the cut
    yield {"what": "enzyme: change of the profile at the cut", "value": change[cut]}
    for motif in motif_grammar.MOTIFS:
        found, known = (effect(f, background, motif.consensus.upper()) for f in (predict, true))
        kept = (found * known).sum() / (known * known).sum()
        yield {"what": f"{motif.name}: footprint, of the truth's", "value": kept}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("words", nargs="*", help="key=value for every run")
    args = parser.parse_intermixed_args()
    seeds = [int(seed) for seed in args.seeds.split(",")]
    todo = [(kind, seed) for seed in seeds for kind in KINDS]
    while todo:
        some, todo = todo[: args.at_once], todo[args.at_once :]
        for process in [train(args.folder, *one, args.words) for one in some]:
            if process is not None and process.wait():
                raise SystemExit(f"a training failed: see {args.folder}/*.txt")
    rows = []
    for kind in KINDS:
        for seed in seeds:
            run = args.folder / f"{kind}_{seed}"
            data = build(DataConfig, read_config(run)["data"], "data")
            with h5py.File(data_file(data)) as file:
                chosen = np.isin(file["chrom"][:].astype(str), TEST)
                j = int(file.attrs["max_jitter"])
                held = {
                    "codes": file["sequence"][chosen][:, j:-j], "label": file["label"][chosen],
                    "unbiased": file["truth/unbiased"][chosen][:, :, j:-j],
                }  # fmt: skip
            for bias in (False, True) if kind == "corrected" else (None,):
                name = {None: kind, False: kind, True: "with its bias model"}[bias]
                rows += [{"model": name, "seed": seed, **r} for r in scores(run, held, bias)]
    with (args.folder / "scores.csv").open("w", newline="") as file:
        origin = json.loads((run / "summary.json").read_text())["provenance"]
        versions = ", ".join(f"{name} {version}" for name, version in origin["versions"].items())
        about = {
            "machine": origin["gpu"] or origin["cpu"], "versions": versions,
            "commit": origin["git_commit"],
        }  # fmt: skip
        writer = csv.DictWriter(file, [*rows[0], *about], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({**row, "value": f"{row['value']:.5g}", **about})
    for what in dict.fromkeys(row["what"] for row in rows):
        said = [
            f"{name} " + ", ".join(
                f"{row['value']:.4g}" for row in rows
                if (row["what"], row["model"]) == (what, name)
            )
            for name in dict.fromkeys(row["model"] for row in rows)
        ]  # fmt: skip
        print(f"{what}: {'; '.join(said)}")


if __name__ == "__main__":
    main()
