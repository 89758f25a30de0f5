"""The console script that makes pages."""

import argparse
import sys
from pathlib import Path

from cherimoya.cli.level import add_level, without_level
from cherimoya.cli.pipe import quiet_when_closed
from cherimoya.cli.version import version_text
from cherimoya.errors import CherimoyaError, disk_words
from cherimoya.records import sweep as sweeps
from cherimoya.records.run import is_run
from cherimoya.report.pages import is_sweep, write_report
from cherimoya.util import console

WORDS = """\
Make a page of a run, a sweep or an evaluation: report.html in its folder, which needs no network
and opens in any browser. Everything in it comes from the folder's files."""


@quiet_when_closed()
def report() -> None:
    """cherimoya-report."""
    parser = argparse.ArgumentParser(prog="cherimoya-report", description=WORDS)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="of any of them")
    parser.add_argument("--runs", action="store_true", help="and the pages of its runs")
    add_level(parser)
    parser.add_argument("--version", action="version", version=version_text("cherimoya-report"))
    try:
        arguments = parser.parse_args(without_level(sys.argv[1:]))
        for folder in arguments.folders:
            if arguments.runs and is_sweep(folder):
                for member in sweeps.read_sweep(folder):
                    begun = is_run(member.folder)
                    if begun:
                        console.say(console.result(str(write_report(member.folder))))
                    else:
                        console.say(f"no run yet: {member.folder}")
            console.say(console.result(str(write_report(folder))))
    except (CherimoyaError, OSError) as error:
        words = disk_words(error, "another folder") if isinstance(error, OSError) else error
        print(f"error: {words}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    report()
