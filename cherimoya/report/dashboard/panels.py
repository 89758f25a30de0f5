"""What a W&B dashboard shows of the runs: its panels, by section."""

from collections.abc import Sequence

import wandb_workspaces.reports.v2 as wr
from wandb_workspaces.reports.v2.interface import MetricType, PanelTypes

from cherimoya.records import metrics
from cherimoya.records.metrics import METRIC_INFO

DEPTH, WIDTH, SEED = (wr.Config(key) for key in ("model.n_layers", "model.n_filters", "seed"))
PARAMETERS = wr.SummaryMetric(metrics.PARAMETERS)
SECONDS = wr.SummaryMetric(metrics.TRAIN_SECONDS)
LABELS = {name: info.axis for name, info in METRIC_INFO.items()}
HEADLINES = ("loss", "profile_pearson", "count_pearson")
GPUS = 8  # that are drawn, of a machine that has them


def learning_curves() -> list[PanelTypes]:
    """Training and validation by epoch."""
    losses = {"loss": "total, weighted", "profile": "profile (nats)", "count": "count"}
    return [
        *(_by_epoch(f"Training loss, {losses[k]}", [f"train/{k}"]) for k in metrics.LOSSES),
        *(_by_epoch(f"Validation {LABELS[k]}", [f"valid/{k}"]) for k in metrics.VALIDATED),
        _by_epoch("Learning rates", [f"lr/{k}" for k in metrics.OPTIMIZERS], log=True),
        _by_epoch("Weights of the profile (lw0) and count loss (lw1)", ["loss/lw0", "loss/lw1"]),
    ]


def sweep() -> list[PanelTypes]:
    """What depth, width and seed do to the best epoch, and at what cost."""
    column = wr.ParallelCoordinatesPlotColumn
    parallel = wr.ParallelCoordinatesPlot(
        title="Depth, width and seed, and what the best epoch reached in validation",
        columns=[
            column(DEPTH, display_name="blocks"),
            column(WIDTH, display_name="filters"),
            column(SEED, display_name="seed"),
            *(column(_best(k), display_name=LABELS[k]) for k in HEADLINES),
        ],
        layout=wr.Layout(w=24, h=10),
    )
    scatters = [
        wr.ScatterPlot(
            title=f"Validation {LABELS[k]}, best epoch, against {cost}",
            x=x, y=_best(k), z=DEPTH, log_x=True,
        )
        for cost, x in (("parameters", PARAMETERS), ("seconds of training", SECONDS))
        for k in HEADLINES
    ]  # fmt: skip
    importance = wr.ParameterImportancePlot(metrics.best_key("loss"), layout=wr.Layout(w=12, h=8))
    comparer = wr.RunComparer(diff_only="split", layout=wr.Layout(w=12, h=8))
    return [parallel, *scatters, importance, comparer]


def scores() -> list[PanelTypes]:
    """The scores at the end, beside the average profile and, for simulated data, the ceiling."""
    beside = {
        "profile_mnll": ("test", "average_profile", "ceiling"),
        "profile_pearson": ("test", "average_profile", "ceiling"),
        "count_pearson": ("test", "ceiling"),  # which one count for all loci does not have
    }
    return [
        wr.BarPlot(
            title=f"{LABELS[name]}: {', '.join(columns).replace('_', ' ')}",
            metrics=[f"{column}.{name}" for column in columns],
            title_x=LABELS[name],
        )
        for name, columns in beside.items()
    ]


def loci() -> list[PanelTypes]:
    """Each test locus, and the plots of each run."""
    wide = wr.Layout(w=24, h=12)
    return [
        wr.WeavePanelSummaryTable(table_name=metrics.LOCI, layout=wide),
        *(wr.MediaBrowser(media_keys=[f"plots/{k}"], layout=wide) for k in metrics.PLOTS),
    ]


def machine() -> list[PanelTypes]:
    """Speed, and how busy the machine was."""
    each = range(GPUS)
    return [
        wr.BarPlot(title="Sequences a second", metrics=["speed.sequences_per_second"]),
        wr.BarPlot(title="Share of the time waited for data", metrics=["speed.waiting_for_data"]),
        _by_time("GPU use (%)", [f"gpu.{i}.gpu" for i in each]),
        _by_time("GPU memory in use (bytes)", [f"gpu.{i}.memoryAllocatedBytes" for i in each]),
        _by_time("GPU power (W)", [f"gpu.{i}.powerWatts" for i in each]),
        _by_time("CPU use of the process (%)", ["cpu"]),
        _by_time("Memory of the process (MB)", ["proc.memory.rssMB"]),
    ]


def _best(name: str) -> wr.SummaryMetric:
    return wr.SummaryMetric(metrics.best_key(name))


def _by_epoch(title: str, names: Sequence[str], log: bool | None = None) -> wr.LinePlot:
    y: list[MetricType] = [*names]
    return wr.LinePlot(
        title=title, x=metrics.EPOCH, y=y, log_y=log, title_x="epoch", smoothing_type="none"
    )


def _by_time(title: str, names: Sequence[str]) -> wr.LinePlot:
    keys: list[MetricType] = [f"system/{name}" for name in names]
    return wr.LinePlot(title=title, x="RelativeTime(Process)", y=keys, title_x="time")
