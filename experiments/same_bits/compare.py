"""Whether two checkouts train and predict the same to the bit, for five recipes.

    git worktree add /tmp/before <commit>
    python experiments/same_bits/compare.py --before /tmp/before [--after .] [--device cpu]

Both run with this Python. Each recipe trains two epochs, and the best model predicts random
sequences; weights, rows of metrics and predictions are compared.
A row per recipe is added to results.csv.
"""

import argparse
import csv
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
RECIPES = {
    "default": [],
    "fixed loss, AdamW": ["loss=fixed", "optim=adamw"],
    "Muon, AdamW and SGD, constant EMA": ["optim=muon_adamw_sgd", "optim.ema_warmup=false"],
    "profile head of 75 taps, expansion 3": [
        "model.profile_kernel_size=75", "model.blocks.expansion=3"
    ],
    "streamed, another residual scale": [
        "data.placement=stream", "model.blocks.residual_scale=0.3"
    ],
}  # fmt: skip
SMALL = [
    "model=tiny", "logger=none", "seed=5",
    "trainer.max_epochs=2", "trainer.plots=false", "trainer.threads=1",
    "data.synthetic.n_peaks=96", "data.synthetic.n_background=24", "trainer.batch_size=16",
]  # fmt: skip
TRAIN = """
import importlib
try:
    home = importlib.import_module("cherimoya.cli.train")
except ImportError:  # where the command line was one file
    home = importlib.import_module("cherimoya.cli")
home.train()
"""
DIGESTS = """
import hashlib, json, sys
import numpy as np, torch, cherimoya
from pathlib import Path
run = Path(sys.argv[1])
torch.set_num_threads(1)
def digest(tensors):
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
def weights(name):
    model = cherimoya.Cherimoya.load(run / "checkpoints" / name)
    return digest(model.state_dict().values())
clock = ("_ms", "seconds", "per_second", "wait", "gpu_gb", "memory", "time")
clock += ("loss/",)  # which rows of before have not
rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
rows = [{k: v for k, v in row.items() if not any(word in k for word in clock)} for row in rows]
model = cherimoya.load(run)
bases = np.random.default_rng(0).choice(list("ACGT"), (8, 320))
answer = cherimoya.predict(model, ["".join(row) for row in bases])
print(json.dumps({
    "best": weights("best.pt"), "final": weights("final.pt"),
    "metrics": hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16],
    "predictions": digest([answer.logits, answer.log_counts]),
}))
"""


def ran(checkout: Path, code: str, *arguments: str, cwd: Path) -> str:
    """The output of a program that imports the package of `checkout`."""
    paths = os.pathsep.join([str(checkout), *filter(None, [os.environ.get("PYTHONPATH")])])
    around = os.environ | {"PYTHONPATH": paths, "XDG_CACHE_HOME": str(cwd / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env=around,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{checkout}: {' '.join(arguments)}\n{done.stdout}{done.stderr}")
    return done.stdout


def digests(checkout: Path, recipe: list[str], device: str) -> dict[str, str]:
    """Of weights, metrics and predictions after two epochs."""
    with tempfile.TemporaryDirectory() as folder:
        here, run = Path(folder), Path(folder) / "run"
        given = [*SMALL, *recipe, f"trainer.device={device}", f"hydra.run.dir={run}"]
        ran(checkout, TRAIN, *given, cwd=here)
        return json.loads(ran(checkout, DIGESTS, str(run), cwd=here).splitlines()[-1])


def commit(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def machine(device: str) -> str:
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else f"CPU {platform.machine()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, required=True, help="the checkout to agree with")
    parser.add_argument("--after", type=Path, default=HERE.parents[1], help="the other one")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    asked = parser.parse_args()
    about = {
        "date": datetime.date.today().isoformat(), "machine": machine(asked.device),
        "torch": version("torch"), "before": commit(asked.before), "after": commit(asked.after),
    }  # fmt: skip
    different = []
    for name, recipe in RECIPES.items():
        before, after = (
            digests(checkout.resolve(), recipe, asked.device)
            for checkout in (asked.before, asked.after)
        )
        same = {key: "same" if before[key] == after[key] else "different" for key in before}
        different += [f"{name}: {key}" for key in same if same[key] != "same"]
        print(f"{name}: " + ", ".join(f"{key} {word}" for key, word in same.items()), flush=True)
        append({**about, "recipe": name, **same})
    raise SystemExit("\n".join(different) or 0)


def append(row: dict[str, str]) -> None:
    path = HERE / "results.csv"
    new = not path.exists()
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if new:
            writer.writeheader()
        writer.writerow(row)


if __name__ == "__main__":
    main()
