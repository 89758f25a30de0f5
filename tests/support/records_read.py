"""Numbers out of the results files of experiments/, for what the documentation says (claims.py)."""

import csv
import math
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).resolve().parents[2]


@cache
def table(name: str) -> tuple[dict[str, str], ...]:
    """The rows of a results file of experiments/."""
    with open(ROOT / "experiments" / name, newline="") as file:
        return tuple(csv.DictReader(file))


def column(name: str, wanted: str, **where: object) -> list[float]:
    """A column of the rows whose other columns are what `where` says (a string, or a pattern)."""
    found = [
        float(row[wanted]) for row in table(name)
        if row[wanted] and all(matches(row[key.replace("__", " ")], v) for key, v in where.items())
    ]  # fmt: skip
    if not found:
        raise LookupError(f"no row of experiments/{name} with {wanted} has {where}")
    return found


def matches(cell: str, wanted: object) -> bool:
    """Whether a cell of a results file is the wanted one."""
    if isinstance(wanted, re.Pattern):
        return wanted.fullmatch(cell) is not None
    return cell == str(wanted)


def one(name: str, wanted: str, **where: object) -> float:
    """The cell of the only row that `where` leaves."""
    (found,) = column(name, wanted, **where)
    return found


def versus(data: str, model: str, models: int = 1, strands: int = 1) -> tuple[float, float]:
    """Profile and count correlation of the models of a name, the mean over seeds."""
    where = {"data": data, "model": re.compile(model), "models": models, "strands": strands}
    return tuple(
        mean(column("versus/scores.csv", f"{score}_pearson", **where))
        for score in ("profile", "count")
    )  # type: ignore[return-value]


def both(model: str, *more: int) -> tuple[float, ...]:
    """The four correlations of a line of the table of scores."""
    return (*versus("stripeseq", model, *more), *versus("atac", model, *more))


def seconds(model: str) -> list[float]:
    """How long the commands of a name took, on either data set."""
    return column("versus/scores.csv", "seconds", model=re.compile(model), strands=1)


def upstream(data: str, score: str) -> float:
    """A number of upstream's run."""
    return one("versus/scores.csv", score, data=data, model="upstream", strands=1)


def gains() -> tuple[float, float]:
    """How many times faster than upstream's command the recommended recipe is: least, most."""
    known = [
        upstream(data, "seconds") / s
        for data in ("stripeseq", "atac")
        for s in column("versus/scores.csv", "seconds", data=data, strands=1,
                        model=re.compile(r"recommended_\d"))
    ]  # fmt: skip
    return min(known), max(known)


LAST = "e86ca68"  # the last measurement of whole steps on an H200


def step(precision: str, filters: int, commit: str) -> tuple[float, float, float]:
    """Milliseconds of our step and of upstream's compiled one in one run, and their ratio."""
    ours, theirs = (
        one("train_step/results.csv", "ms", what="step", contender=who, precision=precision,
            n_filters=filters, profile_kernel=75, graph=1, commit=commit)
        for who in ("ours", "upstream compiled")
    )  # fmt: skip
    return ours, theirs, theirs / ours


def cpu_step(filters: int, rounds: int) -> tuple[float, float, float]:
    """Milliseconds of our step on a CPU and upstream's in its faster mode, and their ratio."""
    where = {"n_filters": filters, "rounds": rounds}
    ours, *theirs = (
        one("cpu_step/results.csv", f"{who}_ms", **where)
        for who in ("ours", "upstream", "upstream_compiled")
    )
    return ours, min(theirs), min(theirs) / ours


def alone(precision: str, commit: str = LAST) -> float:
    """Milliseconds of a step of 96 filters on an H200, by default when last measured."""
    return one("train_step/results.csv", "ms", what="step", contender="ours", n_filters=96,
               precision=precision, profile_kernel=1, graph=1, commit=commit)  # fmt: skip


def on_h200() -> tuple[float, float, float]:
    """Our step with upstream's head on an H200, upstream's in the same run, and the ratio."""
    return step("bf16", 96, "fec0f06")


def two_devices() -> float:
    """How many times the sequences of one H200 two of them train."""
    one_ms, two_ms = (
        one("train_step/results.csv", "ms", what=f"{n} devices", commit="6bfeebc") for n in (1, 2)
    )
    return 2 * one_ms / two_ms


