"""cherimoya-sweep: how a sweep is going, and its script for SLURM."""

import argparse
import difflib
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from hydra.errors import HydraException

from cherimoya.cli.job import print_error
from cherimoya.cli.level import without_level
from cherimoya.cli.pipe import quiet_when_closed
from cherimoya.cli.train import plan_sweep
from cherimoya.cli.version import version_text
from cherimoya.config import targets
from cherimoya.config.command_line import checked_arguments, one_word_each
from cherimoya.config.train import TrainConfig
from cherimoya.errors import CherimoyaError, ConfigError, disk_words
from cherimoya.records import sweep as sweeps
from cherimoya.sweeps import status
from cherimoya.sweeps.slurm import script
from cherimoya.util.console import counted

HELP = """\
cherimoya-sweep: look after the sweeps of cherimoya-train -m.

cherimoya-sweep status                       the newest sweep under outputs/sweeps, live
cherimoya-sweep status outputs/sweeps/NAME   another one; --once prints it once, --tsv as a table
cherimoya-sweep slurm -m sweep=NAME ...      an sbatch script with a task for each run, for the
                                             same arguments as cherimoya-train

cherimoya-sweep status --help and cherimoya-sweep slurm --help list their options. As every
command, it takes --quiet and --log-level."""
SWEEPS = Path("outputs/sweeps")
REDRAW_SECONDS = 2.0
QUIET_SECONDS = 20.0  # without a run, as between two, after which nothing more is expected
HOME_AND_CLEAR = "\033[H\033[2J"
ONCE = "once=true"


@quiet_when_closed()
def main() -> None:
    """cherimoya-sweep."""
    commands = {"status": _status, "slurm": _slurm}
    try:
        word, *arguments = without_level(sys.argv[1:]) or ["--help"]
    except ConfigError as error:
        print_error(error)
        raise SystemExit(1) from None
    if word in ("--help", "-h"):
        print(HELP)
        return
    if word == "--version":
        print(version_text("cherimoya-sweep"))
        return
    targets.enforce()
    try:
        if word not in commands:
            raise ConfigError(f"unknown command {word}.{_near(word, list(commands))}")
        commands[word](arguments)
    except (CherimoyaError, HydraException, OSError) as error:
        print_error(disk_words(error, "another folder") if isinstance(error, OSError) else error)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


class _Parser(argparse.ArgumentParser):
    """Complains like everything else here."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}. See {self.prog} --help.")


def _status(arguments: Sequence[str]) -> None:
    parser = _Parser("cherimoya-sweep status", description="How a sweep is going.")
    parser.add_argument("folder", nargs="?", help="of the sweep; by default the newest")
    parser.add_argument("--once", action="store_true", help=f"print it once (also {ONCE})")
    parser.add_argument("--tsv", action="store_true", help="its runs as a tab-separated table")
    words = ["--once" if word == ONCE else word for word in arguments]
    options, unknown = parser.parse_known_args(words)
    if unknown:
        raise ConfigError(
            f"unknown word {unknown[0]}.{_near(unknown[0], ['--once', '--tsv', ONCE])}"
        )
    folder = _sweep_folder(options.folder)
    if options.tsv:
        print(sweeps.tsv(sweeps.read_sweep(folder)))
        return
    if options.once or not sys.stdout.isatty():
        print(status.describe(folder))
        return
    quiet_since = time.monotonic()
    while True:
        if status.anything_runs(folder):
            quiet_since = time.monotonic()
        size = shutil.get_terminal_size()
        print(HOME_AND_CLEAR + status.describe(folder, size.lines - 1), flush=True)
        quiet = time.monotonic() - quiet_since > QUIET_SECONDS
        if quiet or not status.anything_left(folder):
            return
        time.sleep(REDRAW_SECONDS)


def _sweep_folder(named: str | None) -> Path:
    """The folder of the sweep that is meant. Raises ConfigError where there is none."""
    if named is None:
        plans = sorted(SWEEPS.glob(f"*/{sweeps.PLAN}"), key=lambda path: path.stat().st_mtime)
        if not plans:
            raise ConfigError(f"no sweep under {SWEEPS}. Name the folder of one.")
        return plans[-1].parent
    for folder in (Path(named), SWEEPS / named):
        if sweeps.read_sweep(folder):
            return folder
    if Path(named).is_dir():
        os.scandir(named).close()  # raises what the disk refuses
    others = [path.parent.name for path in SWEEPS.glob(f"*/{sweeps.PLAN}")]
    raise ConfigError(f"{named}: no sweep there.{_near(named, others)}")


def _slurm(arguments: Sequence[str]) -> None:
    parser = _Parser(
        "cherimoya-sweep slurm", allow_abbrev=False,
        usage="cherimoya-sweep slurm [options] -m <arguments of cherimoya-train> > sweep.sbatch",
        description="Print an sbatch script with a task for each run that is not done.",
    )  # fmt: skip
    add = parser.add_argument
    add("--time", default="4:00:00", help="of a task, before it is queued again (%(default)s)")
    add("--partition", help="where to run; by default the site's")
    add("--account")
    add("--qos")
    add(
        "--gpus", type=int, default=1, help="of each run, as trainer.devices (%(default)s); 0: none"
    )
    add("--cpus", type=int, default=4, help="of each run (%(default)s)")
    add("--mem", default="16G", help="of each run (%(default)s)")
    add("--parallel", type=int, help="runs at a time; by default as many as there is room for")
    add("--warning", type=int, default=120, help="seconds in which a run can save (%(default)s)")
    add("--setup", action="append", default=[], help="a line before the run: 'module load cuda'")
    add("--sbatch", action="append", default=[], help="another option: --sbatch=--constraint=a100")
    options, rest = parser.parse_known_args(arguments)
    known = [flag for action in parser._actions for flag in action.option_strings]
    for word in rest:
        near = difflib.get_close_matches(word.split("=")[0], known, n=1, cutoff=0.7)
        if word.startswith("--") and near:
            raise ConfigError(f"unknown option {word}. Did you mean {near[0]}?")
    rest = list(checked_arguments(one_word_each(rest), TrainConfig, several=True))
    sweep = plan_sweep(rest)
    if sweep is None:
        raise ConfigError("these arguments are one run. Add -m and several values, or sweep=...")
    if not sweep.members:
        raise ConfigError("a search has no list of runs. Use hydra/launcher=slurm for it.")
    if all(sweeps.read_member(sweep.folder_of(words)).finished for words in sweep.members):
        raise ConfigError(f"all of {sweep.folder} is done ({counted(len(sweep.members), 'run')}).")
    (sweep.folder / "slurm").mkdir(exist_ok=True)
    print(script(sweep, rest, options), end="")


def _near(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if near:
        return f" Did you mean {near[0]}?"
    return f" Known here: {', '.join(known)}." if known else ""


if __name__ == "__main__":
    main()
