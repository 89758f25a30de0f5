"""Muon over stacks of equally shaped matrices: one batched Newton-Schulz for all of them."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

# Coefficients of the quintic iteration (Jordan et al. 2024), as in torch.optim.Muon.
A, B, C = 3.4445, -4.7750, 2.0315
EPS = 1e-7


class Muon(torch.optim.Optimizer):
    """torch.optim.Muon with Nesterov momentum, all matrices of one shape in one iteration.

    A tall matrix joins the stack of its transpose's shape. The iteration runs in bfloat16 on a
    GPU, as torch's does, and in float32 on the CPU, where that is both faster and closer to the
    exact update. Source: https://kellerjordan.github.io/posts/muon/
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
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

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        assert closure is None, "Muon takes no closure"
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(params, group)

    def _update(self, params: list[Tensor], group: dict[str, Any]) -> None:
        grads = [p.grad for p in params if p.grad is not None]
        buffers = [self._momentum_buffer(p) for p in params]
        torch._foreach_lerp_(buffers, grads, 1 - group["momentum"])
        nesterov = torch._foreach_lerp(grads, buffers, group["momentum"])
        updates = _orthogonalize_all(list(nesterov), group["ns_steps"])
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        scales = [group["lr"] * max(1.0, p.shape[0] / p.shape[1]) ** 0.5 for p in params]
        torch._foreach_mul_(updates, scales)
        torch._foreach_sub_(params, updates)

    def _momentum_buffer(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        return state["momentum_buffer"]


def orthogonalize(matrices: Tensor, steps: int) -> Tensor:
    """Approximate the nearest semi-orthogonal matrix of each (n, rows, cols), rows <= cols."""
    dtype = torch.bfloat16 if matrices.is_cuda else torch.float32
    x = matrices.to(dtype)
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=EPS)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=B, alpha=C), x, beta=A)
    return x.to(matrices.dtype)


def _orthogonalize_all(updates: list[Tensor], steps: int) -> list[Tensor]:
    stacks: dict[tuple[int, int], list[int]] = {}
    wide = [u.mT if u.shape[0] > u.shape[1] else u for u in updates]
    for i, u in enumerate(wide):
        stacks.setdefault((u.shape[0], u.shape[1]), []).append(i)
    result = list(updates)
    for members in stacks.values():
        stacked = orthogonalize(torch.stack([wide[i] for i in members]), steps)
        for i, u in zip(members, stacked.unbind(), strict=True):
            result[i] = (u.mT if updates[i].shape[0] > updates[i].shape[1] else u).contiguous()
    return result
