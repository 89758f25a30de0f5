"""The number formats of a training step, and of questions to a model."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

from cherimoya.config.models import PRECISIONS
from cherimoya.errors import ConfigError

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
FIRST_SCALE, LEAST_SCALE, GROWTH_STEPS = 2.0**10, 2.0**-20, 1000


def choose_precision(requested: str, device: torch.device) -> str:
    """What trainer.precision=`requested` means on this device: bf16, fp16, tf32 or fp32.

    auto is bf16 on a GPU that has it, else fp32. Raises ConfigError for one that the device does
    not have.
    """
    if requested == "auto":
        return "bf16" if _is_modern(device) else "fp32"
    check_precision(requested, device, "trainer.precision")
    return requested


def check_precision(requested: str, device: torch.device, key: str = "precision") -> None:
    """Raise ConfigError where `key`=`requested` is no number format, or not one of this device."""
    if requested not in PRECISIONS:
        raise ConfigError(f"{key}={requested}: must be one of {', '.join(PRECISIONS)}.")
    gpu = device.type == "cuda"
    if requested == "fp32" or (requested == "fp16" and gpu) or _is_modern(device):
        return
    where = torch.cuda.get_device_name(device) if gpu else "the CPU"
    raise ConfigError(f"{key}={requested}, but {where} does not have it. Use {key}=fp32.")


def _is_modern(device: torch.device) -> bool:
    """Whether it is a GPU with bf16 and TF32."""
    if device.type != "cuda":
        return False
    return bool(torch.version.hip) or torch.cuda.get_device_capability(device) >= (8, 0)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """Where activations have the half precision's dtype; weights, statistics and losses fp32."""
    dtype = HALF.get(precision)
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


@contextmanager
def computing_in(precision: str, device: torch.device) -> Iterator[None]:
    """`autocast`, and what stays fp32 is multiplied as TF32 if that is the precision, else in full.

    For questions to a model, whatever torch's switches say. Training, whose backward runs outside
    of such a block, has them set for the process.
    """
    tf32 = precision == "tf32"
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        with autocast(precision, device):
            yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


class LossScale:
    """The factor that keeps fp16 gradients in range, on the device and without synchronisation.

    It is halved when a gradient overflows, which leaves that update out, and doubled after
    GROWTH_STEPS steps without (Micikevicius et al. 2018).
    """

    def __init__(self, device: torch.device) -> None:
        self.scale = torch.full((), FIRST_SCALE, device=device)
        self.good = torch.zeros((), device=device)  # steps since the last change

    def unscale(self, grads: list[Tensor]) -> Tensor:
        """Divide the gradients by the scale; returns whether all are finite (): bool."""
        torch._foreach_mul_(grads, 1 / self.scale)
        return torch.stack(torch._foreach_norm(grads)).isfinite().all()

    def update(self, finite: Tensor, changed: Tensor) -> None:
        """Adapt to whether the gradients were finite, in a step that `changed` (): bool."""
        good = torch.where(finite, self.good + 1, 0.0)
        grown = good >= GROWTH_STEPS
        factor = torch.where(finite, torch.where(grown, 2.0, 1.0), 0.5)
        self.scale.mul_(torch.where(changed, factor, 1.0))
        self.good.copy_(torch.where(changed, torch.where(grown, 0.0, good), self.good))

    def state_dict(self) -> dict[str, Tensor]:
        """The scale, and the steps since it last changed."""
        return {"scale": self.scale, "good": self.good}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self.scale.copy_(state["scale"])
        self.good.copy_(state["good"])
