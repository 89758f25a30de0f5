"""Break commands off at every change of a file, and see that the same command goes on.

    python tests/faults/campaign.py [--kinds kill half full error] [--scenes ...] [--trials 20]

For each scene and kind of fault, so many trials, spread over all changes of files that the command
makes. Each begins in a fresh folder, with the fault; then the command is given again without one.
The kind "tmpfs" needs the right to mount: the output is on a real file system of a few KiB, which
has room for more at the second time. It alone tests memory maps, which are written without a call.
A row for each scene and kind goes to experiments/faults/results.csv: how many trials, how often a
traceback, a signal or a loop was seen, how often the second command failed, and how often what is
left differs from an undisturbed run. Needs a C compiler.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE.parent / "support"), str(HERE), str(ROOT / "experiments")]
from rows import append_row  # noqa: E402

RESULTS = ROOT / "experiments" / "faults" / "results.csv"
KINDS = ("kill", "half", "full", "error", "tmpfs")
SECONDS = 120
ROOM = 64 << 10  # KiB of a file system that has enough
TRACEBACK = ("Traceback (most recent call last)", "Fatal Python error", "panicked at")


class Machine:
    """Starts commands whose changes of files fail as asked for; before: what starts them all."""

    def __init__(self, work: Path, before: Sequence[str] = ()) -> None:
        self.work = work
        library = work / "failing_disk.so"
        source = HERE / "failing_disk.c"
        subprocess.run(
            ["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True
        )
        self.counter = work / "count"
        paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = os.environ | {
            "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1", "PYTHONPATH": paths,
            "XDG_CACHE_HOME": str(work / "cache"), "WANDB_MODE": "disabled",
        }  # fmt: skip
        self.server = subprocess.Popen(
            [*before, sys.executable, str(HERE / "server.py")], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self.server.stdout.readline() == "ready\n"

    def run(self, words, folder: Path, kind: str = "", at: int = 0) -> tuple[int | str, str, int]:
        """The exit code, all that was printed, and how many changes of files there were."""
        self.counter.write_bytes(bytes(8))
        output = self.work / "said.txt"
        asked = {
            "words": list(words), "folder": str(folder), "output": str(output), "seconds": SECONDS,
            "environment": {
                "FAULT_FOLDER": str(folder), "FAULT_COUNTER": str(self.counter),
                "FAULT_KIND": kind, "FAULT_AT": str(at), "TMPDIR": str(folder / "tmp"),
            },
        }  # fmt: skip
        self.server.stdin.write(json.dumps(asked) + "\n")
        self.server.stdin.flush()
        code = json.loads(self.server.stdout.readline())
        count = int.from_bytes(self.counter.read_bytes(), sys.byteorder)
        return code, output.read_text(errors="replace"), count

    def end(self) -> None:
        self.server.stdin.close()
        self.server.wait(30)


@dataclass
class Outcome:
    """What was seen in the trials of a scene and a kind of fault."""

    counts: Counter = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def note(self, what: str, at: int, said: str) -> None:
        self.counts[what] += 1
        last = [line for line in said.splitlines() if line.strip()][-3:]
        self.notes.append(f"{what}, at change {at}: {' | '.join(last)[-400:]}")


def check_words(outcome: Outcome, code: int | str, said: str, at: int, killed: bool) -> None:
    """Count a traceback, a signal and a loop."""
    if any(word in said for word in TRACEBACK):
        outcome.note("tracebacks", at, said)
    elif code == "late":
        outcome.note("loops", at, said)
    elif code >= 128 and not killed:
        outcome.note("signals", at, f"{said}\nexit code {code}")


def mounted(folder: Path, size: int, *options: str) -> None:
    """A file system of `size` KiB for the output of a scene."""
    folder.mkdir(exist_ok=True)
    made = ",".join([f"size={size}k", "mode=777", *options])
    subprocess.run(["mount", "-t", "tmpfs", "-o", made, "tmpfs", str(folder)], check=True)


def may_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        made = ["mount", "-t", "tmpfs", "tmpfs", folder]
        done = subprocess.run(made, stderr=subprocess.DEVNULL).returncode == 0
        unmounted(Path(folder))
    return done


def unmounted(folder: Path) -> None:
    subprocess.run(["umount", "-l", str(folder)], stderr=subprocess.DEVNULL)


def trial(machine: Machine, scene, folder: Path, kind: str, at: int, whole, outcome) -> None:
    """One fault at change `at`, or with so many KiB, and the same command again."""
    from scenes import contents

    outcome.counts["trials"] += 1
    if kind == "tmpfs":
        mounted(folder / scene.output, at)
    code, said, _ = machine.run(scene.words, folder, kind, at)
    if kind == "tmpfs":
        mounted(folder / scene.output, ROOM, "remount")
    killed = kind in ("kill", "half")
    check_words(outcome, code, said, at, killed)
    second = scene.second
    if code == 0:
        outcome.counts["unharmed"] += 1
    if second != scene.words and not (folder / scene.output / "config.yaml").exists():
        second = scene.words  # it had not begun
    elif second != scene.words and contents(folder, scene) == whole:
        second = ()
    if second:
        code, again, _ = machine.run(second, folder)
        check_words(outcome, code, again, at, False)
        if code not in (0, "late") and code < 128:
            outcome.note("refused", at, said[-200:] + "\n-- again:\n" + again)
            return
    left = contents(folder, scene)
    if left != whole:
        wrong = sorted({*left.items()} ^ {*whole.items()})
        outcome.note("different", at, said[-200:] + f"\n{[name for name, _ in wrong]}")


def spread(total: int, trials: int) -> list[int]:
    """Numbers of changes, from 1 to `total`, evenly."""
    n = min(total, trials)
    return sorted({1 + round(i * (total - 1) / max(n - 1, 1)) for i in range(n)})


def main() -> None:
    from scenes import SCENES, contents, fresh, make_inputs

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, help="all that this user may")
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument("--trials", type=int, default=20, help="of each scene and kind")
    parser.add_argument("--dry", action="store_true", help="print, and write no row")
    asked = parser.parse_args()
    bad = 0
    if asked.kinds is None:
        asked.kinds = KINDS if may_mount() else KINDS[:-1]
        print(f"kinds of faults: {', '.join(asked.kinds)}", flush=True)
    with tempfile.TemporaryDirectory(prefix="faults-") as work:
        machine = Machine(Path(work))
        inputs = make_inputs(Path(work) / "inputs")
        for name in asked.scenes:
            scene = SCENES[name]
            folder = fresh(inputs, Path(work) / "scene")
            code, said, total = machine.run(scene.words, folder)
            assert code == 0, said
            whole = contents(folder, scene)
            used = sum(p.stat().st_size for p in (folder / scene.output).rglob("*")) >> 10
            for kind in asked.kinds:
                outcome = Outcome()
                for at in spread(used + 8 if kind == "tmpfs" else total, asked.trials):
                    unmounted(folder / scene.output)
                    fresh(inputs, folder)
                    trial(machine, scene, folder, kind, at, whole, outcome)
                unmounted(folder / scene.output)
                print(f"{name}, {kind}: {total} changes, {dict(outcome.counts)}", flush=True)
                for note in outcome.notes:
                    print(f"    {note}", flush=True)
                bad += len(outcome.notes)
                if not asked.dry:
                    record(name, kind, total, outcome)
        machine.end()
    raise SystemExit(f"{bad} faults did not end well" if bad else 0)


def record(scene: str, kind: str, total: int, outcome: Outcome) -> None:
    columns = ("tracebacks", "signals", "loops", "refused", "different")
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True
    ).stdout.strip()
    row = {
        "date": datetime.date.today().isoformat(), "commit": commit, "scene": scene, "fault": kind,
        "changes": total, "trials": outcome.counts["trials"],
        **{column: outcome.counts[column] for column in columns},
    }  # fmt: skip
    append_row(RESULTS, row)


if __name__ == "__main__":
    main()
