"""What cherimoya-design can be told, see conf/design.yaml."""

from dataclasses import dataclass

from cherimoya.config.interpret import LociConfig
from cherimoya.config.schema import MOST_BASES, Used, checked
from cherimoya.errors import ConfigError

MOST_LOG = 50  # log counts: no experiment has more


@dataclass(frozen=True, kw_only=True)
class DesignConfig(LociConfig):
    """Everything `cherimoya-design` composes. Log counts are natural logarithms of counts + 1."""

    precision: str = checked(
        choices=("fp32", "tf32"), hint="Gradients of half precision are too coarse."
    )
    change: float | None = checked(at_least=-MOST_LOG, at_most=MOST_LOG)
    goal: float | None = checked(at_least=-MOST_LOG, at_most=MOST_LOG)
    tolerance: float = checked(above=0, at_most=MOST_LOG)
    edit_within: int | None = checked(at_least=1, at_most=MOST_BASES)
    prune: float = checked(at_least=0, at_most=MOST_LOG)
    attempts: int = checked(at_least=1, at_most=20)
    edit_weight: float = checked(at_least=0, at_most=1e6)
    designs: int = checked(at_least=1, at_most=100_000)
    max_iter: int = checked(at_least=1, at_most=10_000_000)
    early_stopping: int = checked(at_least=1, at_most=10_000_000)
    lr: float = checked(above=0, at_most=1e6)
    tau: float = checked(above=0, at_most=1e6)
    seed: int = checked(at_least=0)
    page: bool
    examples: int = checked(
        at_least=0,
        at_most=100,
        used=Used(lambda config: config.page, "page=false draws no loci", "page=true"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.output.lower().endswith((".tsv", ".txt")):
            raise ConfigError(
                f"output={self.output}: the table, such as designed.tsv. The edits, the sequences "
                "and the page go beside it."
            )
        if self.target is None:
            raise ConfigError(
                "target=null: what is to change? Set target=counts, or target=counts:GROUP."
            )
        if (self.change is None) == (self.goal is None):
            given = "neither is set" if self.change is None else "both are set"
            raise ConfigError(
                f"change and goal: {given}. Set one: change=1.0 for that much more than now, "
                "goal=7.5 for that many log counts."
            )
        if self.change is not None and abs(self.change) <= self.tolerance:
            raise ConfigError(
                f"change={self.change:g} is no more than tolerance={self.tolerance:g}, so no base "
                "would be edited. Set a larger change or a smaller tolerance."
            )
