"""What `cherimoya-evaluate` and `cherimoya-predict` can be told. Values live in conf/*.yaml."""

from collections import Counter
from dataclasses import dataclass

from cherimoya.config.data import KeysConfig
from cherimoya.config.models import ModelsConfig
from cherimoya.config.schema import MOST_BASES, Used, checked
from cherimoya.errors import ConfigError

RESAMPLED = Used(
    lambda config: config.bootstrap > 0, "bootstrap=0 makes no intervals", "bootstrap=1000"
)


@dataclass(frozen=True)
class ScoredDataConfig:
    """The prepared file, and what to take of it. None: what the checkpoint's run took."""

    path: str | None = checked()
    keys: KeysConfig | None = checked()
    in_window: int | None = checked(at_least=1, at_most=MOST_BASES)
    out_window: int | None = checked(at_least=1, at_most=MOST_BASES)
    groups: list[str] | None = checked(default=None)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(ModelsConfig):
    """Everything `cherimoya-evaluate` composes."""

    data: ScoredDataConfig
    split: str = checked(
        choices=("train", "validation", "test", "all"),
        used=Used(lambda c: c.chroms is None, "chroms says which loci are scored", "chroms=null"),
    )
    chroms: list[str] | None = checked()
    replicate: str | None = checked()
    bootstrap: int = checked(at_least=0, at_most=1_000_000)
    confidence: float = checked(above=0, below=1, used=RESAMPLED)
    seed: int = checked(at_least=0, used=RESAMPLED)
    batch_size: int = checked(at_least=1, at_most=1_000_000)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.chroms == []:
            raise ConfigError("chroms=[] is empty. Name chromosomes, or leave it to take split.")
        if self.data.groups == []:
            raise ConfigError("data.groups=[] is empty. Name signal groups, or leave it out.")
        if self.data.keys is not None and self.data.path is None and self.replicate is None:
            raise ConfigError(
                "data.keys does nothing: the run's own file is read with the names that the run "
                "had. Set data.path=<file> too, or leave data.keys out."
            )


@dataclass(frozen=True, kw_only=True)
class PredictConfig(ModelsConfig):
    """Everything `cherimoya-predict` composes."""

    fasta: str
    loci: str | None
    center: str = checked(
        choices=("midpoint", "summit"),
        used=Used(
            lambda config: config.loci is not None,
            "chromosomes are tiled, and no loci are read",
            "loci=<BED file> in place of chroms, and",
        ),
    )
    chrom_alias: str = checked(
        used=Used(
            lambda c: c.loci is not None or bool(c.control) or c.chrom_alias == "none",
            "it is for the names in loci and control, and neither is read",
            "loci=<BED file> in place of chroms, and",
        )
    )
    chroms: list[str] | None = checked()
    control: list[list[str]] = checked()
    in_window: int | None = checked(at_least=1, at_most=MOST_BASES)
    format: str | None = checked(choices=("bigwig", "hdf5"))
    values: str = checked(
        choices=("expected", "apart"),
        used=Used(
            lambda config: config.kind == "bigwig",
            "predictions.h5 holds logits and log counts, whatever it says",
            "format=bigwig",
        ),
    )
    track_names: list[str] | None = checked()
    batch_size: int = checked(at_least=1, at_most=1_000_000)

    @property
    def kind(self) -> str:
        """bigwig or hdf5: the format, by default after what is predicted."""
        return self.format or ("bigwig" if self.loci is None else "hdf5")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.chroms == []:
            raise ConfigError("chroms=[] is empty. Name chromosomes, or leave it out for all.")
        twice = [name for name, n in Counter(self.chroms or ()).items() if n > 1]
        if twice:
            raise ConfigError(f"chroms names {twice[0]} twice. Name each chromosome once.")
        if self.loci is not None and self.chroms is not None:
            raise ConfigError(
                "loci and chroms are both set. loci is for places, chroms for tiling."
            )
        names = self.track_names or []
        if len(set(names)) < len(names) or any("/" in name for name in names):
            raise ConfigError(f"track_names={names}: each is a file's name, so unlike the others.")
