"""Predictions of checkpoints, by whichever package named `cherimoya` is found first.

    PYTHONPATH=<one of both> python predict.py loci.npz predictions.npz MODEL...

Both packages name the class, its `load` and what `forward` returns alike. Nothing else is used.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cherimoya import Cherimoya

BATCH = 256


def load(path: Path, device: str) -> torch.nn.Module:
    """The network at `path`; upstream's as it is, not compiled."""
    try:
        model = Cherimoya.load(str(path), device=device, compile=False)
    except TypeError:
        model = Cherimoya.load(str(path)).to(device)
    return model.eval()


@torch.no_grad()
def predict(model: torch.nn.Module, X: np.ndarray, device: str) -> tuple[Tensor, Tensor]:
    """Probabilities (n, tracks, L) and log counts (n,) of one-hot X (n, 4, in_window)."""
    p, log_counts = [], []
    for start in range(0, len(X), BATCH):
        logits, counts = model(torch.from_numpy(X[start : start + BATCH]).float().to(device))
        p.append(logits.flatten(1).softmax(1).view_as(logits).cpu())
        log_counts.append(counts[:, 0].cpu())
    return torch.cat(p), torch.cat(log_counts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("loci", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    X = np.load(args.loci)["X"]
    found = {}
    for i, path in enumerate(args.models):
        model = load(path, args.device)
        p, log_counts = predict(model, X, args.device)
        flipped = np.ascontiguousarray(X[:, ::-1, ::-1])
        p_minus, log_counts_minus = predict(model, flipped, args.device)
        both = (p + p_minus.flip(1, 2)) / 2, (log_counts + log_counts_minus) / 2
        found |= {f"p{i}": p, f"counts{i}": log_counts, f"p{i}_both": both[0]}
        found[f"counts{i}_both"] = both[1]
    np.savez(args.output, **{name: values.numpy() for name, values in found.items()})


if __name__ == "__main__":
    main()
