"""Time the fused kernels beside native PyTorch, torch.compile and upstream, after a parity check.

    python experiments/kernels/bench.py --quick --upstream FOLDER
    python experiments/kernels/bench.py --grid --upstream FOLDER
    python experiments/kernels/bench.py --quick --smoke --device cpu   # the flow, at tiny sizes

FOLDER comes from `pip install --no-deps --target FOLDER cherimoya==0.3.1`.
Appends each row to results.csv as it is measured. Exits with 1 if parity fails or ours breaks.
"""

import argparse
import datetime
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import triton
from cases import RESIDUAL_SCALE, Case, grid, parity_case, quick, smoke, to_compile
from parity import ROOT, Verdict, compiled, judge, native
from report import COLUMNS, CONTENDERS, Results, make_row, must_table, table
from timing import (
    Ceilings,
    Forward,
    Result,
    autocast,
    free_memory,
    in_one_line,
    measure,
    measure_ceilings,
)
from torch import Tensor
from upstream import Upstream

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))

from rows import append_row  # noqa: E402

BUDGET = {"quick": 220.0, "grid": 520.0}  # seconds
# The part of the budget after which a contender starts nothing more: the rest is others'.
SHARE = {"ours": 1.0, "native": 1.0, "upstream": 0.9, "compiled": 1.0}
# Seconds that a contender must have left to start a case; upstream is ended when it runs over.
RESERVE = {"ours": 5.0, "native": 5.0, "upstream": 10.0, "compiled": 30.0}
Measure = Callable[[Case], Result]


def ours(case: Case, weights: list[Tensor]) -> tuple[Forward, list[Tensor]]:
    """The package's kernels, through its public functions."""
    from cherimoya.ops.block.op import cheri_block
    from cherimoya.ops.conv_norm.op import fused_dilated_conv_norm

    def forward(x: Tensor) -> Tensor:
        with autocast(x):
            if case.work == "conv_norm":
                return fused_dilated_conv_norm(x, weights[0], case.d)
            for i, dilation in enumerate(case.dilations):
                x = cheri_block(x, *weights[3 * i : 3 * i + 3], dilation, RESIDUAL_SCALE)
        return x

    return forward, weights


class Bench:
    """One run: its budget, what it has measured, and where the rows go."""

    def __init__(self, args: argparse.Namespace, device: torch.device) -> None:
        self.start, self.device, self.args = time.monotonic(), device, args
        self.results: Results = {}
        self.verdicts: dict[tuple[str, str, bool], Verdict] = {}
        self.broken = False
        self.run = {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "commit": args.commit or _commit(),
            "gpu": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
            "torch": torch.__version__,
            "triton": triton.__version__,
        }
        self.say(" ".join(f"{key}={value}" for key, value in self.run.items()))
        self.ceilings: Ceilings = measure_ceilings(device)
        gemm = ", ".join(f"{k} {v:.0f}" for k, v in self.ceilings.gemm_tflops.items())
        self.say(f"ceilings: {self.ceilings.copy_gbs:.0f} GB/s; TFLOP/s {gemm}")

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.start:4.0f} s] {text}", flush=True)

    def seconds_left(self, contender: str) -> float:
        return self.start + SHARE[contender] * self.args.budget - time.monotonic()

    def judge_all(self, cases: list[Case]) -> list[Case]:
        """Compare every work and dtype with float64; returns the cases that may be timed."""
        for work, dtype in dict.fromkeys((case.work, case.dtype) for case in cases):
            case = self.parity_case(work, dtype)
            for tf32 in dict.fromkeys((False, case.tf32)):
                verdict = judge(ours, case, self.device, tf32)
                self.verdicts[work, dtype, tf32] = verdict
                self.say(str(verdict))
        bad = {(work, dtype) for (work, dtype, _), v in self.verdicts.items() if v.broken}
        self.broken |= bool(bad)
        for work, dtype in bad:
            self.say(f"{work} {dtype} is not timed: parity failed")
        return [case for case in cases if (case.work, case.dtype) not in bad]

    def parity_case(self, work: str, dtype: str) -> Case:
        case = parity_case(work, dtype)
        return smoke(case) if self.args.smoke else case

    def time_all(self, contender: str, cases: list[Case], measure_case: Measure) -> None:
        """Time one contender on each case while its share of the budget lasts."""
        for i, case in enumerate(cases):
            if self.seconds_left(contender) < RESERVE[contender]:
                rest = ", ".join(map(str, cases[i:]))
                self.say(f"{contender}: out of time, skipped {len(cases) - i}: {rest}")
                return
            try:
                result = measure_case(case)
            except Exception as error:  # an exotic kernel error must not lose the other rows
                self.broken |= contender == "ours" and "out of memory" not in str(error)
                self.say(f"{case}: {contender} skipped, {in_one_line(error)}")
                continue
            finally:
                free_memory(self.device)
            self.record(case, contender, result)

    def record(self, case: Case, contender: str, result: Result) -> None:
        self.results.setdefault(case, {})[contender] = result
        row = make_row(self.run, case, contender, result, self.ceilings)
        append_row(self.args.out, row, COLUMNS)
        share = f"{row['roofline']:.0%} of the roofline"
        self.say(f"{case}: {contender} {result.ms:.4f} ms ({result.timing}), {share}")

    def measure_here(self, contender: str) -> Measure:
        """In this process, with the error that parity found."""
        build = {"ours": ours, "native": native, "compiled": compiled}[contender]

        def measure_case(case: Case) -> Result:
            verdict = self.verdicts[case.work, case.dtype, case.tf32]
            error = {"ours": verdict.worst, "native": verdict.native}.get(contender)
            return replace(measure(build, case, self.device), error=error)

        return measure_case

    def measure_upstream(self, upstream: Upstream) -> Measure:
        def measure_case(case: Case) -> Result:
            return upstream.measure(case, self.seconds_left("upstream"))

        return measure_case


