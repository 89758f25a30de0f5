"""What `cherimoya-evaluate` and `cherimoya-predict` can be told. Values live in conf/*.yaml."""

from dataclasses import dataclass

from cherimoya.config import KeysConfig
from cherimoya.errors import ConfigError
from cherimoya.schema import checked


@dataclass(frozen=True)
class ScoredDataConfig:
    """The prepared file, and the windows to cut from it. None: those of the checkpoint's run."""

    path: str | None = checked()
    keys: KeysConfig | None = checked()
    in_window: int | None = checked(at_least=1)
    out_window: int | None = checked(at_least=1)


@dataclass(frozen=True)
class EvaluateConfig:
    """Everything `cherimoya-evaluate` composes."""

    checkpoint: list[str]
    data: ScoredDataConfig
    output: str
    split: str = checked(choices=("train", "validation", "test", "all"))
    chroms: list[str] | None = checked()
    replicate: str | None = checked()
    reverse_complement: bool = checked()
    bootstrap: int = checked(at_least=0)
    confidence: float = checked(above=0, below=1)
    seed: int = checked(at_least=0)
    device: str = checked(choices=("auto", "cpu", "cuda"))
    precision: str = checked(choices=("auto", "bf16", "fp16", "tf32", "fp32"))
    batch_size: int = checked(at_least=1)
    autotune: bool = checked()

    def __post_init__(self) -> None:
        check_checkpoints(self.checkpoint)
        if self.chroms == []:
            raise ConfigError("chroms=[] is empty. Name chromosomes, or leave it to take split.")


def check_checkpoints(paths: list[str]) -> None:
    """Refuse an empty list, and a model that is named twice and would count twice."""
    if not paths:
        raise ConfigError("checkpoint=[] is empty. Name a checkpoint or a run folder.")
    twice = sorted({path for path in paths if paths.count(path) > 1})
    if twice:
        raise ConfigError(f"checkpoint names {twice[0]} twice. Name each model once.")


@dataclass(frozen=True)
class PredictConfig:
    """Everything `cherimoya-predict` composes."""

    checkpoint: list[str]
    fasta: str
    output: str
    overwrite: bool
    loci: str | None
    center: str = checked(choices=("midpoint", "summit"))
    chroms: list[str] | None = checked()
    control: list[list[str]] = checked()
    in_window: int | None = checked(at_least=1)
    format: str | None = checked(choices=("bigwig", "hdf5"))
    values: str = checked(choices=("expected", "apart"))
    track_names: list[str] | None = checked()
    reverse_complement: bool = checked()
    device: str = checked(choices=("auto", "cpu", "cuda"))
    precision: str = checked(choices=("auto", "bf16", "fp16", "tf32", "fp32"))
    batch_size: int = checked(at_least=1)
    autotune: bool = checked()

    def __post_init__(self) -> None:
        check_checkpoints(self.checkpoint)
        if self.chroms == []:
            raise ConfigError("chroms=[] is empty. Name chromosomes, or leave it out for all.")
        if self.loci is not None and self.chroms is not None:
            raise ConfigError(
                "loci and chroms are both set. loci is for places, chroms for tiling."
            )
        names = self.track_names or []
        if len(set(names)) < len(names) or any("/" in name for name in names):
            raise ConfigError(f"track_names={names}: each is a file's name, so unlike the others.")
