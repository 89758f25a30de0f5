"""What an installation takes on disk, package by package, beside torch, Triton and what they need.

    python3 -m venv new && new/bin/pip install -c constraints.txt '.[prepare]'
    new/bin/python experiments/house/size.py --name '[prepare]'

Needs nothing but Python. Compiled .pyc files are left out. Rows go to size.csv.
"""

import argparse
import csv
import datetime
import re
from importlib.metadata import PackageNotFoundError, distribution, distributions
from pathlib import Path

HERE = Path(__file__).resolve().parent
APART = ("torch", "triton")  # with all that they need
TOOLS = {"pip", "setuptools"}  # of the environment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", default="core", help="what was installed")
    args = parser.parse_args()
    apart = set().union(*(needed(name) for name in APART))
    sizes = {normal(one.metadata["Name"]): size(one) for one in distributions()}
    own = {n: s for n, s in sizes.items() if n not in apart | TOOLS}
    date, path = datetime.date.today().isoformat(), HERE / "size.csv"
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["date", "installed", "package", "MB"])
        ordered = sorted(own.items(), key=lambda item: -item[1])
        rows = [("all", sum(own.values())), *((n, s) for n, s in ordered if s >= 1e6)]
        for name, found in rows:
            writer.writerow([date, args.name, name, f"{found / 1e6:.1f}"])
            print(f"{found / 1e6:8.1f} MB  {name}")


def size(one: object) -> int:
    """Bytes of a distribution's files."""
    paths = [Path(one.locate_file(file)) for file in one.files or []]
    return sum(p.stat().st_size for p in paths if p.suffix != ".pyc" and p.is_file())


def needed(name: str) -> set[str]:
    """A package and all that it needs and is installed, without its extras."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        one = normal(waiting.pop())
        if one in found:
            continue
        try:
            wanted = distribution(one).requires or []
        except PackageNotFoundError:
            continue
        found.add(one)
        plain = [word for word in wanted if "extra ==" not in word]
        waiting += [re.split(r"[^\w.-]", word, maxsplit=1)[0] for word in plain]
    return found


def normal(name: str) -> str:
    """A package's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
