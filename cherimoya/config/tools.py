"""What cherimoya-dashboard and searches can be told. Values live in conf/*.yaml."""

from dataclasses import dataclass

from cherimoya.config.schema import checked


@dataclass(frozen=True)
class DashboardConfig:
    """Which W&B project `cherimoya-dashboard` lays out. None: the default entity; whether there
    is an API key."""

    project: str
    entity: str | None
    name: str
    dry_run: bool | None


@dataclass(frozen=True)
class SearchConfig:
    """How hydra/sweeper=optuna searches."""

    n_trials: int = checked(at_least=1)
    n_jobs: int = checked(at_least=1)
    sampler: str = checked(choices=("tpe", "random"))
    startup_trials: int = checked(at_least=1)
    seed: int = checked(at_least=0)
    pruner: str = checked(choices=("median", "hyperband", "none"))
    prune_after_trials: int = checked(at_least=1)
    prune_after_epochs: int = checked(at_least=0)
    metric: str = checked()
    direction: str | None = checked(choices=("minimize", "maximize"))
    storage: str | None = checked()
