"""The settings of what a group's name may choose. Values live in conf/*/*.yaml."""

from dataclasses import dataclass

from cherimoya.config.schema import Used, checked

SCHEDULES = ("cosine", "linear", "constant")


@dataclass(frozen=True)
class Empty:
    """No settings."""


@dataclass(frozen=True)
class Cheri:
    """A convolution, a normalisation and a residual MLP, see cherimoya.cheri.CheriBlock."""

    expansion: int = checked(at_least=1, at_most=1000)
    residual_scale: float = checked(above=0)


TOGETHER = Used(
    lambda kendall: kendall.freeze_share is None,
    "loss.freeze_share asks each weight by itself",
    "loss.freeze_share=null",
)


@dataclass(frozen=True)
class Kendall:
    """Learned weights of the profile and count losses."""

    freeze_below: float = checked(at_least=0, used=TOGETHER)
    freeze_share: float | None = checked(above=0, below=1, default=None)


@dataclass(frozen=True)
class Fixed:
    """Fixed weights of the profile and count losses."""

    profile_weight: float = checked(above=0)
    count_weight: float = checked(above=0)


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """What every optimizer has: its learning rate and how that goes on after the warm-up."""

    lr: float = checked(above=0)
    schedule: str = checked(choices=SCHEDULES, default="cosine")


@dataclass(frozen=True, kw_only=True)
class Muon(Optimizer):
    """Muon, as torch.optim.Muon."""

    weight_decay: float = checked(at_least=0)
    momentum: float = checked(at_least=0, below=1)
    ns_steps: int = checked(at_least=1, at_most=20)


DECAYS = Used(
    lambda adamw: adamw.weight_decay > 0,
    "a weight_decay of 0 decays nothing",
    "optim.adamw.weight_decay=0.2",
)


@dataclass(frozen=True, kw_only=True)
class AdamW(Optimizer):
    """AdamW, as torch.optim.AdamW."""

    weight_decay: float = checked(at_least=0)
    decay_1d: bool = checked(default=True, used=DECAYS)
    beta1: float = checked(at_least=0, below=1)
    beta2: float = checked(at_least=0, below=1)
    eps: float = checked(above=0)


@dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """SGD with momentum."""

    schedule: str = checked(choices=SCHEDULES, default="constant")
    momentum: float = checked(at_least=0, below=1)


@dataclass(frozen=True)
class Wandb:
    """A copy of the run at Weights & Biases."""

    project: str = checked()
    mode: str = checked(choices=("auto", "online", "offline"))
    run_name: str | None = checked()
    group: str | None = checked()
    tags: list[str] = checked()
    log_model: str = checked(choices=("none", "best", "final"))
