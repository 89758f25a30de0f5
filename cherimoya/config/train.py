"""What can be configured: types, ranges and cross-field rules. Values live in conf/*.yaml."""

import math
import sys
from dataclasses import dataclass, fields
from typing import Any

from cherimoya.config.data import DataConfig
from cherimoya.config.schema import (
    DEVICES,
    MOST_BASES,
    NO_OTHER,
    Choice,
    Used,
    checked,
    chosen,
    several,
)
from cherimoya.errors import ConfigError
from cherimoya.util.hub import is_address, parse_address


@dataclass(frozen=True)
class ModelConfig:
    """Depth, width and heads. None means: take it from the data file."""

    blocks: Choice = chosen("model.blocks", "cheri")
    n_filters: int = checked(at_least=1, at_most=100_000)
    n_layers: int = checked(at_least=1, at_most=24, hint="Block i has dilation 2^i.")
    profile_kernel_size: int = checked(at_least=1, at_most=100_000)
    signal_groups: list[int] | None = checked(at_least=1)
    n_control_tracks: int | None = checked(at_least=0)
    trimming: int | None = checked(at_least=0, at_most=MOST_BASES)
    count_bias: str = checked(choices=("zero", "mean"), default="zero")
    bias: str | None = checked(default=None)
    init: str | None = checked(default=None)
    freeze: list[str] | None = checked(default=None)

    def __post_init__(self) -> None:
        if self.profile_kernel_size % 2 == 0:
            raise ConfigError(
                f"model.profile_kernel_size={self.profile_kernel_size}: must be odd, "
                f"such as {self.profile_kernel_size + 1}, so that the profile stays centred"
            )
        if self.freeze and self.init is None:
            raise ConfigError(
                f"model.freeze={self.freeze} would keep random weights as they are. Name the "
                "trained model to start from: model.init=<run or checkpoint>."
            )
        for key, named in (("model.bias", self.bias), ("model.init", self.init)):
            if named is not None and is_address(named):
                parse_address(named, key)


TRAIN_BIAS = "train"  # as model.bias: a bias model that the run trains first


@dataclass(frozen=True)
class BiasConfig:
    """The bias models that model.bias=train makes, of which one is taken."""

    blocks: Choice = chosen("model.blocks", "cheri")
    n_filters: int = checked(at_least=1, at_most=100_000)
    n_layers: int = checked(at_least=1, at_most=24, hint="Block i has dilation 2^i.")
    background_below: list[float] = checked(above=0, at_most=1_000_000)
    max_count_pearson: float = checked(at_least=0, at_most=1)
    max_epochs: int = checked(at_least=1, at_most=1_000_000_000)
    gpu_min_steps: int | None = checked(at_least=1, at_most=1_000_000_000)

    def __post_init__(self) -> None:
        below = self.background_below
        if not below:
            raise ConfigError("bias_model.background_below=[] is empty. Name a value or several.")
        if len(set(below)) < len(below):
            raise ConfigError(f"bias_model.background_below={below} names a value twice.")


MATRICES = "matrices"  # in place of a pattern: what the block says are matrices


@dataclass(frozen=True)
class RouteConfig:
    """Parameters whose name matches the shell-style `pattern`, or MATRICES, go to `optimizer`."""

    pattern: str
    optimizer: str


ROUTED = {"sgd": "optim=muon_adamw_sgd"}  # an option that sends parameters to it


def _routed(optim: Any, target: str) -> Used | None:
    """An optimizer's settings have an effect where a route leads to it: why not, if not."""
    if any(route.optimizer == target for route in optim.routing):
        return None
    instead = ROUTED.get(target, "optim=muon_adamw")
    why = f"optim.routing sends no parameter to {target}"
    return Used(lambda optim: False, why, instead)


WARMED_UP = Used(
    lambda optim: optim.warmup_epochs > 0,
    "optim.warmup_epochs=0 is no warm-up",
    "optim.warmup_epochs=1",
)
FALLING = Used(
    lambda optim: any(
        getattr(optim.targets[route.optimizer].settings, "schedule", "cosine") != "constant"
        for route in optim.routing
    ),
    "every learning rate stays as it is after the warm-up",
    "optim.adamw.schedule=cosine",
)
AVERAGED = Used(
    lambda optim: optim.ema_decay > 0, "optim.ema_decay=0 averages nothing", "optim.ema_decay=0.999"
)


