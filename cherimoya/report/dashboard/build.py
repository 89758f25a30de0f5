"""cherimoya-dashboard: a W&B workspace and a report, built from what training logs."""

import sys

from cherimoya.config.tools import DashboardConfig
from cherimoya.errors import CherimoyaError
from cherimoya.loggers.wandb_server import server, unreachable


def dashboard(config: DashboardConfig) -> None:
    """Create the workspace and the report, or bring those of the same name up to date.

    In a dry run both are printed as JSON instead, without a network. Raises CherimoyaError.
    """
    try:
        from cherimoya.report.dashboard import views
    except ImportError as error:
        raise CherimoyaError(
            f"a dashboard needs wandb-workspaces ({error}). Install it with: pip install "
            "'cherimoya-train[dashboards]'"
        ) from None
    url, has_key = server()
    dry_run = not has_key if config.dry_run is None else config.dry_run
    if dry_run:
        why = "as set" if config.dry_run else f"there is no API key for {url}"
        print(f"dry run, {why}: nothing is sent", file=sys.stderr)
        print(views.as_json(config))
        return
    if not has_key:
        raise CherimoyaError(f"there is no API key for {url}. Run `wandb login`, or dry_run=true.")
    problem = unreachable(url)
    if problem:
        raise CherimoyaError(f"{url} cannot be reached ({problem}). Use dry_run=true.")
    for kind, address in views.publish(config).items():
        print(f"{kind:9s}  {address}")
