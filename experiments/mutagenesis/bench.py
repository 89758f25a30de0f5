"""Saturation mutagenesis, ours beside what upstream's `attribute` command runs, in turn.

    cherimoya-train data.in_window=2114 data.out_window=1000 data.max_jitter=128 \\
        model.profile_kernel_size=75 hydra.run.dir=outputs/wide
    python experiments/mutagenesis/bench.py --checkpoint outputs/wide --upstream FOLDER

FOLDER comes from `pip install --no-deps --target FOLDER cherimoya==0.3.1 tangermeme tqdm`. The
model is exported to upstream's format; each round measures both on the same simulated loci. Appends
to results.csv.
"""

import argparse
import datetime
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from upstream import Request, Upstream

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]

from rows import append_row  # noqa: E402

from cherimoya.cli.train import process_wide_switches  # noqa: E402
from cherimoya.config.data import SyntheticConfig  # noqa: E402
from cherimoya.data.synthetic import simulate  # noqa: E402
from cherimoya.genome.sequence import one_hot  # noqa: E402
from cherimoya.inference.checkpoints import find_checkpoint  # noqa: E402
from cherimoya.interpret.mutagenesis import centred, default_batch, saturation_mutagenesis  # noqa: E402
from cherimoya.interpret.target import Target  # noqa: E402
from cherimoya.network import Cherimoya  # noqa: E402
from cherimoya.records.provenance import cpu_name, git_commit  # noqa: E402

COLUMNS = (
    "date", "commit", "machine", "torch", "upstream", "tangermeme", "n_filters", "in_window",
    "loci", "window", "target", "contender", "precision", "batch_size", "seconds", "mutants_per_s",
    "ratio", "rms_to_ours", "rms_to_float64", "worst_locus",
)  # fmt: skip
UPSTREAM_BATCH = 64  # its default
# Upstream's dtypes, and the precision of ours that is set beside each; on a GPU its products of
# float32 are TF32.
DTYPES = {"float32": "tf32", "bfloat16": "bf16"}
OUTPUTS = {"counts": "logcounts", "profile": "profile"}
Way = Callable[[], tuple[float, np.ndarray]]


