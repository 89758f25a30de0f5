"""Every kernel once under compute-sanitizer: no bad access to memory, no race in shared memory.

    python experiments/kernels/sanitize.py                  # memcheck and racecheck
    python experiments/kernels/sanitize.py --tools memcheck --precisions bf16

One process a tool and a precision trains and asks a small network, whose programs own several
tiles each, with the kernels of this GPU generation and with the portable ones. What the tools
said goes to sanitizer.csv, with the kernels that ran; exit code 1 if they found anything but what
`HAND_OVER` explains.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

TOOLS = ("memcheck", "racecheck")
PRECISIONS = ("bf16", "fp16", "tf32", "fp32")
EXAMPLES, LENGTH, LAYERS = 12, 2114, 2
WIDTHS = {"triton": (96, 64, 128, 192), "portable": (96,)}
RESULT = "SANITIZED "
ACCESS = re.compile(r"access at (\S+)\+0x\w+ in (\S+):(\d+)")
# Where a Gluon kernel hands its partitions to their warps, Triton writes a byte for each warp,
# which that warp reads. Barriers of the whole program (barrier.sync 1 in the PTX) stand between
# write and read, and between that and the next write; racecheck reports both all the same.
HAND_OVER = ("def hopper_", "if CONSUMERS == 2:", "gl.warp_specialize([")


def work(precision: str) -> None:
    """Train and ask networks of WIDTHS in this precision; prints the kernels that ran."""
    import torch
    import triton

    from cherimoya import Cherimoya
    from cherimoya.inference.precision import autocast
    from cherimoya.losses import KendallLoss, training_loss
    from cherimoya.ops.conv_norm.op import fused_dilated_conv_norm
    from cherimoya.ops.windows.op import counts, one_hot

    ran: set[str] = set()
    triton.knobs.runtime.launch_enter_hook.add(lambda launch: ran.add(launch.get()["name"]))
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    device = torch.device("cuda")
    plan = [torch.arange(EXAMPLES, device=device) % k for k in (EXAMPLES, 3, 2)]
    codes = torch.randint(5, (EXAMPLES, LENGTH + 8), dtype=torch.uint8, device=device)
    X = one_hot(codes, *plan, LENGTH)
    for kernels, widths in WIDTHS.items():
        os.environ["CHERIMOYA_KERNELS"] = kernels
        for taps, width in [(75, widths[0]), *((1, width) for width in widths)]:
            groups = [1, 2]
            model = Cherimoya(width, LAYERS, signal_groups=groups, profile_kernel_size=taps)
            model.to(device)
            window = LENGTH - 2 * model.trimming
            channels = torch.tensor([[0, 1, 2], [0, 2, 1]], device=device)
            values = torch.randint(9, (EXAMPLES, 3, window + 8), dtype=torch.int16, device=device)
            signal = counts(values, channels, *plan, window)
            with autocast(precision, device):
                logits, log_counts = model(X)
            loss = training_loss(KendallLoss(0.0), model, logits, log_counts, signal)
            loss.total.backward()
            with torch.no_grad(), autocast(precision, device):
                model(X)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    x = torch.randn(EXAMPLES, LENGTH, 100, dtype=dtype, device=device, requires_grad=True)
    taps = torch.randn(3, 100, device=device, requires_grad=True)
    fused_dilated_conv_norm(x, taps, 16).square().mean().backward()
    torch.cuda.synchronize()
    print(RESULT + json.dumps(sorted(ran)), flush=True)


def hazards(said: str) -> list[str]:
    """Kernels and lines of the races that were reported, without those that HAND_OVER explains."""
    found = set()
    for kernel, name, line in ACCESS.findall(said):
        sources = (HERE.parents[1] / "cherimoya" / "ops").rglob(name)
        texts = [source.read_text().splitlines()[int(line) - 1 : int(line)] for source in sources]
        explained = any(text and text[0].strip().startswith(HAND_OVER) for text in texts)
        found.add(f"{kernel} {name}:{line}{' (hand-over)' if explained else ''}")
    return sorted(found)


def sanitize(tool: str, precision: str, sanitizer: str, log: Path) -> dict[str, object]:
    """One process under one tool: what it said, as a row."""
    import torch
    import triton

    command = [
        sanitizer, "--tool", tool, "--target-processes", "application-only", "--print-limit", "200",
        sys.executable, __file__, "--work", precision,
    ]  # fmt: skip
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "CHERIMOYA_AUTOTUNE": "0"}
    began = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    said = done.stdout + done.stderr
    log.write_text(said)
    ran = re.search(rf"{RESULT}(.*)", said)
    summary = [line for line in said.splitlines() if "SUMMARY" in line]
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "tool": tool,
        "precision": precision,
        "exit": done.returncode,
        "summary": "; ".join(line.strip("= ") for line in summary) or "no summary",
        "seconds": round(time.monotonic() - began),
        "hazards": "; ".join(hazards(said)),
        "kernels": " ".join(json.loads(ran[1])) if ran else "did not end",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--out", type=Path, default=HERE / "sanitizer.csv")
    parser.add_argument("--logs", type=Path, default=Path("."), help="folder of what they printed")
    parser.add_argument("--work", choices=PRECISIONS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work)
        return 0
    from rows import append_row

    sanitizer = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    bad = 0
    for tool in arguments.tools:
        for precision in arguments.precisions:
            log = arguments.logs / f"{tool}-{precision}.txt"
            row = sanitize(tool, precision, sanitizer, log)
            append_row(arguments.out, row)
            print(tool, precision, row["exit"], row["summary"], f"{row['seconds']} s", flush=True)
            clean = re.search(r"\b0 (errors|hazards)", str(row["summary"]))
            unexplained = [h for h in str(row["hazards"]).split("; ") if "hand-over" not in h]
            bad += bool(row["exit"]) or not (clean or not unexplained)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
