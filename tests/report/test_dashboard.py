"""The W&B dashboard: what it plots is logged, and it is the same at every build."""

import json
import re
import sys
from types import SimpleNamespace

import pytest
from command_lines import command
from wandb_files import read_wandb

from cherimoya.config.tools import DashboardConfig
from cherimoya.errors import CherimoyaError
from cherimoya.records import metrics

views = pytest.importorskip("cherimoya.report.dashboard.views")

CONFIG = DashboardConfig(project="p", entity="me", name="Cherimoya", dry_run=None)
GPU = r"gpu\.\d\.(gpu|memoryAllocatedBytes|powerWatts)"  # as wandb names them; there is none here


def cherimoya_dashboard(*arguments, cwd, **environment):
    return command("dashboard", *arguments, folder=cwd, **environment)


def test_without_a_key_it_is_printed_and_the_same_each_time(tmp_path):
    nowhere = {"WANDB_BASE_URL": "http://127.0.0.1:9"}
    first = cherimoya_dashboard("project=p", "entity=me", cwd=tmp_path, **nowhere)
    assert first.returncode == 0, first.stderr
    assert first.stderr == (
        "dry run, there is no API key for http://127.0.0.1:9: nothing is sent\n"
    )
    assert json.loads(first.stdout) == json.loads(views.as_json(CONFIG))
    again = cherimoya_dashboard(
        "project=p", "entity=me", "dry_run=true", cwd=tmp_path, WANDB_API_KEY="x" * 40, **nowhere
    )
    assert again.stdout == first.stdout
    assert again.stderr == "dry run, as set: nothing is sent\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_mistakes_are_one_message(tmp_path):
    nowhere = {"WANDB_BASE_URL": "http://127.0.0.1:9"}
    for arguments, environment, words in [
        (["projct=p"], {}, "unknown key projct. Did you mean project?"),
        (["dry_run=false"], {}, "there is no API key for http://127.0.0.1:9"),
        ([], {"WANDB_API_KEY": "x" * 40}, "http://127.0.0.1:9 cannot be reached"),
    ]:
        done = cherimoya_dashboard(*arguments, cwd=tmp_path, **nowhere, **environment)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert words in done.stderr
        assert done.stderr.count("\n") == 1


def test_without_the_extra_it_is_named(monkeypatch):
    from cherimoya.report.dashboard.build import dashboard

    monkeypatch.delitem(sys.modules, "cherimoya.report.dashboard.views")
    monkeypatch.delattr("cherimoya.report.dashboard.views", raising=False)
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    with pytest.raises(CherimoyaError, match=r"pip install 'cherimoya-train\[dashboards\]'"):
        dashboard(CONFIG)


def test_panels_have_their_own_ids_and_runs_are_in_groups():
    built = json.loads(views.as_json(CONFIG))
    ids = [panel["__id__"] for panel in panels_of(built)]
    assert len(set(ids)) == len(ids) > 40
    section = built["workspace"]["spec"]["section"]
    assert [s["name"] for s in section["panelBankConfig"]["sections"]] == [
        "Learning curves", "Sweep", "Test scores", "Test loci and plots", "Machine"
    ]  # fmt: skip
    (runs,) = section["runSets"]
    assert runs["grouping"] == [{"section": "run", "name": "group"}]
    assert section["settings"]["useRunsTableGroupingInPanels"] is False
    tables = [runs, *(r for r in found(built["report"], "runSets") for r in r)]
    for table in tables:
        (key,) = table["sort"]["keys"]
        assert key == {"key": {"section": "summary", "name": "best/loss"}, "ascending": True}