class Bench:
    """One model, some loci, and both contenders."""

    def __init__(self, args: argparse.Namespace, upstream: Upstream) -> None:
        self.args, self.upstream = args, upstream
        self.device = torch.device(args.device)
        self.folder = Path(tempfile.mkdtemp())
        self.model = Cherimoya.load(find_checkpoint(args.checkpoint).path)
        self.model.export_upstream(self.folder / "model")
        self.model.to(self.device).eval()
        self.codes = self._loci()
        torch.save(one_hot(self.codes).to(torch.int8), self.folder / "X")
        first = self.codes.shape[1] // 2 - args.window // 2
        self.window = slice(first, first + args.window)
        about = upstream.start()
        gpu = self.device.type == "cuda"
        self.run = {
            "date": datetime.date.today().isoformat(),
            "commit": args.commit or git_commit() or "",
            "machine": torch.cuda.get_device_name() if gpu else
            f"{cpu_name()}, {torch.get_num_threads()} threads",
            "torch": torch.__version__, "upstream": about["version"],
            "tangermeme": about["tangermeme"], "n_filters": self.model.iconv.out_channels,
            "in_window": args.in_window, "loci": args.loci, "window": args.window,
        }  # fmt: skip
        print(self.run, flush=True)

    def _loci(self) -> torch.Tensor:
        """Codes (N, L) of simulated peaks."""
        size = 8 * -(-self.args.loci // 8)
        config = SyntheticConfig(
            seed=7, n_chromosomes=4, n_peaks=size, n_background=0, mean_count=150.0
        )
        loci = simulate(config, self.args.in_window, self.args.in_window // 2, max_jitter=0)
        return torch.from_numpy(loci.sequence[: self.args.loci])

    def ours(self, target: str, precision: str) -> tuple[float, np.ndarray]:
        """Seconds, and effects (N, 4, W) less their mean over the bases."""
        process_wide_switches(precision, False)
        began = time.perf_counter()
        effects = saturation_mutagenesis(
            self.model, self.codes, [Target(target)], self.window, precision=precision, bar=False
        )
        return time.perf_counter() - began, centred(effects[0])

    def theirs(self, target: str, dtype: str, batch_size: int) -> tuple[float, np.ndarray]:
        """Likewise of upstream."""
        request = Request(
            str(self.folder / "model"), str(self.folder / "X"), str(self.folder / "answer"),
            self.window.start, self.window.stop, OUTPUTS[target], dtype, batch_size,
        )  # fmt: skip
        seconds = self.upstream.measure(request, self.args.limit)["seconds"]
        return seconds, torch.load(self.folder / "answer").numpy()

    @cache  # noqa: B019
    def exact(self, target: str) -> np.ndarray:
        """The effects in float64: (N, 4, W)."""
        model = Cherimoya.load(find_checkpoint(self.args.checkpoint).path).double().to(self.device)
        began = time.perf_counter()
        effects = saturation_mutagenesis(
            model, self.codes, [Target(target)], self.window, bar=False
        )
        print(f"{target} in float64: {time.perf_counter() - began:.2f} s", flush=True)
        return centred(effects[0])

    def ways(self, target: str, dtype: str) -> dict[tuple[str, str, int], Way]:
        """What is timed, by contender, precision and batch; ours in full precision always."""
        size, ways = default_batch(self.device), {}
        beside = DTYPES[dtype] if dtype != "float32" or self.device.type == "cuda" else "fp32"
        for precision in dict.fromkeys((beside, "fp32")):
            ways["ours", precision, size] = partial(self.ours, target, precision)
        for batch in self.args.batches or sorted({UPSTREAM_BATCH, size}):
            ways["upstream", dtype, batch] = partial(self.theirs, target, dtype, batch)
        return ways

    def compare(self, target: str, dtype: str) -> None:
        """Everything in turn, `rounds` times, after one that warms up."""
        ways = self.ways(target, dtype)
        seconds: dict[tuple[str, str, int], list[float]] = {way: [] for way in ways}
        found = {}
        for i in range(1 + self.args.rounds):
            for way, run in ways.items():
                took, found[way] = run()
                if i:
                    seconds[way].append(took)
                print(f"{target} round {i} {way}: {took:.2f} s", flush=True)
        first, *_ = ways
        ours = found["ours", "fp32", default_batch(self.device)]
        exact = self.exact(target) if self.args.exact else None
        for way, times in seconds.items():
            contender, precision, batch = way
            median = statistics.median(times)
            self.row(
                target=target, precision=precision, contender=contender, batch_size=batch,
                seconds=round(median, 3),
                mutants_per_s=round(3 * self.args.window * self.args.loci / median),
                ratio=round(median / statistics.median(seconds[first]), 2),
                rms_to_ours=f"{relative_rms(found[way], ours):.1e}",
                **({} if exact is None else distances(found[way], exact)),
            )  # fmt: skip

    def row(self, **values: object) -> None:
        append_row(self.args.out, {**self.run, **values}, COLUMNS)
        print(values, flush=True)


def relative_rms(found: np.ndarray, expected: np.ndarray) -> float:
    """Root mean square of the difference over that of `expected`."""
    return float(np.linalg.norm(found.astype(np.float64) - expected) / np.linalg.norm(expected))


def distances(found: np.ndarray, exact: np.ndarray) -> dict[str, str]:
    """From effects (N, 4, W) in float64: over all loci, and of the locus that is furthest off."""
    worst = max(map(relative_rms, found, exact))
    return {
        "rms_to_float64": f"{relative_rms(found, exact):.1e}", "worst_locus": f"{worst:.1e}",
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", required=True, help="ours, with a profile kernel of 75")
    parser.add_argument("--upstream", type=Path, required=True, help="folder of its package")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--loci", type=int, default=16)
    parser.add_argument("--in-window", type=int, default=2114)
    parser.add_argument("--window", type=int, default=400, help="bases that are mutated")
    parser.add_argument("--targets", nargs="+", default=["counts", "profile"], choices=OUTPUTS)
    parser.add_argument("--dtypes", nargs="+", default=["float32"], choices=DTYPES)
    parser.add_argument("--batches", nargs="+", type=int, help="upstream's; its default and ours")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is taken")
    parser.add_argument("--exact", action="store_true", help="compare the effects with float64")
    parser.add_argument("--limit", type=float, default=600, help="seconds for one of upstream's")
    parser.add_argument("--out", type=Path, default=HERE / "results.csv")
    parser.add_argument("--commit", default="", help="written to the rows where git is missing")
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    with Upstream(args.upstream, args.device) as upstream:
        bench = Bench(args, upstream)
        for dtype in args.dtypes:
            for target in args.targets:
                bench.compare(target, dtype)


if __name__ == "__main__":
    main()
