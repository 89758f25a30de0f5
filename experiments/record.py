"""Append the scores of a finished run, or of each one of a sweep, to a table of results.

    python experiments/record.py outputs/<date>/<run> experiments/yeast/results.csv --name stripeseq
    python experiments/record.py outputs/sweeps/<name> experiments/depth_width/results.csv

A row holds the date and, as the run itself noted them, its machine, versions, commit, seed, size
and test scores beside those of the average profile and, where the truth is known, the ceiling.
"""

import argparse
import csv
import datetime
import json
from pathlib import Path

from omegaconf import OmegaConf

SCORES = ("profile_mnll", "profile_pearson", "profile_jsd", "count_pearson", "count_mse", "auroc")


def row_of(run: Path, name: str) -> dict[str, object]:
    """The row of the run in folder `run`."""
    summary = json.loads((run / "summary.json").read_text())
    status = json.loads((run / "status.json").read_text())
    config = OmegaConf.load(run / "config.yaml")
    origin = summary["provenance"]
    columns = [c for c in (summary["scored_split"], "average_profile", "ceiling") if c in summary]
    scores = {
        f"{column} {score}": round(summary[column][score], 4)
        for column in columns
        for score in SCORES
        if summary[column][score] is not None
    }
    return {
        "date": datetime.date.today().isoformat(),
        "run": name,
        "machine": origin["gpu"] or origin["cpu"],
        "versions": ", ".join(f"{name} {version}" for name, version in origin["versions"].items()),
        "commit": origin["git_commit"],
        "seed": config.seed,
        "parameters": summary["parameters"],
        "epochs": summary["epochs"],
        "steps": summary["steps"],
        "train_seconds": summary["train_seconds"],
        "total_seconds": status["seconds"],
        **scores,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of a run, or of a sweep")
    parser.add_argument("table", type=Path, help="the CSV to append to")
    parser.add_argument("--name", help="what the run is called in the table, else as its folder")
    args = parser.parse_args()
    folder = args.folder
    runs = [path.parent for path in sorted(folder.glob("*/summary.json"))] or [folder]
    rows = list(csv.DictReader(args.table.open())) if args.table.exists() else []
    rows += [row_of(run, args.name or run.name) for run in runs]
    fields = list(dict.fromkeys(key for r in rows for key in r))
    with args.table.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, fields)
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
