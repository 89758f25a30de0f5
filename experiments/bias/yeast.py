"""Yeast ATAC-seq with and without bias correction: do factors keep their footprints?

    python experiments/bias/yeast.py atac.h5 outputs/bias_yeast --seeds 0,1,2 --at-once 4

The .h5 file is made by cherimoya-prepare with shift=auto. For each seed `experiment=atac_bias` is
trained as it is and without a bias model, and once more with bias models of other blocks and
thresholds. The binding sites of four factors are put into the background loci of the test
chromosomes. How many times as many cuts are predicted there is averaged over the site (`site`) and
over the bases 20 to 60 away from it on both sides (`flanks`); the footprint is how much lower the
site lies, 1 - site/flanks. The folder gets the runs, yeast_footprints.csv and
yeast_bias_models.csv.
"""

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
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
from cherimoya.genome.sequence import encode, one_hot  # noqa: E402
from cherimoya.records.layout import read_config  # noqa: E402

SITES = {  # of TTACCCG, RTCRYNNNNNACG, ACACCCRYACA and RTCACRTG
    "Reb1": "ATTACCCGG",
    "Abf1": "ATCACTTTGTACGA",
    "Rap1": "ACACCCATACA",
    "Cbf1": "GTCACGTGA",
}
FLANKS = (20, 60)  # bases from the middle of a site
KINDS = {"corrected": [], "uncorrected": ["model.bias=null"]}
LESS = "bias_model.background_below=[0.1,0.15,0.2,0.3,0.5,0.8]"
OTHERS = {  # bias models alone are of interest
    "cheri": [LESS],
    "bpnet": ["bias_model.blocks=bpnet", LESS],
    "convnext": ["bias_model.blocks=convnext", LESS],
}


def start(run: Path, path: Path, words: Iterable[str]) -> subprocess.Popen[bytes] | None:
    if (run / "summary.json").exists():
        return None
    run.parent.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, "-m", "cherimoya.cli", "experiment=atac_bias", f"data.path={path}",
        "logger=none", "trainer.plots=false", f"hydra.run.dir={run}", *words,
    ]  # fmt: skip
    return subprocess.Popen(
        command, stdout=run.with_suffix(".txt").open("w"), stderr=subprocess.STDOUT, cwd=REPOSITORY
    )


def footprints(run: Path, path: Path, bias: bool | None) -> list[dict[str, Any]]:
    model = cherimoya.load(run, "cuda" if torch.cuda.is_available() else "cpu", bias=bias)
    config = build(DataConfig, read_config(run)["data"], "data")
    with h5py.File(path) as file:
        chosen = np.isin(file["chrom"][:].astype(str), config.test_chroms or [])
        chosen &= file["label"][:] == 0
        jitter = int(file.attrs["max_jitter"])
        codes = file["sequence"][chosen][:, jitter : file["sequence"].shape[1] - jitter]

    def profile(codes: np.ndarray) -> np.ndarray:
        said = cherimoya.predict(model, one_hot(codes))
        expected = said.probabilities.sum(1) * said.log_counts.expm1()
        return expected.double().mean(0).numpy()

    plain, rows = profile(codes), []
    for name, site in SITES.items():
        planted, at = codes.copy(), (codes.shape[1] - len(site)) // 2
        planted[:, at : at + len(site)] = encode(site)
        change = profile(planted) / plain
        away = np.arange(len(change)) - (len(change) - 1) / 2
        inside = change[abs(away) <= len(site) / 2].mean()
        outside = change[(abs(away) >= FLANKS[0]) & (abs(away) <= FLANKS[1])].mean()
        rows.append(
            {
                "factor": name,
                "site": inside,
                "flanks": outside,
                "footprint": 1 - inside / outside,
                "backgrounds": len(codes),
            }
        )
    return rows


def write(path: Path, rows: list[dict[str, Any]], about: Mapping[str, Any]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *about], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            written = {k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()}
            writer.writerow({**written, **about})
            print(*written.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, help="of cherimoya-prepare with shift=auto")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("words", nargs="*", help="key=value for every run")
    args = parser.parse_intermixed_args()
    path, folder = args.path.resolve(), args.folder.resolve()
    seeds = [int(seed) for seed in args.seeds.split(",")]
    asked = {
        f"{kind}_{seed}": [*KINDS[kind], f"seed={seed}"] for kind in KINDS for seed in seeds
    } | {f"with_{name}": words for name, words in OTHERS.items()}
    names = list(asked)
    while names:
        some, names = names[: args.at_once], names[args.at_once :]
        going = [start(folder / name, path, [*asked[name], *args.words]) for name in some]
        for name, process in zip(some, going, strict=True):
            if process is not None and process.wait():
                raise SystemExit(f"the training {name} failed: see {folder / name}.txt")

    origin = json.loads((folder / f"corrected_{seeds[0]}/summary.json").read_text())["provenance"]
    versions = ", ".join(f"{name} {version}" for name, version in origin["versions"].items())
    about = {
        "machine": origin["gpu"] or origin["cpu"], "versions": versions,
        "commit": origin["git_commit"],
    }  # fmt: skip
    rows = []
    for kind in KINDS:
        for seed in seeds:
            for bias in (False, True) if kind == "corrected" else (None,):
                model = "with its bias model" if bias else kind
                found = footprints(folder / f"{kind}_{seed}", path, bias)
                rows += [{"model": model, "seed": seed, **row} for row in found]
    write(folder / "yeast_footprints.csv", rows, about)
    rows = []
    for name in (f"corrected_{seeds[0]}", *(f"with_{name}" for name in OTHERS)):
        choice = json.loads((folder / name / "bias/choice.json").read_text())
        for one in choice["candidates"]:
            taken = one["name"] == choice["chosen"]
            rows.append({"run": name, "taken": taken, **one})
    write(folder / "yeast_bias_models.csv", rows, about)


if __name__ == "__main__":
    main()
