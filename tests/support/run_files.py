"""The files of made-up runs and sweeps, for tests of what reads them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from cherimoya.records import layout, per_locus
from cherimoya.records.sweep import member_name, note_member

SCORES = {
    "profile_mnll": 271.25, "profile_pearson": 0.7366, "profile_spearman": 0.1864,
    "profile_jsd": 0.5698, "count_pearson": 0.311, "count_spearman": 0.3065, "count_mse": 0.5283,
    "auroc": 0.9975, "auprc": 0.9994,
}  # fmt: skip
BASELINE = SCORES | {"profile_pearson": 0.1482, "count_pearson": None, "count_mse": 0.4865}
CEILING = SCORES | {"profile_pearson": 0.8911, "count_pearson": 0.9807, "count_mse": 0.0186}
CONFIG = {"model": {"n_filters": 8, "n_layers": 4}, "trainer": {"max_epochs": 3}, "seed": 0}


def make_run(
    folder: Path,
    state: str = "done",
    config: Mapping[str, Any] = CONFIG,
    changed: Mapping[str, Any] | None = None,
    epochs: int = 3,
    **summary: Any,
) -> Path:
    """A run folder with everything but checkpoints, and with a summary when it is done."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(config)))
    if changed is not None:
        (folder / "changed.json").write_text(json.dumps(dict(changed)))
    status = {"state": state, "host": "here", "started": "2026-01-02T03:04:05+0000", "seconds": 9.0}
    if state == "failed":
        status |= {"error": "the loss is not finite", "traceback": "Traceback: it was <inf>\n"}
    (folder / "status.json").write_text(json.dumps(status))
    rows = [
        {
            "step": 10 * (e + 1),
            "epoch": e,
            "train/loss": 9.0 - e,
            "valid/loss": 300.0 + (e - 1) ** 2,
        }
        | {f"valid/{name}": value for name, value in SCORES.items()}
        | {"valid/profile_pearson": 0.5 + 0.0111 * e, "lr/muon": 0.02, "lr/adamw": 0.004}
        | {"loss/lw0": 1.0 + e, "loss/lw1": 1.2, "loss/frozen": 2 * (e > 0)}
        for e in range(epochs)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if state == "done":
        found = {
            "best_epoch": 1, "epochs": epochs, "steps": 10 * epochs, "train_seconds": 90.0,
            "best_valid_loss": 300.0, "parameters": 1829, "scored_split": "test",
            "speed": {"ms_per_step": 40.73, "sequences_per_second": 196.4,
                      "waiting_for_data": 0.0, "peak_memory_mb": 512.0},
            "window": {"in": 320, "out": 160, "receptive_field": 51},
            "provenance": {"cpu": "a processor", "gpu": None, "git_commit": "abc123",
                           "command": "cherimoya-train seed=0", "versions": {"torch": "2.13.0"},
                           "data_fingerprint": "f00d", "precision": "fp32"},
            "test": SCORES, "average_profile": BASELINE, "ceiling": CEILING,
        }  # fmt: skip
        (folder / "summary.json").write_text(json.dumps(found | summary))
    return folder


def add_loci(folder: Path, n: int = 40, name: str = "chr1") -> None:
    """The files of single loci, of one stranded group."""
    noise = np.random.default_rng(0)
    lines = ["chrom\tstart\tend\tlabel\tobserved_log_counts\tpredicted_log_counts\tprofile_mnll\t"
             "profile_pearson\tprofile_jsd"]  # fmt: skip
    for i in range(n):
        seen, guess, score = noise.normal(5, 1), noise.normal(5, 1), noise.random()
        cell = f"{score:.5f}" if i % 7 else ""
        lines.append(
            f"{name}\t{i}\t{i + 160}\t{int(i % 4 > 0)}\t{seen}\t{guess}\t300\t{cell}\t{cell}"
        )
    (folder / layout.SCORED_LOCI).write_text("\n".join(lines) + "\n")
    shape = (2, 2, 160)
    per_locus.write_examples(
        folder / layout.EXAMPLES,
        per_locus.Examples(
            chrom=np.array([name, name]), start=np.array([1000, -1]), end=np.array([1160, -1]),
            observed=noise.poisson(1.0, shape).astype("f4"), expected=np.ones(shape, "f4"),
            sign=np.array([1, -1]), track_names=np.array(["plus", "minus"]),
        ),
    )  # fmt: skip


def add_member(sweep: Path, state: str = "done", loss: float = 300.0, **values: Any) -> Path:
    """A run of a sweep: `values` are its overrides (n_layers is model.n_layers) and summary's."""
    short = {"n_layers": "model.n_layers", "n_filters": "model.n_filters", "lr": "optim.adamw.lr"}
    known = {"parameters", "train_seconds", "test", "window"}
    overrides = {short.get(k, k): str(v) for k, v in values.items() if k not in known}
    config = {"model": {"n_layers": values.get("n_layers", 4), "n_filters": 8}, "seed": 0}
    folder = make_run(
        sweep / member_name(overrides), state, config, best_valid_loss=loss,
        **{k: v for k, v in values.items() if k in known},
    )  # fmt: skip
    note_member(folder, overrides)
    return folder
