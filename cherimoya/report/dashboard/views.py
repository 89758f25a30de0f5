"""The workspace and the report of a W&B project, as W&B stores them."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from wandb_workspaces._graphql import execute_graphql
from wandb_workspaces.reports.v2.interface import BlockTypes, PanelTypes, _get_api
from wandb_workspaces.workspaces import internal

from cherimoya.config.tools import DashboardConfig
from cherimoya.errors import CherimoyaError
from cherimoya.records import metrics
from cherimoya.report.dashboard import panels

RUNS = "JobType in ['train', 'sweep']"
FINISHED = f"{RUNS} and State = 'finished'"
MAX_RUNS = 100  # drawn in a panel
COLUMNS = (
    "run:displayName",
    "run:state",
    "run:group",
    "config:model.value.n_layers",
    "config:model.value.n_filters",
    "config:seed.value",
    f"summary:{metrics.best_key('loss')}",
    f"summary:{metrics.extreme_key('profile_pearson')}",
    f"summary:{metrics.extreme_key('count_pearson')}",
    "summary:test.profile_pearson",
    "summary:test.count_pearson",
    f"summary:{metrics.PARAMETERS}",
    f"summary:{metrics.TRAIN_SECONDS}",
)
ABOUT = (
    "Each run trains one network that predicts, from DNA sequence, the profile and the total "
    "counts of a sequencing experiment. Runs of a sweep share a group. The best epoch of a run is "
    "the one with the lowest validation loss: the profile's multinomial negative log-likelihood "
    "(MNLL) plus the squared error of the log counts, weighted by half the mean count of a "
    "training peak. Lower is better for losses, MNLL and JSD; higher is better for correlations, "
    "AUROC and AUPRC. Test scores are those of the best epoch's weights on chromosomes that were "
    "held out."
)
ABOUT_SWEEP = (
    "Depth is the number of blocks, width the number of filters. Compare configurations by the "
    "spread of their seeds: a difference smaller than that is none."
)
ABOUT_LOCI = "Scores of each test locus, and the plots that each run ends with."
VIEWS = """
query Views($entity: String, $project: String, $type: String) {
  project(name: $project, entityName: $entity) {
    allViews(viewType: $type) { edges { node { id name displayName } } }
  }
}
"""


def as_json(config: DashboardConfig) -> str:
    """The workspace and the report, equal for equal configurations."""
    entity = config.entity or ""
    both = {
        "workspace": stored(workspace(config, entity)),
        "report": report(config, entity)._to_model(),
    }
    plain = {
        key: json.loads(model.model_dump_json(by_alias=True, exclude_none=True))
        for key, model in both.items()
    }
    return json.dumps(plain, indent=2, sort_keys=True)


def publish(config: DashboardConfig) -> dict[str, str]:
    """Create or replace the workspace and the report of this name; their addresses.

    Raises CherimoyaError with what the server said.
    """
    try:
        api = _get_api()
        entity = config.entity or api.default_entity
        page = report(config, entity)
        page.id = _existing(api, entity, config, "runs").get("id", "")
        page.save()  # also creates the project
        space = workspace(config, entity)
        known = _existing(api, entity, config, "project-view")
        space._internal_id = known.get("id", "")
        space._internal_name = known.get("name") or internal._generate_view_name()
        internal.upsert_view2(stored(space))
        return {"workspace": space.url, "report": page.url}
    except Exception as error:  # the client raises what its transport does
        raise CherimoyaError(
            f"W&B refused the dashboard of {config.entity or ''}/{config.project}: {error}. Check "
            "entity and project, or see it with dry_run=true."
        ) from error


def _existing(api: Any, entity: str, config: DashboardConfig, kind: str) -> dict[str, str]:
    """The saved view of this kind and name, or nothing."""
    variables = {"entity": entity, "project": config.project, "type": kind}
    answer = execute_graphql(api, VIEWS, variables)
    edges = ((answer.get("project") or {}).get("allViews") or {}).get("edges") or []
    return next((e["node"] for e in edges if e["node"]["displayName"] == config.name), {})


def workspace(config: DashboardConfig, entity: str) -> ws.Workspace:
    """The workspace: every run, in its group, with panels for all that is logged."""
    sections = {
        "Learning curves": panels.learning_curves(),
        "Sweep": panels.sweep(),
        "Test scores": panels.scores(),
        "Test loci and plots": panels.loci(),
        "Machine": panels.machine(),
    }
    for name, content in sections.items():
        _name(content, f"workspace/{name}")
    made = ws.Workspace(
        entity=entity,
        project=config.project,
        name=config.name,
        sections=[
            ws.Section(name=name, panels=content, is_open=number < 2)
            for number, (name, content) in enumerate(sections.items())
        ],
        settings=ws.WorkspaceSettings(max_runs=MAX_RUNS),
        runset_settings=ws.RunsetSettings(
            filters=RUNS,
            groupby=[ws.Metric("Group")],
            order=[ws.Ordering(ws.Summary(metrics.best_key("loss")), ascending=True)],
            pinned_columns=list(COLUMNS),
        ),
    )
    made._internal_runset_id = _id("workspace/runs")
    return made


def stored(made: ws.Workspace) -> internal.View:
    """The workspace as W&B stores it, with runs in groups in the list, but not in the panels."""
    view = made._to_model()
    view.spec.section.settings.use_runs_table_grouping_in_panels = False
    return view


def report(config: DashboardConfig, entity: str) -> wr.Report:
    """The report: what the runs are, the best first, and what depth and width pay."""
    sweeps = f"{FINISHED} and JobType = 'sweep'"
    blocks: list[BlockTypes] = [
        wr.TableOfContents(),
        wr.H1("What the runs are"),
        wr.P(ABOUT),
        wr.H1("Runs, the lowest validation loss first"),
        _grid("runs", FINISHED, panels.scores()),
        wr.H1("Sweeps: which depth and width pay"),
        wr.P(ABOUT_SWEEP),
        _grid("sweeps", sweeps, panels.sweep()),
        wr.H1("Learning curves"),
        _grid("learning curves", RUNS, panels.learning_curves(), hidden=True),
        wr.H1("Test loci"),
        wr.P(ABOUT_LOCI),
        _grid("loci", FINISHED, panels.loci(), hidden=True),
    ]
    return wr.Report(
        project=config.project,
        entity=entity,
        title=config.name,
        description="Made by cherimoya-dashboard; the same command brings it up to date.",
        blocks=blocks,
        width="fluid",
    )


def _grid(
    name: str, filters: str, content: Sequence[PanelTypes], hidden: bool = False
) -> wr.PanelGrid:
    """Panels above the table of their runs, which may be `hidden`."""
    runs = wr.Runset(
        name=name,
        filters=filters,
        order=[wr.OrderBy(wr.SummaryMetric(metrics.best_key("loss")), ascending=True)],
        pinned_columns=list(COLUMNS),
    )
    runs._id = _id(f"report/{name}/runs")
    grid = wr.PanelGrid(runsets=[runs], panels=list(content), hide_run_sets=hidden)
    _name(grid.panels, f"report/{name}")
    return grid


def _name(content: Sequence[PanelTypes], where: str) -> None:
    """Give each panel an id that is the same at every build: W&B's own are drawn at random."""
    for number, panel in enumerate(content):
        panel._id = _id(f"{where}/{number}")  # type: ignore[union-attr]


def _id(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
