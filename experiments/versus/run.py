"""Trains upstream's package and two of our recipes on the same loci, and scores all by one script.

    python experiments/versus/run.py stripeseq.h5 outputs/versus/stripeseq --upstream up \\
        --genome sacCer3.fa.gz --signal WT_plus.bw WT_minus.bw

The .h5 file is made by cherimoya-prepare with max_jitter=500 of that genome and that signal, which
upstream reads itself, at the same loci. Each training is the package's own command, timed from its
start to its end; one after another, alone on the device. What is done already is not done again.
The folder gets scores.csv and differences.csv.
"""

import argparse
import csv
import gzip
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from score import Prediction, differences, mean_of, scores

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
VALIDATION, TEST = ["chrXVI"], ["chrIV", "chrXI"]
RECIPES = {  # the jitter that each asks for
    "recommended": ["experiment=recommended", "data.max_jitter=256"],
    "defaults": ["data=hdf5", "data.max_jitter=128"],
}
IN_WINDOW, OUT_WINDOW = 2114, 1000


def write_loci(prepared: Path, genome: Path, folder: Path) -> list[str]:
    """What upstream's command and the scores need of the loci; returns the training chromosomes."""
    with h5py.File(prepared) as file:
        chrom, label = file["chrom"][:].astype(str), file["label"][:]
        ends = file["start"][:], file["end"][:]
        held_out = np.isin(chrom, TEST)
        codes, signal = file["sequence"][held_out], file["signal"][held_out]
    for name, chosen in (("peaks", label == 1), ("background", label == 0)):
        rows = zip(chrom[chosen], ends[0][chosen], ends[1][chosen], strict=True)
        text = "".join(f"{c}\t{start}\t{end}\n" for c, start, end in rows)
        (folder / f"{name}.bed").write_text(text)

    def centred(values: np.ndarray, width: int) -> np.ndarray:
        start = (values.shape[-1] - width) // 2
        return values[..., start : start + width]

    one_hot = centred(codes, IN_WINDOW)[:, None] == np.arange(4)[:, None]  # bases are 0 to 3
    np.savez(
        folder / "test.npz",
        X=one_hot.astype(np.int8),
        signal=centred(signal, OUT_WINDOW),
        label=label[held_out],
    )
    with gzip.open(genome) as source, (folder / "genome.fa").open("wb") as target:
        shutil.copyfileobj(source, target)
    return sorted(set(chrom) - {*VALIDATION, *TEST})


def timed(command: Sequence[object], folder: Path, environment: Mapping[str, str]) -> float:
    """Run to its end, its output into a file; returns the seconds."""
    folder.mkdir(parents=True)
    start = time.monotonic()
    with (folder / "output.txt").open("w") as output:
        subprocess.run(
            [str(word) for word in command], cwd=folder, env={**os.environ, **environment},
            stdout=output, stderr=subprocess.STDOUT, check=True,
        )  # fmt: skip
    return time.monotonic() - start


def search_path(first: Path) -> dict[str, str]:
    """PYTHONPATH with `first`, and without the package of the same name."""
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    others = [path for path in inherited if path and Path(path).resolve() != REPOSITORY]
    return {"PYTHONPATH": os.pathsep.join([str(first), *others])}


