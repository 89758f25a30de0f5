"""One training step: batch, forward, loss, backward, optimizers, moving average.

Nothing in it waits for the device or asks it anything, so that a GPU can replay the whole step as
one captured graph: the number of the step, the learning rates and the losses are tensors there.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cherimoya.cheri import CheriBlock
from cherimoya.config.schema import Choice
from cherimoya.config.train import OptimConfig
from cherimoya.data.batches import Batch
from cherimoya.distributed.processes import Processes
from cherimoya.inference.precision import LEAST_SCALE, LossScale, autocast
from cherimoya.losses import build_loss, training_loss
from cherimoya.network import Cherimoya
from cherimoya.ops.complete import straight_backward
from cherimoya.ops.update.op import settle
from cherimoya.optim.routing import block_matrices, build_optimizers, build_schedules
from cherimoya.training.early import beside_the_stem
from cherimoya.training.ema import EMA, ema_decay


class Watch:
    """Reads a flag on the device, one look late there, so that the device never waits for it."""

    def __init__(self, flag: Tensor) -> None:
        self._flag, self.looks = flag, 0
        self._copies = [torch.zeros(1).pin_memory() for _ in range(2)] if flag.is_cuda else []
        self._pending: tuple[Tensor, torch.cuda.Event] | None = None

    def failed(self) -> bool:
        """Whether the flag was set at the look before this one; at the first, whether it is."""
        self.looks += 1
        if not self._flag.is_cuda:
            return self.failed_by_now()
        before, copy = self._pending, self._copies[self.looks % 2]
        copy.copy_(self._flag, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._pending = copy, event
        if before is None:
            return self.failed_by_now()
        before[1].synchronize()
        return bool(before[0])

    def failed_by_now(self) -> bool:
        """Whether the flag is set when all that was asked of the device is done."""
        return bool(self._flag)


class TrainingStep:
    """Everything that a step changes: weights, optimizers, loss weights, average and sums.

    A loss that is not finite changes nothing, and neither does any step after it: `failed` is
    then 1 and `count` is the number of the step that failed.
    """

    def __init__(
        self,
        model: Cherimoya,
        loss: Choice,
        optim: OptimConfig,
        steps_per_epoch: int,
        max_epochs: int,
        precision: str = "fp32",
        parts: int = 1,
        processes: Processes | None = None,
        max_steps: int | None = None,
    ) -> None:
        self.model, self.precision, self._parts = model, precision, parts
        self.device = model.lw0.device
        self.loss = build_loss(loss, model)
        parameters = dict(self.named_parameters())
        self.optimizers, self.routes = build_optimizers(parameters, optim, block_matrices(model))
        # Whether a GPU may replay the step as one graph.
        self.capturable = all(map(_is_on_device, self.optimizers.values()))
        self.total_steps = min(steps_per_epoch * max_epochs, max_steps or sys.maxsize)
        self.schedules = build_schedules(optim, self.optimizers, steps_per_epoch, self.total_steps)
        self.ema = EMA(model.trained_parameters())
        self.scale = LossScale(self.device) if precision == "fp16" else None
        self.processes = processes or Processes()
        # Between our own layers is nobody else's code, see `straight_backward`.
        self._straight = all(type(block) is CheriBlock for block in model.blocks)
        # Gradients are divided by the scale, and averaged over processes, after the backward.
        final = self.scale is None and self.processes.world == 1
        may = self._straight and final
        self._early = beside_the_stem(model, self.optimizers, self.routes) if may else None
        self._network: nn.Module | None = None  # the model as several processes share it
        # --------------------------------------------- on the device, changed by every step
        self.count = torch.zeros(1, dtype=torch.int64, device=self.device)  # steps made
        self.failed = torch.zeros((), device=self.device)
        # Of the epoch so far: total loss, profile and count losses.
        self.sums = torch.zeros(3, dtype=torch.float64, device=self.device)
        self._rates = self._table(optim, self.total_steps)
        self._now = self._rates[:1].clone()  # (1, optimizers + 1)
        self._one = torch.ones((), device=self.device)  # the gradient of the loss
        self._found_inf = torch.zeros((), device=self.device)
        self._use_rates()
        self.watch = Watch(self.failed)

    def _table(self, optim: OptimConfig, steps: int) -> Tensor:
        """Every learning rate of the run, and the decay of the average: (steps, optimizers + 1)."""
        numbers = np.arange(steps)
        columns = [schedule.at(numbers) for schedule in self.schedules.values()]
        columns.append(ema_decay(numbers, optim.ema_decay, optim.ema_warmup))
        return torch.from_numpy(np.stack(columns, axis=1)).float().to(self.device)

    def _use_rates(self) -> None:
        """Have every optimizer read this step's rate, and whether to do anything, on the device."""
        for i, optimizer in enumerate(self.optimizers.values()):
            if _is_on_device(optimizer):
                optimizer.found_inf = self._found_inf  # type: ignore[attr-defined]
                for group in optimizer.param_groups:
                    group["lr"] = self._now[0, i]

    def _is_due(self, optimizer: torch.optim.Optimizer, i: int) -> bool:
        """Whether to call the i-th one, which may have to be told its rate, and may not look."""
        if _is_on_device(optimizer):
            return True
        for group in optimizer.param_groups:
            group["lr"] = float(self._now[0, i])
        return not self._found_inf

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Those of the model, without its bias model's, and those of the loss."""
        yield from self.model.trained_parameters()
        yield from self.loss.named_parameters(prefix="loss")

    def rates(self, step: int) -> dict[str, float]:
        """The learning rate of each optimizer at `step`, counted from 0."""
        return {name: schedule(step) for name, schedule in self.schedules.items()}

    def __call__(self, pieces: Iterable[Batch]) -> None:
        """Train on a batch, given in pieces of one size."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        self._backward(pieces)
        if self.scale is not None:
            gradients = [p.grad for _, p in self.named_parameters() if p.grad is not None]
            in_range = self.scale.unscale(gradients)
            self.scale.update(in_range, self.failed == 0)
            self.failed.copy_(torch.where(self.scale.scale < LEAST_SCALE, 1.0, self.failed))
            self._found_inf.copy_(torch.where(in_range, self.failed, 1.0))
        made = self._early and self._early.optimizer
        for i, optimizer in enumerate(self.optimizers.values()):
            if optimizer is not made and self._is_due(optimizer, i):
                optimizer.step()
        self.ema.update(self._now[0, -1], self._found_inf)

    @contextmanager
    def changing_nothing(self) -> Iterator[None]:
        """Steps in here run as if the loss had not been finite before: they change nothing.

        Nor do they where kernels are only asked for, see `compiled_together`.
        """
        before = self.failed.clone()
        self.failed.fill_(1.0)
        self._found_inf.fill_(1.0)
        yield
        self.failed.copy_(before)

    def _backward(self, pieces: Iterable[Batch]) -> None:
        """Gradients of the batch's mean loss, and whether the step counts, see `settle`."""
        if self._network is None:
            self._network = self.processes.shared(self.model)
        losses = None
        for i, batch in enumerate(pieces):
            last = i == self._parts - 1
            with self.processes.gradients_shared(self._network, last):
                with autocast(self.precision, self.device):
                    logits, log_counts = self._network(batch.X, batch.control)
                terms = training_loss(self.loss, self.model, logits, log_counts, batch.signal)
                profile, count = terms.profile, terms.count
                if profile.numel() > 1 or count.numel() > 1:  # else they are their sums
                    profile, count = profile.sum(), count.sum()
                found = torch.stack([terms.total.detach(), profile.view(()), count.view(())])
                losses = found if losses is None else losses + found
                if last:
                    self.processes.begin_average(losses)
                if self._early:
                    self._early.begin(last)
                    if last:
                        self._settle(losses)
                total = terms.total / self._parts if self._parts > 1 else terms.total
                total = total if self.scale is None else total * self.scale.scale
                with straight_backward() if self._straight else nullcontext():
                    total.backward(self._one.to(total.dtype))
        assert losses is not None, "a batch has at least one piece"
        self.processes.end_average()
        self.processes.average([p.grad for p in self.loss.parameters() if p.grad is not None])
        if self._early:
            self._early.end()
        else:
            self._settle(losses)

    def _settle(self, losses: Tensor) -> None:
        """`settle`, of the sums over the pieces (3,) of total, profile and count losses."""
        mean = losses / self._parts if self._parts > 1 else losses
        settle(mean, self._rates, self._now, self.count, self.failed, self._found_inf, self.sums)

    def end_epoch(self) -> bool:
        """Freeze the loss weights if they have settled; returns whether they were just now."""
        frozen = self.loss.end_epoch(self.model)
        if frozen:
            self._network = None
        return frozen

    def is_finite(self) -> bool:
        """Whether every weight is; a gradient that is not may follow from a finite loss."""
        norms = torch._foreach_norm([p.detach() for _, p in self.named_parameters()])
        return bool(torch.stack(norms).isfinite().all())

    def take_sums(self) -> dict[str, float]:
        """The epoch's sums of the losses, which begin again at zero."""
        total, profile, count = self.sums.tolist()
        self.sums.zero_()
        return {"loss": total, "profile": profile, "count": count}

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on to the bit."""
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": {n: _state_of(o) for n, o in self.optimizers.items()},
            "loss": self.loss.state_dict(),
            "loss_frozen": self.loss.frozen,
            "count": self.count,
            "sums": self.sums,
            "scale": self.scale.state_dict() if self.scale else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self.loss.load_state_dict(state.get("loss", {}))  # earlier releases saved none
        for name, optimizer in self.optimizers.items():
            saved = state["optimizers"][name]
            if _is_on_device(optimizer):
                own = optimizer.state_dict()["param_groups"]
                saved = {"state": saved, "param_groups": own}
            optimizer.load_state_dict(saved)
        self._use_rates()
        self.count.copy_(state["count"])
        self.sums.copy_(state["sums"])
        if self.scale and state["scale"]:
            self.scale.load_state_dict(state["scale"])
        if state["loss_frozen"] and not self.loss.frozen:
            self.loss.freeze(self.model)
            self._network = None


def _is_on_device(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it reads its rate, and whether to do anything, on the device."""
    return getattr(optimizer, "on_device", False)


def _state_of(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What a resume needs of an optimizer; of ours the groups hold settings alone."""
    state = optimizer.state_dict()
    return state["state"] if _is_on_device(optimizer) else state
