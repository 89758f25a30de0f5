"""Pages of runs and sweeps: they say what the files say, whatever the files are."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from command_lines import command
from run_files import CONFIG, SCORES, add_loci, add_member, make_run

from cherimoya.cli import report as report_command
from cherimoya.records.run import read_run
from cherimoya.records.sweep import Plan, note_member, write_plan
from cherimoya.report.pages import offer_report, write_report
from cherimoya.report.plots import theme as plots_theme

VOID = {"meta", "link", "br", "img"}


class Page(HTMLParser):
    """A page's elements, attributes, table rows, and text by element."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.rows: list[list[str]] = []
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, {k: v or "" for k, v in attributes}))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag  # every element is closed where it should be

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data.strip()))
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def text(self, tag: str | None = None) -> str:
        return " ".join(data for inside, data in self.texts if tag in (None, inside))

    def row(self, first: str) -> list[str]:
        """The cells of the only row that begins so."""
        (found,) = [r for r in self.rows if r and r[0].strip() == first]
        return [" ".join(cell.split()) for cell in found]

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


def a_run(folder: Path) -> Path:
    run = make_run(folder / "run", changed={"model.n_filters": 96, "trainer.max_epochs": 8})
    add_loci(run)
    return run


def a_sweep(folder: Path) -> Path:
    for depth in (3, 5):
        for width in (8, 16):
            for seed in (0, 1):
                window = {"in": 320, "out": 160, "receptive_field": 2**depth}
                add_member(
                    folder / "sweep", loss=300 + 10 / depth + 20 / width + seed, n_layers=depth,
                    n_filters=width, seed=seed, parameters=depth * width * 100,
                    train_seconds=60.0 * depth, window=window,
                )  # fmt: skip
    add_member(folder / "sweep", "failed", n_layers=9, n_filters=8, seed=0)
    return folder / "sweep"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folders of a run and a sweep with their pages, and the axes that were drawn for them."""
    folder = tmp_path_factory.mktemp("pages")
    folders, axes = {"run": a_run(folder), "sweep": a_sweep(folder)}, []
    drawn = plots_theme.svg

    def noting(figure):
        axes.extend(figure.axes)
        return drawn(figure)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(plots_theme, "svg", noting)
        for run in folders["sweep"].glob("*n_layers=5,seed=0"):
            write_report(run)
        for path in folders.values():
            write_report(path)
    return folders, axes


@pytest.fixture(params=["run", "sweep"])
def page(request, written):
    return Page(written[0][request.param] / "report.html")


@pytest.fixture
def run_page(written):
    return Page(written[0]["run"] / "report.html")


@pytest.fixture
def sweep_page(written):
    return Page(written[0]["sweep"] / "report.html")


@pytest.mark.slow
def test_a_runs_page_has_the_numbers_of_its_files(run_page):
    page = run_page
    text = page.text()
    assert "done" in text
    for fact in (
        "0.7366", "average profile 0.1482", "ceiling 0.8911", "1,829 parameters", "abc123",
        "320 bp in, 160 bp out, receptive field 51 bp", "512 MiB", "40.73 ms", "best epoch, 1",
        "cherimoya-train model.n_filters=8 trainer.max_epochs=3",
    ):  # fmt: skip
        assert fact in text, fact
    assert page.row("profile MNLL")[1:5] == ["271.2", "271.2", "271.2", ""]
    assert page.row("profile Pearson")[1:6] == ["0.7366", "0.1482", "0.8911", "83 %", "0.5111"]
    assert page.row("count Pearson")[1:4] == ["0.3110", "-", "0.9807"]
    assert page.row("model.n_filters") == ["model.n_filters", "8", "96"]
    assert "worse than the average profile" not in text
    assert page.count("svg") == 8 + 2 + 2 + 2  # curves, counts, profiles, examples


def test_a_score_below_the_baseline_is_said_to_be(tmp_path):
    scores = SCORES | {"profile_pearson": 0.1}
    page = Page(write_report(make_run(tmp_path / "run", test=scores)))
    assert page.text().count("worse than the average profile") == 1


def test_a_page_asks_for_nothing_from_outside(page):
    assert not re.search(r"https?:|@import|[\"'(]//", page.source)
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            target = attributes.get(name, "#")
            assert target == "data:," or ":" not in target, (tag, target)


def test_ids_are_unique_and_all_that_is_referred_to_is_there(page):
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', page.source))
    assert len(wanted) > 10
    assert wanted <= set(ids)


def test_charts_take_their_colours_from_the_page(page):
    light, dark = page.source.split("prefers-color-scheme: dark", 1)
    charts = "".join(re.findall(r"<svg.*?</svg>", page.source, re.DOTALL))
    used = set(re.findall(r"var\(--(\w+)\)", charts))
    assert {"ink", "muted", "s1"} <= used <= set(plots_theme.ROLES)
    assert not [colour for colour in plots_theme.ROLES.values() if colour in charts]
    for name in used:
        assert f"--{name}:" in light
        assert f"--{name}:" in dark.split("}")[0]


def test_every_chart_names_its_axes(written):
    _, axes = written
    assert len(axes) > 30
    assert all(axis.get_xlabel() and axis.get_ylabel() for axis in axes)


def test_a_failed_run_shows_its_traceback(tmp_path):
    page = Page(write_report(make_run(tmp_path / "run", "failed", epochs=0)))
    assert "failed: the loss is not finite" in page.text()
    assert "Traceback: it was <inf>" in page.text("pre")
    assert ("details", {"open": ""}) in page.elements
    assert page.count("svg") == 0


@pytest.mark.parametrize(
    ("known", "best"), [({}, 1), ({"best_epoch": 2}, 2), ({"best_epoch": -1}, None)]
)
def test_the_best_epoch_is_that_of_the_file(tmp_path, known, best):
    """Which need not have the lowest loss: best.pt of another may have been lost."""
    run = make_run(tmp_path / "run", "interrupted")
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps(status | known))
    assert (read_run(run).best_row or {}).get("epoch") == best
    if known:
        done = make_run(tmp_path / "done", **known)
        assert (read_run(done).best_row or {}).get("epoch") == best


def test_a_run_that_goes_on_shows_what_is_there(tmp_path):
    run = make_run(tmp_path / "run", "interrupted")
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "last.pt").write_bytes(b"")
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 40, "epo')  # a process was killed while it wrote
    page = Page(write_report(run))
    assert "On the validation, epoch 1" in page.text()
    assert "0.5111" in page.text()  # of epoch 1, the best
    assert f"trainer.resume={run}" in page.text("pre")


def test_the_time_in_all_is_no_shorter_than_the_training(tmp_path):
    run = make_run(tmp_path / "run")  # 9 s by status.json, as of an earlier release's resumed run
    assert "1 min 30 s in all" in Page(write_report(run)).text()
    status = json.loads((run / "status.json").read_text())
    more = {"seconds_before": 100.0, "first_started": "2025-12-31T03:04:05+0000"}
    (run / "status.json").write_text(json.dumps(status | more))
    text = Page(write_report(run)).text()
    assert "1 min 49 s in all" in text
    assert "started 2025-12-31 03:04:05" in text


def test_the_page_shows_the_defaults_of_the_chosen_options(tmp_path):
    made = {"groups": {"data": ["hdf5", "synthetic"]}, "keys": {
        "data.path": "???", "model.n_layers": 9}}  # fmt: skip
    config = CONFIG | {"data": {"path": "/x.h5", "in_window": None}}
    for state in ("done", "failed"):
        run = make_run(tmp_path / state, state, config=config, changed=made)
        page = Page(write_report(run))
        rows = [[" ".join(cell.split()) for cell in row] for row in page.rows]
        assert ["data", "hdf5", "synthetic"] in rows
        assert ["data.path", "/x.h5", "to be set"] in rows
        assert ["model.n_layers", "4", "9"] in rows
        assert "cherimoya-train data=hdf5 data.path=/x.h5 model.n_layers=4" in page.text("pre")


@pytest.mark.parametrize("kept", ["config.yaml", "status.json"])
def test_a_run_with_one_file_left_still_has_a_page(kept, tmp_path):
    run = a_run(tmp_path)
    for path in run.iterdir():
        if path.name != kept:
            path.unlink()
    page = Page(write_report(run))
    assert "run run" in page.text("h1")
    assert page.count("svg") == 0


def test_a_sweeps_page_has_the_numbers_of_its_runs(sweep_page):
    page = sweep_page
    text = page.text()
    assert "8 done" in text
    assert "1 failed" in text
    # 300 + 10 / 5 + 20 / 16 + seed
    (best,) = [row for row in page.rows if row[0].strip() == "5" and row[1].strip() == "16"]
    assert [cell.strip() for cell in best[2:5]] == ["2 of 2 done", "8,000", "303.75 ± 0.71"]
    assert "n_layers=5, n_filters=16" in page.text("strong")
    assert "the loss is not finite" in text
    cells = re.findall(r"<text[^>]*>(30\d\.\d\d)</text>", page.source)
    assert cells[:4] == ["306.33", "305.08", "305.00", "303.75"]


def test_a_sweeps_page_names_its_command_and_its_data(tmp_path):
    folder = add_member(tmp_path, lr=0.1)
    command = [
        "cherimoya-train",
        "-m",
        "optim.adamw.lr=0.1,0.2",
        "data.path=a b.h5",
        f"x={HOSTILE}",
    ]
    write_plan(tmp_path, Plan("a", command, ["optim.adamw.lr"], [{"optim.adamw.lr": "0.1"}]))
    config = folder / "config.yaml"
    config.write_text(config.read_text() + "data:\n  path: a b.h5\n")
    page = Page(write_report(tmp_path))
    assert "data: a b.h5" in page.text("li")
    assert page.text("code").startswith(
        "cherimoya-train -m optim.adamw.lr=0.1,0.2 'data.path=a b.h5' "
    )
    assert page.count("img") == 0
    (tmp_path / "sweep.json").write_text("{")
    config.write_text("{")
    assert "cherimoya-train -m" not in Page(write_report(tmp_path)).text()


def test_links_of_a_sweeps_page_lead_to_the_pages_of_its_runs(written, sweep_page):
    links = {a["href"] for tag, a in sweep_page.elements if tag == "a" and "report" in a["href"]}
    assert len(links) == 2
    for link in links:
        assert (written[0]["sweep"] / unquote(link)).is_file(), link
    run = Page(written[0]["sweep"] / unquote(min(links)))
    assert ("a", {"href": "../report.html"}) in run.elements


HOSTILE = '"><script>alert(1)</script><img src=x>$\\frac$'


def test_hostile_names_are_only_text(tmp_path):
    run = make_run(tmp_path / "a<b>&$x$", config={"model": {"n_filters": HOSTILE}})
    add_loci(run, name=HOSTILE)
    page = Page(write_report(run))
    assert page.count("img") == page.count("b") == 0
    assert page.count("script") == 1
    assert "run a<b>&$x$" in page.text("h1")
    sweep = tmp_path / "sweep"
    for i, value in enumerate((HOSTILE, "$a$", "plain")):
        folder = add_member(sweep, loss=300.0 + i, lr=value)
        status = json.loads((folder / "status.json").read_text())
        (folder / "status.json").write_text(json.dumps(status | {"error": HOSTILE}))
    add_member(sweep, "failed", lr="x")
    page = Page(write_report(sweep))
    assert page.count("img") == 0
    assert page.count("script") == 1
    assert f"lr={HOSTILE}" in page.text("strong")


@pytest.mark.parametrize(
    "members",
    [
        [{"state": "failed", "n_layers": 3}, {"state": "failed", "n_layers": 5}],
        [{"n_layers": 3}],
        [{"state": "waiting", "n_layers": 3}, {"n_layers": 5}],
        [{"seed": 0}, {"seed": 1}],
        [{"model": "tiny", "optim": "adamw"}, {"model": "cherimoya", "optim": "muon"}],
        [{"lr": 0.001 * 1.37**i, "n_filters": 10 * i + 7} for i in range(13)],
        [
            {"n_layers": a, "n_filters": b, "lr": c}
            for a in (1, 2)
            for b in (4, 8)
            for c in (0.1, 1)
        ],
    ],
    ids=[
        "only failures",
        "one run",
        "unfinished",
        "seeds alone",
        "words",
        "a search",
        "three keys",
    ],
)
def test_any_sweep_has_a_page(members, tmp_path):
    for i, member in enumerate(members):
        add_member(tmp_path, loss=300.0 + i, **member)
    page = Page(write_report(tmp_path))
    assert f"{len(members)} run{'s' * (len(members) > 1)}" in page.text()
    assert ("Heat maps" in page.text("h2")) == (len(members) == 8)  # only there is a grid


def test_a_folder_that_is_neither_is_refused(tmp_path):
    done = command("report", str(tmp_path))
    assert done.returncode == 1
    assert "is neither a run (config.yaml is missing) nor a sweep" in done.stderr
    assert "Traceback" not in done.stderr
    assert command("report", str(tmp_path / "nowhere")).returncode == 1
    done = command("report", str(make_run(tmp_path / "run")))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "run" / "report.html")


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_package_is_one_line(package, tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        f"sys.modules[{package!r}] = None\n"
        "from cherimoya.report.pages import offer_report\n"
        "from cherimoya.util import console; console.print_messages()\n"
        "offer_report(Path(sys.argv[1])); offer_report(Path(sys.argv[1]))"
    )
    run = make_run(tmp_path / "run")
    done = subprocess.run([sys.executable, "-c", code, run], capture_output=True, text=True)
    install = "Install it with: pip install 'cherimoya-train[plots]'"
    assert done.stdout == f"no plots: {package} is missing. {install}\n"
    assert not done.stderr


def test_a_page_that_cannot_be_drawn_spoils_nothing(tmp_path, capsys, monkeypatch):
    def fail(*_):
        raise ValueError("no pen")

    run = make_run(tmp_path / "run")
    monkeypatch.setattr("cherimoya.report.plots.runs.curve", fail)
    offer_report(run)
    assert "Try again with: cherimoya-report" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["summary.json", "metrics.jsonl", "examples.npz", "config.yaml"])
def test_a_page_says_which_file_is_damaged_and_shows_the_others(tmp_path, name):
    run = a_run(tmp_path)
    (run / name).write_bytes((run / name).read_bytes()[:100] + b"\xff\n")
    page = Page(write_report(run))
    assert "Damaged files" in page.text("h3")
    assert f"{run / name} is damaged (" in page.text("p")
    assert page.count("svg")


def test_a_sweep_with_a_damaged_member_has_a_page(tmp_path):
    sweep = tmp_path / "sweep"
    member, _ = (add_member(sweep, n_layers=layers) for layers in (3, 5))
    (member / "status.json").write_text('{"state": "done", "pid": 1e400}')
    text = Page(write_report(sweep)).text()
    assert "1 damaged" in text
    assert f"{member / 'status.json'} is damaged (pid is 'None')" in text


def test_planned_members_without_a_run_are_told_of(tmp_path, monkeypatch, capsys):
    run = add_member(tmp_path, n_layers=3)
    members = [{"model.n_layers": n} for n in ("3", "5", "7")]
    write_plan(tmp_path, Plan("a", ["cherimoya-train"], ["model.n_layers"], members))
    note_member(tmp_path / "n_layers=7", members[2])  # and nothing else yet
    monkeypatch.setattr(sys, "argv", ["cherimoya-report", "--runs", str(tmp_path)])
    report_command.report()
    said = capsys.readouterr().out.splitlines()
    assert {str(run / "report.html"), str(tmp_path / "report.html")} < set(said)
    assert {f"no run yet: {tmp_path / f'n_layers={n}'}" for n in (5, 7)} < set(said)


@pytest.mark.parametrize("metrics", ["true", "[1]", "{a/b/c: 1}", "{1: {}}"])
def test_any_metrics_in_a_configuration_leave_a_page(metrics, tmp_path):
    run = make_run(tmp_path / "run")
    values = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(f"{values}\nmetrics: {metrics}\n")
    assert write_report(run).is_file()


def test_a_page_that_cannot_be_put_in_place_is_one_message(tmp_path, monkeypatch, capsys):
    run = make_run(tmp_path / "run")
    (run / "report.html").mkdir()
    monkeypatch.setattr(sys, "argv", ["cherimoya-report", str(run)])
    with pytest.raises(SystemExit) as ended:
        report_command.report()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "report.html: Is a directory. Move it away, or choose another folder." in said
    assert not list(run.glob(".*.tmp"))


def test_a_folder_whose_name_is_no_text_has_a_page(tmp_path):
    folder = tmp_path / "lat\udcfc"  # a byte of Latin-1, as Python reads it
    shutil.copytree(a_run(tmp_path / "run"), folder)
    assert "lat?" in write_report(folder).read_text()