def time_upstream(bench: Bench, cases: list[Case]) -> None:
    """Upstream in its own process, or a line that says why it does not start."""
    upstream = Upstream(bench.args.upstream, bench.args.device)
    try:
        bench.say(f"upstream {upstream.start()['version']} from {upstream.folder}")
        bench.time_all("upstream", cases, bench.measure_upstream(upstream))
    except RuntimeError as error:
        bench.say(f"upstream is not timed: {error}")
    finally:
        upstream.close()


def _commit() -> str:
    from cherimoya.records.provenance import git_commit

    return git_commit() or ""


def choose_cases(args: argparse.Namespace) -> list[Case]:
    """The cases of the run, in the order of their worth."""
    cases = quick() if args.quick else grid()
    cases = [case for case in cases if case.work in args.works and args.only in str(case)]
    return list(dict.fromkeys(map(smoke, cases))) if args.smoke else cases


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--quick", action="store_true", help="the works with a time to meet")
    which.add_argument("--grid", action="store_true", help="widths, lengths, batches, precisions")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to test this program")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--upstream", type=Path, help="folder that holds upstream's cherimoya")
    parser.add_argument("--budget", type=float, help="seconds, after which rows are skipped")
    works = ("conv_norm", "block", "stack")
    parser.add_argument("--works", nargs="+", choices=works, default=works)
    parser.add_argument("--only", default="", help='cases whose name holds this, as "C=32"')
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--out", type=Path, default=HERE / "results.csv")
    parser.add_argument("--commit", default="", help="written to the rows where git is missing")
    args = parser.parse_args()
    args.budget = args.budget or BUDGET["quick" if args.quick else "grid"]
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU; --device cpu --smoke tests the flow")
    return args


def main() -> int:
    args = parse_arguments()
    sys.path.insert(0, str(ROOT))
    bench = Bench(args, torch.device(args.device))
    cases = bench.judge_all(choose_cases(args))
    for contender in ("ours", "native"):
        if contender in args.contenders:
            bench.time_all(contender, cases, bench.measure_here(contender))
    if args.upstream and "upstream" in args.contenders:
        time_upstream(bench, cases)
    if "compiled" in args.contenders:
        bench.time_all("compiled", to_compile(cases), bench.measure_here("compiled"))
    print(f"\nms, * timed eagerly; {bench.run['gpu']}\n{table(bench.results, bench.ceilings)}")
    print(f"\n{must_table(bench.results)}", flush=True)
    return int(bench.broken)


if __name__ == "__main__":
    raise SystemExit(main())
