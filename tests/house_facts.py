"""What the house is like, measured from its code: `python tests/house_facts.py` prints it."""

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from statistics import median

PACKAGE = Path(__file__).resolve().parents[1] / "cherimoya"
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__init__.py"
}
# A room, and a file of the package's root, may import only itself and what stands before it.
FLOORS = (
    *("errors", "registry", "util", "config", "genome", "ops", "optim", "cheri", "blocks"),
    *("network", "metrics"),
    *("losses", "distributed", "data", "records", "inference", "loggers", "report", "prepare"),
    *("export", "evaluation", "interpret", "training", "sweeps", "cli"),
)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports(path: Path) -> frozenset[str]:
    """Every module, or name of a module, that `path` imports, inside functions too."""
    names = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def imported_modules(path: Path) -> set[str]:
    """The modules of the package, without its name, that `path` imports."""
    own = {name.removeprefix("cherimoya.") for name in imports(path) if "cherimoya." in name}
    named = {name if name in MODULES else name.rpartition(".")[0] for name in own}
    return {name for name in named if MODULES.get(name, path) != path}


def floor(module: str) -> int:
    return FLOORS.index(module.split(".")[0])


def upward() -> list[str]:
    """Imports of a room by one that stands before it."""
    return [
        f"{module} imports {other}"
        for module, path in MODULES.items()
        for other in sorted(imported_modules(path))
        if floor(other) > floor(module)
    ]


def circle() -> list[str]:
    """Modules that import each other in a circle, the first found; none is an empty list."""
    graph = {module: imported_modules(path) for module, path in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def private() -> list[str]:
    """Names with an underscore that another module imports, or takes from a module."""
    taken = []
    for module, path in MODULES.items():
        nodes = list(ast.walk(tree(path)))
        called = {
            alias.asname or alias.name
            for node in nodes
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
            if f"{node.module}.{alias.name}".removeprefix("cherimoya.") in MODULES
        }
        names = [name for name in imports(path) if name.startswith("cherimoya.")]
        names += [
            f"{node.value.id}.{node.attr}"
            for node in nodes
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in called
        ]
        last = {name: name.rpartition(".")[2] for name in names}
        taken += [
            f"{module}: {name}"
            for name in sorted(names)
            if last[name].startswith("_") and not last[name].endswith("__")
        ]
    return taken


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def is_kernels(module: str) -> bool:
    """Whether a module holds Triton's or Gluon's language."""
    return module.startswith("ops.") and module.endswith(("kernels", "hopper_common"))


def long_files(most: int) -> list[str]:
    counted = {module: lines(path) for module, path in MODULES.items() if not is_kernels(module)}
    return [f"{module}: {n} lines" for module, n in counted.items() if n > most]


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function beside its docstring."""
    first = function.body[0]
    said = ast.get_docstring(function) is not None
    described = (first.end_lineno or 0) - first.lineno + 1 if said else 0
    return (function.end_lineno or 0) - function.lineno + 1 - described


def long_functions(most: int) -> list[str]:
    return [
        f"{module}.{node.name}: {code_lines(node)} lines"
        for module, path in MODULES.items()
        if not is_kernels(module)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and code_lines(node) > most
    ]


def main() -> None:
    counted = [lines(path) for path in PACKAGE.rglob("*.py")]
    rooms = {module.split(".")[0] for module in MODULES if "." in module}
    print(f"{len(counted)} files, {sum(counted):,} lines, median {median(counted):g}")
    print(f"{len(rooms)} rooms: {', '.join(name for name in FLOORS if name in rooms)}")
    for what, listed in (
        ("imports of a later room", upward()),
        ("circle of imports", circle()),
        ("private names of other modules", private()),
        ("files over 350 lines, kernels apart", long_files(350)),
        ("functions over 50 lines beside the docstring, kernels apart", long_functions(50)),
    ):
        print(f"{what}: {len(listed) or 'none'}", *listed, sep="\n  ")


if __name__ == "__main__":
    main()
