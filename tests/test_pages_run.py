"""Every command on every page runs, on small data, in the order of the page."""

import re
import shutil
from pathlib import Path

import page_scene
import pytest
from command_lines import command
from fake_hub import OLD, fake_hub
from page_commands import NOT_RUN, PAGES, ROOT, run_of, shown, to_run

WITH_COMMANDS = [page for page in PAGES if run_of(page)]


@pytest.fixture(scope="session")
def scene(tmp_path_factory):
    """The files that the pages name."""
    for module in ("pybigtools", "pysam"):
        pytest.importorskip(module)
    folder = tmp_path_factory.mktemp("scene")
    page_scene.build(folder)
    return folder


@pytest.fixture
def hub(tmp_path, scene):
    """A Hub that has the models which the pages name."""
    pytest.importorskip("huggingface_hub")
    with fake_hub(tmp_path / "hub") as made:
        best = (scene / "a.pt").read_bytes()
        made.heads["v2"] = OLD
        for name, commit in (("a.pt", None), ("best.pt", None), ("b.pt", OLD)):
            made.put("lab/model", name, best, *([commit] if commit else []))
        yield made


def last_run(folder: Path) -> str:
    """The newest run of the page, or the one that was there before."""
    runs = sorted(folder.glob("outputs/*/*/summary.json"), key=lambda path: path.stat().st_mtime)
    return str(runs[-1].parent.relative_to(folder)) if runs else "base"


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_a_page_run(page, scene, hub, tmp_path):
    folder = tmp_path / "folder"
    shutil.copytree(scene, folder, symlinks=True)
    wrong = []
    for line in run_of(page):
        page_scene.before(folder, line)
        name, words, target = to_run(line, last_run(folder))
        done = command(
            name, *words, folder=folder, timeout=1200, **page_scene.QUIET, **hub.environment
        )
        if target:
            (folder / target).write_text(done.stdout)
        if done.returncode or "Traceback" in done.stderr:
            wrong.append(f"{line}\n  run as: {name} {' '.join(words)}\n{done.stderr[-800:]}")
    assert not wrong, "\n".join(wrong)


def test_exceptions_are_shown_somewhere():
    """One that no page shows any more is taken out."""
    lines = [line for page in PAGES for line, _ in shown(page)]
    for known in NOT_RUN:
        assert any(re.fullmatch(known, line) for line in lines), known
