"""Muon over stacks of equally shaped matrices: one batched Newton-Schulz for all of them."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from cherimoya.config import options
from cherimoya.ops.update.op import AddressTable, MuonSettings, fits_muon, muon
from cherimoya.ops.update.quintic import EPS, A, B, C


class Muon(torch.optim.Optimizer):
    """torch.optim.Muon with Nesterov momentum, all matrices of one shape in one iteration.

    A tall matrix joins the stack of its transpose's shape. The iteration runs in bfloat16 on a
    GPU, as torch's does, by one kernel where a matrix is small enough, and in float32 on the CPU,
    where that is both faster and closer to the exact update. Source: https://kellerjordan.github.io/posts/muon/

    As in torch's fused optimizers, `lr` may be a tensor (), and a step leaves everything as it is
    while the attribute `found_inf` is a tensor () of 1. Every parameter needs a gradient.
    """

    Settings = options.Muon
    on_device = True
    takes_matrices = True  # and nothing else
    found_inf: Tensor | None = None

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float | Tensor,
        weight_decay: float,
        momentum: float,
        ns_steps: int,
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "ns_steps": ns_steps,
        }
        super().__init__(params, defaults)
        self._stacks = [(_Stack(s), g) for g in self.param_groups for s in _by_shape(g["params"])]
        for stack, _ in self._stacks:
            for parameter, buffer in zip(stack.params, stack.members(), strict=True):
                self.state[parameter]["momentum_buffer"] = buffer

    @property
    def multiprocessors(self) -> int:
        """How many a step keeps busy, one for each matrix; 0 if it may be all of them."""
        if not all(fits_muon(stack.params) for stack, _ in self._stacks):
            return 0
        return sum(len(stack.params) for stack, _ in self._stacks)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter."""
        assert closure is None, "Muon takes no closure"
        for stack, group in self._stacks:
            stack.update(group, self.found_inf)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        parameters = [p for group in self.param_groups for p in group["params"]]
        for i, saved in state_dict["state"].items():
            self.state[parameters[i]]["momentum_buffer"].copy_(saved["momentum_buffer"])
        own = self.param_groups
        for group, values in zip(own, state_dict["param_groups"], strict=True):
            group.update({k: v for k, v in values.items() if k != "params"})


class _Stack:
    """Matrices of one shape up to transposition, the tall ones first, and their momentum."""

    def __init__(self, params: list[Tensor]) -> None:
        tall = [p for p in params if p.shape[0] > p.shape[1]]
        self.params = tall + [p for p in params if p.shape[0] <= p.shape[1]]
        self.n_tall = len(tall)
        self.momentum = torch.zeros_like(self._stacked(self.params))  # (n, rows, cols)
        self.scale = torch.ones_like(self.momentum[:, :1, :1])
        for i, p in enumerate(self.params):
            self.scale[i] = max(1.0, p.shape[0] / p.shape[1]) ** 0.5
        self.never = self.momentum.new_zeros(())
        self.addresses = AddressTable()

    def members(self) -> list[Tensor]:
        """The momentum of each parameter, in its shape."""
        return [m.mT if i < self.n_tall else m for i, m in enumerate(self.momentum)]

    def update(self, group: dict[str, Any], found_inf: Tensor | None) -> None:
        """One step of the group's rate, decay and momentum."""
        if fits_muon(self.params):
            self._update_by_kernel(group, self.never if found_inf is None else found_inf)
            return
        lr, beta, pull = group["lr"], group["momentum"], 1 - group["momentum"]
        grads = self._stacked([p.grad for p in self.params])
        if found_inf is not None:
            go = 1 - found_inf
            grads.masked_fill_(found_inf.bool(), 0.0)
            lr, pull = lr * go, pull * go
        self.momentum.lerp_(grads, pull)
        updates = orthogonalize(grads.lerp_(self.momentum, beta), group["ns_steps"])
        updates = updates * (lr * self.scale)
        tall = updates[: self.n_tall].mT.contiguous()
        torch._foreach_mul_(self.params, 1 - lr * group["weight_decay"])
        torch._foreach_sub_(self.params, [*tall, *updates[self.n_tall :]])

    def _update_by_kernel(self, group: dict[str, Any], found_inf: Tensor) -> None:
        """`update`, of which nothing but the gradients is copied."""
        lr = torch.as_tensor(group["lr"], device=self.momentum.device)
        grads = torch.cat([p.grad.reshape(-1) for p in self.params])  # type: ignore[union-attr]
        settings = MuonSettings(group["momentum"], group["weight_decay"], group["ns_steps"])
        muon(
            self.params, self.addresses, grads, self.momentum, lr, found_inf, self.n_tall, settings
        )

    def _stacked(self, matrices: list[Any]) -> Tensor:
        return torch.stack([m.mT if i < self.n_tall else m for i, m in enumerate(matrices)])


def orthogonalize(matrices: Tensor, steps: int) -> Tensor:
    """Approximate the nearest semi-orthogonal matrix of each (n, rows, cols), rows <= cols."""
    dtype = torch.bfloat16 if matrices.is_cuda else torch.float32
    x = matrices.to(dtype)
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=EPS)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=B, alpha=C), x, beta=A)
    return x.to(matrices.dtype)


def _by_shape(params: list[Tensor]) -> list[list[Tensor]]:
    stacks: dict[tuple[int, ...], list[Tensor]] = {}
    for p in params:
        stacks.setdefault(tuple(sorted(p.shape)), []).append(p)
    return list(stacks.values())
