"""Pages of runs and sweeps: one HTML file each, made from a folder's files and nothing else."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from cherimoya.errors import CherimoyaError
from cherimoya.records import sweep as sweeps
from cherimoya.records.evaluation import is_evaluation
from cherimoya.records.layout import PAGE
from cherimoya.records.own_folders import check_page
from cherimoya.records.run import is_run
from cherimoya.util import console, own_code
from cherimoya.util.console import result, warning
from cherimoya.util.files import atomic_write


def write_report(folder: Path, overwrite: bool = False) -> Path:
    """Write the page of the run, sweep or evaluation in `folder`, and return its path.

    Raises CherimoyaError for a folder that is none of these, without the packages that draw, and,
    unless `overwrite`, where another file has the name of the page.
    """
    if not folder.is_dir():
        raise CherimoyaError(f"{folder} is no folder. Name a run's or a sweep's.")
    kinds = {"sweep": is_sweep, "evaluation": is_evaluation, "run": is_run}
    kind = next((kind for kind, holds_one in kinds.items() if holds_one(folder)), None)
    if kind is None:
        raise CherimoyaError(
            f"{folder} is neither a run (config.yaml is missing) nor a sweep (no folder in it has "
            f"a {sweeps.MEMBER}). Name a folder that cherimoya-train has made."
        )
    try:
        from cherimoya.report import evaluation, run, sweep

        page = _template(f"{kind}.html")
    except ImportError as error:
        package = (error.name or str(error)).split(".")[0]
        raise CherimoyaError(
            f"no plots: {package} is missing. Install it with: pip install 'cherimoya-train[plots]'"
        ) from error
    if not overwrite:
        check_page(folder)
    modules = {"run": run, "sweep": sweep, "evaluation": evaluation}
    contents = modules[kind].contents(folder)
    with atomic_write(folder / PAGE) as file:
        file.write(page.render(**contents).encode(errors="replace"))
    return folder / PAGE


def write_page(path: Path, template: str, contents: Mapping[str, Any]) -> Path:
    """Write the page of one file to `path`. Raises ImportError without the packages that draw."""
    text = _template(template).render(**contents)
    with atomic_write(path) as file:
        file.write(text.encode(errors="replace"))
    return path


@contextmanager
def offered(what: str = "page") -> Iterator[None]:
    """Where a page or a picture is made of an output that is whole; a line where it cannot be,
    which must not spoil the output."""
    try:
        yield
    except ImportError as error:
        console.say(warning(f"no {what}: {error}. pip install 'cherimoya-train[plots]'"))
    except Exception as error:  # a drawing that fails is no reason to lose the output
        said = str(error).rstrip(".") if isinstance(error, CherimoyaError) else repr(error)
        console.say(warning(f"no {what}: {said}. The same command tries again"))


def is_sweep(folder: Path) -> bool:
    """Whether `folder` holds the members of a sweep."""
    return any(folder.glob(f"*/{sweeps.MEMBER}"))


def offer_report(folder: Path, overwrite: bool = False) -> None:
    """Write the page at the end of other work, which a page that cannot be must not spoil."""
    try:
        console.say(result(f"report       {write_report(folder, overwrite)}"))
    except CherimoyaError as error:
        console.say_once(str(error))
    except Exception as error:  # a drawing that fails is no reason to call the run failed
        again = f"Try again with: cherimoya-report {folder}"
        console.say(warning(f"no report: {own_code.said(error)}. {again}"))


@cache
def _template(name: str) -> Any:
    import jinja2

    from cherimoya.report import format

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cherimoya.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "score": format.score,
        "duration": format.duration,
        "moment": format.moment,
        "whole": format.whole,
        "counted": console.counted,
    }
    return environment.get_template(name)
