"""Whether Hopper's Gluon kernels are worth their code: times beside the portable Triton kernels.

    python experiments/kernels/gluon.py            # on an H100 or H200, about 3 minutes
    python experiments/kernels/gluon.py --smoke    # the flow, in the interpreter

One row a shape goes to gluon.csv: milliseconds of one Cheri Block with each, one after the other
in one process, and their ratio. `CHERIMOYA_KERNELS` chooses the kernels, as for users.
"""

import argparse
import datetime
import os
import sys
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import torch
import triton
from bench import ours
from cases import Case
from timing import measure

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))

from rows import append_row  # noqa: E402

KERNELS = {"gluon": "triton", "portable": "portable"}
WIDTHS = (32, 64, 96, 128)
BATCHES = (64, 512)
DTYPES = ("bf16", "fp16", "fp32")  # fp32 with TF32 products
DIRECTIONS = ("fwd", "fwd_bwd")
SMOKE = Case("block", "fwd", "fp32", 2, 64, 32)


def cases() -> list[Case]:
    grid = product(WIDTHS, BATCHES, DTYPES, DIRECTIONS)
    return [Case("block", way, dtype, n, 2114, width) for width, n, dtype, way in grid]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="one tiny shape on the CPU")
    parser.add_argument("--out", type=Path, default=HERE / "gluon.csv")
    arguments = parser.parse_args()
    device = torch.device("cpu" if arguments.smoke else "cuda")
    run = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "gpu": "cpu" if arguments.smoke else torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
    }
    for case in [SMOKE, replace(SMOKE, direction="fwd_bwd")] if arguments.smoke else cases():
        ms = {}
        for name, kernels in KERNELS.items():
            os.environ["CHERIMOYA_KERNELS"] = kernels
            ms[name] = round(measure(ours, case, device).ms, 4)
        gain = round(ms["portable"] / ms["gluon"], 3)
        append_row(arguments.out, run | asdict(case) | ms | {"gain": gain})
        print(f"{case}: {ms} gain {gain}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
