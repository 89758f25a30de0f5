"""The steps of the Containerfile, as far as they go without an engine for images."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STEPS = [
    line.split(" ", 1)
    for line in (ROOT / "Containerfile").read_text().splitlines()
    if line and not line.startswith("#")
]


def copied(folder: Path) -> None:
    """Copy what COPY copies to /opt/cherimoya into `folder`."""
    for what, rest in STEPS:
        if what != "COPY":
            continue
        *sources, to = rest.split()
        place = folder / to.removeprefix("/opt/cherimoya").strip("/")
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, place)


def test_it_asks_for_extras_that_there_are():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (words,) = [rest for what, rest in STEPS if what == "RUN" and "pip install" in rest]
    (asked,) = re.findall(r"/opt/cherimoya\[(.*)\]", words)
    left_out = {"dev", "docs", "dashboards"}
    assert set(asked.split(",")) == set(settings["optional-dependencies"]) - left_out
    (command,) = [rest for what, rest in STEPS if what == "CMD"]
    assert command.strip('[]"') in settings["scripts"]
    (image,) = [rest for what, rest in STEPS if what == "FROM"]
    version = re.search(r"python:3\.(\d+)", image)
    assert int(version[1]) >= int(re.search(r">=3\.(\d+)", settings["requires-python"])[1])


@pytest.mark.slow
def test_what_it_copies_installs_and_works(tmp_path):
    copied(tmp_path / "source")
    (words,) = [rest for what, rest in STEPS if what == "RUN" and "pip install" in rest]
    words = shlex.split(words.replace("/opt/cherimoya", str(tmp_path / "source")))
    (asked,) = [word for word in words if word.endswith("]")]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index",
         "--no-build-isolation", "--target", str(tmp_path / "site"), asked.partition("[")[0]],
        check=True,
    )  # fmt: skip
    code = (
        "import sys, cherimoya; assert cherimoya.__file__.startswith(sys.argv[1]); "
        "sys.argv[1:] = ['--cfg', 'job']; from cherimoya.cli.train import train; train()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "site")], capture_output=True, text=True,
        cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "n_filters: 96" in done.stdout