@dataclass(frozen=True)
class OptimConfig:
    """Optimizers, which parameter goes to which, the schedule and the EMA."""

    routing: list[RouteConfig]
    targets: dict[str, Choice] = several("optim", rest=True, used=_routed)
    warmup_epochs: float = checked(at_least=0)
    warmup_start: float = checked(above=0, at_most=1, used=WARMED_UP)
    min_lr: float = checked(at_least=0, used=FALLING)
    ema_decay: float = checked(at_least=0, below=1)
    ema_warmup: bool = checked(used=AVERAGED)
    lr_scale: dict[str, float] | None = checked(default=None)

    def __post_init__(self) -> None:
        for pattern, scale in (self.lr_scale or {}).items():
            if not 0 < scale <= 1000:
                raise ConfigError(
                    f"optim.lr_scale.{pattern}={scale:g}: must be above 0 and at most 1000. For "
                    "weights that stay as they are: model.freeze."
                )
        for route in self.routing:
            if route.optimizer not in self.targets:
                known = ", ".join(self.targets)
                raise ConfigError(
                    f"optim.routing sends {route.pattern!r} to {route.optimizer}, but "
                    f"optim.{route.optimizer} is null. Give it values or route elsewhere: {known}."
                )
        for name, target in self.targets.items():
            settings = target.settings
            if not isinstance(getattr(settings, "lr", None), float):
                raise ConfigError(
                    f"optim.{name}.name={target.name}: its Settings have no lr: float, the "
                    "learning rate. Let them begin with cherimoya.config.options.Optimizer."
                )
            decays = getattr(settings, "schedule", "cosine") != "constant"
            if decays and settings.lr < self.min_lr:
                raise ConfigError(
                    f"optim.{name}.lr={settings.lr:g} is below optim.min_lr={self.min_lr:g}, "
                    "so the learning rate would rise. Lower optim.min_lr."
                )


