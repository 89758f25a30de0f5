"""cherimoya-sweep: what it says of a sweep, and of mistakes."""

import json
import os
import pty
import socket
import subprocess
import sys
import time

import pytest
from command_lines import clean_environment, command

from cherimoya.records import status
from cherimoya.records import sweep as sweeps
from cherimoya.records.sweep import Plan
from cherimoya.sweeps import status as sweep_status

TOOL = [sys.executable, "-m", "cherimoya.cli.sweep"]


def tool(*arguments, cwd) -> subprocess.CompletedProcess:
    return command("sweep", *map(str, arguments), folder=cwd)


@pytest.fixture
def folder(tmp_path):
    """A sweep of five: one done, one running, one failed, one killed, one that has not begun."""
    sweep = tmp_path / "outputs" / "sweeps" / "seeds"
    command = ["cherimoya-train", "-m", "seed=range(5)"]
    members = [{"seed": str(n)} for n in range(5)]
    sweeps.write_plan(sweep, Plan("seeds", command, ["seed"], members))
    for n in range(4):
        sweeps.note_member(sweep / f"seed={n}", members[n])
    speed = {"epochs": 10, "ms_per_step": 12.34}
    now = time.time()
    status.write(sweep / "seed=0", "done", now, epoch=10, train_seconds=100.0, **speed)
    summary = {"best_valid_loss": 7.5, "train_seconds": 100.0, "parameters": 5}
    (sweep / "seed=0" / "summary.json").write_text(json.dumps(summary))
    status.write(sweep / "seed=1", "running", now, epoch=5, train_seconds=50.0, **speed)
    status.write(sweep / "seed=2", "failed", now, ValueError("too much\nof it"))
    status.write(sweep / "seed=3", "running", now, epoch=2, train_seconds=20.0, **speed)
    gone = subprocess.Popen(["true"])
    gone.wait()
    change(sweep / "seed=3", pid=gone.pid)
    return sweep


def test_its_runs_are_a_table_for_other_programs(folder, tmp_path):
    done = tool("status", "seeds", "--tsv", cwd=tmp_path)
    header, *rows = (line.split("\t") for line in done.stdout.splitlines())
    assert header == [
        "run", "seed", "state", "parameters", "best_valid_loss", "test.profile_mnll",
        "test.profile_pearson", "test.count_pearson", "minutes",
    ]  # fmt: skip
    assert rows[0] == ["seed=0", "0", "done", "5", "7.5", "", "", "", "1.66667"]
    assert [row[:3] for row in rows[1:]] == [
        ["seed=1", "1", "running"], ["seed=2", "2", "failed"], ["seed=3", "3", "interrupted"],
        ["seed=4", "4", "waiting"],
    ]  # fmt: skip


def test_between_two_runs_a_sweep_that_is_alive_goes_on(folder):
    status.write(folder / "seed=1", "interrupted", time.time(), epoch=5, epochs=10)
    assert "nothing runs; the same command goes on" in sweep_status.describe(folder)
    assert not sweep_status.anything_runs(folder)
    with sweeps.at_work(folder):
        said = sweep_status.describe(folder)
        assert f"the next run is about to begin, by process {os.getpid()}" in said
        assert "nothing runs" not in said
        assert sweep_status.anything_runs(folder)
        (note,) = folder.glob(".*.running")
        content = json.loads(note.read_text())
    assert not note.exists()
    gone = subprocess.Popen(["true"])
    gone.wait()
    note.write_text(json.dumps(content | {"pid": gone.pid}))  # killed, with no time to clean up
    assert "nothing runs" in sweep_status.describe(folder)
    note.write_text(json.dumps(content | {"host": "node7", "pid": 12}))
    said = sweep_status.describe(folder)
    assert "process 12 on node7 is at it; should it be gone, the same command goes on" in said
    assert len(sweeps.read_sweep(folder)) == 5


def change(member, **values):
    path = member / "status.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_run_whose_process_is_gone_is_interrupted(folder):
    assert [m.state for m in sweeps.read_sweep(folder)] == [
        "done", "running", "failed", "interrupted", "waiting"
    ]  # fmt: skip
    change(folder / "seed=1", started="2020-01-01T00:00:00+0000")  # before this process began
    assert sweeps.read_member(folder / "seed=1").state == "interrupted"
    change(folder / "seed=1", host=f"not-{socket.gethostname()}")  # nobody here can tell
    assert sweeps.read_member(folder / "seed=1").state == "running"


def test_a_file_that_was_cut_off_is_said(folder):
    (folder / "seed=0" / "status.json").write_text('{"state": "do')
    member = sweeps.read_member(folder / "seed=0")
    assert (member.state, member.finished) == ("damaged", False)
    assert "status.json is damaged (Unterminated" in member.error
    assert member.error in sweep_status.describe(folder)


