"""How large is the page of a sweep of 100 runs, and how fast does it open?

    python experiments/report_pages/bench.py [--folder /tmp/sweep] [--chromium chromium]

The sweep is made up: 100 run folders with the files that a real one leaves, but numbers from a
formula with noise. Nothing was trained. The page is opened in headless Chromium several times; a
script in a copy of it notes when everything was loaded and laid out. A row goes to results.csv.
"""

import argparse
import datetime
import itertools
import json
import math
import platform
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jinja2
import matplotlib
import yaml

from cherimoya.records.provenance import cpu_name, git_commit
from cherimoya.records.sweep import member_name, note_member
from cherimoya.report.pages import write_report

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))

from rows import append_row  # noqa: E402

RESULTS = HERE / "results.csv"
DEPTHS, WIDTHS, SEEDS = (5, 6, 7, 8, 9), (32, 64, 96, 128, 160), (0, 1, 2, 3)
FAILED = {(9, 160, 3), (5, 32, 1)}
NOTE_TIME = """<script>addEventListener("load", () => {
  document.body.getBoundingClientRect();
  document.documentElement.dataset.opened = performance.now();
});</script>"""


def make_sweep(folder: Path) -> int:
    """Write the made-up sweep; returns how many runs it has."""
    noise = random.Random(0)
    runs = list(itertools.product(DEPTHS, WIDTHS, SEEDS))
    for depth, width, seed in runs:
        overrides = {"model.n_layers": depth, "model.n_filters": width, "seed": seed}
        words = {key: str(value) for key, value in overrides.items()}
        run = folder / member_name(words)
        note_member(run, words)
        make_run(run, depth, width, seed, noise)
    return len(runs)


def make_run(run: Path, depth: int, width: int, seed: int, noise: random.Random) -> None:
    """Write the files of one made-up run."""
    config = {"model": {"n_layers": depth, "n_filters": width}, "seed": seed}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    status = {"state": "done", "host": "nowhere", "started": "2026-01-01T00:00:00+0000"}
    if (depth, width, seed) in FAILED:
        status |= {"state": "failed", "error": "made up to fail", "traceback": "none\n" * 12}
    (run / "status.json").write_text(json.dumps(status | {"seconds": 60.0}))
    reach = 1 - math.exp(-depth / 3) * (8 / width) ** 0.3 + noise.gauss(0, 0.004)
    scores = {
        "profile_mnll": 420 - 60 * reach + noise.gauss(0, 0.5), "profile_pearson": 0.75 * reach,
        "profile_spearman": 0.5 * reach, "profile_jsd": 0.8 - 0.4 * reach,
        "count_pearson": 0.8 * reach + noise.gauss(0, 0.01), "count_spearman": 0.78 * reach,
        "count_mse": 1 - 0.7 * reach, "auroc": 0.99, "auprc": 0.98,
    }  # fmt: skip
    rows = [
        {"step": 100 * (e + 1), "epoch": e, "train/loss": 500 - 80 * reach * (1 - 0.8**e)}
        | {f"valid/{name}": value for name, value in scores.items()}
        | {"valid/loss": 520 - 60 * reach * (1 - 0.8 ** (e + 1)), "lr/muon": 0.025 / (e + 1)}
        for e in range(20)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = {
        "best_valid_loss": rows[-1]["valid/loss"], "best_epoch": 19, "epochs": 20, "steps": 2000,
        "train_seconds": 0.4 * depth * width, "parameters": depth * width * (4 * width + 3),
        "scored_split": "test", "test": scores, "speed": {}, "provenance": {"cpu": "made up"},
        "window": {"in": 2114, "out": 1000, "receptive_field": 2 * (10 + 2**depth - 1) + 1},
    }  # fmt: skip
    if status["state"] == "done":
        (run / "summary.json").write_text(json.dumps(summary))


def opened_ms(page: Path, chromium: str, times: int) -> list[float]:
    """Milliseconds from the start of navigation until the page is loaded and laid out."""
    copy = page.with_name("timed.html")
    copy.write_text(page.read_text().replace("</body>", NOTE_TIME + "</body>"))
    command = [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    found = []
    for _ in range(times):
        done = subprocess.run(
            [*command, f"file://{copy}"], capture_output=True, text=True, timeout=120, check=True
        )
        noted = re.search(r'data-opened="([\d.]+)"', done.stdout)
        assert noted, "the page did not finish loading"
        found.append(float(noted[1]))
    copy.unlink()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where to make the sweep up, and keep it")
    parser.add_argument("--chromium", default="chromium", help="the browser's command")
    parser.add_argument("--times", type=int, default=5, help="how often the page is opened")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp()) / "made_up"
    runs = make_sweep(folder)
    began = time.perf_counter()
    page = write_report(folder.resolve())
    made = time.perf_counter() - began
    version = subprocess.run([args.chromium, "--version"], capture_output=True, text=True).stdout
    times = opened_ms(page, args.chromium, args.times)
    row = {
        "date": datetime.date.today().isoformat(),
        "commit": git_commit(),
        "machine": cpu_name(),
        "browser": version.strip(),
        "versions": f"python {platform.python_version()}, matplotlib {matplotlib.__version__}, "
        f"jinja2 {jinja2.__version__}",
        "runs": runs,
        "page_mb": round(page.stat().st_size / 1e6, 3),
        "made_s": round(made, 2),
        "opened_ms_median": round(statistics.median(times)),
        "opened_ms_most": round(max(times)),
        "opened_times": len(times),
    }
    print(json.dumps(row, indent=2))
    append_row(RESULTS, row)
    if args.folder is None:
        shutil.rmtree(folder.parent)


if __name__ == "__main__":
    main()