PATIENT = Used(
    lambda trainer: trainer.early_stopping is not None,
    "trainer.early_stopping=null waits for no improvement",
    "trainer.early_stopping=5",
)


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """The loop: how long, how large a step, on what, and how to continue."""

    max_epochs: int = checked(at_least=1, at_most=1_000_000_000)
    min_steps: int | None = checked(at_least=1, at_most=1_000_000_000, default=None)
    gpu_min_steps: int | None = checked(at_least=1, at_most=1_000_000_000, default=None)
    max_steps: int | None = checked(at_least=1, at_most=1_000_000_000, default=None)
    validate_steps: int | None = checked(at_least=1, default=None)
    batch_size: int = checked(at_least=1, at_most=1_000_000)
    eval_batch_size: int = checked(at_least=1, at_most=1_000_000)
    device: str = checked(choices=DEVICES, hint=NO_OTHER)
    devices: int = checked(at_least=1)
    precision: str = checked(choices=("auto", "bf16", "fp16", "tf32", "fp32"))
    accumulate: int = checked(at_least=1)
    cuda_graph: bool = checked()
    threads: int | None = checked(at_least=1, at_most=4096)
    early_stopping: int | None = checked(at_least=1)
    min_improvement: float = checked(at_least=0, below=1, default=0.0, used=PATIENT)
    checkpoint_minutes: float = checked(above=0)
    plots: bool = checked()
    profile: bool = checked()
    autotune: bool = checked()
    resume: str | None = checked()

    def total_steps(self, steps_per_epoch: int, on_gpu: bool) -> int:
        """How many steps the training has, which the schedules of the learning rates follow.

        Those of `max_epochs`; of ceil(`min_steps` / `steps_per_epoch`) epochs if that is more, or
        on a GPU of `gpu_min_steps`; then `max_steps` at most, so that the last epoch may be cut
        short. Early stopping may end it sooner.
        """
        least = max(self.min_steps or 0, (on_gpu and self.gpu_min_steps) or 0)
        epochs = max(self.max_epochs, math.ceil(least / steps_per_epoch))
        return min(epochs * steps_per_epoch, self.max_steps or sys.maxsize)

    def __post_init__(self) -> None:
        for key in ("min_steps", "gpu_min_steps"):
            least = getattr(self, key)
            if least and self.max_steps and least > self.max_steps:
                raise ConfigError(
                    f"trainer.{key}={least} is more than trainer.max_steps={self.max_steps}. "
                    f"Lower trainer.{key}, or leave one of them null."
                )
        parts = self.devices * self.accumulate
        if self.batch_size % parts:
            fitting = max(self.batch_size // parts, 1) * parts
            raise ConfigError(
                f"trainer.batch_size={self.batch_size} does not split into "
                f"trainer.devices={self.devices} x trainer.accumulate={self.accumulate} equal "
                f"parts. Set trainer.batch_size={fitting}."
            )
        if self.device == "cpu" and self.precision not in ("auto", "fp32"):
            raise ConfigError(
                f"trainer.precision={self.precision} needs a GPU. With trainer.device=cpu use "
                "trainer.precision=fp32, or auto."
            )


WARMUP = "optim.warmup_epochs"  # whose default is shortened for a training that is shorter
# Beginnings of the keys that may be others where a run goes on: they change no result.
FREE_ON_RESUME = (
    "trainer.resume",
    "trainer.device",
    "trainer.devices",
    "trainer.checkpoint_minutes",
    "trainer.plots",
    "trainer.profile",
    "trainer.autotune",
    "data.placement",
    "logger.",
)
WHERE_DATA_IS = ("data.path", "data.cache_dir")  # a fingerprint tells whether it is the same


TAKEN = (  # names that no metric of the user's own may have: ours, and what stands beside them
    "loss", "profile_mnll", "profile_pearson", "profile_spearman", "profile_jsd", "count_pearson",
    "count_spearman", "count_mse", "auroc", "auprc", "log_counts", "observed",
)  # fmt: skip


def _asked_for(config: Any, name: str) -> Used | None:
    """The settings of a logger have an effect where it is chosen: why not, if not."""
    if name in config.logger:
        return None
    others = ",".join(config.logger) or "none"
    return Used(lambda config: False, f"logger={others} is chosen", f"logger={name}")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything `cherimoya-train` composes."""

    model: ModelConfig
    loss: Choice = chosen("loss")
    optim: OptimConfig
    data: DataConfig
    trainer: TrainerConfig
    logger: dict[str, Choice] = several("logger", used=_asked_for)
    metrics: dict[str, Choice] = several("metrics", default=True)
    bias_model: BiasConfig | None = checked(default=None)
    seed: int = checked(at_least=0)

    def __post_init__(self) -> None:
        if self.model.bias == TRAIN_BIAS and self.bias_model is None:
            raise ConfigError("model.bias=train needs bias_model, which is null: bias_model=small")
        check_trimming(self.model.trimming, self.data.in_window, self.data.out_window)
        for name in [name for name in self.metrics if name in TAKEN]:
            raise ConfigError(
                f"metrics.{name}: cherimoya has something of that name. Choose another one, such "
                f"as metrics.my_{name} (in its file: # @package metrics.my_{name})."
            )

    def check_warmup(self) -> None:
        """Raise ConfigError for a warm-up that is longer than the training, whatever the data."""
        epochs, longest = self.optim.warmup_epochs, self.trainer.max_epochs
        more = self.trainer.min_steps or self.trainer.gpu_min_steps  # how many epochs, data tell
        if epochs > longest and not more:
            raise ConfigError(
                f"{WARMUP}={epochs:g} is longer than trainer.max_epochs={longest}. Set {WARMUP} to "
                f"{longest} or less, or leave it out: its default is shortened to fit."
            )

    def unused_across_groups(self) -> dict[str, Used]:
        """The optimizers of loss weights alone, where the loss does not learn them.

        And how bias models are trained, where none is, and what a model taken over has seen.
        """
        found: dict[str, Used] = {}
        if self.model.init is None and self.model.bias in (None, TRAIN_BIAS):
            why = "the training takes over no other model"
            used = Used(lambda config: False, why, "model.init=<run> or model.bias=<run>")
            found["data.seen"] = used
        if self.bias_model is not None and self.model.bias != TRAIN_BIAS:
            why = "no bias model is trained"
            used = Used(lambda config: False, why, "model.bias=train")
            found |= {f"bias_model.{f.name}": used for f in fields(BiasConfig)}
        if self.loss.name not in ("fixed", "poisson"):
            return found
        others = {r.optimizer for r in self.optim.routing if not r.pattern.startswith("lw")}
        why = f"loss={self.loss.name} learns no weights for it to move"
        used = Used(lambda config: False, why, "loss=kendall")
        unmoved = {f"optim.{name}": used for name in self.optim.targets if name not in others}
        return found | unmoved


def check_trimming(trimming: int | None, in_window: int | None, out_window: int | None) -> None:
    """Refuse a trimming that does not turn the input window into the output window."""
    if trimming is None or in_window is None or out_window is None:
        return
    if in_window - 2 * trimming != out_window:
        raise ConfigError(
            f"model.trimming={trimming}: {in_window} - 2 x {trimming} is not "
            f"data.out_window={out_window}. Leave model.trimming=null to take "
            f"{(in_window - out_window) // 2} from the windows."
        )
