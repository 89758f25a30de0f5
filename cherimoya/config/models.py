"""What every command on finished models can be told."""

from dataclasses import dataclass

from cherimoya.config.schema import DEVICES, NO_OTHER, checked
from cherimoya.errors import ConfigError
from cherimoya.util.hub import is_address, parse_address

FREE = ("output", "overwrite", "device", "batch_size", "autotune")  # that change no result
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")


@dataclass(frozen=True, kw_only=True)
class ModelsConfig:
    """The models, how they run, and where the result goes."""

    checkpoint: list[str]
    output: str
    overwrite: bool
    reverse_complement: bool
    bias: bool | None = checked(default=False)
    device: str = checked(choices=DEVICES, hint=NO_OTHER)
    precision: str = checked(choices=PRECISIONS)
    autotune: bool

    def __post_init__(self) -> None:
        if not self.checkpoint:
            raise ConfigError("checkpoint=[] is empty. Name a checkpoint or a run folder.")
        twice = sorted({path for path in self.checkpoint if self.checkpoint.count(path) > 1})
        if twice:
            raise ConfigError(f"checkpoint names {twice[0]} twice. Name each model once.")
        for named in filter(is_address, self.checkpoint):
            parse_address(named, "checkpoint")
