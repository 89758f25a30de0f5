"""What each part is worth: means over all other settings and seeds, from results.csv.

python experiments/ablation/effects.py
"""

import csv
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

HERE = Path(__file__).resolve().parent
SCORES = ("test profile_pearson", "test profile_mnll", "test count_pearson", "train_seconds")


def rows(name: str) -> list[dict[str, str]]:
    """The rows of a results file, with the settings of each run as keys."""
    with open(HERE / name, newline="") as file:
        found = list(csv.DictReader(file))
    return [row | dict(part.split("=") for part in row["run"].split(",")) for row in found]


def main() -> None:
    grid = rows("results.csv")
    print("| what | profile r | MNLL | count r | seconds |\n|---|---|---|---|---|")
    for key in ("blocks", "loss", "residual_scale", "expansion"):
        for value in sorted({row[key] for row in grid}):
            print_row(f"{key}={value}", [row for row in grid if row[key] == value])
    default = {"expansion": "2", "residual_scale": "0.15", "loss": "kendall"}
    settings = {"the default": default}
    for key, value in (("residual_scale", "1.0"), ("expansion", "1")):
        settings[f"{key}={value}"] = default | {key: value}
    for name, wanted in settings.items():
        for block in ("cheri", "convnext"):
            chosen = wanted | {"blocks": block}
            these = [row for row in grid if chosen.items() <= row.items()]
            print_row(f"{block}, {name}", these)
    by_loss = defaultdict(list)
    for row in rows("bpnet.csv"):
        by_loss[row["loss"]].append(row)
    for loss, these in by_loss.items():
        print_row(f"bpnet, {loss}", these)


def print_row(name: str, chosen: list[dict[str, str]]) -> None:
    """A line of the table: means, with the standard deviation where the rows are seeds alone."""
    cells = []
    for score in SCORES:
        values = [float(row[score]) for row in chosen]
        spread = f" +- {stdev(values):.3f}" if len(values) == 3 and score != SCORES[-1] else ""
        cells.append(f"{mean(values):.3f}{spread}")
    print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
