"""A whole training step and a whole epoch, ours beside upstream 0.3.1, on this GPU.

    python experiments/train_step/bench.py --upstream FOLDER
    python experiments/train_step/bench.py --smoke --device cpu     # the flow, at tiny sizes

FOLDER comes from `pip install --no-deps --target FOLDER cherimoya==0.3.1`. Appends to results.csv
(a row a measurement) and parts.csv (where a step's time goes).
"""

import argparse
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from commands import time_devices, time_start
from ours import Bench
from settings import Setup
from upstream import Request, Upstream

HERE = Path(__file__).resolve().parent
PRECISIONS = ("bf16", "tf32")
FILTERS = (96, 128)
UPSTREAM_KERNEL = 75  # of its profile head
ALL = ("ours", "start", "devices", "epoch", "memory", "upstream")
Try = Callable[[], object]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--upstream", type=Path, help="folder that holds upstream's cherimoya")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to test this program")
    parser.add_argument("--budget", type=float, default=420, help="seconds for everything")
    parser.add_argument("--only", nargs="+", default=ALL, choices=ALL)
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--filters", nargs="+", type=int, default=FILTERS, choices=FILTERS)
    parser.add_argument("--out", type=Path, default=HERE / "results.csv")
    parser.add_argument("--commit", default="", help="written to the rows where git is missing")
    args = parser.parse_args()
    if args.device == "cpu":
        args.precisions = ("fp32",)
    if args.smoke:
        args.filters = (8,)
    return args


def measurements(bench: Bench) -> Iterator[Try]:
    """What is measured of ours, in the order of its worth."""
    args, n, main = bench.args, bench.args.filters[0], bench.args.precisions[0]
    if "ours" in args.only:
        setups = [Setup(n, p) for p in args.precisions] + rivals(args)
        if len(args.precisions) > 1:
            setups += [Setup(n, main, graph=False), Setup(n, "fp16"), Setup(n, "fp32")]
        yield from (partial(bench.time_step, setup) for setup in setups)
    if "start" in args.only:
        yield partial(time_start, bench, Setup(n, main))
    if "devices" in args.only:
        yield partial(time_devices, bench, Setup(n, main))
    if "epoch" in args.only:
        for placement in ("resident", "stream"):
            yield partial(bench.time_epoch, Setup(n, main, placement=placement))
    if "memory" in args.only:
        yield partial(bench.find_largest_batch, Setup(n, main, UPSTREAM_KERNEL))


def rivals(args: argparse.Namespace) -> list[Setup]:
    """What upstream is compared in."""
    return [Setup(n, p, UPSTREAM_KERNEL) for n in args.filters for p in args.precisions]


def upstream_measurements(bench: Bench, rival: Upstream) -> Iterator[Try]:
    args = bench.args
    if "memory" in args.only:
        yield partial(find_upstreams_largest, bench, rival, rivals(args)[0])
    if "upstream" in args.only:
        for compiled in (True, False):
            for setup in rivals(args):
                yield partial(time_upstream, bench, rival, setup, compiled)


def request_for(bench: Bench, setup: Setup, compiled: bool) -> Request:
    request = Request(
        n_filters=setup.n_filters, precision=setup.precision.replace("tf32", "fp32"),
        compiled=compiled, batch_size=setup.batch_size,
    )  # fmt: skip
    tiny = {"in_window": 600, "out_window": 100, "n_layers": 2, "batch_size": 2}
    return replace(request, **tiny) if bench.args.smoke else request


def time_upstream(bench: Bench, rival: Upstream, setup: Setup, compiled: bool) -> None:
    """Milliseconds of its step."""
    reply = rival.measure(request_for(bench, setup, compiled), max(bench.left(), 1))
    peak = reply.get("reserved_mb") if compiled else reply.get("peak_mb")
    bench.row(
        "step", "upstream compiled" if compiled else "upstream", replace(setup, graph=compiled),
        ms=round(reply["ms"], 4), peak_MB=round(peak or 0, 1),
    )  # fmt: skip


def find_upstreams_largest(bench: Bench, rival: Upstream, setup: Setup) -> None:
    """Its largest batch, not compiled: every size would take minutes to compile."""
    request = replace(request_for(bench, setup, False), task="memory")
    reply = rival.measure(request, max(bench.left(), 1))
    rival.close()  # with all the memory that it took
    bench.row("largest batch", "upstream", replace(setup, graph=False, batch_size=reply["largest"]))


def attempt(bench: Bench, tries: Iterator[Try]) -> None:
    """Each in turn while there is time; what fails is said, and the other rows still count."""
    for one in tries:
        if bench.left() < 20:
            bench.say("out of time")
            return
        try:
            one()
        except Exception as error:
            bench.say(f"failed: {type(error).__name__}: {str(error)[:600]}")
            traceback.print_exc()


def main() -> None:
    args = parse_arguments()
    bench = Bench(args)
    attempt(bench, measurements(bench))
    if args.upstream and {"upstream", "memory"} & set(args.only):
        bench.free()
        with Upstream(args.upstream, args.device) as rival:
            attempt(bench, upstream_measurements(bench, rival))


if __name__ == "__main__":
    main()
