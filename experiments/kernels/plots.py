"""Figures and a Markdown table from results.csv alone.

    python experiments/kernels/plots.py    # works.png beside it; of a grid times and roofline too

Of every measurement the newest row counts, on the GPU of the newest row unless --gpu names one.
"""

import argparse
import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from cases import Case, quick
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

HERE = Path(__file__).resolve().parent
STYLES = {  # contender: label, colour, marker
    "native": ("PyTorch", "0.5", "s"),
    "compiled": ("torch.compile", "#E69F00", "^"),
    "upstream": ("upstream 0.3.1", "#D55E00", "D"),
    "ours": ("ours", "#0072B2", "o"),
}
WORKS = {"block": ("block", "#0072B2"), "conv_norm": ("conv + norm", "#009E73")}
LINES = {"bf16": "-", "fp32": "--"}
SHAPE = {"N": 64, "L": 2114, "C": 96}  # the others of a sweep stay here
Row = dict[str, str]
Rows = dict[tuple[Case, str], Row]


def load(path: Path, gpu: str | None) -> tuple[Rows, str]:
    """The newest row of each case and contender, and the GPU they were measured on."""
    with path.open(newline="") as handle:
        rows = sorted(csv.DictReader(handle), key=lambda row: row["date"])
    if not rows:
        raise SystemExit(f"{path}: no rows; run bench.py first")
    chosen = gpu or rows[-1]["gpu"]
    newest = {(_case(row), row["contender"]): row for row in rows if row["gpu"] == chosen}
    if not newest:
        names = ", ".join(sorted({row["gpu"] for row in rows}))
        raise SystemExit(f"{path}: no rows of --gpu {chosen!r}; it has {names}")
    return newest, chosen


def _case(row: Row) -> Case:
    text = {name: row[name] for name in ("work", "direction", "dtype")}
    return Case(**text, **{name: int(row[name]) for name in ("N", "L", "C", "d")})


def _select(
    rows: Rows, contender: str, keep: Callable[[Case], bool], column: str
) -> list[tuple[Case, float]]:
    return [
        (case, float(row[column]))
        for (case, name), row in rows.items()
        if name == contender and keep(case) and row[column]
    ]


WORK_NAMES = {"conv_norm": "conv + norm", "block": "block", "stack": "9 blocks"}
DIRECTION_NAMES = {"fwd": "inference", "fwd_bwd": "forward + backward"}


def works(rows: Rows, gpu: str, path: Path) -> Path:
    """Every contender on the works of the Markdown table, on one logarithmic axis."""
    cases = [case for case in quick() if (case, "ours") in rows]
    figure = Figure(figsize=(9, 0.62 * len(cases) + 1.6), layout="constrained")
    axes = figure.subplots()
    for name, (label, colour, marker) in reversed(STYLES.items()):
        points = [
            (float(rows[case, name]["ms"]), -i)
            for i, case in enumerate(cases)
            if (case, name) in rows
        ]
        if points:
            axes.scatter(*zip(*points, strict=True), s=48, c=colour, marker=marker, label=label)
    for i, case in enumerate(cases):
        ms = [float(rows[case, name]["ms"]) for name in STYLES if (case, name) in rows]
        axes.plot([min(ms), max(ms)], [-i, -i], color="0.88", linewidth=3, zorder=0)
        ours = float(rows[case, "ours"]["ms"])
        axes.annotate(
            f"{ours:.3f}", (ours, -i), (-8, 0), textcoords="offset points",
            ha="right", va="center", fontsize=8, color=STYLES["ours"][1],
        )  # fmt: skip
    axes.set_xscale("log")
    axes.margins(x=0.12, y=0.08)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("ms, less is better")
    axes.set_yticks([-i for i in range(len(cases))], [_named(case) for case in cases])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(gpu, fontsize=11)
    return _save(figure, path)


def _named(case: Case) -> str:
    """The name of a row, on two lines."""
    dtype = f"{case.dtype}{' (TF32)' if case.tf32 else ''}"
    shape = f"N={case.N}, L={case.L}, C={case.C}, {dtype}"
    return f"{WORK_NAMES[case.work]}, {DIRECTION_NAMES[case.direction]}\n{shape}"


