"""A preparation that was stopped goes on, and ends with the file of one that was not."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_lines import clean_environment
from toy import SMALL, Toy
from toy_parts import same, stopped

from cherimoya.errors import InUse
from cherimoya.prepare import parts
from cherimoya.prepare.dry_run import inspect

PARTIAL = "out.h5.partial"
KILLED = """
import multiprocessing, os, signal, threading, time
from pathlib import Path
from cherimoya.data import hdf5
from cherimoya.prepare import inputs, parts as cut

signal.signal(signal.SIGINT, signal.default_int_handler)  # where tests run in the background too
cut.PART, inputs.WORTH_WINDOWS = (1, 20), 0
hdf5.write_columns = lambda *given: time.sleep(60)  # the signal may come late, never too late

def kill(parts):
    while len(list(Path("{partial}").glob("background-*"))) < parts:
        time.sleep(0.001)
    print([child.pid for child in multiprocessing.active_children()], flush=True)
    os.kill(os.getpid(), signal.{signal})

threading.Thread(target=kill, args=({parts},), daemon=True).start()
from cherimoya.cli.commands import prepare
prepare()
"""
WHOLE = "from cherimoya.prepare import parts; parts.PART = (1, 20)\n"
WHOLE += "from cherimoya.cli.commands import prepare; prepare()"


def command(toy: Toy, code: str, folder: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """cherimoya-prepare in a folder of its own, with the same words for the same files."""
    (toy.folder / folder).mkdir(exist_ok=True)
    keys = [f"{k}={'null' if v is None else v}" for k, v in SMALL.items()]
    given = ["fasta=../toy.fa", "loci=../loci.bed", "output=out.h5", "gc_bin=1", "plots=false"]
    given += ["signal=[[../plus.bw,../minus.bw],[../cuts.tsv]]", "background_ratio=1"]
    return subprocess.run(
        [sys.executable, "-c", code, *keys, *given, *arguments],
        cwd=toy.folder / folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(("how", "processes"), [
    pytest.param("SIGKILL", 1, marks=pytest.mark.slow), ("SIGKILL", 2),
    pytest.param("SIGINT", 2, marks=pytest.mark.slow),
])  # fmt: skip
def test_a_killed_command_goes_on(many: Toy, how: str, processes: int) -> None:
    count = f"processes={processes}"
    code = KILLED.format(partial=PARTIAL, parts=1, signal=how)
    killed = command(many, code, "killed", count)
    assert killed.returncode == (-9 if how == "SIGKILL" else 130), killed.stderr
    assert not (many.folder / "killed/out.h5").exists()
    done = len(list((many.folder / "killed" / PARTIAL).glob("peaks-*")))
    assert done == 6
    workers = [
        int(pid) for pid in killed.stdout.strip().split("[")[-1].split("]")[0].split(",") if pid
    ]
    assert len(workers) == (2 if processes == 2 else 0)
    end = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < end, "processes outlive the one that was killed"
        time.sleep(0.05)
    again = command(many, WHOLE, "killed", count)
    assert again.returncode == 0, again.stderr
    assert (
        f"{PARTIAL}: resuming from what an interrupted run has done: the genome, 1 fragment "
        in (again.stdout)
    )
    assert "6 parts of the peaks, " in again.stdout
    whole = command(many, WHOLE, "whole", count)
    assert whole.returncode == 0, whole.stderr
    assert "resuming" not in whole.stdout
    names = sorted(path.name for path in (many.folder / "killed").iterdir())
    assert names == ["out.h5", "out.h5.done.json"]
    files = [many.folder / folder / "out.h5" for folder in ("killed", "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()


VALUES = {"background_ratio": 1, "gc_bin": 1.0, "processes": 1}


def test_parts_that_are_done_are_not_cut_again(many: Toy, monkeypatch) -> None:
    stopped(many, monkeypatch, 4, **VALUES)
    assert many.said[-1].startswith("stopped. Re-run the same command to resume")
    said: list[str] = []
    inspect(many.config(**VALUES, check=True), said.append)
    assert any("would be written, with what is in" in line and PARTIAL in line for line in said)
    own, calls = parts.keep, []
    monkeypatch.setattr(parts, "keep", lambda *a: (calls.append(a), own(*a)))
    many.run(**VALUES)
    assert len(calls) == 2  # of three chromosomes' peaks and background
    assert not (many.folder / PARTIAL).exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 1}, "seed was 0, now 1"),
        ({"max_jitter": 4}, "max_jitter was 5, now 4"),
        ({"loci": "more.bed"}, "loci 2 was "),
        ({"signal": [["minus.bw"], ["plus.bw"]]}, r"files in signal was [2], now [1, 1]"),
        ("plus.bw", "signal 3 was "),
        ("toy.fa", "fasta 1 was "),
    ],
)
def test_any_change_starts_over(many: Toy, monkeypatch, change, words: str) -> None:
    monkeypatch.chdir(many.folder)
    stopped(many, monkeypatch, 4, **VALUES)
    values = dict(VALUES)
    if isinstance(change, dict):
        many.bed("chrA\t300\t301", "chrC\t300\t301", name="more.bed")
        values |= change
    elif change == "plus.bw":  # the same number of bytes
        many.plus["chrA"] = many.plus["chrA"][::-1]
        many.bigwig("plus.bw", many.plus)
    else:
        many.bases = {name: bases[::-1] for name, bases in many.bases.items()}
        many.fasta()
    after = many.run(**values)
    said = next(line for line in many.said if "starts over" in line)
    assert words in said
    assert not any("resuming" in line for line in many.said)
    assert same(after, many.run(**values, output=f"{many.folder}/fresh.h5"))
    assert not list(many.folder.glob("*.partial"))


def test_a_file_that_changes_while_it_is_read(many: Toy, monkeypatch) -> None:
    own = parts.keep

    def keep(*arguments) -> None:
        own(*arguments)
        os.utime(many.folder / "plus.bw")

    monkeypatch.setattr(parts, "keep", keep)
    with pytest.raises(Exception, match="has changed while it was read"):
        many.run()
    assert not (many.folder / PARTIAL).exists()


def test_two_at_once_do_not_mix(many: Toy, monkeypatch) -> None:
    own = parts.keep

    def keep(*arguments) -> None:
        monkeypatch.setattr(parts, "keep", own)
        with pytest.raises(InUse, match=r"out.h5.partial is in use by process"):
            many.run()
        own(*arguments)

    monkeypatch.setattr(parts, "keep", keep)
    assert many.run().label.all()