def trained(what: str, wanted: str, **where: object) -> float:
    """A number of the H100's measurements of whole steps and epochs."""
    return one("train_step/results.csv", wanted, what=what, gpu=re.compile(".*H100.*"), **where)


def kernel(work: str, direction: str, n: int, c: int, dtype: str = "bf16") -> tuple[float, ...]:
    """Milliseconds of PyTorch, torch.compile, upstream and ours, as far as measured."""
    runs = {"native": "2026-11-23T03:48", "compiled": "2026-11-23T01:43",
            "upstream": "2026-11-23T03:48", "ours": "2026-11-23T03:48"}  # fmt: skip
    found: list[float] = []
    for who, run in runs.items():
        rows = [
            float(row["ms"]) for row in table("kernels/results.csv")
            if row["date"].startswith(run) and row["contender"] == who and row["dtype"] == dtype
            and (row["work"], row["direction"], row["N"], row["C"])
            == (work, direction, str(n), str(c))
        ]  # fmt: skip
        found += rows
    return tuple(found)


def kernel_gains() -> tuple[float, float]:
    """The least and the largest gain over compiled PyTorch on an H100, shape by shape."""
    shape = ("work", "direction", "dtype", "N", "L", "C")
    times: dict[str, dict[tuple[str, ...], float]] = {"ours": {}, "compiled": {}}
    for row in table("kernels/results.csv"):
        if "H100" in row["gpu"] and row["contender"] in times:
            times[row["contender"]][tuple(row[key] for key in shape)] = float(row["ms"])
    known = [ms / times["ours"][key] for key, ms in times["compiled"].items()]
    return min(known), max(known)


def kernel_shapes() -> tuple[float, ...]:
    """Fewest and most filters, sequences and bases that were measured on an H100."""
    rows = [r for r in table("kernels/results.csv") if "H100" in r["gpu"]]
    return tuple(f(int(r[key]) for r in rows) for key in "CNL" for f in (min, max))


def mutagenesis(who: str, wanted: str, **where: object) -> list[float]:
    """Saturation mutagenesis of 400 bases: on two cores, or (commit f82e1...) on an H100."""
    return column("mutagenesis/results.csv", wanted, contender=who, window=400, **where)


CPU, GPU = {"machine": re.compile(".*EPYC.*")}, {"commit": re.compile("f82e109.*")}


def yeast_hits(factor: str) -> tuple[float, ...]:
    """Precision and enrichment of a factor's hits, and recall of its strong sites."""
    chosen = {"model": "recommended", "method": "deep_lift_shap", "cutoff": 0.7, "factor": factor}
    precision, chance, recall = (
        one("hits/yeast.csv", column, **chosen) for column in ("precision", "enrichment", "recall")
    )
    return 100 * precision, chance, 100 * recall


def hits(motifs: str, genome: int = 0) -> tuple[float, float]:
    """Recall and precision of motif instances at the default cut-off, in %, when last measured."""
    return tuple(
        100 * column("hits/results.csv", what, motifs=motifs, cutoff=0.7, data=genome)[-1]
        for what in ("recall", "precision")
    )  # type: ignore[return-value]


def recipe(data: str, run: str, wanted: str) -> float:
    """A test score of a run of the search for a recipe, the mean over its seeds."""
    stage = 4 if run.startswith("chosen") else re.compile("[123]")
    return mean(column("recipe/results.csv", f"test {wanted}", data=data, run=run, stage=stage))


def yeast(run: str, wanted: str) -> float:
    """A number of the recipes for two cores."""
    return one("yeast/results.csv", wanted, run=run, date="2026-11-29")


def warm(run: str, wanted: str) -> float:
    """A number of the experiment on trained starts, the mean over seeds."""
    return mean(column("warm_start/results.csv", wanted, run=run))


def default(wanted: str) -> float:
    """A number of the default command on two cores."""
    return one("embedded/results.csv", wanted, run="default")


def spread(values: Iterable[float]) -> tuple[float, float]:
    """The least and the largest."""
    known = tuple(values)
    return min(known), max(known)


def auroc(data: str, model: str) -> float:
    """How well the models of a name tell peaks from background, the mean over seeds."""
    where = {"data": data, "model": re.compile(model), "strands": 1}
    return mean(column("versus/scores.csv", "auroc", **where))