def test_the_status_of_a_sweep(folder):
    lines = sweep_status.describe(folder).splitlines()
    assert "5 runs, 1 running, 1 failed, 1 interrupted, 1 done, 1 waiting" in lines[0]
    assert lines[1] == "best       seed=0, valid loss 7.5"
    # 50 s of the one that runs, 80 s of the one that was stopped, and 100 s of the last
    assert lines[2] == "time left  about 3 min 50 s, if the others take as long"
    cells = [line.split() for line in lines[4:]]
    assert cells[0] == ["seed", "state", "epoch", "ms", "a", "step", "valid", "loss"]
    assert cells[2] == ["0", "done", "10", "of", "10", "12.3", "7.5", "best"]
    assert cells[3][:6] == ["1", "running", "5", "of", "10", "12.3"]
    assert cells[4] == ["2", "failed", "-", "-", "-", "too", "much"]
    assert cells[6] == ["4", "waiting", "-", "-", "-"]
    rows = [{"epoch": epoch, "valid/loss": loss} for epoch, loss in ((1, 9.5), (2, 8.25), (3, 8.5))]
    (folder / "seed=1" / "metrics.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in rows))
    cells = [line.split() for line in sweep_status.describe(folder).splitlines()[4:]]
    assert cells[3][:7] == ["1", "running", "5", "of", "10", "12.3", "8.25"]  # the best so far
    os.utime(folder / "seed=1" / "status.json", (time.time() - 7200,) * 2)
    assert "silent for 2 h 0 min" in sweep_status.describe(folder)


def test_a_small_terminal_sees_what_is_new(folder):
    text = sweep_status.describe(folder, height=9)
    assert len(text.splitlines()) == 9
    assert "... and 3 more" in text
    assert "running" in text.splitlines()[-3]
    assert "failed" in text.splitlines()[-2]


def test_time_left_is_unknown_before_an_epoch_and_nothing_when_nothing_runs(folder):
    members = sweeps.read_sweep(folder)
    assert sweep_status.time_left([members[0], members[2], members[3]]) == ""
    change(folder / "seed=1", epoch=0)
    fresh = sweeps.read_member(folder / "seed=1")
    assert "not known" in sweep_status.time_left([fresh, members[4]])
    assert "about 50 s" in sweep_status.time_left([members[0], fresh])


def test_the_newest_sweep_is_shown_once_where_there_is_no_terminal(folder, tmp_path):
    done = tool("status", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("sweep      outputs/sweeps/seeds: 5 runs")
    change(folder / "seed=1", state="interrupted")
    done = tool("status", "seeds", "once=true", cwd=tmp_path)
    assert "goes on with what is not done: cherimoya-train -m 'seed=range(5)'" in done.stdout


def test_a_terminal_sees_it_live_until_it_ends(folder, tmp_path):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*TOOL, "status", "seeds"], cwd=tmp_path, env=clean_environment(), stdout=theirs
    )
    os.close(theirs)
    seen = ""
    while "\033[H\033[2J" not in seen or "waiting" not in seen:
        seen += os.read(ours, 4096).decode()
    for n in range(5):
        (folder / f"seed={n}").mkdir(exist_ok=True)
        status.write(folder / f"seed={n}", "done", time.time())
        (folder / f"seed={n}" / "summary.json").write_text('{"best_valid_loss": 1.0}')
    assert process.wait(timeout=20) == 0
    assert "5 done" in os.read(ours, 100_000).decode()
    os.close(ours)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["statsu"], "unknown command statsu. Did you mean status?"),
        (["status", "--onec"], "unknown word --onec. Did you mean --once?"),
        (["status", "seed"], "seed: no sweep there. Did you mean seeds?"),
        (["slurm", "--tmie=3", "-m", "seed=0,1"], "unknown option --tmie=3. Did you mean --time?"),
        (["slurm", "--gpus=some", "-m", "seed=0,1"], "argument --gpus: invalid int value"),
        (["slurm", "-m", "model.n_layer=5,7"], "Did you mean model.n_layers?"),
        (["slurm", "seed=0"], "these arguments are one run. Add -m"),
        (["slurm", "seed=0,1"], "Add -m for a run each"),
        (["slurm", "-m", "model.n_layers=5,0"], "1 of 2 runs cannot be"),
    ],
)
def test_a_mistake_is_one_message(folder, tmp_path, arguments, words):
    done = tool(*arguments, cwd=tmp_path)
    assert done.returncode == 1, done.stdout
    assert words in done.stderr
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [[], ["--help"], ["status", "-h"], ["slurm", "--help"]])
def test_help(tmp_path, arguments):
    done = tool(*arguments, cwd=tmp_path)
    assert done.returncode == 0
    assert "cherimoya-sweep" in done.stdout


def test_no_sweep_at_all(tmp_path):
    done = tool("status", cwd=tmp_path)
    assert done.returncode == 1
    assert "no sweep under outputs/sweeps" in done.stderr
