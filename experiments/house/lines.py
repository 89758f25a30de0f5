"""How many lines the rebuilt house saved, from the commits: `python experiments/house/lines.py`."""

import re
import subprocess
from pathlib import Path

BEFORE, AFTER = "46d33e8", "d2d1810"
# What the package could not do before. All other commits do the same as before, with other lines.
NEW = {
    "63f31be": "open groups; three blocks, losses and optimizers, two loggers",
    "dd7cf54": "messages through logging",
    "57cdf76 4be23bf f057996 78783ea 0d408a8": "what own options need to resume, search and report",
    "0e9c4cf a4c7724 ae6e20e 9b77000": "commands that go on after any interruption",
    "f49a796 62246e9 0c3a184 b15be9d 7d51f81 4c0d471": "full and faulty disks, signals",
    "abd92c8 3355313 4389ec3 e9eff69 a366957": "damaged files are named",
    "016d31a 71f794e 3443f83 0ee4c52 f95c2c9 1db1640 46fe41e 856be05": "hostile input",
}  # fmt: skip


def git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout


def lines(commit: str) -> int:
    """Of the package at `commit`."""
    return sum(git("show", f"{commit}:{path}").count("\n") for path in listed(commit))


def listed(commit: str) -> list[str]:
    paths = git("ls-tree", "-r", "--name-only", commit, "cherimoya").splitlines()
    return [path for path in paths if Path(path).suffix == ".py"]


def added(commit: str) -> int:
    """Lines that a commit added to the package, less those that it removed."""
    numbers = git("show", "--format=", "--numstat", commit, "--", "cherimoya/*.py")
    return sum(int(a) - int(b) for a, b in re.findall(r"^(\d+)\t(\d+)\t", numbers, re.MULTILINE))


def main() -> None:
    before, after = lines(BEFORE), lines(AFTER)
    print(f"{before:,} lines at {BEFORE}, {after:,} at {AFTER}: {after - before:+,}")
    new = 0
    for commits, what in NEW.items():
        n = sum(map(added, commits.split()))
        new += n
        print(f"{n:+6,}  {what} ({commits.replace(' ', ', ')})")
    print(f"{after - before - new:+6,}  the same function, all other commits")


if __name__ == "__main__":
    main()