def rounded_up(value: float) -> float:
    """The next power of ten."""
    return float(10 ** math.ceil(math.log10(value)))


def sweep(name: str, score: str, **settings: object) -> float:
    """A test score of a sweep's runs with these settings, the mean over all else."""
    wanted = {f"{key}={value}" for key, value in settings.items()}
    rows = [row for row in table(name) if wanted <= set(row["run"].split(","))]
    return mean(float(row[score]) for row in rows)


def ablation(**settings: object) -> tuple[float, ...]:
    """Profile Pearson, MNLL and count Pearson of the ablation's runs with these settings."""
    return tuple(
        sweep(f"ablation/{'bpnet' if settings.get('blocks') == 'bpnet' else 'results'}.csv",
              f"test {score}", **{k: v for k, v in settings.items() if v != "bpnet"})
        for score in ("profile_pearson", "profile_mnll", "count_pearson")
    )  # fmt: skip


def by_width(layers: int) -> tuple[float, float]:
    """The least and largest profile Pearson of the widths at a depth."""
    return spread(
        sweep("depth_width/results.csv", "test profile_pearson", n_layers=layers, n_filters=width)
        for width in (32, 64, 96, 128, 160)
    )


def of_shape(layers: int, filters: int) -> tuple[float, float]:
    """Parameters and profile Pearson of a depth and width."""
    shape = {"n_layers": layers, "n_filters": filters}
    return tuple(
        sweep("depth_width/results.csv", what, **shape)
        for what in ("parameters", "test profile_pearson")
    )  # type: ignore[return-value]


STEPS = [
    (96, "bf16, H100", "bf16", "01c6c7f"), (96, "TF32, H100", "tf32", "0b6ba9f"),
    (128, "bf16, H100", "bf16", "c7c5a55"), (128, "TF32, H100", "tf32", "c7c5a55"),
]  # fmt: skip
ALL = " | ".join(["{:.3f} ms"] * 4)
KERNELS = [
    ("conv + norm, inference", "conv_norm", "fwd", 64, 2114, 96, "bf16", "bf16", ALL),
    ("conv + norm, forward + backward", "conv_norm", "fwd_bwd", 64, 2114, 96, "bf16", "bf16", ALL),
    ("9 blocks, forward + backward", "stack", "fwd_bwd", 64, 2114, 96, "bf16", "bf16",
     "{:.3f} ms | - | {:.3f} ms | {:.3f} ms"),
    ("block, inference", "block", "fwd", 512, 1024, 128, "bf16", "bf16", ALL),
    ("block, inference", "block", "fwd", 512, 1024, 128, "fp32", "fp32 (TF32)", ALL),
    ("block, forward + backward", "block", "fwd_bwd", 512, 1024, 128, "bf16", "bf16", ALL),
    ("block, forward + backward", "block", "fwd_bwd", 512, 1024, 128, "fp32", "fp32 (TF32)",
     "{:.3f} ms | - | {:.3f} ms | {:.3f} ms"),
    ("9 blocks, inference", "stack", "fwd", 64, 2114, 96, "bf16", "bf16",
     "{:.3f} ms | - | - | {:.3f} ms"),
]  # fmt: skip
DEFAULT = {"blocks": "cheri", "loss": "kendall", "residual_scale": 0.15, "expansion": 2}
ABLATION = {
    "the default: cheri, `loss=kendall`, residual scale 0.15, expansion 2": DEFAULT,
    "residual scale 1": DEFAULT | {"residual_scale": "1.0"},
    "expansion 1": DEFAULT | {"expansion": 1},
    "`loss=poisson`": DEFAULT | {"loss": "poisson"},
    "`model.blocks=convnext`": DEFAULT | {"blocks": "convnext"},
    "`model.blocks=bpnet`": {"blocks": "bpnet", "loss": "kendall"},
}
PARTS = {
    f"{key}={value}": {key: value}
    for key, values in (
        ("blocks", ("cheri", "convnext")), ("loss", ("kendall", "poisson", "fixed")),
        ("residual_scale", ("0.15", "1.0")), ("expansion", (1, 2)),
    )
    for value in values
}  # fmt: skip
