"""Rows of results.csv, and the table of a run."""

from collections.abc import Mapping

from cases import MUST, MUST_MEMORY, Case
from timing import Ceilings, Result

CONTENDERS = ("ours", "native", "compiled", "upstream")
COLUMNS = (
    "date", "commit", "gpu", "torch", "triton", "work", "direction", "contender", "dtype", "tf32",
    "N", "L", "C", "H", "d", "ms", "GB/s", "TFLOP/s", "roofline", "peak_MB", "timing", "error",
)  # fmt: skip
Results = dict[Case, dict[str, Result]]


def make_row(
    run: Mapping[str, str], case: Case, contender: str, result: Result, ceilings: Ceilings
) -> dict[str, object]:
    """One line of the CSV; `run` holds the columns that its rows share."""
    teraflops = round(case.flops / result.ms / 1e9, 1) if case.flops else ""
    return {
        **run,
        **case.as_dict(),
        "contender": contender,
        "tf32": int(case.tf32),
        "H": case.hidden,
        "ms": round(result.ms, 5),
        "GB/s": round(case.least_bytes / result.ms / 1e6, 1),
        "TFLOP/s": teraflops,
        "roofline": round(ceilings.floor_ms(case) / result.ms, 4),
        "peak_MB": "" if result.peak_mb is None else round(result.peak_mb, 1),
        "timing": result.timing,
        "error": "" if result.error is None else f"{result.error:.1e}",
    }


def table(results: Results, ceilings: Ceilings) -> str:
    """Milliseconds of every contender, the best other over ours, and ours on the roofline."""
    header = ("work", "direction", "dtype", "N", "L", "C", *CONTENDERS, "other/ours", "roofline")
    lines = [header]
    for case, by_contender in results.items():
        ours = by_contender.get("ours")
        others = [result.ms for name, result in by_contender.items() if name != "ours"]
        cells = [case.work, case.direction, case.dtype, *map(str, (case.N, case.L, case.C))]
        cells += [_ms(by_contender.get(name)) for name in CONTENDERS]
        cells.append(f"{min(others) / ours.ms:.2f}x" if ours and others else "-")
        cells.append(f"{ceilings.floor_ms(case) / ours.ms:.0%}" if ours else "-")
        lines.append(tuple(cells))
    return _aligned(lines)


def must_table(results: Results) -> str:
    """Ours against the times and the memory that the design asks for; empty if none was timed."""
    lines = [("must", "", "", "limit", "ours", "met")]
    for case, limit in MUST.items():
        ours = results.get(case, {}).get("ours")
        if ours:
            met = "yes" if ours.ms <= limit else "NO"
            name = (case.work, case.direction, case.dtype)
            lines.append((*name, f"<= {limit:g} ms", f"{ours.ms:.3f} ms", met))
    for case, share in MUST_MEMORY.items():
        by_contender = results.get(case, {})
        ours, rival = (by_contender.get(name) for name in ("ours", "upstream"))
        if ours and rival and ours.peak_mb is not None and rival.peak_mb is not None:
            limit = share * rival.peak_mb
            met = "yes" if ours.peak_mb <= limit else "NO"
            name = (case.work, "memory", case.dtype)
            lines.append((*name, f"<= {limit:.0f} MB", f"{ours.peak_mb:.0f} MB", met))
    return _aligned(lines) if len(lines) > 1 else ""


def _ms(result: Result | None) -> str:
    if result is None:
        return "-"
    return f"{result.ms:.3f}{'*' if result.timing == 'eager' else ''}"


def _aligned(lines: list[tuple[str, ...]]) -> str:
    """Columns of equal width: the first to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    padded = [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join(padded)
