"""One training step: forward, loss, backward, optimizers, moving average."""

from typing import Any

import torch

from cherimoya.config import LossConfig, OptimConfig
from cherimoya.data.batches import Batch
from cherimoya.losses import KendallLoss, LossTerms, build_loss, profile_and_count_losses
from cherimoya.network import Cherimoya
from cherimoya.optim.routing import build_optimizers, build_schedules
from cherimoya.training.ema import EMA


class TrainingStep:
    """Everything that a step changes: weights, optimizers, loss weights and the average."""

    def __init__(
        self,
        model: Cherimoya,
        loss: LossConfig,
        optim: OptimConfig,
        steps_per_epoch: int,
        max_epochs: int,
    ) -> None:
        self.model = model
        self.loss = build_loss(loss, model)
        self.optimizers, self.routes = build_optimizers(model, optim)
        self.schedules = build_schedules(optim, self.optimizers, steps_per_epoch, max_epochs)
        self.ema = EMA(model, optim.ema_decay, optim.ema_warmup)

    def rates(self, step: int) -> dict[str, float]:
        """The learning rate of each optimizer at `step`, counted from 0."""
        return {name: schedule(step) for name, schedule in self.schedules.items()}

    def __call__(self, batch: Batch, step: int) -> LossTerms:
        """Train on `batch` as the step number `step`; returns the losses before the update.

        A total that is not finite changes nothing: the caller decides what to do.
        """
        for name, rate in self.rates(step).items():
            for group in self.optimizers[name].param_groups:
                group["lr"] = rate
            self.optimizers[name].zero_grad(set_to_none=True)
        logits, log_counts = self.model(batch.X, batch.control)
        profile, count = profile_and_count_losses(
            logits, log_counts, batch.signal, self.model.signal_groups
        )
        total = self.loss(self.model, profile, count)
        if torch.isfinite(total):
            total.backward()
            for optimizer in self.optimizers.values():
                optimizer.step()
            self.ema.update()
        return LossTerms(total.detach(), profile.detach(), count.detach())

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on to the bit."""
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
            "loss_frozen": self.loss.frozen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        if state["loss_frozen"] and isinstance(self.loss, KendallLoss):
            self.loss.freeze(self.model)