def times(rows: Rows, gpu: str, path: Path) -> Path:
    """One block, forward and backward: by width in bf16, and by precision."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    by_width, by_dtype = figure.subplots(1, 2, width_ratios=(1.15, 1))
    _draw_widths(by_width, rows)
    _draw_dtypes(by_dtype, rows)
    handles, labels = by_width.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(f"One block, forward + backward, N=64, L=2114  ({gpu})", fontsize=11)
    return _save(figure, path)


def _draw_widths(axes: Axes, rows: Rows) -> None:
    def keep(case: Case) -> bool:
        return _is_block(case) and case.dtype == "bf16"

    widths = set()
    for name, (label, colour, marker) in STYLES.items():
        points = sorted((case.C, ms) for case, ms in _select(rows, name, keep, "ms"))
        if points:
            x, y = zip(*points, strict=True)
            widths.update(x)
            axes.plot(x, y, color=colour, marker=marker, markersize=5, label=label)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xticks(sorted(widths))
    axes.grid(axis="y", which="both", color="0.92", linewidth=0.6)
    axes.set_xlabel("channels C")
    axes.set_ylabel("ms")
    axes.set_title("by width, bf16", fontsize=10, loc="left")


def _draw_dtypes(axes: Axes, rows: Rows) -> None:
    dtypes = ("bf16", "fp16", "fp32")
    width = 0.8 / len(STYLES)
    for i, (name, (_, colour, _)) in enumerate(STYLES.items()):
        found = _select(rows, name, lambda case: _is_block(case) and case.C == 96, "ms")
        by_dtype = {case.dtype: ms for case, ms in found}
        for j, dtype in enumerate(dtypes):
            if dtype in by_dtype:
                x, ms = j + (i - (len(STYLES) - 1) / 2) * width, by_dtype[dtype]
                axes.bar(x, ms, 0.9 * width, color=colour)
                axes.annotate(
                    f"{ms:.2f}", (x, ms), (0, 2), textcoords="offset points",
                    ha="center", fontsize=7.5,
                )  # fmt: skip
    axes.set_xticks(range(len(dtypes)), ["bf16", "fp16", "fp32 (TF32)"])
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("ms")
    axes.set_title("by precision, C=96", fontsize=10, loc="left")


def _is_block(case: Case) -> bool:
    """One block, forward and backward, at the batch and length of the sweep over widths."""
    sweep = (SHAPE["N"], SHAPE["L"]) == (case.N, case.L)
    return (case.work, case.direction) == ("block", "fwd_bwd") and sweep


def roofline(rows: Rows, gpu: str, path: Path) -> Path:
    """Ours as a share of what the memory and the matrix units allow, by C, L and N."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    titles = (
        "by width, N=64, L=2114",
        "by length, N L about 135,000, C=96",
        "by batch, L=2114, C=96",
    )
    for axes, name, title in zip(panels, "CLN", titles, strict=True):
        _draw_sweep(axes, rows, name)
        axes.set_title(title, fontsize=10, loc="left")
    panels[0].set_ylabel("share of the roofline (%)")
    panels[0].set_ylim(0, 100)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(f"Ours, forward + backward  ({gpu})", fontsize=11)
    return _save(figure, path)


def _draw_sweep(axes: Axes, rows: Rows, name: str) -> None:
    """Shares along one size, evenly spaced; along L the batch keeps N L."""
    lines = {}
    for work in WORKS:
        for dtype in LINES:
            found = _select(
                rows, "ours", lambda case, key=(work, dtype): _on(case, key, name), "roofline"
            )
            lines[work, dtype] = {getattr(case, name): 100 * share for case, share in found}
    values = sorted({value for points in lines.values() for value in points})
    for (work, dtype), points in lines.items():
        label, colour = WORKS[work]
        x = [i for i, value in enumerate(values) if value in points]
        y = [points[value] for value in values if value in points]
        axes.plot(
            x, y, LINES[dtype], color=colour, marker="o", markersize=4, label=f"{label}, {dtype}"
        )
    axes.set_xticks(range(len(values)), [f"{value:,}" for value in values])
    axes.grid(axis="y", color="0.92", linewidth=0.6)
    axes.set_xlabel({"C": "channels C", "L": "length L (bp)", "N": "batch N"}[name])


def _on(case: Case, key: tuple[str, str], name: str) -> bool:
    """Whether a case lies on the sweep along `name`."""
    if (case.work, case.dtype) != key or case.direction != "fwd_bwd":
        return False
    if name == "L":
        return SHAPE["C"] == case.C and round(SHAPE["N"] * SHAPE["L"] / case.L) == case.N
    return all(getattr(case, other) == SHAPE[other] for other in SHAPE if other != name)


def markdown(rows: Rows, cases: Iterable[Case]) -> str:
    """Times and peak memory of every contender, and ours beside the best other."""
    labels = [label for label, _, _ in STYLES.values()]
    header = ["work", "shape (N, L, C)", "dtype", *labels, "faster by", "roofline"]
    header.append("memory, ours / upstream")
    lines = [header, ["---"] * 3 + ["---:"] * (len(header) - 3)]
    for case in cases:
        found = {name: rows[case, name] for name in STYLES if (case, name) in rows}
        if "ours" in found:
            lines.append(_markdown_cells(case, found))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _markdown_cells(case: Case, found: dict[str, Row]) -> list[str]:
    ms = {name: float(row["ms"]) for name, row in found.items()}
    others = [value for name, value in ms.items() if name != "ours"]
    memory = [
        f"{float(row['peak_MB']):,.0f}" if row and row["peak_MB"] else "-"
        for row in (found["ours"], found.get("upstream"))
    ]
    return [
        f"{WORK_NAMES[case.work]}, {DIRECTION_NAMES[case.direction]}",
        f"{case.N}, {case.L}, {case.C}",
        f"{case.dtype}{' (TF32)' if case.tf32 else ''}",
        *(f"{ms[name]:.3f} ms" if name in ms else "-" for name in STYLES),
        f"{min(others) / ms['ours']:.1f}x" if others else "-",
        f"{float(found['ours']['roofline']):.0%}",
        f"{' / '.join(memory)} MB" if memory != ["-", "-"] else "-",
    ]  # fmt: skip


def _save(figure: Figure, path: Path) -> Path:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=HERE / "results.csv")
    parser.add_argument("--gpu", help="name as in the rows")
    parser.add_argument("--folder", type=Path, default=HERE, help="of the figures")
    parser.add_argument("--all", action="store_true", help="every case in the table")
    args = parser.parse_args(arguments)
    rows, gpu = load(args.results, args.gpu)
    args.folder.mkdir(parents=True, exist_ok=True)
    works(rows, gpu, args.folder / "works.png")
    if any(_is_block(case) for case, _ in rows):  # of a --grid
        times(rows, gpu, args.folder / "times.png")
        roofline(rows, gpu, args.folder / "roofline.png")
    print(markdown(rows, dict.fromkeys(case for case, _ in rows) if args.all else quick()))


if __name__ == "__main__":
    main()