def train_ours(name: str, seed: int, args: argparse.Namespace) -> Path:
    """The best checkpoint of `cherimoya-train` with the recipe `name`."""
    folder = args.folder / f"{name}_{seed}"
    command = [
        sys.executable, "-m", "cherimoya.cli", *RECIPES[name], f"data.path={args.prepared}",
        f"data.validation_chroms=[{','.join(VALIDATION)}]",
        f"data.test_chroms=[{','.join(TEST)}]", f"seed={seed}", "logger=none", *args.words,
        "hydra.run.dir=run", f"trainer.device={args.device}",
    ]  # fmt: skip
    if not (folder / "seconds.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        seconds = timed(command, folder, search_path(REPOSITORY))
        steps = json.loads((folder / "run/summary.json").read_text())["steps"]
        note(folder, seconds=seconds, steps=steps)
    return folder / "run/checkpoints/best.pt"


def train_upstream(chroms: list[str], args: argparse.Namespace) -> list[Path]:
    """Upstream's checkpoints: of its best epoch and of the last."""
    folder = args.folder / "upstream"
    parameters = {
        "name": "model", "sequences": str(args.folder / "genome.fa"), "random_state": 0,
        "loci": str(args.folder / "peaks.bed"), "negatives": str(args.folder / "background.bed"),
        "signals": [[str(path) for path in args.signal]], "device": args.device,
        "training_chroms": chroms, "validation_chroms": VALIDATION, "test_chroms": TEST,
        "min_total_steps": args.steps, "verbose": True,
        "compile": False,  # torch 2.11 does not compile its kernel of inference
        **json.loads(args.parameters),
    }  # fmt: skip
    if not (folder / "seconds.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        (args.folder / "fit.json").write_text(json.dumps(parameters, indent=1))
        command = [sys.executable, "-m", "cherimoya_cli", "fit", "-p", args.folder / "fit.json"]
        seconds = timed(command, folder, search_path(args.upstream))
        rows = list(csv.DictReader((folder / "model.log").open(), delimiter="\t"))
        note(folder, seconds=seconds, steps=int(rows[-1]["Iteration"]))
    found = [folder / "model.torch", folder / "model.final.torch"]
    return [path for path in found if path.exists()]  # the last is missing if it was cut off


def note(folder: Path, **values: object) -> None:
    (folder / "seconds.json").write_text(json.dumps(values))


def predictions(
    models: Sequence[Path], package: Path, name: str, args: argparse.Namespace
) -> list[tuple[Prediction, Prediction]]:
    """Of each model: forward strand, and mean of both strands."""
    output = args.folder / f"{name}.npz"
    command = [
        sys.executable, HERE / "predict.py", args.folder / "test.npz", output, *models,
        "--device", args.device,
    ]  # fmt: skip
    environment = {**os.environ, **search_path(package)}
    if not output.exists():
        words = [str(word) for word in command]
        subprocess.run(words, env=environment, check=True, cwd=args.folder)
    found = np.load(output)
    return [
        tuple(Prediction(found[f"p{i}{end}"], found[f"counts{i}{end}"]) for end in ("", "_both"))
        for i in range(len(models))
    ]  # type: ignore[misc]


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    rows = list(rows)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            written = {k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()}
            writer.writerow(written)
            print(" ".join(map(str, written.values())))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prepared", type=Path, help="made by cherimoya-prepare with max_jitter=500")
    parser.add_argument("folder", type=Path, help="for everything that is made")
    parser.add_argument("--upstream", type=Path, required=True, help="folder of its packages")
    parser.add_argument("--genome", type=Path, required=True, help="FASTA, gzip")
    parser.add_argument("--signal", type=Path, nargs="+", required=True, help="bigWig files")
    parser.add_argument("--steps", type=int, default=10_000, help="of upstream, at least")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--parameters", default="{}", help="more of upstream's, as JSON")
    parser.add_argument("words", nargs="*", help="key=value for every run of ours")
    args = parser.parse_intermixed_args()
    for name in ("prepared", "folder", "upstream", "genome"):
        setattr(args, name, getattr(args, name).resolve())
    args.signal = [path.resolve() for path in args.signal]
    args.folder.mkdir(parents=True, exist_ok=True)
    chroms = write_loci(args.prepared, args.genome, args.folder)
    test = np.load(args.folder / "test.npz")
    signal, label = test["signal"], test["label"]

    theirs = train_upstream(chroms, args)
    made = {}
    for name in args.recipes:
        models = [train_ours(name, seed, args) for seed in range(args.seeds)]
        made[name] = predictions(models, REPOSITORY, name, args)
    made["upstream"] = predictions(theirs, args.upstream, "upstream", args)

    rows = []
    for name, singles in made.items():
        names = [f"{name}_{seed}" for seed in range(args.seeds)]
        if name == "upstream":
            names = ["upstream", "upstream, last epoch"][: len(singles)]
        for which, both in zip(names, singles, strict=True):
            timing = json.loads((args.folder / which.split(",")[0] / "seconds.json").read_text())
            for strands, prediction in enumerate(both, start=1):
                found = scores(prediction, signal, label)
                rows.append({"model": which, "models": 1, "strands": strands, **found, **timing})
        if name != "upstream":
            for strands in (1, 2):
                ensemble = mean_of([both[strands - 1] for both in singles])
                found = scores(ensemble, signal, label)
                shape = {"models": args.seeds, "strands": strands}
                rows.append({"model": name, **shape, **found, "seconds": None, "steps": None})
    write(args.folder / "scores.csv", rows)

    gains = []
    for name in args.recipes:
        ours = [both[0] for both in made[name]]
        for theirs, both in zip(("best", "last"), made["upstream"], strict=False):
            found = differences(ours, [both[0]], signal, label)
            for score, (gain, low, high) in found.items():
                row = {"recipe": name, "epoch of upstream": theirs, "score": score}
                gains.append({**row, "gain": gain, "low": low, "high": high})
    write(args.folder / "differences.csv", gains)


if __name__ == "__main__":
    main()
