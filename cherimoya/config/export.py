"""What `cherimoya-export` can be told. Values live in conf/export.yaml."""

from dataclasses import dataclass

from cherimoya.config.schema import MOST_BASES, Used, checked
from cherimoya.errors import ConfigError
from cherimoya.util.hub import is_address, parse_address

SAFETENSORS, ONNX, TORCH_EXPORT = "safetensors", "onnx", "torch_export"
ENDINGS = {SAFETENSORS: ".safetensors", ONNX: ".onnx", TORCH_EXPORT: ".pt2"}  # of the output


def _of_graphs(why: str) -> Used:
    return Used(lambda config: config.kind != SAFETENSORS, why, "export=onnx output=<name>.onnx")


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Everything `cherimoya-export` composes; one checkpoint, in a list as for other commands."""

    checkpoint: list[str]
    export: str | None = checked(choices=tuple(ENDINGS))
    output: str
    overwrite: bool
    in_window: int | None = checked(
        at_least=1,
        at_most=MOST_BASES,
        used=_of_graphs("a safetensors file holds weights, which no window is built into"),
    )
    bias: bool | None = checked(
        default=False,
        used=_of_graphs("a safetensors file keeps the bias model, and who loads it chooses"),
    )

    def __post_init__(self) -> None:
        if len(self.checkpoint) != 1:
            raise ConfigError(
                f"checkpoint={self.checkpoint}: one model is exported at a time. Name one."
            )
        for named in filter(is_address, self.checkpoint):
            parse_address(named, "checkpoint")
        ending = next((e for e in ENDINGS.values() if self.output.lower().endswith(e)), None)
        if self.export is None and ending is None:
            named = ", ".join(f"{ending} ({export})" for export, ending in ENDINGS.items())
            raise ConfigError(f"output={self.output}: its ending says what is written: {named}.")
        if self.export is not None and ending != ENDINGS[self.export]:
            raise ConfigError(
                f"output={self.output}: with export={self.export} its name ends in "
                f"{ENDINGS[self.export]}."
            )

    @property
    def kind(self) -> str:
        """What is written: `export`, or what the output's ending says."""
        if self.export is not None:
            return self.export
        return next(kind for kind, end in ENDINGS.items() if self.output.lower().endswith(end))