@pytest.mark.slow
def test_all_that_is_plotted_is_logged(cherimoya_train, train_arguments, tmp_path):
    arguments = [a for a in train_arguments if a not in ("logger=none", "trainer.plots=false")]
    done = cherimoya_train(
        *arguments, "optim=muon_adamw_sgd", "optim.warmup_epochs=1", "hydra.run.dir=run",
        WANDB_X_STATS_SAMPLING_INTERVAL="0.5",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("run/wandb/offline-run-*/*.wandb")
    run = read_wandb(path)
    history = {key for row in run["history"] for key in row}
    shown = keys_of(json.loads(views.as_json(CONFIG)))
    assert shown["history"] - history == set()
    assert {k for k in shown["system"] if not re.fullmatch(GPU, k)} - run["system"] == set()
    for section in ("summary", "config"):
        absent = {key for key in shown[section] if value_at(run[section], key) is None}
        assert absent == set(), section
    assert shown["media"] == {metrics.LOCI, *(f"plots/{name}" for name in metrics.PLOTS)}
    files = [*tmp_path.glob("run/*.tsv"), *tmp_path.glob("run/plots/*.png")]
    sent = {key for key, value in run["summary"].items() if "-file" in str(value)}
    assert sent == {f"plots/{f.stem}" if f.suffix == ".png" else f.stem for f in files}
    assert sent <= shown["media"]
    assert {f"valid/{name}" for name in metrics.VALIDATED} <= shown["history"]


class Server:
    """What W&B answers, and what it was told."""

    def __init__(self, views: dict[str, list[dict]]) -> None:
        self.views, self.saved = views, []
        self.default_entity = "me"
        self._service_api = self
        self.app_url = "https://wandb.example"

    def projects(self, entity):
        return [SimpleNamespace(name="p")]

    def execute_graphql(self, query, variables):
        if "allViews" in query:
            edges = [{"node": node} for node in self.views.get(variables["type"], [])]
            return {"project": {"allViews": {"edges": edges}}}
        self.saved.append(variables)
        view = {"id": variables.get("id") or "new", "name": variables["name"], "description": ""}
        view |= {"displayName": variables["displayName"], "spec": variables["spec"]}
        view["project"] = {"name": "p", "entityName": variables["entityName"]}
        return {"upsertView": {"view": view, "inserted": True}}


def test_it_is_created_and_then_brought_up_to_date(monkeypatch):
    import wandb

    server = Server({})
    monkeypatch.setattr(wandb, "Api", lambda: server)
    config = DashboardConfig(project="p", entity=None, name="Cherimoya", dry_run=None)
    addresses = views.publish(config)
    report, workspace = server.saved
    assert (report["type"], workspace["type"]) == ("runs", "project-view")
    assert (report["entityName"], workspace["entityName"]) == ("me", "me")
    assert not report["id"]
    assert "id" not in workspace
    assert re.fullmatch(r"nw-\w{11}-v", workspace["name"])
    assert addresses["report"] == "https://wandb.example/me/p/reports/Cherimoya--new"
    assert addresses["workspace"].startswith("https://wandb.example/me/p?nw=")
    other = {"id": "other", "name": "x", "displayName": "Mine"}
    server = Server(
        {
            "runs": [other, {"id": "R", "name": "r", "displayName": "Cherimoya"}],
            "project-view": [other, {"id": "W", "name": "nw-abc-v", "displayName": "Cherimoya"}],
        }
    )
    assert views.publish(config)["workspace"] == "https://wandb.example/me/p?nw=abc"
    again, workspace_again = server.saved
    assert (again["id"], workspace_again["id"]) == ("R", "W")
    assert workspace_again["name"] == "nw-abc-v"
    assert again["spec"] == report["spec"]
    assert workspace_again["spec"] == workspace["spec"]


def test_what_the_server_says_is_passed_on(monkeypatch):
    import wandb

    server = Server({})
    monkeypatch.setattr(server, "execute_graphql", lambda *a, **k: {}["permission denied"])
    monkeypatch.setattr(wandb, "Api", lambda: server)
    with pytest.raises(CherimoyaError, match="refused the dashboard of me/p: 'permission denied'"):
        views.publish(CONFIG)


def found(node, key: str):
    """Every value of `key` anywhere below `node`."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from found(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from found(value, key)


def panels_of(built) -> list[dict]:
    return [panel for group in found(built, "panels") if isinstance(group, list) for panel in group]


def keys_of(built) -> dict[str, set[str]]:
    """What the panels and tables of a dashboard look up, by where."""
    keys: dict[str, set[str]] = {
        name: set() for name in ("history", "system", "summary", "config", "media", "run")
    }
    for panel in panels_of(built):
        kind, config = panel["viewType"], panel["config"]
        if kind == "Run History Line Plot":
            for name in [*config["metrics"], config["xAxis"]]:
                system = name.removeprefix("system/")
                if not name.startswith("_"):  # W&B's own, such as the time
                    keys["history" if system == name else "system"].add(system)
        elif kind == "Bar Chart":
            keys["summary"] |= set(config["metrics"])
        elif kind == "Scatter Plot":
            add(keys, *(config[f"{axis}Axis"] for axis in "xyz"))
        elif kind == "Parallel Coordinates Plot":
            add(keys, *(column["accessor"] for column in config["columns"]))
        elif kind == "Parameter Importance":
            keys["summary"].add(config["targetKey"])
        elif kind == "Media Browser":
            keys["media"] |= set(config["mediaKeys"])
        elif kind == "Weave":
            keys["media"] |= {
                node["val"] for node in found(config, "key") if node.get("type") == "string"
            }
        else:
            assert kind == "Run Comparer"
    for order in found(built, "columnOrder"):
        add(keys, *order)
    for sort in found(built, "sort"):
        keys["summary"] |= {key["key"]["name"] for key in sort["keys"]}
    assert all(keys.values()), keys
    return keys


def add(keys, *accessors: str) -> None:
    for accessor in accessors:
        section, name = accessor.split(":", 1)
        keys[section].add(name.replace(".value", "") if section == "config" else name)


def value_at(values, key: str):
    """The value at a dotted key of nested dictionaries, or None."""
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values
