"""Which parameter goes to which optimizer: ordered patterns, the first match wins."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import torch
from torch import nn

from cherimoya.config.train import OptimConfig, RouteConfig
from cherimoya.errors import ConfigError
from cherimoya.optim.muon import Muon
from cherimoya.optim.schedule import Schedule


def route(
    named_parameters: Iterable[tuple[str, nn.Parameter]], routes: Sequence[RouteConfig]
) -> dict[str, list[str]]:
    """Parameter names by optimizer, in the model's order.

    Parameters that take no gradient count as claimed but go nowhere.

    Raises
    ------
    ConfigError
        If a pattern is the first match of no parameter, or a parameter matches no pattern.
    """
    chosen: dict[str, list[str]] = {r.optimizer: [] for r in routes}
    used = [False] * len(routes)
    for name, parameter in named_parameters:
        for i, r in enumerate(routes):
            if fnmatchcase(name, r.pattern):
                used[i] = True
                if parameter.requires_grad:
                    chosen[r.optimizer].append(name)
                break
        else:
            raise ConfigError(
                f"optim.routing claims no optimizer for parameter {name}. "
                'Add a last route such as {pattern: "*", optimizer: adamw}.'
            )
    for i, r in enumerate(routes):
        if not used[i]:
            raise ConfigError(
                f"optim.routing pattern {r.pattern!r} is the first match of no parameter. "
                "Correct it, move it up, or remove it."
            )
    return {optimizer: names for optimizer, names in chosen.items() if names}


def build_optimizers(
    model: nn.Module, config: OptimConfig
) -> tuple[dict[str, torch.optim.Optimizer], dict[str, list[str]]]:
    """The optimizers by name, and the routing table they follow."""
    parameters = dict(model.named_parameters())
    table = route(parameters.items(), config.routing)
    optimizers: dict[str, torch.optim.Optimizer] = {}
    for name, members in table.items():
        chosen = [parameters[m] for m in members]
        if name == "muon":
            assert config.muon is not None
            flat = [m for m in members if parameters[m].ndim != 2]
            if flat:
                raise ConfigError(
                    f"optim.routing sends {flat[0]} to muon, which takes matrices only"
                )
            m = config.muon
            optimizers[name] = Muon(
                chosen, lr=m.lr, weight_decay=m.weight_decay, momentum=m.momentum,
                ns_steps=m.ns_steps,
            )  # fmt: skip
        elif name == "adamw":
            assert config.adamw is not None
            a = config.adamw
            optimizers[name] = torch.optim.AdamW(
                chosen, lr=a.lr, weight_decay=a.weight_decay, betas=(a.beta1, a.beta2), eps=a.eps,
                fused=True, capturable=chosen[0].is_cuda,
            )  # fmt: skip
        else:
            assert config.sgd is not None
            s = config.sgd
            sgd = torch.optim.SGD(chosen, lr=s.lr, momentum=s.momentum, fused=True)
            for p in chosen:  # which the first step would make, but not while it is captured
                sgd.state[p]["momentum_buffer"] = torch.zeros_like(p)
            optimizers[name] = sgd
    return optimizers, table


def build_schedules(
    config: OptimConfig, names: Iterable[str], steps_per_epoch: int, max_epochs: int
) -> dict[str, Schedule]:
    """The learning-rate schedule of each optimizer; SGD's is warmed up and then constant."""
    return {
        name: Schedule(
            base=getattr(config, name).lr,
            warmup_steps=round(config.warmup_epochs * steps_per_epoch),
            total_steps=max_epochs * steps_per_epoch,
            start=config.warmup_start,
            min_lr=config.min_lr,
            decays=name != "sgd",
        )
        for name in names
    }
